"""The numbers of one process: its part of the memory that is the store.

Written by plain stores of eight aligned bytes, which no reader ever sees torn (`struct.pack_into` would tear).
"""

from __future__ import annotations

import time
from array import array
from typing import TYPE_CHECKING, Final

from pagi_trio.metrics.application.region import REGION_BYTES
from pagi_trio.metrics.application.region_reader import RegionReader
from pagi_trio.metrics.balance import PLACES

if TYPE_CHECKING:
    from pagi_trio.metrics.balance import Balance

DOUBLE_BYTES: Final = 8
"""The size of the C double of ``memoryview.cast("d")``."""

# What a segment begins with, before the series of the catalog.
_INSTANCE, _PID, _BEAT, _CLOCK = range(4)

HEAD: Final = 4
"""How many numbers that is."""

_FIXED_BYTES: Final = -(-(HEAD + PLACES) * DOUBLE_BYTES // 4096) * 4096

SEGMENT_BYTES: Final = _FIXED_BYTES + REGION_BYTES
"""The size of a segment, with the room for series that are not in the catalog."""


class Segment:
    """The numbers of one process.

    Written from the Trio thread only: adding is a read and a write, and another thread could come between.

    Attributes:
        area: The memory of the series that are not in the catalog.
    """

    __slots__ = ("_head", "_reader", "_values", "area")

    def __init__(self, octets: memoryview[int]) -> None:
        doubles = octets[:_FIXED_BYTES].cast("d")
        self._head = doubles[:HEAD]
        self._values = doubles[HEAD : HEAD + PLACES]
        self.area = octets[_FIXED_BYTES:]
        self._reader: RegionReader | None = None

    @property
    def reader(self) -> RegionReader:
        """What is in the area; made at its first use, since a page of memory that nobody looks at costs nothing."""
        if self._reader is None:
            self._reader = RegionReader(self.area)
        return self._reader

    @property
    def instance(self) -> int:
        """The number of the worker, ever rising, whose segment this is; 0 if it is nobody's."""
        return int(self._head[_INSTANCE])

    @property
    def pid(self) -> int:
        """The process it belongs to; 0 while that is not known."""
        return int(self._head[_PID])

    def add(self, index: int, amount: float = 1.0) -> None:
        """Add to a series, by its place in the store."""
        self._values[index] += amount

    def set(self, index: int, value: float) -> None:
        """Overwrite a series, by its place in the store."""
        self._values[index] = value

    def begin(self, balance: Balance, now: float) -> None:
        """Count something in.

        Args:
            balance: What begins.
            now: The time, seconds since the clock of the process began.
        """
        values = self._values
        # First, and last when it ends: what a process leaves that is killed in between is then too young, not too old.
        values[balance.opened] += now
        values[balance.begun] += 1.0
        values[balance.active] += 1.0

    def end(self, balance: Balance, since: float, now: float) -> None:
        """Count out what was counted in, and how long it was there; why it ended is for others to count.

        Args:
            balance: What ends.
            since: When it began, seconds since the clock of the process began.
            now: The time, likewise.
        """
        values = self._values
        lasted = balance.lasted
        lasted_s = now - since
        values[lasted.place(lasted_s)] += 1.0
        values[lasted.total] += lasted_s
        values[balance.active] -= 1.0
        values[balance.opened] -= since

    def get(self, index: int) -> float:
        """Return one number, by its place in the store."""
        return self._values[index]

    def values(self) -> list[float]:
        """Return a copy of all numbers."""
        return list(self._values)

    def occupy(self, instance: int) -> None:
        """Give the segment to a worker, which counts from now on."""
        self._head[_INSTANCE] = float(instance)

    def name_process(self, pid: int) -> None:
        """Say which process it belongs to."""
        self._head[_PID] = float(pid)

    def beat(self) -> None:
        """Note that the event loop runs, on the clock that all processes of the machine share."""
        self._head[_BEAT] = time.monotonic()

    @property
    def is_beating(self) -> bool:
        """Whether there has been a beat yet."""
        return self._head[_BEAT] != 0.0

    def blocked_s(self, now: float) -> float:
        """Return how long ago the last beat was, at a `time.monotonic`; 0 before the first."""
        beat = self._head[_BEAT]
        return max(0.0, now - beat) if beat else 0.0

    def start_clock(self) -> None:
        """Begin to tell the time, on the clock that all processes of the machine share."""
        self._head[_CLOCK] = time.monotonic()

    def clock_s(self, now: float) -> float:
        """Return what its clock shows at a `time.monotonic`; 0 before it began."""
        began = self._head[_CLOCK]
        return now - began if began else 0.0

    def clear(self) -> None:
        """Make it nobody's, and all its numbers zero."""
        for index in range(HEAD):
            self._head[index] = 0.0
        for index in range(len(self._values)):
            self._values[index] = 0.0

    def copy_from(self, other: Segment) -> None:
        """Take over what is in another segment; not to be seen by readers meanwhile."""
        self._head[:] = other._head
        self._values[:] = other._values

    def begin_in_child(self) -> None:
        """Go on in memory of its own, in a process that was forked from the one whose numbers these are."""
        self._head = memoryview(array("d", self._head))
        self._values = memoryview(array("d", self._values))

    def release(self) -> None:
        """Let go of the memory; any further use raises ValueError."""
        self._head.release()
        self._values.release()
        if self._reader is not None:
            self._reader.release()
