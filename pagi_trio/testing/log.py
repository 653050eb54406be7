"""What one server of a test has logged, though several run, and whatever levels logging is set to."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Final, Self

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

_LEVEL: Final = 1
"""What the logger is set to while servers are recorded: everything comes to the filter, which passes on only what
would have come without it. A number that nobody sets by name, so that a level set by others meanwhile is told apart."""

_tracebacks: Final = logging.Formatter()

_server_log: ContextVar[ServerLog | None] = ContextVar("pagi_trio.testing.log", default=None)
"""Where the server logs that this context belongs to. Its tasks inherit it, and so do Trio's threads."""


class ServerLog:
    """What one server has logged to the logger ``pagi_trio``: level INFO and up, or more if logging is set to more.

    A context manager: it records as long as it is entered, and keeps what it has. Nothing else sees any more or less
    of the logger than it would without: handlers, pytest's ``caplog`` among them, get what its level lets through, as
    it was set before or is set meanwhile. A logger that is disabled is left so.

    Made in the Trio thread of the run in which the server runs.

    Attributes:
        records: As they were logged, oldest first, with their messages put together.
    """

    def __init__(self) -> None:
        self.records: list[logging.LogRecord] = []
        self._token = trio.lowlevel.current_trio_token()
        self._thread = get_ident()
        self._parked = trio.lowlevel.ParkingLot()

    def __enter__(self) -> Self:
        _recorder.add(self)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _recorder.remove(self)

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Record here what is logged in this block, and for ever by the tasks that are started in it.

        Begun and ended in the same context; the server is started in it.
        """
        token = _server_log.set(self)
        try:
            yield
        finally:
            _server_log.reset(token)

    @property
    def lines(self) -> list[str]:
        """Each record as one string: ``WARNING the message``."""
        return [_line(record) for record in self.records]

    @property
    def text(self) -> str:
        """All of it, with the tracebacks."""
        return "\n".join(_whole(record) for record in self.records)

    def __contains__(self, words: str) -> bool:
        return self._find(words) is not None

    async def wait_for(self, words: str, *, within_s: float = 5.0) -> logging.LogRecord:
        """Wait until these words are logged.

        Args:
            words: Part of a line, or of a traceback.
            within_s: How long to wait at most, seconds of Trio's clock.

        Returns:
            The first record that has them.

        Raises:
            AssertionError: If they are not logged in time; the message says what was.

        Cancellation: leaves nothing behind.
        """
        with trio.move_on_after(within_s):
            await trio.lowlevel.checkpoint()
            while not (found := self._find(words)):
                await self._parked.park()
            return found
        raise AssertionError(f"not logged within {within_s:g} s: {words!r}; {self._summary()}")

    def add(self, record: logging.LogRecord) -> None:
        """Take a record, in whatever thread it was logged."""
        # What it was made of, a connection for one, is not kept alive by it.
        kept = copy(record)
        kept.msg, kept.args = record.getMessage(), ()
        self.records.append(kept)
        if get_ident() == self._thread and not self._parked:
            # Nobody begins to wait meanwhile, and it would cost a turn of the loop.
            return
        try:
            self._token.run_sync_soon(self._parked.unpark_all, idempotent=True)
        except trio.RunFinishedError:
            # A thread that the run has not waited for.
            return

    def _summary(self) -> str:
        """Say what has been logged, or why nothing could be."""
        if self.records:
            return f"this was:\n{self.text}"
        if logging.getLogger("pagi_trio").disabled:
            # What logging.config does by itself to loggers that exist and that it is not told of.
            return "the logger pagi_trio is disabled: give logging.config disable_existing_loggers=False"
        return "nothing was"

    def _find(self, words: str) -> logging.LogRecord | None:
        return next((record for record in self.records if words in _whole(record)), None)


class _Recorder(logging.Filter):
    """Sees what is logged before the handlers do.

    It stays on the logger once a server has been recorded: the fixture ``caplog`` puts a level back that it found,
    which may be ours, when the last server has ended, and everybody would see everything from then on.
    """

    def __init__(self) -> None:
        super().__init__()
        self._logger = logging.getLogger("pagi_trio")
        self._chosen = logging.NOTSET
        self._logs: list[ServerLog] = []
        # Runs of Trio may be in several threads.
        self._changing = Lock()

    def add(self, log: ServerLog) -> None:
        """Record for one more server."""
        with self._changing:
            self._logger.addFilter(self)
            if self._logger.level != _LEVEL:
                self._chosen = self._logger.level
                self._logger.setLevel(_LEVEL)
            self._logs.append(log)

    def remove(self, log: ServerLog) -> None:
        """Record for it no more."""
        with self._changing:
            self._logs.remove(log)
            if not self._logs and self._logger.level == _LEVEL:
                self._logger.setLevel(self._chosen)

    def filter(self, record: logging.LogRecord) -> bool:
        """Record it, and return whether its level would have let it through by itself."""
        level = self._level()
        log = _server_log.get()
        if log in self._logs and record.levelno >= min(level, logging.INFO):
            log.add(record)
        return record.levelno >= level

    def _level(self) -> int:
        """Return the level that the logger would have: its own, or else that of the loggers above it."""
        own = self._chosen if self._logger.level == _LEVEL else self._logger.level
        parent = self._logger.parent
        return own or (parent.getEffectiveLevel() if parent is not None else logging.NOTSET)


_recorder: Final = _Recorder()


def _line(record: logging.LogRecord) -> str:
    return f"{record.levelname} {record.getMessage()}"


def _whole(record: logging.LogRecord) -> str:
    """Return the line and, below it, the traceback."""
    if record.exc_info is None:
        return _line(record)
    return f"{_line(record)}\n{_tracebacks.formatException(record.exc_info)}"
