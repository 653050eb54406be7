"""The series of the table, and their places in the store."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from itertools import product
from typing import TYPE_CHECKING, Final

from pagi_trio.metrics.table import CATALOG, CLOSE_CODES, CLOSE_REASONS, CLOSE_SIDES, INFO, Aggregation, Kind, Metric

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "CATALOG",
    "CLOSE_CODES",
    "CLOSE_REASONS",
    "CLOSE_SIDES",
    "HISTOGRAM_PARTS",
    "INFO",
    "PLACES",
    "SERIES",
    "Aggregation",
    "Kind",
    "Metric",
    "Series",
    "by_label",
    "find",
    "index",
    "is_by_slot",
]

HISTOGRAM_PARTS: Final = ("_bucket", "_count", "_sum")
"""What a histogram's samples are called, behind its name."""


@dataclass(frozen=True, slots=True)
class Series:
    """A metric with one value for each of its labels.

    Attributes:
        metric: The family it belongs to.
        labels: Label names and values, in the order of the family's labels.
        index: Its place in the store, the first of `width`.
    """

    metric: Metric
    labels: tuple[tuple[str, str], ...]
    index: int

    @property
    def width(self) -> int:
        """How many places it has: one, or what `Histogram` needs for one."""
        # The buckets and the one above them, the sum, and what rounding takes from it.
        return len(self.metric.buckets) + 3 if self.metric.kind == "histogram" else 1


def _lay_out() -> tuple[Series, ...]:
    """Give every combination of label values its places, in the order of the table."""
    laid_out: list[Series] = []
    place = 0
    for metric in CATALOG:
        for values in product(*(values for _, values in metric.labels)):
            labels = tuple(zip((label for label, _ in metric.labels), values, strict=True))
            laid_out.append(Series(metric, labels, place))
            place += laid_out[-1].width
    return tuple(laid_out)


_LIKENESS: Final = 0.7
"""How like a metric's name another must be to be taken for it, as difflib has it: names that have nothing but their
``pagi_`` and ``_total`` in common are up to 0.68."""

SERIES: Final[tuple[Series, ...]] = _lay_out()

PLACES: Final = SERIES[-1].index + SERIES[-1].width
"""How many places all series have."""

_METRICS: Final = {metric.name: metric for metric in CATALOG}
_SERIES: Final = {(series.metric.name, frozenset(series.labels)): series for series in SERIES}
_NAMES: Final = [
    name
    for metric in CATALOG
    for name in ([metric.name + part for part in HISTOGRAM_PARTS] if metric.kind == "histogram" else [metric.name])
]


def find(name: str, /, **labels: str) -> Series:
    """Return a series.

    Args:
        name: The metric's name; a histogram's without what the names of its samples end in.
        labels: A value for each of its labels.

    Raises:
        KeyError: If there is no such metric, or it has other labels or values; the message names what fits.
    """
    try:
        return _SERIES[name, frozenset(labels.items())]
    except KeyError:
        raise KeyError(_misfit(name, labels)) from None


def index(name: str, /, **labels: str) -> int:
    """Return the place of a series that is one number.

    Args:
        name: The metric's name, as on the page.
        labels: A value for each of its labels.

    Raises:
        KeyError: If there is no such metric, it has other labels or values, or it is a histogram; the message names
            what fits.
    """
    series = find(name, **labels)
    if series.metric.kind == "histogram":
        raise KeyError(f"{name} is a histogram, with {', '.join(name + part for part in HISTOGRAM_PARTS)}")
    return series.index


def by_label(name: str) -> dict[str, int]:
    """Return the places of all series of a metric with one label, by that label's value."""
    return {series.labels[0][1]: series.index for series in SERIES if series.metric.name == name}


def is_by_slot(name: str) -> bool:
    """Return whether a metric has a series for each worker, by a label that is not in the catalog."""
    metric = _METRICS.get(name)
    return metric is not None and metric.aggregation == "slot"


def misnamed(name: str, others: Iterable[str] = ()) -> str:
    """Say that there is no metric of a name, and which may be meant.

    Args:
        name: The name.
        others: Names beside those of the catalog.
    """
    near = get_close_matches(name, [*_NAMES, *others], n=1, cutoff=_LIKENESS)
    return f"no metric {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")


def _misfit(name: str, labels: dict[str, str]) -> str:
    """Say in one line why a name with these labels is no series, and what would be."""
    metric = _METRICS.get(name)
    if metric is None:
        return misnamed(name)
    wanted = dict(metric.labels)
    if labels.keys() != wanted.keys():
        names = ", ".join(wanted) or "no labels"
        return f"{name} takes {names}; got {', '.join(labels) or 'none'}"
    label = next(label for label, value in labels.items() if value not in wanted[label])
    return f"{name} has no {label}={labels[label]!r}; it is one of {', '.join(wanted[label])}"
