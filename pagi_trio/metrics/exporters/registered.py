"""What a process that serves by itself has in prometheus_client's default registry, for exporters that push."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import REGISTRY

from pagi_trio.metrics.application.aggregation import Sample
from pagi_trio.metrics.push.protocol import FamilySnapshot

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from pagi_trio.metrics.push.protocol import Kind

_KINDS: Final[Mapping[str, Kind]] = {
    "counter": "counter",
    "gauge": "gauge",
    "histogram": "histogram",
    "summary": "summary",
    "info": "gauge",
    "stateset": "gauge",
    "unknown": "gauge",
}
"""A histogram of gauges, the one type that is left out, nobody else has a word for."""

_OF_THE_PROCESS: Final = ("process_", "python_")
"""What prometheus_client registers by itself; of workers, it is not pushed either."""


def registered(taken: Collection[str]) -> Iterator[FamilySnapshot]:
    """Yield the families of the registry.

    Args:
        taken: The names that are there already: an application may have registered the server's own.

    Raises:
        Exception: Whatever a collector of the application raises.
    """
    for metric in REGISTRY.collect():
        kind = _KINDS.get(metric.type)
        if kind is not None and metric.name not in taken and not metric.name.startswith(_OF_THE_PROCESS):
            samples = tuple(
                Sample(sample.name.removeprefix(metric.name), dict(sample.labels), float(sample.value))
                for sample in metric.samples
                if sample.name != f"{metric.name}_created"
            )
            labels = tuple(label for label in samples[0].labels if label != "le") if samples else ()
            yield FamilySnapshot(metric.name, kind, metric.documentation, metric.unit, labels, samples)
