"""The numbers of one histogram: this process's part of them, with a copy in the region."""

from __future__ import annotations

import threading
from bisect import bisect_left
from typing import TYPE_CHECKING

from trio.lowlevel import enable_ki_protection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pagi_trio.metrics.application.region import Region
    from pagi_trio.metrics.application.value import Places


class HistogramValue:
    """A sum, and how many observations went into each bucket: they change together, by one lock.

    Args:
        places: Told if its place is lost.
        bounds: Upper bounds, the last one infinity.
    """

    __slots__ = ("_bounds", "_cell", "_cells", "_lock", "_places", "_values")

    def __init__(self, places: Places, bounds: Sequence[float]) -> None:
        self._places = places
        self._bounds = bounds
        self._lock = threading.RLock()
        # The sum and the buckets, in the order of the region.
        self._values = [0.0] * (1 + len(bounds))
        self._cells: memoryview[float] | None = None
        self._cell = 0

    @enable_ki_protection
    def observe(self, amount: float) -> None:
        """Count a finite number in its bucket."""
        bucket = 1 + bisect_left(self._bounds, amount)
        # As in AppValue.inc.
        lock = self._lock
        lock.acquire()
        try:
            values = self._values
            values[0] = total = values[0] + amount
            values[bucket] = count = values[bucket] + 1.0
            cells, cell = self._cells, self._cell
            if cells is not None:
                try:
                    cells[cell] = total
                    cells[cell + bucket] = count
                except Exception as error:  # noqa: BLE001 - the application goes on without a place
                    self._cells = None
                    self._places.note_failure(error)
        finally:
            lock.release()

    def take(self, region: Region, cell: int) -> None:
        """Get a place, whose cells are its own.

        Args:
            region: Where it is.
            cell: The first of its cells.
        """
        with self._lock:
            for number, value in enumerate(self._values, cell):
                region.values[number] = value
            self._cell = cell
            self._cells = region.values

    def detach_in_child(self) -> None:
        """Count for oneself alone in a process forked from the one that counts."""
        # A thread that is not in this process may have it.
        self._lock = threading.RLock()
        self._cells = None
