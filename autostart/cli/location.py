"""Which map a command means, and where that map's admin listener is.

The map is the file that -c names, else the one that AUTOSTART_CONFIG names, else ./autostart.yaml,
else /etc/autostart/autostart.yaml, which is a server's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click
import yaml

from autostart.config import Address, AdminConfig, Map, load, parse_address
from autostart.errors import ConfigError

CONFIG_VARIABLE = "AUTOSTART_CONFIG"
DEFAULT_MAP = Path("autostart.yaml")
SERVER_MAP = Path("/etc/autostart/autostart.yaml")


@dataclass(frozen=True)
class Location:
    """What -c said, None if it said nothing."""

    named: Path | None

    @property
    def path(self) -> Path:
        """The map's file; raises click.UsageError where none is named and none is here."""
        path = self._path()
        if path is None:
            text = f"there is no {DEFAULT_MAP} here; name a map with -c FILE or {CONFIG_VARIABLE}"
            raise click.UsageError(text)
        return path

    def admin(self, environ: Mapping[str, str] = os.environ) -> tuple[Address, str | None]:
        """Return where the daemon's admin API is, and its token.

        A map with problems keeps nobody from asking the daemon that runs: of it only `admin` is
        read, and the default stands in for what cannot be. Raises ConfigError if there is no file.
        """
        path = self._path()
        admin = AdminConfig() if path is None else _read_admin(path, environ)
        return admin.listen, environ.get(admin.token_env, "").strip() or None

    def declared(self) -> Map | None:
        """Return the map if it can be used, for what is good to know but not needed."""
        path = self._path()
        try:
            return None if path is None else load(path)
        except ConfigError:
            return None

    def _path(self) -> Path | None:
        if self.named is not None:
            return self.named
        return next((path for path in (DEFAULT_MAP, SERVER_MAP) if path.exists()), None)


def _read_admin(path: Path, environ: Mapping[str, str]) -> AdminConfig:
    try:
        return load(path, environ).admin
    except ConfigError:
        if not path.is_file():
            raise
    default = AdminConfig()
    try:
        written = yaml.safe_load(path.read_text(encoding="utf-8"))["admin"]
        listen = parse_address(written["listen"]) if "listen" in written else default.listen
        return AdminConfig(listen, str(written.get("token_env", default.token_env)))
    except KeyError:
        return default  # it is not written: the default listener
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        # Another daemon may listen at the default address: not asked by mistake.
        text = f"{path} does not say where its daemon listens: it cannot be read"
        raise ConfigError([text]) from error
