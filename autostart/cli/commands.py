"""What `autostart` understands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from autostart.cli import completion, doctor, waiting
from autostart.cli.client import Client
from autostart.cli.failure import FAILED, MISUSED, Commands
from autostart.cli.installation import install
from autostart.cli.location import CONFIG_VARIABLE, SERVER_MAP, Location
from autostart.cli.log import FORMATS, LEVELS, configure_log
from autostart.cli.nginx import nginx
from autostart.cli.progress import lines_unless_moving, moving_line
from autostart.cli.status import show_status
from autostart.cli.table import local_date
from autostart.config import format_duration, from_legacy, load, parse_duration
from autostart.errors import ConfigError

Function = TypeVar("Function", bound=Callable[..., Any])


class _Duration(click.ParamType[float]):
    """A duration as the map writes it."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return seconds, more than none."""
        if isinstance(value, float):
            return value
        try:
            seconds = parse_duration(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)
        if seconds == 0:
            self.fail(f"{value!r}: allowed: more than 0s", param, ctx)
        return seconds

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's
        param: click.Parameter,  # noqa: ARG002 - click's
        incomplete: str,
    ) -> list[CompletionItem]:
        """Return some that begin so."""
        return completion.durations(incomplete)


DURATION = _Duration()
HOST = click.argument("host", metavar="HOST", shell_complete=completion.hosts)
FORCE = click.option("--force", is_flag=True, help="Cut the requests that use it.")
TIMEOUT = click.option(
    "--timeout", "timeout_seconds", type=DURATION, help="How long to wait; default: from the map."
)


def _take_config(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    if path is not None:
        context.obj = Location(path)
    elif context.obj is None:
        context.obj = Location(None)


CONFIG = click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path),
    expose_value=False,
    is_eager=True,
    callback=_take_config,
    help=f"The map; default: ${CONFIG_VARIABLE}, ./autostart.yaml, {SERVER_MAP}.",
)


def _command(name: str | None = None) -> Callable[[Function], click.Command]:
    """Make a command that also takes -c after its name, and gets the Location."""

    def decorate(function: Function) -> click.Command:
        return main.command(name)(CONFIG(click.pass_obj(function)))

    return decorate


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path),
    envvar=CONFIG_VARIABLE,
    expose_value=False,
    callback=_take_config,
    help=f"The map; default: ${CONFIG_VARIABLE}, ./autostart.yaml, {SERVER_MAP}.",
)
@click.version_option(package_name="autostart", message="%(prog)s %(version)s")
def main() -> None:
    """Start services on the first request, stop them when idle.

    `autostart serve` does it; most other commands ask it, over the admin API of the map. Errors
    print one line and a hint. Exit status: 0 done, 1 failed, 2 called wrongly or with a map that
    cannot be used.
    """


@_command()
@click.option(
    "--log-format",
    type=click.Choice(FORMATS),
    default="console",
    show_default=True,
    help="For people or for programs; on stderr.",
)
@click.option(
    "--log-level",
    type=click.Choice(LEVELS),
    default="info",
    show_default=True,
    help="What is less than that is not logged.",
)
@click.option("--stop-services-on-exit", is_flag=True, help="Leave nothing behind; for demos.")
def serve(location: Location, log_format: str, log_level: str, stop_services_on_exit: bool) -> int:
    """Serve the map until SIGTERM or Ctrl-C.

    Services stay up; the next serve takes them over.
    """
    # Only here: the other commands need none of it and should answer at once.
    from autostart import app  # noqa: PLC0415 - see above

    path = location.path
    configure_log(log_format, log_level)
    return app.serve(path, stop_services_on_exit=stop_services_on_exit)


@_command()
def check(location: Location) -> int:
    """Print every problem of the map, and what is doubtful."""
    try:
        declared = load(location.path)
    except ConfigError as error:
        for problem in error.problems:
            click.echo(problem)
        click.echo(f"error: {_counted(len(error.problems), 'problem')}", err=True)
        return MISUSED
    from autostart.app.serving import make_runtimes  # noqa: PLC0415 - as in serve
    from autostart.app.state import state_folder  # noqa: PLC0415 - as in serve

    for doubt in doctor.doubts(declared):
        click.echo(f"warning: {doubt}")
    found = doctor.examine_services(declared, make_runtimes(state_folder()))
    for host, each in found:
        where = f"{declared.path}: " if each.fatal else "warning: "
        click.echo(f"{where}services.{host}: {each.text}")
    if fatal := sum(each.fatal for _, each in found):
        click.echo(f"error: {_counted(fatal, 'problem')}", err=True)
        return MISUSED
    click.echo(f"{declared.path}: {_counted(len(declared.services), 'service')}, no problems")
    return 0


@_command()
@click.option("--json", "as_json", is_flag=True, help="For programs: as GET /api/services.")
@click.option("-w", "--watch", "moves", is_flag=True, help="Go on showing it, until Ctrl-C.")
def status(location: Location, as_json: bool, moves: bool) -> None:
    """Show what every service does."""
    if as_json and moves:
        raise click.UsageError("--json is printed once: for programs there is GET /api/events")
    show_status(_client(location), as_json=as_json, moves=moves)


@_command()
@HOST
@TIMEOUT
def start(location: Location, host: str, timeout_seconds: float | None) -> None:
    """Start HOST and wait until it is ready.

    Ends an operator's hold and a back-off.
    """
    timeout_seconds = timeout_seconds or waiting.start_seconds(location.declared(), host)
    with moving_line() as show:
        text = waiting.start(_client(location), host, timeout_seconds, show)
    click.echo(text)


@_command()
@HOST
@click.option("--drain", is_flag=True, help="Wait for the requests that use it.")
@FORCE
@click.option(
    "--hold",
    is_flag=True,
    help="Keep it stopped until autostart start, also over a restart of autostart serve.",
)
@TIMEOUT
def stop(
    location: Location,
    host: str,
    *,
    drain: bool,
    force: bool,
    hold: bool,
    timeout_seconds: float | None,
) -> None:
    """Stop HOST.

    Refused while requests use it, unless told what to do with them.
    """
    if drain and force:
        raise click.UsageError("--drain waits for the requests and --force cuts them: choose one")
    timeout_seconds = timeout_seconds or waiting.stop_seconds(
        location.declared(), host, drain=drain
    )
    client = _client(location)
    with moving_line() as show:
        text = waiting.stop(
            client, host, timeout_seconds, show, drain=drain, force=force, hold=hold
        )
    click.echo(text)


@_command()
@HOST
@FORCE
@TIMEOUT
def restart(location: Location, host: str, force: bool, timeout_seconds: float | None) -> None:
    """Stop HOST and start it again.

    Stops it once its requests have ended, and waits until it is ready.
    """
    declared = location.declared()
    timeout_seconds = timeout_seconds or (
        waiting.stop_seconds(declared, host, drain=not force)
        + waiting.start_seconds(declared, host)
    )
    with moving_line() as show:
        text = waiting.restart(_client(location), host, timeout_seconds, show, force=force)
    click.echo(text)


@_command()
@HOST
@click.argument("duration", type=DURATION)
def keep(location: Location, host: str, duration: float) -> None:
    """Start HOST and keep it up for DURATION.

    DURATION is written as in the map: 90s, 15m, 2h.
    """
    answer = _client(location).command(host, "keep", **{"for": format_duration(duration)})
    click.echo(f"{answer['host']}: kept until {local_date(answer['kept_until'])}")


@_command()
@click.argument("host", metavar="[HOST]", required=False, shell_complete=completion.hosts)
@TIMEOUT
def prepare(location: Location, host: str | None, timeout_seconds: float | None) -> None:
    """Pull, build and create ahead of requests.

    Without HOST for every service.
    """
    client = _client(location)
    declared = location.declared()
    hosts = [host] if host else [service["host"] for service in client.services()]
    for each in hosts:
        deadline = timeout_seconds or waiting.start_seconds(declared, each)
        with moving_line() as show:
            text = waiting.prepare(client, each, deadline, lines_unless_moving(), show)
        click.echo(text)


@_command()
@HOST
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines, until Ctrl-C.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(0, 10_000),
    default=100,
    show_default=True,
    help="How many, counted from the end.",
)
def logs(location: Location, host: str, follow: bool, lines: int) -> None:
    """Print the last lines of HOST's output."""
    for line in _client(location).logs(host, lines, follow=follow):
        click.echo(line)


@_command()
def reload(location: Location) -> None:
    """Have the daemon read its map again.

    A map with problems is refused whole, and the old one stays.
    """
    taken = _client(location).reload()
    for host in taken:
        click.echo(f"{host}: changed")
    if not taken:
        click.echo("nothing has changed")


@_command("doctor")
def doctor_(location: Location) -> int:
    """Say what does not work: the map, this machine.

    Also whether a daemon answers, which is no fault either way.
    """
    from autostart.app.serving import make_runtimes  # noqa: PLC0415 - as in serve
    from autostart.app.state import state_folder  # noqa: PLC0415 - as in serve

    findings = doctor.examine(location, make_runtimes(state_folder()))
    click.echo(doctor.report(findings))
    return 0 if all(finding.works for finding in findings) else FAILED


@main.command()
def discover() -> None:
    """Print a map drafted from compose projects.

    From those whose containers the engine knows, running or not.
    """
    from autostart.runtimes.docker import DockerRuntime  # noqa: PLC0415 - as in serve

    click.echo(asyncio.run(DockerRuntime().discover()), nl=False)


@main.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def import_(file: Path) -> None:
    """Turn docker-autostart's config.json into a map.

    Prints it; `autostart check` says what to look at.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except ValueError as error:
        raise ConfigError([f"{file}: not UTF-8 text"]) from error
    click.echo(from_legacy(text), nl=False)


main.add_command(completion.completion)
main.add_command(CONFIG(nginx))
main.add_command(CONFIG(install))


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _client(location: Location) -> Client:
    return Client(*location.admin())
