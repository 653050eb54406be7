"""All series at one moment, aggregated over processes as the catalog says."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, Final

from pagi_trio.metrics import catalog
from pagi_trio.metrics.application.aggregation import Sample, aggregate
from pagi_trio.metrics.application.lookup import names, read
from pagi_trio.metrics.application.naming import RESERVED
from pagi_trio.metrics.catalog import SERIES
from pagi_trio.metrics.histogram import HISTOGRAMS, histogram, part_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pagi_trio.metrics.application.aggregation import AppFamily, Source
    from pagi_trio.metrics.catalog import Aggregation, Metric

WORKER_LABEL: Final = "worker"
"""What tells apart the series that each worker has of its own."""

_AGGREGATIONS: Final = tuple(one.metric.aggregation for one in SERIES for _ in range(one.width))
"""How the values of several processes become one, place by place."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The numbers of one moment, process by process, in the order of the catalog.

    Attributes:
        parent: Those of the process that owns the store.
        retired: What ended workers left behind.
        live: Those of each worker, by slot.
        pids: The processes that share the store, by what the label ``worker`` calls them; empty if none do.
        sources: The application's own metrics, process by process.
    """

    parent: list[float]
    retired: list[float]
    live: dict[int, list[float]] = field(default_factory=dict)
    pids: dict[str, int] = field(default_factory=dict)
    sources: list[Source] = field(default_factory=list)


class Snapshot:
    """All series at one moment, aggregated; it never changes.

    Attributes:
        pids: The processes that share the store, by what the label ``worker`` calls them; empty if none do.
    """

    __slots__ = ("_live", "_sources", "_values", "pids")

    def __init__(self, reading: Reading) -> None:
        rows = list(reading.live.values())
        columns = zip(*rows, strict=True) if rows else repeat(())
        # Behind the places of the series come some that no page shows.
        columns = zip(_AGGREGATIONS, reading.parent, reading.retired, columns, strict=False)
        self._values = [_aggregate(*column) for column in columns]
        for one in HISTOGRAMS.values():
            self._values[one.total] = one.sum_up((reading.parent, reading.retired, *rows))
        self._live = reading.live
        self._sources = reading.sources
        self.pids: Mapping[str, int] = reading.pids

    def application(self) -> Iterator[AppFamily]:
        """Yield the application's own metrics, aggregated over the processes that share the store."""
        return aggregate(self._sources)

    def value(self, name: str, /, **labels: str) -> float:
        """Return one series' value.

        Args:
            name: The metric's name, as on the page; a histogram's with ``_count``, ``_sum`` or ``_bucket``. It may be
                one of the application's: then it is 0 if nothing has been counted with these labels.
            labels: A value for each of its labels; for what each worker has of its own, ``worker`` is its slot, and
                for a bucket, ``le`` its upper bound.

        Raises:
            KeyError: If there is no such series; the message names what fits.
            TypeError: If the value of a label is no text, as 404 is not.
        """
        for label, given in labels.items():
            if not isinstance(given, str):
                # Nothing is counted under such a value, so that it would seem to be 0.
                raise TypeError(f"{name}: the label {label} is text, not {given!r}")
        if not name.startswith(RESERVED):
            value = read(self.application(), name, labels)
            if value is None:
                raise KeyError(catalog.misnamed(name, names(self.application())))
            return value
        if catalog.is_by_slot(name):
            by_slot = dict(self._by_slot(catalog.index(name)))
            if labels.keys() != {WORKER_LABEL} or labels[WORKER_LABEL] not in by_slot:
                raise KeyError(f"{name} takes worker, one of {', '.join(by_slot) or 'none that lives'}")
            return by_slot[labels[WORKER_LABEL]]
        part = part_of(name)
        if part is not None:
            le = labels.pop("le", None) if part[1] == "_bucket" else None
            return histogram(part[0], **labels).value(self._values, part[1], le)
        return self._values[catalog.index(name, **labels)]

    def __iter__(self) -> Iterator[tuple[Metric, list[Sample]]]:
        """Yield each metric, in the order of the catalog, with its samples, named by it and their suffix."""
        samples: dict[str, list[Sample]] = {metric.name: [] for metric in catalog.CATALOG}
        for series in SERIES:
            found = samples[series.metric.name]
            if series.metric.aggregation == "slot":
                found += [Sample("", {WORKER_LABEL: slot}, one) for slot, one in self._by_slot(series.index)]
            elif series.metric.kind == "histogram":
                found += HISTOGRAMS[series.metric.name, frozenset(series.labels)].samples(self._values)
            else:
                found.append(Sample("", dict(series.labels), self._values[series.index]))
        return ((metric, samples[metric.name]) for metric in catalog.CATALOG)

    def _by_slot(self, index: int) -> Iterator[tuple[str, float]]:
        return ((str(slot), row[index]) for slot, row in self._live.items())


def _aggregate(aggregation: Aggregation, parent: float, retired: float, live: Sequence[float]) -> float:
    """Make one number of every process's."""
    if aggregation == "sum":
        return sum(live, parent + retired)
    if aggregation == "max":
        return max(live, default=retired)
    if aggregation == "last":
        # A worker that has just written it is the last to end, though its process is not reaped yet.
        return max(live, default=0.0) or retired
    return parent
