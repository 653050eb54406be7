"""The command line: flags become a configuration, signals a shutdown, errors a line and an exit code."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import platform
import signal
import threading
import traceback
from typing import TYPE_CHECKING, Final, Self

import click
import trio

from pagi_trio.cli_options import GroupedCommand, make_options, settings_given
from pagi_trio.config import Config
from pagi_trio.errors import AppLoadError, ConfigError, LifespanFailedError
from pagi_trio.hypercorn_config import load_config_file, load_hypercorn_file
from pagi_trio.loader import load_app
from pagi_trio.server import serve

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from pagi_trio.asgi import App
    from pagi_trio.server import Handle

PROGRAM: Final = "pagi-trio"

EXIT_USAGE: Final = 2
EXIT_APP: Final = 3
EXIT_STUCK: Final = 1

SLACK_S: Final = 1.0
"""What a shutdown may take beyond the graceful and the lifespan timeout, before the process is ended all the same."""

# What a shell reports for a program that was ended by SIGINT.
_EXIT_INTERRUPTED: Final = 128 + signal.SIGINT

_log = logging.getLogger("pagi_trio")


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
        return _fail(EXIT_USAGE, error.format_message())
    except ConfigError as error:
        return _fail(EXIT_USAGE, str(error))
    except AppLoadError as error:
        if error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        return _fail(EXIT_APP, str(error))
    except LifespanFailedError as error:
        return _fail(EXIT_APP, _one_line(str(error)))
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
    config = config.replace(**settings_given(flags))
    if print_config:
        click.echo(config.as_toml(), nl=False)
        return 0
    if app is None:
        raise click.UsageError("the application is missing: name it as module:attr or path/file.py:attr")
    application = load_app(app, factory=factory)
    # After the import, since an application's own logging set-up disables the loggers that exist by then.
    _set_up_logging(config.log_level)
    if unused:
        _log.warning("these settings of hypercorn's have no effect here: %s", ", ".join(unused))
    trio.run(_serve, application, config)
    return 0


def _read_file(ours: str | None, theirs: str | None) -> tuple[Config, list[str]]:
    if ours is not None and theirs is not None:
        raise ConfigError("--config contradicts --hypercorn-config; a [hypercorn] table in the first may hold theirs")
    if ours is not None:
        return load_config_file(ours)
    if theirs is not None:
        return load_hypercorn_file(theirs)
    return Config(), []


async def _serve(app: App, config: Config) -> None:
    timeouts = config.timeouts
    with _Signals(timeouts.graceful_s + timeouts.shutdown_s + SLACK_S) as signals, signals.cancel_scope:
        await serve(app, config, shutdown_trigger=signals.first.wait, task_status=signals)


class _Signals:
    """What SIGTERM and SIGINT do: the first stops gracefully, the second at once, the third does not ask.

    Handlers of the process and not `trio.open_signal_receiver`, so that the third works even while the
    application keeps Trio from running.

    Args:
        bound_s: How long the process may live after the first. Trio cannot end an application that shields itself,
            or sits in a thread or a loop of its own; then this does.

    Attributes:
        first: Set by the first signal.
        cancel_scope: Ends a server that has not started yet, at the second.
    """

    def __init__(self, bound_s: float) -> None:
        self._watchdog = threading.Timer(bound_s, _give_up, (bound_s,))
        self._watchdog.daemon = True
        self.first = trio.Event()
        self.cancel_scope = trio.CancelScope()
        self._token = trio.lowlevel.current_trio_token()
        self._handle: Handle | None = None
        self._count = 0

    def __enter__(self) -> Self:
        self._previous = {one: signal.signal(one, self._take) for one in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        self._watchdog.cancel()
        for one, handler in self._previous.items():
            signal.signal(one, handler)

    def started(self, handle: Handle | None = None) -> None:
        """Take the running server's handle, as a task status does."""
        self._handle = handle

    def _take(self, number: int, _frame: FrameType | None) -> None:
        self._count += 1
        if self._count == 1:
            self._watchdog.start()
        if self._count > 2:
            os._exit(128 + number)
        self._token.run_sync_soon(self.first.set if self._count == 1 else self._abort)

    def _abort(self) -> None:
        if self._handle is not None:
            self._handle.abort()
        else:
            self.cancel_scope.cancel()


def _give_up(after_s: float) -> None:
    """End the process, whatever the application does."""
    _log.error("the application did not end within %g s of the signal, and is left where it is", after_s)
    os._exit(EXIT_STUCK)


def _set_up_logging(level: str) -> None:
    """Have the server log to standard error, unless the application has set it up otherwise."""
    _log.setLevel(level.upper())
    _log.disabled = False
    if not _log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        _log.addHandler(handler)
        _log.propagate = False


def _fail(code: int, message: str) -> int:
    click.echo(f"{PROGRAM}: error: {' '.join(message.split())}", err=True)
    return code


def _one_line(message: str) -> str:
    """Print a refusal that goes on for lines, such as the traceback that Starlette sends; return its gist."""
    first, *more = message.strip().splitlines()
    if not more:
        return first
    click.echo(message.strip(), err=True)
    return f"{first.partition(':')[0]}: {more[-1]}"


def _version() -> str:
    try:
        package = importlib.metadata.version(PROGRAM)
    except importlib.metadata.PackageNotFoundError:
        package = "(not installed)"
    return f"{package} (Python {platform.python_version()}, Trio {trio.__version__})"
