"""How long a client has taken nothing of what is queued for it, and when that is too long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRESS_BYTES: Final = 65536
"""What a client must acknowledge in half of a stall, or it takes nothing: some pages now and then, its own kernel takes
for a program that does not read."""


class Stall:
    """The time since the kernel last took any of a queue that is not empty."""

    __slots__ = ("_since", "_undelivered")

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin anew: the kernel has taken some."""
        self._since = trio.current_time()
        # What the client had not acknowledged after half of the time that this may last.
        self._undelivered: int | None = None

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return trio.current_time() - self._since

    def is_too_long(self, longest_s: float, count_undelivered: Callable[[], int]) -> bool:
        """Tell whether the client has taken nothing for too long; to be asked a few times a second.

        The kernel takes nothing more before a third of its buffer is free, which a slow reader needs minutes for where
        that is megabytes. So what counts is what the client acknowledges, in the second half of the time.

        Args:
            longest_s: How long it may last, seconds.
            count_undelivered: Returns how many bytes that the kernel took the client has not acknowledged.
        """
        seconds = self.seconds
        if seconds <= longest_s / 2:
            return False
        if self._undelivered is None:
            self._undelivered = count_undelivered()
        if seconds <= longest_s:
            return False
        if self._undelivered - count_undelivered() < PROGRESS_BYTES:
            return True
        self.restart()
        return False
