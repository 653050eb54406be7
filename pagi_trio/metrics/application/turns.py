"""Taking turns at a region: several threads and several makers of metrics give series their places in it.

Placing allocates memory, so that a finalizer of the application may run in the middle of it, which may count as well
or wait for another thread that does. So nobody waits for placing: it is done step by step, and what comes while a
step is under way is left to whoever is at it.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from trio.lowlevel import enable_ki_protection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pagi_trio.metrics.application.region import Region


class Turns:
    """A region, and whose turn it is to add to it.

    Args:
        region: This process's own, and empty.

    Attributes:
        region: The same.
        dropped: How many series got no place; changed by steps alone.
    """

    __slots__ = ("_lock", "_owners", "_steps", "dropped", "region")

    def __init__(self, region: Region) -> None:
        region.leave_room()
        self.region = region
        self.dropped = 0
        self._lock = threading.Lock()
        self._steps: deque[Callable[[], None]] = deque()
        self._owners: dict[str, object] = {}

    @enable_ki_protection
    def take(self, step: Callable[[], None]) -> None:
        """Have something done to the region: by this thread, or by whoever is at it, who looks again when it is done.

        That may be this thread itself, which a finalizer or a signal handler has interrupted. Ctrl-C comes afterwards,
        or it would leave the region taken for good.

        Args:
            step: What is done. It must not raise: another thread would get it.
        """
        self._steps.append(step)
        self._go_on()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Wait for the step that is under way, and keep others from beginning."""
        with self._lock:
            yield
        self._go_on()

    def claim(self, name: str, owner: object) -> bool:
        """Tell whether a family is this owner's, who gets it if it is nobody's.

        Two that both write the cells of one series would each overwrite what the other has counted.
        """
        return self._owners.setdefault(name, owner) is owner

    def begin_in_child(self) -> None:
        """Begin anew in a process forked from this one, where a thread that is gone may have the lock."""
        self._lock = threading.Lock()
        self._steps.clear()

    def _go_on(self) -> None:
        # A process forked in the middle has another.
        lock = self._lock
        while self._steps and lock.acquire(blocking=False):
            try:
                while self._steps:
                    self._steps.popleft()()
            finally:
                lock.release()
