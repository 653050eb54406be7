"""What a process of the command owes to whoever runs it: signals heard, a bound on its end, a log."""

from __future__ import annotations

import logging
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import trio

from pagi_trio.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from pagi_trio.config import Config
    from pagi_trio.errors import LifespanFailedError
    from pagi_trio.nurseries.sockets import Listener
    from pagi_trio.server import Handle, Server
    from pagi_trio.systemd import Notifier

_log = logging.getLogger("pagi_trio")


class Signals:
    """What SIGTERM and SIGINT do to a server of one process.

    The first stops it gracefully, the second at once, the third does not ask. Handlers of the process and not
    `trio.open_signal_receiver`, so that the third works even while the application keeps Trio from running.

    Attributes:
        cancel_scope: Ends a server that has not started yet, at the second.
    """

    def __init__(self, config: Config, notifier: Notifier) -> None:
        self._watchdog = Watchdog(config)
        self._notifier = notifier
        self._first = trio.Event()
        self.cancel_scope = trio.CancelScope()
        self._token = trio.lowlevel.current_trio_token()
        self._handle: Handle | None = None
        self._listeners: list[Listener] = []
        self._count = 0

    def __enter__(self) -> Self:
        self._previous = {one: signal.signal(one, self._take) for one in (signal.SIGTERM, signal.SIGINT)}
        os.register_at_fork(after_in_child=self._be_a_child_of_the_application)
        return self

    def __exit__(self, *_: object) -> None:
        self._watchdog.release()
        self._give_back()
        self._listeners.clear()

    def _be_a_child_of_the_application(self) -> None:
        """Let go of what is the server's, in a process that the application has forked from it.

        Or the addresses would be taken for as long as that lives, and a signal that is to end it would not. Once this
        has been left, there is nothing to let go of.
        """
        self._give_back()
        for listener in self._listeners:
            listener.sock.close()

    def _give_back(self) -> None:
        """Have the signals do what they did before."""
        for one, handler in self._previous.items():
            signal.signal(one, handler)
        self._previous.clear()

    def watch(self, server: Server) -> None:
        """Bound the end of an application that has not started, too: it may sit in a thread."""
        self._listeners += server.listeners
        if server.page is not None:
            self._listeners += server.page.listeners

        def fail(error: LifespanFailedError) -> None:
            self._watchdog.what = f"{error}; it"
            self._watchdog.start()

        server.on_failure = fail

    def started(self, handle: Handle | None = None) -> None:
        """Take the running server's handle, as a task status does."""
        self._handle = handle
        self._notifier.ready("serving")

    async def wait_first(self) -> None:
        """Wait for the first signal, and meanwhile let the service manager know that the event loop runs."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._notifier.run)
            await self._first.wait()
            nursery.cancel_scope.cancel()

    def _take(self, number: int, _frame: FrameType | None) -> None:
        self._count += 1
        if self._count == 1:
            self._watchdog.start()
        if self._count > 2:
            os._exit(128 + number)
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._stop if self._count == 1 else self._abort)

    def _stop(self) -> None:
        self._notifier.stopping()
        self._first.set()

    def _abort(self) -> None:
        if self._handle is not None:
            self._handle.abort()
        else:
            self.cancel_scope.cancel()


class LineFormatter(logging.Formatter):
    """Writes a record as text that can do nothing but be read.

    An application's error has in it whatever a client made it say: a terminal must not obey that, and no part of it
    may pass for a record. So what is not printable is escaped, and each line after the first is indented.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of a record, joined, without an end."""
        text = super().format(record)
        return text if text.isprintable() else "\n  ".join(_escape(line) for line in text.split("\n"))


def _escape(line: str) -> str:
    if line.isprintable():
        return line
    # Python's notion of printable leaves out the marks that turn the direction of text round, too.
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in line)


def set_up_logging(level: str, *, name: str = "", unused: Sequence[str] = ()) -> None:
    """Have the server log to standard error, unless the application has set it up otherwise.

    Called after the application's import, since its own logging set-up disables the loggers that exist by then.

    Args:
        level: The least severe messages that are logged.
        name: What each line names its process.
        unused: Settings of hypercorn's that have no effect, to warn of.
    """
    _log.setLevel(level.upper())
    _log.disabled = False
    if not _log.handlers:
        handler = logging.StreamHandler()
        prefix = f"{name}: " if name else ""
        handler.setFormatter(LineFormatter(f"%(asctime)s %(levelname)s {prefix}%(message)s"))
        _log.addHandler(handler)
        _log.propagate = False
    if unused:
        _log.warning("these settings of hypercorn's have no effect here: %s", ", ".join(unused))
