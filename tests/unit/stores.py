"""What the tests of the store share: a worker that counts, and what a snapshot says of it."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pagi_trio.metrics import catalog
from pagi_trio.metrics.application.region import Family, Region
from pagi_trio.metrics.catalog import SERIES
from pagi_trio.metrics.histogram import histogram

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator
    from types import FrameType

    from pagi_trio.metrics.snapshot import Snapshot
    from pagi_trio.metrics.store import Store

CONNECTIONS = catalog.index("pagi_server_connections_total")
ACTIVE = catalog.index("pagi_server_connections_active")
SHUTDOWN = catalog.index("pagi_server_lifespan_shutdown_seconds")
UP = catalog.index("pagi_server_worker_up")

CONNECTION_SECONDS = histogram("pagi_server_connection_seconds")

_BY_PLACE = {series.index: series for series in SERIES}

JOBS = Family("app_jobs", "counter", labels=("queue",))
OTHER_JOBS = Family(JOBS.name, "counter", labels=("queue", "host"))


def of(snapshot: Snapshot, index: int) -> float:
    """Return one number, by its place in the store."""
    series = _BY_PLACE[index]
    return snapshot.value(series.metric.name, **dict(series.labels))


def lasted(snapshot: Snapshot) -> tuple[float, float]:
    """Return how many connections have ended, and how long they were open, together."""
    return snapshot.value("pagi_server_connection_seconds_count"), snapshot.value("pagi_server_connection_seconds_sum")


def jobs(snapshot: Snapshot, name: str = JOBS.name) -> dict[str, float]:
    """Return the application's own counter, by queue."""
    return {
        sample.labels["queue"]: sample.value
        for one in snapshot.application()
        if one.family.name == name
        for sample in one.samples
    }


def live(snapshot: Snapshot) -> dict[str, float]:
    """Return which workers are up, by slot."""
    [samples] = [samples for metric, samples in snapshot if metric.name == "pagi_server_worker_up"]
    return {labels["worker"]: value for _, labels, value in samples}


class Worker:
    """What a worker process does to its slot, the application's own counters included."""

    def __init__(self, store: Store, slot: int, instance: int) -> None:
        self.slot = slot
        self.segment = store.slot(slot)
        self.segment.occupy(instance)
        self.segment.set(UP, 1.0)
        self.region = Region(self.segment.area) if store.fd >= 0 else None

    def count(self, connections: int, *, active: int = 0) -> Worker:
        """Count connections that lasted two seconds."""
        self.segment.add(CONNECTIONS, connections)
        CONNECTION_SECONDS.observe(self.segment, 2.0, times=connections)
        self.segment.add(ACTIVE, active)
        return self

    def do_jobs(self, queue: str, number: int, family: Family = JOBS) -> Worker:
        assert self.region is not None
        cell = self.region.add_series(family, (queue, "")[: len(family.labels)])
        assert cell is not None
        self.region.values[cell] += number
        return self


@contextmanager
def stopping_at_each_line(files: Container[str | None], stop: Callable[[], None]) -> Iterator[None]:
    """Call something before each line of some files; of what it does itself nothing is seen."""

    def trace(frame: FrameType, event: str, _: object) -> object:
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            stop()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        yield
    finally:
        sys.settrace(before)
