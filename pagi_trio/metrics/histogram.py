"""Histograms of the catalog: what their places hold, and what is read from them.

A histogram's series has a place for each bucket, counted apart and not cumulated, one for what is above the last bound,
one for the sum, and one for what rounding takes from that. The count and the bucket +Inf of the page derive from the
buckets, so that no reader ever sees the two apart.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from math import fsum
from typing import TYPE_CHECKING, Final

from pagi_trio.metrics import catalog
from pagi_trio.metrics.application.aggregation import Sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pagi_trio.metrics.catalog import Series
    from pagi_trio.metrics.writer import Writer


class Histogram:
    """One series of a histogram.

    Attributes:
        series: What it is.
        total: The place of the sum.
    """

    __slots__ = ("_bounds", "_first", "series", "total")

    def __init__(self, series: Series) -> None:
        self.series = series
        self._bounds = series.metric.buckets
        self._first = series.index
        self.total = series.index + len(self._bounds) + 1

    def place(self, value: float) -> int:
        """Return the place of the bucket that a value counts in."""
        return self._first + bisect_left(self._bounds, value)

    def observe(self, writer: Writer, value: float, times: float = 1.0) -> None:
        """Count something.

        Args:
            writer: Where its process counts.
            value: What was measured, 0 or more.
            times: How often.
        """
        writer.add(self.place(value), times)
        writer.add(self.total, value * times)

    def count(self, values: Sequence[float]) -> float:
        """Return how often something was counted.

        Args:
            values: Those of all places.
        """
        return sum(values[self._first : self.total])

    def sum_up(self, rows: Iterable[Sequence[float]]) -> float:
        """Add up the sums of several processes exactly: in another order `sum` rounds to less, a step back.

        Args:
            rows: The values of all places, process by process.
        """
        return fsum(self._parts(rows))

    def keep_exact(self, writer: Writer, *rows: Sequence[float]) -> None:
        """Overwrite the sum by that of several, and keep beside it what rounding takes from it.

        Args:
            writer: Where to.
            rows: The values of all places, one for each of several.
        """
        whole = self.sum_up(rows)
        writer.set(self.total, whole)
        writer.set(self.total + 1, fsum((-whole, *self._parts(rows))))

    def _parts(self, rows: Iterable[Sequence[float]]) -> Iterator[float]:
        return (part for row in rows for part in row[self.total : self.total + 2])

    def samples(self, values: Sequence[float]) -> Iterator[Sample]:
        """Yield what stands on the page.

        Args:
            values: Those of all places.
        """
        labels = dict(self.series.labels)
        counts = list(accumulate(values[self._first : self.total]))
        for bound, count in zip((*map(float, self._bounds), "+Inf"), counts, strict=True):
            yield Sample("_bucket", {**labels, "le": str(bound)}, count)
        yield Sample("_count", labels, counts[-1])
        yield Sample("_sum", labels, values[self.total])

    def value(self, values: Sequence[float], part: str, le: str | None = None) -> float:
        """Return one sample.

        Args:
            values: Those of all places.
            part: What its name ends in: ``_bucket``, ``_count`` or ``_sum``.
            le: A bucket's upper bound, as any way to write that number.

        Raises:
            KeyError: If there is no such bucket; the message names those there are.
        """
        found = {sample.labels.get("le"): sample.value for sample in self.samples(values) if sample.suffix == part}
        if part != "_bucket":
            return found[None]
        for bound, count in found.items():
            if bound is not None and le is not None and _is_same(bound, le):
                return count
        bounds = ", ".join(bound for bound in found if bound is not None)
        raise KeyError(f"{self.series.metric.name}_bucket has no le={le!r}; it is one of {bounds}")


def _is_same(bound: str, le: str) -> bool:
    try:
        return float(bound) == float(le)
    except ValueError:
        return False


HISTOGRAMS: Final = {
    (series.metric.name, frozenset(series.labels)): Histogram(series)
    for series in catalog.SERIES
    if series.metric.kind == "histogram"
}
"""By name and labels."""

_PARTS: Final = {
    series.metric.name + part: (series.metric.name, part)
    for series in catalog.SERIES
    if series.metric.kind == "histogram"
    for part in catalog.HISTOGRAM_PARTS
}


def histogram(name: str, /, **labels: str) -> Histogram:
    """Return a series of a histogram.

    Raises:
        KeyError: If there is no such series; the message names what fits.
    """
    series = catalog.find(name, **labels)
    return HISTOGRAMS[name, frozenset(series.labels)]


def part_of(name: str) -> tuple[str, str] | None:
    """Return the histogram that a sample of this name belongs to, and what the name ends in; None for others."""
    return _PARTS.get(name)
