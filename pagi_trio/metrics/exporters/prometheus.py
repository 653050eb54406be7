"""The Prometheus page: the server's metrics, and whatever else the process has registered.

Only the modules of this package import prometheus_client.
"""

from __future__ import annotations

import logging
from copy import copy
from itertools import chain
from typing import TYPE_CHECKING, Final, cast

from prometheus_client import PLATFORM_COLLECTOR, REGISTRY, generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from pagi_trio.metrics import catalog
from pagi_trio.metrics.application.aggregation import Sample
from pagi_trio.metrics.catalog import CATALOG
from pagi_trio.metrics.exporters.families import merge, to_prometheus
from pagi_trio.metrics.processes import PROCESS_METRICS, read_process
from pagi_trio.metrics.snapshot import WORKER_LABEL

_ERRORS: Final = catalog.index("pagi_metrics_errors_total", part="render")

PART_SAMPLES: Final = 100
"""How many samples are written in one go: 1 ms, where a family of a thousand label sets took 8, and everybody else had
to wait."""

_IN_PARTS: Final = ("counter", "gauge", "histogram", "summary")
"""The types whose samples follow one another; of others, prometheus_client makes several families."""

_log = logging.getLogger("pagi_trio")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from pagi_trio.metrics.catalog import Kind
    from pagi_trio.metrics.server_metrics import ServerMetrics
    from pagi_trio.metrics.snapshot import Snapshot


class Collector:
    """The server's metrics, as prometheus_client collects them.

    For an application with a registry of its own. Collected in another thread than Trio's, it may lag by 50 ms.

    Args:
        metrics: The server's numbers.
        created: Whether counters tell since when they count, which only OpenMetrics has a place for.
        application: Whether the application's own metrics, added up over workers, come along, and what each
            process costs; both have to stay away from a registry that has them already, as the default one does.
    """

    def __init__(self, metrics: ServerMetrics, *, created: bool = False, application: bool = True) -> None:
        self._metrics = metrics
        self._created = created
        self._application = application

    def describe(self) -> Iterable[Family]:
        """Name the families, so that a registry can refuse what others have in it already."""
        own = [Family(metric.name.removesuffix("_total"), metric.help, metric.kind) for metric in CATALOG]
        if not self._application:
            return own
        snapshot = self._metrics.snapshot()
        return [*own, *_processes(snapshot.pids), *to_prometheus(snapshot.application())]

    def collect(self) -> Iterator[Family]:
        """Yield one family per metric, all of the same moment."""
        snapshot = self._metrics.snapshot()
        yield from _server_families(snapshot, created=self._created)
        if self._application:
            yield from _processes(snapshot.pids)
            yield from to_prometheus(snapshot.application())


def _server_families(snapshot: Snapshot, *, created: bool) -> Iterator[Family]:
    """Yield what the server itself counts."""
    since = snapshot.value("pagi_server_start_time_seconds") if created else None
    for metric, samples in snapshot:
        yield _family(metric.name, metric.kind, metric.help, samples, since)


def _family(name: str, kind: Kind, text: str, samples: Iterable[Sample], created: float | None = None) -> Family:
    family = Family(name.removesuffix("_total") if kind == "counter" else name, text, kind)
    for suffix, labels, value in samples:
        family.add_sample(name + suffix, labels, value)
        # Once for each series, of which a histogram's ends with its sum.
        if created is not None and (kind == "counter" or suffix == "_sum"):
            family.add_sample(f"{family.name}_created", {**labels}, created)
    return family


def _processes(pids: Mapping[str, int]) -> Iterator[Family]:
    """Yield what each of several processes costs; one that has just ended is left out."""
    read = {label: read_process(pid) for label, pid in pids.items()}
    found = {label: process for label, process in read.items() if process is not None}
    for metric in PROCESS_METRICS:
        values = {label: getattr(process, metric.attribute) for label, process in found.items()}
        samples = [
            Sample("", {WORKER_LABEL: label}, float(value)) for label, value in values.items() if value is not None
        ]
        if samples:
            yield _family(metric.name, metric.kind, metric.help, samples)


class _One:
    """A registry of one family, since prometheus_client writes registries."""

    def __init__(self, family: Family) -> None:
        self._family = family

    def collect(self) -> Iterable[Family]:
        return [self._family]


def render(metrics: ServerMetrics, *, openmetrics: bool) -> Iterator[bytes]:
    """Write the page, family by family and long ones in parts, so that the caller can let others run in between.

    The server's own families come first, then the application's: those that workers share, and what else is in
    prometheus_client's default registry. All but the last are of one moment. A family that would repeat a name is
    left out: an application may have registered a `Collector`.

    Args:
        metrics: The server's numbers.
        openmetrics: OpenMetrics 1.0.0 instead of the text format 0.0.4.
    """
    seen: set[str] = set()
    snapshot = metrics.snapshot()
    application = merge(to_prometheus(snapshot.application()), _local(metrics, snapshot))
    server = chain(_server_families(snapshot, created=openmetrics), _processes(snapshot.pids))
    for family in chain(server, application):
        names = {family.name, *(sample.name for sample in family.samples)}
        if seen.isdisjoint(names):
            seen |= names
            try:
                yield from _write(family, _write_openmetrics if openmetrics else _write_text)
            except Exception as error:  # noqa: BLE001 - as of a label that is no Unicode, or a value that is no number
                # One family must not cost the page, or the server's own would go.
                metrics.meter.add(_ERRORS)
                if family.name not in metrics.unwritable:
                    metrics.unwritable.add(family.name)
                    # prometheus_client adds all of the samples to what it says.
                    _log.error("the metric %s cannot be written, and is left out: %.200s", family.name, error)
    if openmetrics:
        yield b"# EOF\n"


def _write(family: Family, write: Callable[[Family], bytes]) -> Iterator[bytes]:
    """Write a family, in parts if it has many samples."""
    if len(family.samples) <= PART_SAMPLES or family.type not in _IN_PARTS:
        yield write(family)
        return
    part = copy(family)
    part.samples = []
    head = write(part)
    yield head
    for start in range(0, len(family.samples), PART_SAMPLES):
        part.samples = family.samples[start : start + PART_SAMPLES]
        yield write(part).removeprefix(head)


def _write_text(family: Family) -> bytes:
    return generate_latest(_One(_without_created(family)))


def _write_openmetrics(family: Family) -> bytes:
    page: bytes = generate_openmetrics(_One(family))  # type: ignore[no-untyped-call]  # it has no types
    return page.removesuffix(b"# EOF\n")


def _local(metrics: ServerMetrics, snapshot: Snapshot) -> Iterable[Family]:
    """Collect what only this process can tell."""
    if metrics.local is not None:
        return cast("Iterable[Family]", metrics.local())
    if snapshot.pids:
        # A parent, in which no application registers anything.
        return PLATFORM_COLLECTOR.collect()
    return REGISTRY.collect()


def _without_created(family: Family) -> Family:
    """Leave out since when a family counts: the text format could tell it only as a family of its own."""
    if family.type == "gauge":
        return family
    plain = Family(family.name, family.documentation, family.type)
    plain.samples = [sample for sample in family.samples if sample.name != f"{family.name}_created"]
    return plain
