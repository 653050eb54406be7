"""The Prometheus page: the server's metrics, and whatever else the process has registered.

The only module that imports prometheus_client.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pagi_trio.metrics.facade import Metrics


class Collector:
    """The server's metrics, as prometheus_client collects them.

    For an application with a registry of its own; collect it in the Trio thread.

    Args:
        metrics: The server's numbers.
        created: Whether counters tell since when they count, which only OpenMetrics has a place for.
    """

    def __init__(self, metrics: Metrics, *, created: bool = False) -> None:
        self._metrics = metrics
        self._created = created

    def collect(self) -> Iterator[Family]:
        """Yield one family per metric, all of the same moment."""
        snapshot = self._metrics.snapshot()
        created = snapshot.value("pagi_server_start_time_seconds") if self._created else None
        for metric, samples in snapshot:
            labels = [label for label, _ in metric.labels]
            if metric.kind == "counter":
                counter = CounterMetricFamily(metric.name, metric.help, labels=labels)
                for values, value in samples:
                    counter.add_metric(list(values.values()), value, created=created)
                yield counter
            else:
                gauge = GaugeMetricFamily(metric.name, metric.help, labels=labels)
                for values, value in samples:
                    gauge.add_metric(list(values.values()), value)
                yield gauge


class _One:
    """A registry of one family, since prometheus_client writes registries."""

    def __init__(self, family: Family) -> None:
        self._family = family

    def collect(self) -> Iterable[Family]:
        return [self._family]


def render(metrics: Metrics, *, openmetrics: bool) -> Iterator[bytes]:
    """Write the page, family by family, so that the caller can let others run in between.

    The server's own families come first and are of one moment; then everything in prometheus_client's default
    registry. A family that would repeat a name is left out: an application may have registered a `Collector`.

    Args:
        metrics: The server's numbers.
        openmetrics: OpenMetrics 1.0.0 instead of the text format 0.0.4.
    """
    seen: set[str] = set()
    for family in chain(Collector(metrics, created=openmetrics).collect(), REGISTRY.collect()):
        names = {family.name, *(sample.name for sample in family.samples)}
        if seen.isdisjoint(names):
            seen |= names
            if openmetrics:
                page: bytes = generate_openmetrics(_One(family))  # type: ignore[no-untyped-call]  # it has no types
                yield page.removesuffix(b"# EOF\n")
            else:
                yield generate_latest(_One(_without_created(family)))
    if openmetrics:
        yield b"# EOF\n"


def _without_created(family: Family) -> Family:
    """Leave out since when a family counts: the text format could tell it only as a family of its own."""
    if family.type == "gauge":
        return family
    plain = Family(family.name, family.documentation, family.type)
    plain.samples = [sample for sample in family.samples if sample.name != f"{family.name}_created"]
    return plain
