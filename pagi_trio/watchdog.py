"""A bound on the end of a process, which nothing that the process does may hold up."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from pagi_trio.failure import EXIT_STUCK

if TYPE_CHECKING:
    from collections.abc import Callable

    from pagi_trio.config import Config

SLACK_S: Final = 1.0
"""What a shutdown may take beyond the graceful and the lifespan timeout, before the process is ended all the same."""

_LAST_WORDS_S: Final = 0.5

_log = logging.getLogger("pagi_trio")


class Watchdog:
    """Ends the process if it has not ended by itself some time after it was to.

    Trio cannot end an application that shields itself, or sits in a thread or a loop of its own; this thread can.

    Args:
        config: Its timeouts bound the end.
        slack_s: What it may take beyond them.
        what: What does not end, for the log; an attribute as well.
        before: Called right before the end, by the thread.
    """

    def __init__(
        self,
        config: Config,
        *,
        slack_s: float = SLACK_S,
        what: str = "the application",
        before: Callable[[], None] | None = None,
    ) -> None:
        self._bound_s = config.timeouts.graceful_s + config.timeouts.shutdown_s + slack_s
        self.what = what
        self._before = before
        # The settings allow more than a thread can wait.
        self._timer = threading.Timer(min(self._bound_s, threading.TIMEOUT_MAX), self._give_up)
        self._timer.daemon = True
        self._once = threading.Lock()
        self._is_released = False

    def start(self) -> None:
        """Begin to count; calling this again changes nothing, be it by a signal that comes in the middle."""
        if self._once.acquire(blocking=False):
            # Where there are no threads left, a stop without a bound is better than none.
            with suppress(RuntimeError):
                self._timer.start()

    def release(self) -> None:
        """Let the process live for as long as its main thread goes on.

        Once that has ended, Python waits for all other threads, and for what is to be done at exit.
        """
        self._is_released = True

    def _give_up(self) -> None:
        if self._is_released and threading.main_thread().is_alive():
            return
        try:
            if self._before is not None:
                self._before()
            # By another thread: standard error may be a pipe that nobody reads.
            say = threading.Thread(target=self._say, daemon=True)
            say.start()
            say.join(_LAST_WORDS_S)
        finally:
            # Python 3.12 starts no thread any more once it waits for the others to end.
            os._exit(EXIT_STUCK)

    def _say(self) -> None:
        _log.error("%s did not end within %g s, and is left where it is", self.what, self._bound_s)
