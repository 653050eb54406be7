"""Where the numbers are: memory that processes share, one segment for each process that counts.

A process writes only its own segment, by plain stores of eight aligned bytes, which no reader ever sees torn
(`struct.pack_into` would tear). Whoever reads adds up over the segments, and gets the same in every process.

When a worker has died, the parent adds its counters to what retired workers left behind, and hands its slot on. That
must look like one step to readers, and must not stop them if the parent stands still in the middle. So there are two
retired segments: readers use one while the parent prepares the other, which says what worker it has taken in; one
store, the flip, puts the other in force, and readers pass over that worker's slot from then on.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import time
import zlib
from typing import TYPE_CHECKING, Final, Self

from pagi_trio.errors import WorkerError
from pagi_trio.metrics import catalog
from pagi_trio.metrics.application.aggregation import Source, absorb
from pagi_trio.metrics.application.region import REGION_BYTES, Region
from pagi_trio.metrics.balance import BALANCES
from pagi_trio.metrics.catalog import SERIES
from pagi_trio.metrics.histogram import HISTOGRAMS
from pagi_trio.metrics.segment import DOUBLE_BYTES, HEAD, SEGMENT_BYTES, Segment
from pagi_trio.metrics.snapshot import Reading, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pagi_trio.metrics.application.aggregation import Absorbed

BEAT_S: Final = 0.5
"""Between two beats of a worker's event loop: often enough for a stall to show, and nothing in CPU time."""

_DROPPED: Final = catalog.index("pagi_metrics_dropped_series_total")
_BLOCKED: Final = catalog.index("pagi_server_worker_blocked_seconds")

_READ_TRIES: Final = 100
"""How often a read that the parent keeps overtaking is begun again: more than it can retire while one lasts."""

# The header of the store.
_FLIPS, _SIGNATURE = range(2)
_HEADER_BYTES: Final = 4096

_SUMMED: Final = tuple(
    place
    for one in SERIES
    if one.metric.aggregation == "sum" and one.metric.kind != "gauge"
    for place in range(one.index, one.index + one.width)
)
_KEPT: Final = tuple(one.index for one in SERIES if one.metric.aggregation in ("max", "last"))


class Store:
    """The memory that all segments are in.

    Args:
        slots: How many workers can count at a time.
        shared: Whether other processes will attach to it.

    Attributes:
        fd: The file of the memory, for other processes; -1 if it is shared by none.
        parent: The segment of the process that made it.

    Ownership: the memory is freed by `close`, or with the last reference to the store and its segments.
    """

    _is_shared: bool

    def __init__(self, slots: int = 1, *, shared: bool = False) -> None:
        size = _HEADER_BYTES + (3 + slots) * SEGMENT_BYTES
        fd = -1
        if shared:
            fd = os.memfd_create("pagi-trio-metrics", os.MFD_CLOEXEC)
            os.ftruncate(fd, size)
        # Memory without a file is shared by nobody but forks, which let go of it.
        self._map(fd, size)
        self._is_shared = shared
        if shared:
            self._header[_SIGNATURE] = _signature()
            self.parent.name_process(os.getpid())
            self._kept += [Region(segment.area) for segment in self._retired]

    @classmethod
    def attach(cls, fd: int) -> Self:
        """Share the memory that another process has made.

        Args:
            fd: Its file.

        Ownership: the file is closed with the store.

        Raises:
            WorkerError: If that process has another version of the catalog.
        """
        # Before anything is made of the memory, whose layout may be another.
        header = struct.unpack(f"{_SIGNATURE + 1}d", os.pread(fd, (_SIGNATURE + 1) * DOUBLE_BYTES, 0))
        if header[_SIGNATURE] != _signature():
            os.close(fd)
            raise WorkerError("pagi-trio was upgraded under the running server; stop it, and start it anew")
        store = cls.__new__(cls)
        store._map(fd, os.fstat(fd).st_size)
        store._is_shared = True
        return store

    def _map(self, fd: int, size: int) -> None:
        self.fd = fd
        self._memory = mmap.mmap(fd, size)
        self._octets = memoryview(self._memory)
        self._header = self._octets[:_HEADER_BYTES].cast("d")
        segments = [Segment(self._part(number)) for number in range((size - _HEADER_BYTES) // SEGMENT_BYTES)]
        self.parent = segments[0]
        self._retired = segments[1:3]
        self._slots = segments[3:]
        # What the owner writes the application's share of retired workers with.
        self._kept: list[Region] = []
        self._last: Reading | None = None

    def _part(self, number: int) -> memoryview[int]:
        start = _HEADER_BYTES + number * SEGMENT_BYTES
        return self._octets[start : start + SEGMENT_BYTES]

    @property
    def slots(self) -> int:
        """How many workers can count at a time."""
        return len(self._slots)

    def slot(self, number: int) -> Segment:
        """Return the segment of a worker; the first has number 1."""
        if not 1 <= number <= len(self._slots):
            raise IndexError(f"there is no slot {number}; there are 1 to {len(self._slots)}")
        return self._slots[number - 1]

    def live(self) -> Iterator[tuple[int, Segment]]:
        """Yield the number and segment of each slot that has a worker."""
        absorbed = self._current.instance
        for number, segment in enumerate(self._slots, 1):
            if segment.instance not in (0, absorbed):
                yield number, segment

    @property
    def _current(self) -> Segment:
        return self._retired[int(self._header[_FLIPS]) & 1]

    def retire(self, number: int) -> list[str]:
        """Keep what a worker has counted, drop its gauges, count what it left open as cut, and free its slot.

        Called by the process that owns the store, which others share, once the worker's process has ended.

        Returns:
            The names of application metrics whose older definition gave way to the worker's.
        """
        flips = int(self._header[_FLIPS])
        after = self._retired[(flips + 1) & 1]
        dead = self.slot(number)
        after.copy_from(self._retired[flips & 1])
        left = dead.values()
        before = after.values()
        for index in _SUMMED:
            after.add(index, left[index])
        for histogram in HISTOGRAMS.values():
            histogram.keep_exact(after, before, left)
        for balance in BALANCES:
            balance.cut_off(left, after, dead.clock_s(time.monotonic()))
        for index in _KEPT:
            # A worker that was killed has no shutdown to tell of.
            after.set(index, dead.get(index) or after.get(index))
        absorbed = self._absorb_region(flips, number, dead)
        after.add(_DROPPED, absorbed.dropped)
        after.occupy(dead.instance)
        self._header[_FLIPS] = float(flips + 1)
        # Not before: until the flip, readers take the dead worker's figures from its own segment.
        dead.clear()
        Region(dead.area).clear()
        return absorbed.replaced

    def _absorb_region(self, flips: int, number: int, dead: Segment) -> Absorbed:
        region = self._kept[(flips + 1) & 1]
        region.copy_from(self._kept[flips & 1])
        return absorb(region, dead.reader.read(), slot=number, instance=dead.instance)

    def snapshot(self) -> Snapshot:
        """Read all segments and aggregate each series as the catalog says; from any thread.

        Without a lock: what interrupts a thread that reads, such as a finalizer or a signal handler, may read as well.
        """
        return Snapshot(self._read_whole())

    def _read_whole(self) -> Reading:
        for _ in range(_READ_TRIES):
            flips = self._header[_FLIPS]
            reading = self._read()
            if self._header[_FLIPS] == flips:
                self._last = reading
                return reading
        return self._last or reading

    def _read(self) -> Reading:
        """Go through the memory once; it counts only if there was no flip meanwhile."""
        now = time.monotonic()
        retired = self._current
        reading = Reading(self.parent.values(), retired.values())
        if self._is_shared:
            reading.pids["parent"] = self.parent.pid
            reading.sources.append(Source(retired.reader.read()))
        for number, segment in self.live():
            reading.live[number] = row = segment.values()
            row[_BLOCKED] = max(0.0, segment.blocked_s(now) - BEAT_S)
            reading.sources.append(Source(segment.reader.read(), segment.instance, number))
            if self._is_shared:
                reading.pids[str(number)] = segment.pid
        return reading

    def close(self) -> None:
        """Free the memory; any further count or snapshot raises ValueError."""
        for segment in (self.parent, *self._retired, *self._slots):
            segment.release()
        self._header.release()
        for region in self._kept:
            region.release()
        self._octets.release()
        # A view that somebody else made keeps the memory until it goes.
        with contextlib.suppress(BufferError):
            self._memory.close()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _signature() -> float:
    """Return a number that is another for another layout."""
    layout = repr([(one.metric.name, one.labels, one.metric.aggregation, one.metric.buckets) for one in SERIES])
    return float(zlib.crc32(f"{layout} {HEAD} {REGION_BYTES}".encode()))
