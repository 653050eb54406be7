"""A clock that jumps waits for threads: what they do takes real time, and no deadline may expire for it."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio
import trio.testing

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S: Final = 0.5
"""How long a thread may work, in real seconds, before time jumps all the same. Long for a call of an application in
a test, and finite, since a thread may itself wait for time to go on: by ``trio.from_thread.run(trio.sleep, 5)``."""


IDLE_S: Final = 0.01
"""How long nothing must happen, in real seconds, before a clock that stood still jumps at the end: what comes over
loopback has come by then."""


def is_autojump() -> bool:
    """Return whether the clock of this run is one that jumps by itself; not while its threshold is infinite."""
    clock = trio.lowlevel.current_clock()
    return isinstance(clock, trio.testing.MockClock) and clock.autojump_threshold != math.inf


class _Patience(trio.abc.Instrument):
    """Raises the threshold of a clock while threads of Trio are at work, until it has jumped all the same.

    A thread that it has jumped for waits for time itself, and would have to be waited for at each of many small jumps.

    Args:
        clock: Of this run. Its threshold may be changed by the test at any time.
    """

    def __init__(self, clock: trio.testing.MockClock) -> None:
        self.users = 0
        self._clock = clock
        self._chosen: float | None = None
        self._threads = 0
        self._since = 0.0

    def after_task_step(self, _task: trio.lowlevel.Task) -> None:
        """Raise the threshold, or put it back: only a task's step begins a thread, or takes what it returns."""
        self.adjust()

    def adjust(self) -> None:
        """Have the threshold be what it should be now."""
        threads = trio.testing.active_thread_count()
        if threads != self._threads:
            self._threads = threads
            self._since = self._clock.current_time()
        if threads == 0 or self._clock.current_time() != self._since:
            self.put_back()
        elif self._clock.autojump_threshold < PATIENCE_S:
            self._chosen = self._clock.autojump_threshold
            self._clock.autojump_threshold = PATIENCE_S

    def put_back(self) -> None:
        """Put the threshold back, unless the test has set another one meanwhile."""
        if self._chosen is not None and self._clock.autojump_threshold == PATIENCE_S:
            self._clock.autojump_threshold = self._chosen
        self._chosen = None


_patience: Final[trio.lowlevel.RunVar[_Patience]] = trio.lowlevel.RunVar("pagi_trio.testing.autojump")
"""That of this run; made at the first use, and an instrument only while somebody uses it."""


@contextmanager
def keep_time_for_threads() -> Iterator[None]:
    """Have a clock that jumps stay where it is as long as threads of Trio are at work, for the length of a block.

    A jumping clock sees only that all tasks wait, and expires the next deadline while a thread of
    `trio.to_thread.run_sync` (or of `anyio.to_thread`) still reads a file. Here it waits for the thread, for
    `PATIENCE_S` of real time; a higher threshold that the test has chosen is left as it is.

    Does nothing under another clock. Blocks may nest, or overlap in any order.
    """
    clock = trio.lowlevel.current_clock()
    if not isinstance(clock, trio.testing.MockClock):
        yield
        return
    try:
        patience = _patience.get()
    except LookupError:
        patience = _Patience(clock)
        _patience.set(patience)
    # Adds it once.
    trio.lowlevel.add_instrument(patience)
    patience.users += 1
    # Threads may be at work already.
    patience.adjust()
    try:
        yield
    finally:
        patience.users -= 1
        if patience.users == 0:
            trio.lowlevel.remove_instrument(patience)
            patience.put_back()


_ends: Final[trio.lowlevel.RunVar[int]] = trio.lowlevel.RunVar("pagi_trio.testing.ends", 0)
"""How many blocks of `let_time_go_on` have a clock of this run jump."""


@contextmanager
def let_time_go_on() -> Iterator[None]:
    """Have a virtual clock that only the test moves jump by itself, for the length of a block.

    That is for the end, when the test moves it no more: what is still to come, a deadline at the latest, would come
    never.

    Does nothing under another clock. Blocks may nest, or overlap in any order.
    """
    clock = trio.lowlevel.current_clock()
    if not isinstance(clock, trio.testing.MockClock) or not (_ends.get() or _stands_still(clock)):
        yield
        return
    clock.autojump_threshold = IDLE_S
    _ends.set(_ends.get() + 1)
    try:
        yield
    finally:
        _ends.set(_ends.get() - 1)
        if _ends.get() == 0:
            clock.autojump_threshold = math.inf


def _stands_still(clock: trio.testing.MockClock) -> bool:
    return clock.rate == 0 and clock.autojump_threshold == math.inf
