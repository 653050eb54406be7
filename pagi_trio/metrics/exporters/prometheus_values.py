"""The application's own prometheus_client metrics, kept where every worker process can read them.

prometheus_client makes its numbers with ``values.ValueClass``. A worker puts its own in place before the
application is imported: such a value counts like any other, and has a copy in the worker's region as long as its
metric is in the default registry. Another registry's metric of the same name never gets a place.

A labelled metric makes its values before it is known where they will hang. So a value gets its place when its
metric is registered, at its first write, or by `AppMetrics.place_pending`; and it is always the registered metric
that is asked which values it has under these labels.

Nobody waits for placing, see `pagi_trio.metrics.application.turns`; the application's other metrics take turns with
these.

What a process has counted stays counted: after ``remove``, ``clear`` or ``unregister`` the total keeps it, and a
value that comes again under the same labels adds to it. A gauge's series is taken off by `AppMetrics.place_pending`.
"""

from __future__ import annotations

import functools
import logging
import os
import weakref
from collections import deque
from typing import TYPE_CHECKING, Final

from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, REGISTRY, values

from pagi_trio.metrics.application.value import AppValue, GaugeValue
from pagi_trio.metrics.exporters import definitions
from pagi_trio.metrics.exporters.families import of_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics import MetricWrapperBase
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector

    from pagi_trio.metrics.application.region import Region
    from pagi_trio.metrics.application.turns import Turns

_log = logging.getLogger("pagi_trio")

_DEFAULTS: Final[tuple[Collector, ...]] = (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR)
"""What prometheus_client registers by itself; nobody needs to hear that these are not added up."""


class AppMetrics:
    """What this process's application has registered, and the places that its values have.

    Args:
        turns: Where the copies are.
        registry: Whose metrics get places.
        ignored: The types of collectors that somebody else serves.
    """

    def __init__(
        self, turns: Turns, registry: CollectorRegistry = REGISTRY, ignored: tuple[type[Collector], ...] = ()
    ) -> None:
        self._turns = turns
        self._region: Region | None = turns.region
        self._registry = registry
        self._ignored = ignored
        self._plain = values.ValueClass
        self._hooks: dict[str, Callable[[Collector], None]] = {}
        self._families: dict[str, MetricWrapperBase] = {}
        # What has the places of a series, and its values.
        self._placed: dict[tuple[str, tuple[str, ...]], tuple[MetricWrapperBase, list[AppValue]]] = {}
        self._pending: deque[AppValue] = deque()
        self._unattached: list[AppValue] = []
        self._unshared: set[str] = set()
        self._noted: set[str] = set()
        self._unlogged: list[tuple[str, object]] = []

    # Putting it in place, and away

    def hook(self) -> None:
        """Give places to the metrics that are defined from now on."""
        for collector in definitions.collectors_of(self._registry):
            self._note_unshared(collector)
        values.ValueClass = self._make_value
        # On the instance: any other registry stays as it is.
        self._hooks["register"] = _then(self._registry.register, self._guarded(self._registered))
        self._hooks["unregister"] = _then(self._registry.unregister, self._guarded(self._unregistered))
        vars(self._registry).update(self._hooks)

    def close(self) -> None:
        """Take the hooks away. Every value counts for itself alone from now on; the region keeps what it has."""
        with self._turns.hold():
            self._unhook()
            for _, hanging in self._placed.values():
                for value in hanging:
                    value.detach()

    def close_in_child(self) -> None:
        """Do the same in a process forked from the worker, where a thread that is gone may have any lock."""
        self._turns.begin_in_child()
        self._unhook()
        for _, hanging in self._placed.values():
            for value in hanging:
                value.detach_in_child()

    def _unhook(self) -> None:
        self._region = None
        if values.ValueClass == self._make_value:
            values.ValueClass = self._plain
        for name, hook in self._hooks.items():
            if vars(self._registry).get(name) is hook:
                del vars(self._registry)[name]

    def _guarded(self, hook: Callable[[Collector], None]) -> Callable[[Collector], None]:
        """Keep a hook's failure from the application that registers something."""

        def guarded(collector: Collector) -> None:
            try:
                hook(collector)
            except Exception as error:  # noqa: BLE001 - the application may register anything
                self.note_failure(error)
            self._log_noted()

        return guarded

    # Values and their places

    def _make_value(self, *args: object, **kwargs: object) -> object:
        """Be prometheus_client's ``ValueClass``."""
        try:
            kind, metric_name, name, _, labels, *_ = args
            assert isinstance(metric_name, str)
            assert isinstance(labels, tuple)
            made = GaugeValue if kind == "gauge" else AppValue
            value = made(self, metric_name, labels[:-1] if name == f"{metric_name}_bucket" else labels)
        except Exception as error:  # noqa: BLE001 - a later prometheus_client may call it otherwise
            self.note_failure(error)
            return self._plain(*args, **kwargs)
        self._pending.append(value)
        return value

    def _do(self, step: Callable[[Region], None]) -> None:
        """Have something placed, by this thread or by whoever is placing something."""
        self._turns.take(functools.partial(self._take_step, step))

    def _take_step(self, step: Callable[[Region], None]) -> None:
        try:
            if self._region is not None:
                step(self._region)
        except Exception as error:  # noqa: BLE001 - a metric may be anything that behaves like one
            self.note_failure(error)

    def place(self, value: AppValue) -> None:
        """Give a value its place, if it hangs by now in a metric that is in the registry."""
        if self._region is None:
            value.is_fresh = False
        else:
            self._do(lambda region: self._place(region, value))

    def place_pending(self) -> None:
        """Give places to the new values that nobody has written yet, so that they are on the page with 0.

        To be called every now and then, which also takes the gauges that were removed off the page. A value that
        still hangs nowhere at the second time belongs to no metric of the registry.
        """
        self._do(self._place_pending)
        self._do(self._take_off_removed)
        self._log_noted()

    def _place_pending(self, region: Region) -> None:
        again, self._unattached = self._unattached, []
        first = [self._pending.popleft() for _ in range(len(self._pending))]
        for value in (*again, *first):
            self._place(region, value)
        for value in again:
            value.is_fresh = False
        self._unattached = [value for value in first if value.is_fresh]

    def _take_off_removed(self, _: Region) -> None:
        for (name, labels), (child, hanging) in self._placed.copy().items():
            if isinstance(hanging[0], GaugeValue) and self._child_of(name, labels) is not child:
                hanging[0].leave()
                del self._placed[name, labels]

    def _child_of(self, name: str, labels: tuple[str, ...]) -> MetricWrapperBase | None:
        """Return what the registered metric of this name has under these labels."""
        try:
            metric = self._families.get(name)
            return definitions.child_of(metric, labels) if metric is not None else None
        except Exception as error:  # noqa: BLE001 - a metric may be anything that behaves like one
            self.note_failure(error)
            return None

    def _place(self, region: Region, value: AppValue) -> None:
        """Give a value its place, unless it has asked before."""
        if not value.is_fresh:
            return
        try:
            metric = self._families.get(value.name)
            child = definitions.child_of(metric, value.labels) if metric is not None else None
            if metric is not None and child is not None:
                self._place_child(region, metric, value.labels, child)
        except Exception as error:  # noqa: BLE001 - a metric may be anything that behaves like one
            value.is_fresh = False
            self.note_failure(error)

    def _place_child(
        self, region: Region, metric: MetricWrapperBase, labels: tuple[str, ...], child: MetricWrapperBase
    ) -> None:
        """Give places to all values of a child, or to none."""
        hanging = [value for value in definitions.values_of(child) if isinstance(value, AppValue)]
        family = definitions.describe(metric)
        if not self._owns(family.name):
            for value in hanging:
                value.is_fresh = False
            return
        # Values made before ours were in place stay what they are, and so do those that were replaced.
        if len(hanging) < family.width or hanging[0].has_place or definitions.is_function(child):
            return
        _, previous = self._placed.get((family.name, labels), (None, []))
        for value in previous:
            value.leave()
        cell = region.find(family, labels)
        before = [0.0] * family.width if cell is None else region.values[cell : cell + family.width].tolist()
        if cell is None:
            starts, stamps = zip(*(value.initial() for value in hanging), strict=True)
            cell = region.add_series(family, labels, starts, stamps)
        if cell is None:
            self._drop(hanging)
            return
        # Before the first has its place: a process that is forked meanwhile has to find them all.
        self._placed[family.name, labels] = child, hanging
        for place, (value, counted) in enumerate(zip(hanging, before, strict=True), cell):
            value.take(region, place, counted)

    def _owns(self, name: str) -> bool:
        """Tell whether a family is ours, and not one that the application has defined elsewhere as well."""
        if self._turns.claim(name, self):
            return True
        self._note("the application has defined a metric twice, here and with Metrics, which is on the page: %s", name)
        return False

    def _drop(self, hanging: list[AppValue]) -> None:
        """Let the values of a series go without a place."""
        for value in hanging:
            value.is_fresh = False
        self._turns.dropped += 1
        self._note(
            "the application has more series than workers can share; the first that is missing is one of %s",
            hanging[0].name,
        )

    # What the application registers

    def _registered(self, collector: Collector) -> None:
        if not definitions.is_shareable(collector):
            self._note_unshared(collector)
            return
        family = definitions.describe(collector)
        self._families[family.name] = collector
        self._do(lambda region: self._place_metric(region, collector))

    def _place_metric(self, region: Region, metric: MetricWrapperBase) -> None:
        family = definitions.describe(metric)
        # It may be unregistered by now.
        if self._families.get(family.name) is metric and self._owns(family.name):
            region.add_family(family)
            for labels, child in definitions.children_of(metric):
                self._place_child(region, metric, labels, child)

    def _unregistered(self, collector: Collector) -> None:
        for name, metric in self._families.copy().items():
            if metric is collector:
                del self._families[name]
                for _, child in definitions.children_of(metric):
                    _leave(child)

    # What cannot be shared

    def unshared(self) -> set[str]:
        """Return the names of the metrics found so far that cannot be added up over processes.

        Costs a look at every child of every gauge, and takes gauges that have become functions off the page.
        """
        for name, metric in self._families.copy().items():
            try:
                for _, child in definitions.functions_of(metric):
                    self._unshared.add(name)
                    _leave(child)
            except Exception as error:  # noqa: BLE001 - a metric may be anything that behaves like one
                self.note_failure(error)
        return self._unshared.copy()

    def collect_unshared(self, slot: int) -> Iterator[Metric]:
        """Yield the families of this process alone, each series with its slot.

        What the process itself is (``process_*``) is left out; what Python it runs on is the same everywhere.
        The application's own collectors run here, and may raise anything.
        """
        target = definitions.target_of(self._registry)
        if target is not None:
            yield target
        shared = list(self._families.values())
        for metric in shared:
            functions = definitions.call_functions(metric)
            if functions is not None:
                yield of_worker(functions, slot)
        left_out = (*shared, PROCESS_COLLECTOR)
        for collector in definitions.collectors_of(self._registry):
            if collector is PLATFORM_COLLECTOR:
                yield from collector.collect()
            elif not _is_in(collector, left_out) and not isinstance(collector, self._ignored):
                for family in collector.collect():
                    yield of_worker(family, slot)

    def _note_unshared(self, collector: Collector) -> None:
        if not _is_in(collector, _DEFAULTS) and not isinstance(collector, self._ignored):
            self._unshared.update(definitions.names_of(self._registry, collector))

    def note_exemplar(self, value: AppValue) -> None:
        """Have it logged, once, that examples are not shared."""
        if value.has_place:
            self._note("exemplars are not shared by workers, so the page has none; the first is of %s", value.name)

    def note_failure(self, error: Exception) -> None:
        """Have it logged, once, that something of the application's metrics is not shared."""
        self._note("a metric of the application counts in its own process only: %r", error)

    def _note(self, message: str, detail: object) -> None:
        """Keep a message for the log, the first time."""
        if message not in self._noted:
            self._noted.add(message)
            self._unlogged.append((message, detail))

    def _log_noted(self) -> None:
        """Log what is new. Never with the lock: a handler of the log may count as well, and has a lock of its own."""
        while self._unlogged:
            _log.warning(*self._unlogged.pop(0))


def _then(original: Callable[[Collector], None], hook: Callable[[Collector], None]) -> Callable[[Collector], None]:
    """Return a method that does the same, and more if that succeeded."""

    @functools.wraps(original)
    def both(collector: Collector) -> None:
        original(collector)
        hook(collector)

    return both


def _is_in(collector: Collector, collectors: Iterable[Collector]) -> bool:
    """Look for a collector itself: what equal means is up to the application."""
    return any(collector is one for one in collectors)


def _leave(child: MetricWrapperBase) -> None:
    """Give up the places of a child's values."""
    for value in definitions.values_of(child):
        if isinstance(value, AppValue):
            value.leave()


def is_elsewhere() -> bool:
    """Whether prometheus_client keeps its numbers in files already, since PROMETHEUS_MULTIPROC_DIR is set."""
    return bool(getattr(values.ValueClass, "_multiprocess", False))


def install(
    turns: Turns, *, registry: CollectorRegistry = REGISTRY, ignored: tuple[type[Collector], ...] = ()
) -> AppMetrics:
    """Share the metrics that the application defines from now on, as far as they can be shared.

    Called by a worker process before it imports the application. A child that is forked from it counts for itself.

    Args:
        turns: Those of this process's region.
        registry: Whose metrics are shared.
        ignored: The types of collectors that somebody else serves.
    """
    metrics = AppMetrics(turns, registry, ignored)
    metrics.hook()
    me = weakref.ref(metrics)

    def forked() -> None:
        metrics = me()
        if metrics is not None:
            metrics.close_in_child()

    os.register_at_fork(after_in_child=forked)
    return metrics
