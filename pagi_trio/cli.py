"""The command line: flags become a configuration, signals a shutdown, errors a line and an exit code."""

from __future__ import annotations

import os
import platform
import signal
from typing import TYPE_CHECKING, Final

import click
import trio

from pagi_trio.cli_options import GroupedCommand, make_options, settings_given
from pagi_trio.config import Config
from pagi_trio.errors import ConfigError, PagiError
from pagi_trio.failure import EXIT_STUCK, EXIT_USAGE, Failure, explain
from pagi_trio.launch import serve_alone, serve_with_workers
from pagi_trio.recruits import Recruits, check_platform
from pagi_trio.systemd import Inherited, Notifier, take_sockets
from pagi_trio.version import __version__
from pagi_trio.worker_process import serve_orders

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM: Final = "pagi-trio"

# What a shell reports for a program that was ended by SIGINT.
_EXIT_INTERRUPTED: Final = 128 + signal.SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name; None takes those of the process.

    Returns:
        The exit code: 0 after a clean stop, 2 where usage, configuration, address or certificate are wrong, 3
        where the application cannot be imported or refuses to start. An application that cannot be stopped ends
        the process with 1 instead.
    """
    try:
        return make_command().main(arguments, prog_name=PROGRAM, standalone_mode=False) or 0
    except click.ClickException as error:
        return _fail(Failure(error.format_message(), "", EXIT_USAGE))
    except PagiError as error:
        return _fail(explain(error))
    except (KeyboardInterrupt, click.Abort):
        return _EXIT_INTERRUPTED


def make_command() -> click.Command:
    """Make the command; its options derive from the configuration's declaration."""
    command = GroupedCommand(
        PROGRAM,
        params=make_options(),
        callback=_run,
        help="Serve an ASGI or WSGI APP: module:attr or path/file.py:attr (attr defaults to app).",
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    return click.version_option(_version(), message="%(prog)s %(version)s")(command)


def _run(
    *,
    app: str | None,
    factory: bool,
    config_file: str | None,
    hypercorn_config: str | None,
    print_config: bool,
    **flags: object,
) -> int:
    config, unused = _read_file(config_file, hypercorn_config)
    inherited = take_sockets(os.environ, os.getpid())
    notifier = Notifier.take(os.environ, os.getpid())
    given = settings_given(flags)
    if inherited.binds and "bind" in given:
        raise ConfigError("--bind contradicts the sockets that systemd has opened; use one or the other")
    config = _use_sockets(config, inherited).replace(**given)
    if print_config:
        click.echo(config.as_toml(), nl=False)
        return 0
    if app is None:
        raise click.UsageError("the application is missing: name it as module:attr or path/file.py:attr")
    if not config.is_supervised:
        serve_alone(app, config, notifier, factory=factory, unused=unused)
        return 0
    check_platform()
    with Recruits(app) as recruits:
        recruits.fork(config.workers, serve_orders)
        in_time = serve_with_workers(app, config, notifier, recruits, factory=factory, unused=unused)
    return 0 if in_time else EXIT_STUCK


def _use_sockets(config: Config, inherited: Inherited) -> Config:
    """Listen where a service manager has opened sockets, instead of where a file says."""
    if inherited.binds:
        config = config.replace(bind=inherited.binds)
    if inherited.metrics_bind is not None:
        config = config.replace(**{"metrics.bind": inherited.metrics_bind})
    return config


def _read_file(ours: str | None, theirs: str | None) -> tuple[Config, list[str]]:
    if ours is not None and theirs is not None:
        raise ConfigError("--config contradicts --hypercorn-config; a [hypercorn] table in the first may hold theirs")
    if ours is None and theirs is None:
        return Config(), []
    # Only where there is a file, since it imports hypercorn.
    from pagi_trio.hypercorn_config import load_config_file, load_hypercorn_file  # noqa: PLC0415

    return load_config_file(ours) if ours is not None else load_hypercorn_file(str(theirs))


def _fail(failure: Failure) -> int:
    if failure.details:
        click.echo(failure.details.rstrip(), err=True)
    click.echo(f"{PROGRAM}: error: {' '.join(failure.line.split())}", err=True)
    return failure.code


def _version() -> str:
    return f"{__version__} (Python {platform.python_version()}, Trio {trio.__version__})"
