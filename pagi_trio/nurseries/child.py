"""A child process: started fresh, waited for without a thread, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from pagi_trio.recruits import Process

REAP_S: Final = 5.0
"""How long the end of a process that was killed is waited for: milliseconds, unless its disk hangs."""


class Child:
    """One child process.

    Args:
        process: The process, just started in the main thread.

    Ownership: kills and reaps it, by `close`.

    Raises:
        OSError: If it cannot be waited for; it is gone then.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self.pid = self._process.pid
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except OSError:
            self._kill_and_reap()
            raise

    async def wait(self) -> int:
        """Return its exit code once it has ended; negative is the signal that ended it.

        Cancellation: leaves it running.
        """
        while (code := self._process.poll()) is None:
            await trio.lowlevel.wait_readable(self._pidfd)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens if it has ended."""
        with suppress(PermissionError):
            # As after the application has become another user; its end will be seen all the same.
            self._process.send_signal(number)

    def close(self) -> None:
        """Kill it if it still runs, and let go of it."""
        self._kill_and_reap()
        os.close(self._pidfd)

    def _kill_and_reap(self) -> None:
        if self._process.poll() is None:
            self.send_signal(signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired, TimeoutError):
                self._process.wait(REAP_S)
