"""Where the numbers are: shared memory, one segment per process that counts.

A process writes only its own segment, by plain stores of eight aligned bytes, which no reader ever sees torn
(`struct.pack_into` would tear); whoever reads aggregates over the segments.
"""

from __future__ import annotations

import contextlib
import mmap
from typing import TYPE_CHECKING, Final

from pagi_trio.metrics import catalog
from pagi_trio.metrics.catalog import SERIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pagi_trio.metrics.catalog import Metric

DOUBLE_BYTES: Final = 8
"""The size of the C double of ``memoryview.cast("d")``."""


class Segment:
    """The numbers of one process.

    Written from the Trio thread only: adding is a read and a write, and another thread could come between.
    """

    __slots__ = ("_values",)

    def __init__(self, values: memoryview[float]) -> None:
        self._values = values

    def add(self, index: int, amount: float) -> None:
        """Add to a series, by its place in the store."""
        self._values[index] += amount

    def set(self, index: int, value: float) -> None:
        """Overwrite a series, by its place in the store."""
        self._values[index] = value

    def values(self) -> list[float]:
        """Return a copy of all numbers."""
        return list(self._values)

    def release(self) -> None:
        """Let go of the memory; any further use raises ValueError."""
        self._values.release()


class Snapshot:
    """All series at one moment, aggregated; it never changes."""

    __slots__ = ("_values",)

    def __init__(self, values: Sequence[float]) -> None:
        self._values = values

    def value(self, name: str, **labels: str) -> float:
        """Return one series' value.

        Raises:
            KeyError: If there is no such series; the message names what fits.
        """
        return self._values[catalog.index(name, **labels)]

    def __iter__(self) -> Iterator[tuple[Metric, list[tuple[dict[str, str], float]]]]:
        """Yield each metric, in the order of the catalog, with the labels and value of each of its series."""
        samples: dict[str, list[tuple[dict[str, str], float]]] = {metric.name: [] for metric in catalog.CATALOG}
        for series, value in zip(SERIES, self._values, strict=True):
            samples[series.metric.name].append((dict(series.labels), value))
        return ((metric, samples[metric.name]) for metric in catalog.CATALOG)


class Store:
    """The memory that all segments are in.

    Args:
        segments: How many processes will count. The first segment is that of the process that owns the store.

    Ownership: the memory is freed by `close`, or with the last reference to the store and its segments.
    """

    def __init__(self, segments: int = 1) -> None:
        size = len(SERIES)
        self._memory = mmap.mmap(-1, segments * size * DOUBLE_BYTES)
        with memoryview(self._memory) as octets, octets.cast("d") as doubles:
            self._segments = [Segment(doubles[slot * size : (slot + 1) * size]) for slot in range(segments)]

    def segment(self, slot: int) -> Segment:
        """Return the segment of one process."""
        return self._segments[slot]

    def snapshot(self) -> Snapshot:
        """Read all segments and aggregate each series as the catalog says."""
        rows = [segment.values() for segment in self._segments]
        return Snapshot(
            [_aggregate(series.metric, column) for series, column in zip(SERIES, zip(*rows, strict=True), strict=True)]
        )

    def close(self) -> None:
        """Free the memory; any further count or snapshot raises ValueError."""
        for segment in self._segments:
            segment.release()
        # A view that somebody else made keeps the memory until it goes.
        with contextlib.suppress(BufferError):
            self._memory.close()


def _aggregate(metric: Metric, column: Sequence[float]) -> float:
    """Make one number of every segment's."""
    if metric.aggregation == "sum":
        return sum(column)
    if metric.aggregation == "max":
        return max(column)
    # "parent" and "last" are kept by the process that owns the store.
    return column[0]
