"""One number of the application's own metrics, found by the name and labels that it has on the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pagi_trio.metrics.application.aggregation import worker_label

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pagi_trio.metrics.application.aggregation import AppFamily
    from pagi_trio.metrics.application.region import Family, Kind

_SUFFIXES: Final[Mapping[Kind, tuple[str, ...]]] = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_count", "_sum"),
    "summary": ("_count", "_sum"),
}
"""What the names of a metric's samples end in."""

_ZERO_MODES: Final = ("", "sum", "livesum")
"""Of gauges that are added up, nothing is 0; it is not the least of several, nor the last that was set."""

_EACH_MODES: Final = ("all", "liveall")
"""Of these, each worker has a series of its own."""


def read(families: Iterable[AppFamily], name: str, labels: Mapping[str, str]) -> float | None:
    """Return one sample's value; None if no metric has samples of this name.

    Args:
        families: All metrics.
        name: The sample's name, such as ``shop_orders_total`` or ``shop_work_seconds_count``.
        labels: A value for each of its labels. 0 is the value of what nobody has counted with these labels yet.

    Raises:
        KeyError: If the metric has other labels, or is a gauge that nobody has set; the message says so.
    """
    for one in families:
        family = one.family
        suffix = name.removeprefix(family.name)
        if not name.startswith(family.name) or suffix not in _SUFFIXES[family.kind]:
            continue
        for sample in one.samples:
            if sample.suffix == suffix and sample.labels == labels:
                return sample.value
        _check(family, name, suffix, labels)
        return 0.0
    return None


def names(families: Iterable[AppFamily]) -> list[str]:
    """Return all names that samples of these metrics may have."""
    return [one.family.name + suffix for one in families for suffix in _SUFFIXES[one.family.kind]]


def _check(family: Family, name: str, suffix: str, labels: Mapping[str, str]) -> None:
    wanted = [*family.labels]
    if suffix == "_bucket":
        wanted.append("le")
    if family.mode in _EACH_MODES:
        wanted.append(worker_label(family.labels))
    if labels.keys() != set(wanted):
        raise KeyError(f"{name} takes {', '.join(wanted) or 'no labels'}; got {', '.join(labels) or 'none'}")
    if family.mode not in _ZERO_MODES:
        given = ", ".join(f"{label}={value!r}" for label, value in labels.items())
        raise KeyError(f"{name} has not been set{f' with {given}' if given else ''}")
    if suffix == "_bucket" and labels["le"] not in family.bounds:
        raise KeyError(f"{name} has no le={labels['le']!r}; it is one of {', '.join(family.bounds)}")
