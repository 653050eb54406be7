"""The application's metrics as prometheus_client's families: those of all workers, and those of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.metrics_core import Metric

from pagi_trio.metrics.application.aggregation import worker_label

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client.samples import Sample

    from pagi_trio.metrics.application.aggregation import AppFamily


def to_prometheus(families: Iterable[AppFamily]) -> Iterator[Metric]:
    """Yield what all workers have counted together."""
    for family, samples in ((one.family, one.samples) for one in families):
        metric = Metric(family.name, family.help, family.kind, family.unit)
        for suffix, labels, value in samples:
            metric.add_sample(family.name + suffix, labels, value)
        yield metric


def of_worker(metric: Metric, slot: int) -> Metric:
    """Return a copy that says which worker it is from."""
    label = worker_label({name for sample in metric.samples for name in sample.labels})
    copy = Metric(metric.name, metric.documentation, metric.type, metric.unit)
    copy.samples = [sample._replace(labels={**sample.labels, label: str(slot)}) for sample in metric.samples]
    return copy


def merge(shared: Iterable[Metric], own: Iterable[Metric]) -> Iterator[Metric]:
    """Yield each family once; a gauge may have shared series and functions as well, and of both, the function.

    Args:
        shared: Those of all workers.
        own: Those of this one.
    """
    more = {(metric.name, metric.type): metric for metric in own}
    for metric in shared:
        other = more.pop((metric.name, metric.type), None)
        if other is not None:
            told = {_key(sample) for sample in other.samples}
            metric.samples = [*(sample for sample in metric.samples if _key(sample) not in told), *other.samples]
        yield metric
    yield from more.values()


def _key(sample: Sample) -> tuple[str, frozenset[tuple[str, str]]]:
    return sample.name, frozenset(sample.labels.items())
