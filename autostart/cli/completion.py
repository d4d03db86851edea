"""What a shell offers while a command is typed: `autostart completion bash` prints the script.

Runs at every TAB: no daemon is asked, a map that cannot be read offers nothing and says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import click
import yaml
from click.shell_completion import CompletionItem, get_completion_class

from autostart.cli.location import Location

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_AUTOSTART_COMPLETE"  # by which the script asks, as click names it
# What one would say of a service that is to be kept, and of a wait.
DURATIONS = ("30s", "5m", "15m", "1h", "2h", "8h", "1d")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes commands.

    \b
    bash:  echo 'eval "$(autostart completion bash)"' >>~/.bashrc
    zsh:   echo 'eval "$(autostart completion zsh)"' >>~/.zshrc
    fish:  autostart completion fish >~/.config/fish/completions/autostart.fish

    Needs bash 4.4 or newer; zsh with compinit.
    """
    program = context.find_root().command
    made = get_completion_class(shell)
    assert made is not None, f"click knows no {shell}"
    click.echo(made(program, {}, "autostart", VARIABLE).source(), nl=False)


def hosts(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the hosts and aliases of the map that begin so, each with the service's name."""
    location = context.find_object(Location) or Location(None)
    try:
        written = yaml.safe_load(location.path.expanduser().read_text(encoding="utf-8"))
    except (click.UsageError, OSError, ValueError, yaml.YAMLError):
        return []
    services = written.get("services") if isinstance(written, dict) else None
    found = _named(services) if isinstance(services, dict) else ()
    return [CompletionItem(host, help=name) for host, name in found if host.startswith(incomplete)]


def durations(incomplete: str) -> list[CompletionItem]:
    """Return durations that begin so, as the map writes them."""
    return [CompletionItem(each) for each in DURATIONS if each.startswith(incomplete)]


def _named(services: dict[str, object]) -> Iterator[tuple[str, str | None]]:
    """Yield what each service is called by, as far as the map can be read."""
    for host, entry in services.items():
        stated = entry if isinstance(entry, dict) else {}
        name = stated.get("name")
        aliases = stated.get("aliases")
        for each in (host, *(aliases if isinstance(aliases, list) else ())):
            yield str(each), None if name is None else str(name)
