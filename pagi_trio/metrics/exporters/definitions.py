"""What a metric of prometheus_client is, and where its numbers hang.

All that is known here of the inside of prometheus_client's metrics; the same from 0.20 to 0.26.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeGuard

from prometheus_client import Counter, Gauge, Histogram, Summary
from prometheus_client.metrics_core import Metric
from prometheus_client.utils import floatToGoString

from pagi_trio.metrics.application.region import Family

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics import MetricWrapperBase
    from prometheus_client.registry import Collector

    from pagi_trio.metrics.application.region import Kind

_KINDS: Final[tuple[tuple[type[MetricWrapperBase], Kind], ...]] = (
    (Counter, "counter"),
    (Gauge, "gauge"),
    (Histogram, "histogram"),
    (Summary, "summary"),
)

_TELLING: Final = ("collect", "_samples", "_multi_samples", "_child_samples")
"""The methods that tell a metric's values. A subclass with its own says something else than was counted."""

_SUFFIXES: Final = ("_total", "_created", "_sum", "_count", "_bucket", "_info", "_gsum", "_gcount")


def is_shareable(collector: Collector) -> TypeGuard[MetricWrapperBase]:
    """Tell whether a collector's numbers are what its values have counted, and nothing else."""
    return _kind_of(collector) is not None


def _kind_of(collector: Collector) -> Kind | None:
    # By its type: a mock says that its class is what it stands for.
    for base, kind in _KINDS:
        if issubclass(type(collector), base):
            own = any(getattr(type(collector), name) is not getattr(base, name) for name in _TELLING)
            return None if own or "collect" in vars(collector) else kind
    return None


def describe(metric: MetricWrapperBase) -> Family:
    """Return the definition of a shareable metric.

    Raises:
        TypeError: If it is none.
    """
    kind = _kind_of(metric)
    if kind is None:
        raise TypeError(f"{metric!r} is no plain counter, gauge, histogram or summary")
    return Family(
        name=metric._name,
        kind=kind,
        help=str(metric._documentation),
        labels=tuple(metric._labelnames),
        mode=metric._multiprocess_mode if isinstance(metric, Gauge) else "",
        unit=metric._unit,
        bounds=tuple(map(floatToGoString, metric._upper_bounds)) if isinstance(metric, Histogram) else (),
    )


def children_of(metric: MetricWrapperBase) -> list[tuple[tuple[str, ...], MetricWrapperBase]]:
    """Return what has numbers, with its label values: the metric itself, or one child for each label set."""
    if not metric._labelnames:
        return [((), metric)]
    # Another thread, or a finalizer, may add some meanwhile; only copying is one step, and takes no lock.
    return [(tuple(labels), child) for labels, child in metric._metrics.copy().items()]


def child_of(metric: MetricWrapperBase, labels: tuple[str, ...]) -> MetricWrapperBase | None:
    """Return the child of these label values, if the metric has it now."""
    return metric._metrics.get(labels) if metric._labelnames else metric


def values_of(child: MetricWrapperBase) -> list[object]:
    """Return the values of what has numbers, in the order of `Family.width`."""
    if isinstance(child, Histogram):
        return [child._sum, *child._buckets]
    if isinstance(child, Summary):
        return [child._count, child._sum]
    return [child._value] if isinstance(child, Counter | Gauge) else []


def is_function(child: MetricWrapperBase) -> bool:
    """Tell whether ``set_function`` was called: then a gauge's value is never written."""
    return "_child_samples" in vars(child)


def functions_of(metric: MetricWrapperBase) -> list[tuple[tuple[str, ...], MetricWrapperBase]]:
    """Return those children of a gauge that are functions, with their label values."""
    if not isinstance(metric, Gauge):
        return []
    return [(labels, child) for labels, child in children_of(metric) if is_function(child)]


def call_functions(metric: MetricWrapperBase) -> Metric | None:
    """Return what the functions of a gauge say now; None if it has none."""
    family = Metric(metric._name, metric._documentation, "gauge", metric._unit)
    for labels, child in functions_of(metric):
        named = dict(zip(metric._labelnames, labels, strict=True))
        for sample in child._child_samples():
            family.add_sample(family.name + sample.name, {**named, **sample.labels}, sample.value)
    return family if family.samples else None


def collectors_of(registry: CollectorRegistry) -> list[Collector]:
    """Return what is registered now."""
    with registry._lock:
        return list(registry._collector_to_names)


def target_of(registry: CollectorRegistry) -> Metric | None:
    """Return what the application says of itself with ``set_target_info``."""
    with registry._lock:
        if not registry._target_info:
            return None
        info: Metric = registry._target_info_metric()  # type: ignore[no-untyped-call]  # it has no types
        return info


def names_of(registry: CollectorRegistry, collector: Collector) -> Iterator[str]:
    """Yield the families of a registered collector, or its type where it does not tell them."""
    names = registry._collector_to_names.get(collector) or [type(collector).__name__]
    suffixed = {name + suffix for name in names for suffix in _SUFFIXES}
    return (name for name in dict.fromkeys(names) if name not in suffixed)
