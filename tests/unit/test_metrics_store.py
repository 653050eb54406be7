"""The store: every reader sees the same totals, whatever becomes of the processes that count."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import pagi_trio.metrics.application.region_reader as reader_module
import pagi_trio.metrics.segment as segment_module
import pagi_trio.metrics.store as store_module
from pagi_trio.errors import WorkerError
from pagi_trio.metrics import catalog
from pagi_trio.metrics.application.region import Family
from pagi_trio.metrics.balance import PLACES
from pagi_trio.metrics.catalog import CATALOG, SERIES
from pagi_trio.metrics.store import BEAT_S, Store

from .stores import (
    ACTIVE,
    CONNECTIONS,
    JOBS,
    OTHER_JOBS,
    SHUTDOWN,
    UP,
    Worker,
    jobs,
    lasted,
    live,
    of,
    stopping_at_each_line,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STARTUP = catalog.index("pagi_server_lifespan_startup_seconds")
SPAWNS = catalog.index("pagi_server_worker_spawns_total")
DROPPED = catalog.index("pagi_metrics_dropped_series_total")

BUSY = Family("app_busy", "gauge", mode="livesum")

# The others are histograms.
NUMBERS = [series for series in SERIES if series.metric.kind != "histogram"]

# What counts beginnings, what counts ends, and how those count that a killed worker had no time for.
BALANCES = [
    ("pagi_server_connections_total", "pagi_server_connections_closed_total", {"reason": "server_error"}),
    ("pagi_websocket_connections_total", "pagi_websocket_closes_total", {"code": "1006", "side": "none"}),
    ("pagi_sse_connections_total", "pagi_sse_closes_total", {"reason": "server_error"}),
]


# One process


def test_a_new_store_is_all_zero_and_has_no_worker() -> None:
    snapshot = Store(3).snapshot()
    shared = [one.value for metric, samples in snapshot for one in samples if metric.aggregation != "slot"]
    assert set(shared) == {0.0}
    assert live(snapshot) == {}


def test_slots_are_numbered_from_1() -> None:
    store = Store(2)
    assert store.slots == 2
    for number in (0, 3):
        with pytest.raises(IndexError, match=f"there is no slot {number}; there are 1 to 2"):
            store.slot(number)


def test_every_series_of_every_segment_has_a_place_of_its_own() -> None:
    store = Store(2)
    segments = [store.parent, store.slot(1), store.slot(2)]
    for number, segment in enumerate(segments):
        for place in range(PLACES):
            segment.set(place, number * 1000.0 + place)
    for number, segment in enumerate(segments):
        assert segment.values() == [number * 1000.0 + place for place in range(PLACES)]
        # And beside what says whose it is.
        assert (segment.instance, segment.pid, segment.is_beating) == (0, 0, False)


def test_a_snapshot_stays_as_it_was() -> None:
    store = Store()
    worker = Worker(store, 1, 1).count(2)
    snapshot = store.snapshot()
    worker.count(1)
    assert of(snapshot, CONNECTIONS) == 2.0
    assert of(store.snapshot(), CONNECTIONS) == 3.0


def test_a_snapshot_goes_through_the_catalog_in_order() -> None:
    store = Store()
    store.parent.set(catalog.index("pagi_server_app_errors_total", scope="sse"), 4.0)
    families = list(store.snapshot())
    assert [metric for metric, _ in families] == list(CATALOG)
    errors = dict(families)[CATALOG[[metric.name for metric in CATALOG].index("pagi_server_app_errors_total")]]
    assert errors == [
        ("", {"scope": "http"}, 0.0),
        ("", {"scope": "websocket"}, 0.0),
        ("", {"scope": "sse"}, 4.0),
        ("", {"scope": "lifespan"}, 0.0),
    ]


def test_a_snapshot_names_what_it_misses() -> None:
    store = Store(3)
    with pytest.raises(KeyError, match="did you mean"):
        store.snapshot().value("pagi_server_connection_total")
    with pytest.raises(KeyError, match="pagi_server_worker_up takes worker, one of none that lives"):
        store.snapshot().value("pagi_server_worker_up", worker="1")
    Worker(store, 1, 1)
    Worker(store, 3, 2)
    for labels in ({}, {"worker": "2"}, {"slot": "1"}, {"worker": "1", "state": "idle"}):
        with pytest.raises(KeyError, match="takes worker, one of 1, 3"):
            store.snapshot().value("pagi_server_worker_up", **labels)


def test_a_closed_store_keeps_its_snapshots_and_refuses_the_rest() -> None:
    store = Store(2)
    segment = Worker(store, 1, 1).count(1).segment
    snapshot = store.snapshot()
    store.close()
    store.close()
    assert of(snapshot, CONNECTIONS) == 1.0
    with pytest.raises(ValueError, match="released"):
        segment.add(CONNECTIONS, 1)
    with pytest.raises(ValueError, match="released"):
        store.snapshot()


def test_a_store_of_one_process_has_no_file_and_names_no_process() -> None:
    store = Store()
    Worker(store, 1, 1)
    assert store.fd == -1
    assert store.snapshot().pids == {}
    assert list(store.snapshot().application()) == []


# Over processes


@pytest.mark.parametrize("series", NUMBERS, ids=lambda one: "-".join([one.metric.name, *dict(one.labels).values()]))
def test_processes_become_one_number_as_the_catalog_says(share: Callable[[int], Store], series: catalog.Series) -> None:
    store = share(4)
    Worker(store, 2, 1).segment.set(series.index, 32.0)
    store.retire(2)
    store.parent.set(series.index, 1.0)
    Worker(store, 1, 2).segment.set(series.index, 4.0)
    Worker(store, 3, 3).segment.set(series.index, 8.0)
    snapshot = store.snapshot()
    metric = series.metric
    if metric.aggregation == "slot":
        found = {slot: snapshot.value(metric.name, worker=slot) for slot in ("1", "3")}
        # How long a loop stands is read when it is asked for, and these have not begun.
        assert found == ({"1": 0.0, "3": 0.0} if metric.name.endswith("_blocked_seconds") else {"1": 4.0, "3": 8.0})
        return
    expected = {
        ("counter", "sum"): 1.0 + 32.0 + 4.0 + 8.0,
        ("gauge", "sum"): 1.0 + 4.0 + 8.0,
        ("gauge", "max"): 8.0,
        ("gauge", "last"): 8.0,
        ("counter", "parent"): 1.0,
        ("gauge", "parent"): 1.0,
    }
    assert of(snapshot, series.index) == expected[metric.kind, metric.aggregation]


def test_a_worker_has_series_of_its_own_until_it_is_retired(share: Callable[[int], Store]) -> None:
    store = share(3)
    Worker(store, 2, 1)
    Worker(store, 3, 2).segment.set(UP, 0.0)
    assert live(store.snapshot()) == {"2": 1.0, "3": 0.0}
    store.retire(2)
    assert live(store.snapshot()) == {"3": 0.0}


def test_retiring_keeps_sums_and_drops_gauges(share: Callable[[int], Store]) -> None:
    store = share(2)
    Worker(store, 1, 1).count(5, active=3)
    Worker(store, 2, 2).count(7, active=1)
    store.retire(1)
    assert of(store.snapshot(), CONNECTIONS) == 12.0
    assert of(store.snapshot(), ACTIVE) == 1.0
    store.retire(2)
    assert of(store.snapshot(), CONNECTIONS) == 12.0
    assert of(store.snapshot(), ACTIVE) == 0.0


@pytest.mark.parametrize(("begun", "ended", "cut"), BALANCES)
def test_what_a_killed_worker_had_open_ends_with_it(
    share: Callable[[int], Store], begun: str, ended: str, cut: dict[str, str]
) -> None:
    store = share(2)
    one, two = Worker(store, 1, 1), Worker(store, 2, 2)
    other = next(one.index for one in SERIES if one.metric.name == ended and dict(one.labels) != cut)
    for worker, open_now in ((one, 3), (two, 0)):
        worker.segment.add(catalog.index(begun), 7)
        worker.segment.add(other, 5 - open_now)
        worker.segment.add(catalog.index(ended, **cut), 2)
    store.retire(1)
    assert store.snapshot().value(ended, **cut) == 2 + 3 + 2
    store.retire(2)
    snapshot = store.snapshot()
    assert snapshot.value(ended, **cut) == 2 + 3 + 2
    assert of(snapshot, other) == 2 + 5
    ends = [of(snapshot, series.index) for series in SERIES if series.metric.name == ended]
    assert sum(ends) == snapshot.value(begun) == 14


def test_the_startup_time_is_that_of_the_slowest_that_lives_or_of_the_last_that_ended(
    share: Callable[[int], Store],
) -> None:
    store = share(2)
    for slot, seconds in ((1, 5.0), (2, 3.0)):
        Worker(store, slot, slot).segment.set(STARTUP, seconds)
    assert of(store.snapshot(), STARTUP) == 5.0
    store.retire(1)
    assert of(store.snapshot(), STARTUP) == 3.0
    store.retire(2)
    assert of(store.snapshot(), STARTUP) == 3.0
    # One that ended before it had started has no time to tell of.
    Worker(store, 1, 3)
    store.retire(1)
    assert of(store.snapshot(), STARTUP) == 3.0


def test_the_shutdown_time_is_that_of_the_last_that_had_one(share: Callable[[int], Store]) -> None:
    store = share(2)
    one, two = Worker(store, 1, 1), Worker(store, 2, 2)
    one.segment.set(SHUTDOWN, 2.0)
    assert of(store.snapshot(), SHUTDOWN) == 2.0
    store.retire(1)
    assert of(store.snapshot(), SHUTDOWN) == 2.0
    two.segment.set(SHUTDOWN, 0.5)
    assert of(store.snapshot(), SHUTDOWN) == 0.5
    store.retire(2)
    assert of(store.snapshot(), SHUTDOWN) == 0.5
    # This one was killed.
    Worker(store, 1, 3)
    store.retire(1)
    assert of(store.snapshot(), SHUTDOWN) == 0.5


def test_a_retired_slot_is_as_new(share: Callable[[int], Store]) -> None:
    store = share(1)
    worker = Worker(store, 1, 7).count(5, active=2).do_jobs("mail", 3)
    worker.segment.name_process(4242)
    worker.segment.beat()
    store.retire(1)
    assert worker.segment.values() == [0.0] * PLACES
    assert (worker.segment.instance, worker.segment.pid, worker.segment.is_beating) == (0, 0, False)
    assert worker.segment.reader.read().groups == {}
    Worker(store, 1, 8).count(1).do_jobs("mail", 1)
    assert of(store.snapshot(), CONNECTIONS) == 6.0
    assert jobs(store.snapshot()) == {"mail": 4.0}


def test_the_application_s_metrics_outlive_their_worker(share: Callable[[int], Store]) -> None:
    store = share(2)
    Worker(store, 1, 1).do_jobs("mail", 2).do_jobs("", 4, BUSY)
    Worker(store, 2, 2).do_jobs("mail", 3).do_jobs("print", 1).do_jobs("", 5, BUSY)
    for retire in (lambda: None, lambda: store.retire(1), lambda: store.retire(2)):
        retire()
        assert jobs(store.snapshot()) == {"mail": 5.0, "print": 1.0}
    [busy] = [one.samples for one in store.snapshot().application() if one.family.name == BUSY.name]
    assert busy == []


def test_a_definition_that_gives_way_is_named(share: Callable[[int], Store]) -> None:
    store = share(1)
    Worker(store, 1, 1).do_jobs("mail", 2)
    assert store.retire(1) == []
    Worker(store, 1, 2).do_jobs("mail", 9, OTHER_JOBS)
    assert store.retire(1) == [JOBS.name]
    assert jobs(store.snapshot()) == {"mail": 9.0}


def test_what_found_no_room_in_the_end_is_counted(share: Callable[[int], Store]) -> None:
    store = share(2)
    seconds = Family("app_seconds", "histogram", labels=("queue",), bounds=(*map(str, range(5000)), "+Inf"))
    for slot in (1, 2):
        worker = Worker(store, slot, slot)
        for number in range(4):
            worker.do_jobs(f"{slot}.{number}", 1, seconds)
    store.retire(1)
    assert of(store.snapshot(), DROPPED) == 0.0
    store.retire(2)
    # Six times five thousand cells have room, and not eight.
    assert of(store.snapshot(), DROPPED) == 2.0
    [family] = store.snapshot().application()
    assert sum(sample.suffix == "_sum" for sample in family.samples) == 6


def test_a_thousand_retirements_keep_the_totals_and_free_everything(share: Callable[[int], Store]) -> None:
    store = share(3)
    connections = blocks = 0
    workers = {slot: Worker(store, slot, slot) for slot in (1, 2, 3)}
    instance = 3
    for turn in range(1000):
        slot = 1 + turn % 3
        workers[slot].count(turn, active=1).do_jobs("mail", 2)
        connections += turn
        store.retire(slot)
        instance += 1
        workers[slot] = Worker(store, slot, instance)
        if turn == 10:
            blocks = os.fstat(store.fd).st_blocks
    assert of(store.snapshot(), CONNECTIONS) == connections
    assert of(store.snapshot(), ACTIVE) == 0.0
    assert jobs(store.snapshot()) == {"mail": 2000.0}
    assert live(store.snapshot()) == {"1": 1.0, "2": 1.0, "3": 1.0}
    assert os.fstat(store.fd).st_blocks == blocks


# A loop that stands


def test_a_beat_tells_how_long_the_loop_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=100.0)
    clock.monotonic = lambda: clock.now
    for module in (segment_module, store_module):
        monkeypatch.setattr(module, "time", clock)
    store = Store()
    segment = Worker(store, 1, 1).segment
    assert segment.blocked_s(200.0) == 0.0
    segment.beat()
    assert segment.is_beating
    assert segment.blocked_s(103.0) == 3.0
    # The reader's clock was read before the beat.
    assert segment.blocked_s(99.0) == 0.0
    for now, blocked in ((100.0 + BEAT_S, 0.0), (110.0 + BEAT_S, 10.0)):
        clock.now = now
        # What is usual between two beats is no stall.
        assert store.snapshot().value("pagi_server_worker_blocked_seconds", worker="1") == blocked
    segment.beat()
    assert store.snapshot().value("pagi_server_worker_blocked_seconds", worker="1") == 0.0


# Several processes


def test_all_who_share_the_memory_see_the_same(share: Callable[[int], Store], attach: Callable[[Store], Store]) -> None:
    store = share(2)
    one, other = attach(store), attach(store)
    Worker(one, 1, 1).count(2, active=1).do_jobs("mail", 1)
    Worker(other, 2, 2).count(3).do_jobs("mail", 2)
    store.parent.add(SPAWNS, 2)
    store.slot(1).name_process(11)
    store.slot(2).name_process(22)
    for reader in (store, one, other):
        snapshot = reader.snapshot()
        assert (of(snapshot, CONNECTIONS), of(snapshot, ACTIVE), of(snapshot, SPAWNS)) == (5.0, 1.0, 2.0)
        assert jobs(snapshot) == {"mail": 3.0}
        assert snapshot.pids == {"parent": os.getpid(), "1": 11, "2": 22}
    store.retire(1)
    for reader in (store, one, other):
        snapshot = reader.snapshot()
        assert (of(snapshot, CONNECTIONS), of(snapshot, ACTIVE)) == (5.0, 0.0)
        assert jobs(snapshot) == {"mail": 3.0}
        assert snapshot.pids == {"parent": os.getpid(), "2": 22}


def test_what_interrupts_a_reader_may_read_as_well(share: Callable[[int], Store]) -> None:
    """As a finalizer or a signal handler of the application does, wherever it comes; with a lock it would wait."""
    store = share(2)
    worker = Worker(store, 1, 1).count(1).do_jobs("mail", 1)
    store.snapshot()
    worker.do_jobs("mail", 1).do_jobs("fax", 5)
    Worker(store, 2, 2).do_jobs("mail", 3)
    told: list[dict[str, float]] = []

    def read() -> None:
        told.append(jobs(store.snapshot()))

    def read_interrupted() -> None:
        with stopping_at_each_line({store_module.__file__, reader_module.__file__}, read):
            read()

    # One that waits for itself does so for ever.
    thread = threading.Thread(target=read_interrupted, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    told.append(jobs(store.snapshot()))
    assert len(told) > 50
    assert all(one == {"mail": 5.0, "fax": 5.0} for one in told)


def test_a_store_closes_its_file(share: Callable[[int], Store]) -> None:
    fd = os.dup(share(1).fd)
    store = Store.attach(fd)
    store.close()
    store.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


# The first bucket of each histogram is another.
OTHER_BUCKETS = tuple(
    replace(one, metric=replace(one.metric, buckets=(1e-9, *one.metric.buckets[1:]))) if one.metric.buckets else one
    for one in SERIES
)


@pytest.mark.parametrize(
    ("name", "other"),
    [("SERIES", SERIES[::-1]), ("SERIES", OTHER_BUCKETS), ("HEAD", store_module.HEAD + 1)],
    ids=["in another order", "with other buckets", "with another head"],
)
def test_a_store_of_another_layout_is_refused(
    share: Callable[[int], Store], monkeypatch: pytest.MonkeyPatch, name: str, other: object
) -> None:
    fd = os.dup(share(1).fd)
    with monkeypatch.context() as upgraded:
        upgraded.setattr(store_module, name, other)
        with pytest.raises(WorkerError, match="was upgraded under the running server; stop it, and start it anew"):
            Store.attach(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@contextmanager
def child(program: str, store: Store) -> Iterator[subprocess.Popen[str]]:
    """Run a program in an interpreter of its own, which takes longer than a quarter second, over the same memory."""
    lines = "import sys\nfrom pagi_trio.metrics import catalog\nfrom pagi_trio.metrics.store import Store\n"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{lines}store = Store.attach({store.fd})\n{program}"],
        pass_fds=[store.fd],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(store_module.__file__).parents[2])},
    )
    with process:
        assert process.stdin is not None
        try:
            yield process
        finally:
            process.stdin.close()
            assert process.wait(10) == 0


def ask(process: subprocess.Popen[str]) -> list[str]:
    """Have a child go on, and return what it says."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().split()


TALKING = """
connections = catalog.index("pagi_server_connections_total")
store.slot(1).add(connections, 4)
for _ in sys.stdin:
    snapshot = store.snapshot()
    print(snapshot.value("pagi_server_connections_total"), snapshot.pids, flush=True)
    store.slot(1).add(connections, 1)
"""


def test_another_process_counts_in_the_same_memory(share: Callable[[int], Store]) -> None:
    store = share(2)
    store.slot(1).occupy(1)
    Worker(store, 2, 2).count(10)
    with child(TALKING, store) as process:
        store.slot(1).name_process(process.pid)
        total, *pids = ask(process)
        assert total == "14.0"
        assert f"'1': {process.pid}," in " ".join(pids)
        store.retire(2)
        assert ask(process)[0] == "15.0"
    # What it has counted outlives it.
    assert of(store.snapshot(), CONNECTIONS) == 16.0
    store.retire(1)
    assert of(store.snapshot(), CONNECTIONS) == 16.0


READING = """
import threading
told = threading.Event()
reader = threading.Thread(target=lambda: (sys.stdin.readline(), told.set()))
print(flush=True)
reader.start()
reads, seen = 0, set()
while not told.is_set() or reads < 1000:
    snapshot = store.snapshot()
    [app] = [sum(one.value for one in family.samples) for family in snapshot.application()]
    seen.add((snapshot.value("pagi_server_connections_total"), app))
    reads += 1
print(*seen, flush=True)
reader.join()
"""


def test_a_process_that_reads_all_the_time_sees_no_retirement(share: Callable[[int], Store]) -> None:
    store = share(4)
    for slot in (1, 2, 3, 4):
        Worker(store, slot, slot).count(10 * slot).do_jobs(str(slot), slot)
    with child(READING, store) as process:
        assert process.stdout is not None
        process.stdout.readline()
        for turn in range(300):
            store.retire(1 + turn % 4)
            Worker(store, 1 + turn % 4, 5 + turn)
        assert ask(process) == ["(100.0,", "10.0)"]


# Anything, in any order


class Processes(RuleBasedStateMachine):
    """Workers that come, count, die and are retired, while three readers look."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store(3, shared=True)
        self.readers = [self.store, *(Store.attach(os.dup(self.store.fd)) for _ in range(2))]
        self.alive: dict[int, Worker] = {}
        self.dead: dict[int, Worker] = {}
        self.instance = 0
        self.connections = 0
        self.jobs: dict[str, float] = {}
        self.active: dict[int, int] = {}
        self.shutdown = 0.0

    def teardown(self) -> None:
        for store in self.readers:
            store.close()

    @precondition(lambda self: len(self.active) < 3)
    @rule(which=st.integers(0, 2))
    def spawn(self, which: int) -> None:
        free = sorted({1, 2, 3} - self.active.keys())
        slot = free[which % len(free)]
        self.instance += 1
        self.alive[slot] = Worker(self.store, slot, self.instance)
        self.active[slot] = 0

    @precondition(lambda self: self.alive)
    @rule(which=st.integers(0, 2), connections=st.integers(0, 2**40), queue=st.sampled_from("abc"))
    def count(self, which: int, connections: int, queue: str) -> None:
        slot = sorted(self.alive)[which % len(self.alive)]
        self.alive[slot].count(connections, active=1).do_jobs(queue, connections)
        self.active[slot] += 1
        self.connections += connections
        self.jobs[queue] = self.jobs.get(queue, 0.0) + connections

    @precondition(lambda self: self.alive)
    @rule(which=st.integers(0, 2), shutdown=st.none() | st.floats(0.001, 60))
    def die(self, which: int, shutdown: float | None) -> None:
        slot = sorted(self.alive)[which % len(self.alive)]
        self.dead[slot] = worker = self.alive.pop(slot)
        if shutdown is not None:
            worker.segment.set(SHUTDOWN, shutdown)

    @precondition(lambda self: self.dead)
    @rule(which=st.integers(0, 2))
    def retire(self, which: int) -> None:
        slot = sorted(self.dead)[which % len(self.dead)]
        self.shutdown = self.dead.pop(slot).segment.get(SHUTDOWN) or self.shutdown
        assert self.store.retire(slot) == []
        del self.active[slot]

    @rule(which=st.integers(1, 2))
    def attach_anew(self, which: int) -> None:
        self.readers[which].close()
        self.readers[which] = Store.attach(os.dup(self.store.fd))

    @rule(which=st.integers(0, 2))
    def read(self, which: int) -> None:
        self.check(self.readers[which])

    @invariant()
    def the_first_reader_always_reads(self) -> None:
        self.check(self.store)

    def check(self, reader: Store) -> None:
        snapshot = reader.snapshot()
        assert of(snapshot, CONNECTIONS) == self.connections
        assert lasted(snapshot) == (self.connections, 2.0 * self.connections)
        assert jobs(snapshot) == self.jobs
        assert of(snapshot, ACTIVE) == sum(self.active.values())
        assert live(snapshot).keys() == {str(slot) for slot in self.active}
        waiting = [worker.segment.get(SHUTDOWN) for worker in self.dead.values()]
        assert of(snapshot, SHUTDOWN) == (max(waiting, default=0.0) or self.shutdown)


TestProcesses = Processes.TestCase
TestProcesses.settings = settings(max_examples=30, stateful_step_count=30)
