"""All series at one moment, aggregated over processes as the catalog says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pagi_trio.metrics import catalog
from pagi_trio.metrics.application import aggregate
from pagi_trio.metrics.catalog import SERIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pagi_trio.metrics.application import AppFamily, Source
    from pagi_trio.metrics.catalog import Metric

WORKER_LABEL: Final = "worker"
"""What tells apart the series that each worker has of its own."""


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
        columns = zip(*rows, strict=True) if rows else (() for _ in SERIES)
        self._values = [
            _aggregate(series.metric, parent, retired, column)
            for series, parent, retired, column in zip(SERIES, reading.parent, reading.retired, columns, strict=True)
        ]
        self._live = reading.live
        self._sources = reading.sources
        self.pids: Mapping[str, int] = reading.pids

    def application(self) -> list[AppFamily]:
        """Return the application's own metrics, aggregated over the processes that share the store."""
        return aggregate(self._sources).families

    def value(self, name: str, /, **labels: str) -> float:
        """Return one series' value.

        Args:
            name: The metric's name, as on the page.
            labels: A value for each of its labels; for what each worker has of its own, ``worker`` is its slot.

        Raises:
            KeyError: If there is no such series; the message names what fits.
        """
        if catalog.is_by_slot(name):
            by_slot = dict(self._by_slot(catalog.index(name)))
            if labels.keys() != {WORKER_LABEL} or labels[WORKER_LABEL] not in by_slot:
                raise KeyError(f"{name} takes worker, one of {', '.join(by_slot) or 'none that lives'}")
            return by_slot[labels[WORKER_LABEL]]
        return self._values[catalog.index(name, **labels)]

    def __iter__(self) -> Iterator[tuple[Metric, list[tuple[dict[str, str], float]]]]:
        """Yield each metric, in the order of the catalog, with the labels and value of each of its series."""
        samples: dict[str, list[tuple[dict[str, str], float]]] = {metric.name: [] for metric in catalog.CATALOG}
        for series, value in zip(SERIES, self._values, strict=True):
            if series.metric.aggregation == "slot":
                found = [({WORKER_LABEL: slot}, one) for slot, one in self._by_slot(series.index)]
                samples[series.metric.name] += found
            else:
                samples[series.metric.name].append((dict(series.labels), value))
        return ((metric, samples[metric.name]) for metric in catalog.CATALOG)

    def _by_slot(self, index: int) -> Iterator[tuple[str, float]]:
        return ((str(slot), row[index]) for slot, row in self._live.items())


def _aggregate(metric: Metric, parent: float, retired: float, live: Sequence[float]) -> float:
    """Make one number of every process's."""
    if metric.aggregation == "sum":
        return sum(live, parent + retired)
    if metric.aggregation == "max":
        return max(live, default=retired)
    if metric.aggregation == "last":
        # A worker that has just written it is the last to end, though its process is not reaped yet.
        return max(live, default=0.0) or retired
    return parent
