"""A worker's retirement is one step to every reader, though the parent takes many and may stop at any of them."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pagi_trio.metrics.store as store_module
from pagi_trio.metrics import balance, histogram, segment
from pagi_trio.metrics.application import aggregation, region
from pagi_trio.metrics.application.region import Family
from pagi_trio.metrics.balance import PLACES
from pagi_trio.metrics.segment import Segment
from pagi_trio.metrics.store import Store

from .stores import (
    ACTIVE,
    CONNECTIONS,
    JOBS,
    OTHER_JOBS,
    SHUTDOWN,
    Worker,
    jobs,
    lasted,
    live,
    of,
    stopping_at_each_line,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pagi_trio.metrics.snapshot import Snapshot

# The code that touches the memory.
FILES = {module.__file__ for module in (store_module, aggregation, balance, histogram, region, segment)}


def test_a_reader_that_was_overtaken_reads_again(
    share: Callable[[int], Store], attach: Callable[[Store], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = share(2)
    reader = attach(store)
    Worker(store, 1, 1).count(5).do_jobs("mail", 1)
    Worker(store, 2, 2).count(7).do_jobs("mail", 2)
    values = Segment.values
    reads: list[Segment] = []
    # And not the parent, which reads what it retires.
    is_reading = True

    def retiring(segment: Segment) -> list[float]:
        nonlocal is_reading
        if not is_reading:
            return values(segment)
        reads.append(segment)
        if len(reads) == 3:
            # The parent and the retired have been read, the worker in slot 1 is being read.
            is_reading = False
            store.retire(1)
            is_reading = True
        return values(segment)

    monkeypatch.setattr(Segment, "values", retiring)
    snapshot = reader.snapshot()
    assert len(reads) == 4 + 3
    assert of(snapshot, CONNECTIONS) == 12.0
    assert jobs(snapshot) == {"mail": 3.0}
    assert live(snapshot) == {"2": 1.0}


@pytest.mark.parametrize("has_read", [False, True], ids=["at its first reading", "at a later one"])
@pytest.mark.parametrize("retirements", [1, 2, 3])
def test_a_reader_may_be_overtaken_at_any_line(
    share: Callable[[int], Store], attach: Callable[[Store], Store], retirements: int, *, has_read: bool
) -> None:
    step = 0
    overtaken = True
    while overtaken:
        step += 1
        store = share(2)
        reader = attach(store)
        # Both retired segments have been in use already.
        for instance in (1, 2, 3):
            Worker(store, 1, instance).count(1).do_jobs("mail", 1)
            store.retire(1)
        Worker(store, 1, 4).count(10, active=1).do_jobs("mail", 10)
        Worker(store, 2, 5).count(20, active=2).do_jobs("mail", 20)
        if has_read:
            reader.snapshot()
        lines = 0

        def overtake(step: int = step, store: Store = store) -> None:
            nonlocal lines
            lines += 1
            if lines == step:
                for number in range(retirements):
                    store.retire(1)
                    # The next one has counted nothing yet, so that the totals stay.
                    Worker(store, 1, 6 + number)

        with stopping_at_each_line(FILES, overtake):
            snapshot = reader.snapshot()
        overtaken = lines >= step
        assert of(snapshot, CONNECTIONS) == 33.0, f"overtaken at line {step} of the reader"
        assert lasted(snapshot) == (33.0, 66.0), f"overtaken at line {step} of the reader"
        assert jobs(snapshot) == {"mail": 33.0}, f"overtaken at line {step} of the reader"
        # It may have been too late to be seen.
        assert of(snapshot, ACTIVE) in {2.0, 3.0}
        assert of(reader.snapshot(), ACTIVE) == (2.0 if overtaken else 3.0)
        store.close()
        reader.close()
    assert step > 30


def test_a_reader_that_is_overtaken_every_time_gives_its_last_whole_reading(
    share: Callable[[int], Store], attach: Callable[[Store], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = share(1)
    reader = attach(store)
    Worker(store, 1, 1).count(5)
    assert of(reader.snapshot(), CONNECTIONS) == 5.0
    values = Segment.values
    others = 0
    is_reading = True

    def retiring(segment: Segment) -> list[float]:
        nonlocal others, is_reading
        row = values(segment)
        if is_reading:
            others += 1
            is_reading = False
            store.retire(1)
            is_reading = True
            Worker(store, 1, 1 + others).count(100)
        return row

    with monkeypatch.context() as busy:
        busy.setattr(Segment, "values", retiring)
        assert of(reader.snapshot(), CONNECTIONS) == 5.0
    assert others > 100
    assert of(reader.snapshot(), CONNECTIONS) == 5.0 + 100.0 * others


class Observed:
    """Readers that look at the store whenever they are asked to, and know what they must see.

    One has read each time before, one reads every now and then, and one has only just come.

    Attributes:
        busy: A worker that goes on counting.
        seen: The slots in use, whenever they were others than before.
    """

    def __init__(self, store: Store, attach: Callable[[Store], Store]) -> None:
        self._store = store
        self._often = attach(store)
        self._seldom = attach(store)
        self.busy: Worker
        self.connections = 0
        self.jobs = {"mail": 0.0}
        self.shutdown = 0.0
        self.looks = 0
        self.seen: list[frozenset[str]] = []

    def look(self) -> None:
        self.looks += 1
        # Whatever the parent does or does not, the workers go on.
        self.busy.count(1).do_jobs("mail", 1)
        self.connections += 1
        self.jobs["mail"] += 1
        self._check(self._often)
        if self.looks % 7 == 0:
            self._check(self._seldom)
        if self.looks % 5 == 0:
            newcomer = Store.attach(os.dup(self._store.fd))
            self._check(newcomer)
            newcomer.close()

    def _check(self, reader: Store) -> None:
        snapshot = reader.snapshot()
        assert of(snapshot, CONNECTIONS) == self.connections
        assert lasted(snapshot) == (self.connections, 2.0 * self.connections)
        assert jobs(snapshot) == self.jobs
        assert of(snapshot, SHUTDOWN) == self.shutdown
        workers = live(snapshot)
        # A gauge goes in the same moment as its worker: each has as many as its slot says.
        assert of(snapshot, ACTIVE) == sum(int(slot) for slot in workers)
        assert snapshot.pids.keys() - {"parent"} == workers.keys()
        if not self.seen or self.seen[-1] != workers.keys():
            self.seen.append(frozenset(workers))


def test_a_parent_may_stop_at_any_line_of_a_retirement(
    share: Callable[[int], Store], attach: Callable[[Store], Store]
) -> None:
    store = share(3)
    observed = Observed(store, attach)
    instance = 0

    def spawn(slot: int) -> Worker:
        nonlocal instance
        instance += 1
        worker = Worker(store, slot, instance)
        worker.count(instance, active=slot).do_jobs(f"queue {slot}", instance)
        observed.connections += instance
        observed.jobs[f"queue {slot}"] = observed.jobs.get(f"queue {slot}", 0.0) + instance
        return worker

    workers = {slot: spawn(slot) for slot in (1, 2, 3)}
    everybody = frozenset("123")
    # More often than there are retired segments, so that each is read, prepared and read again.
    for turn, slot in enumerate((2, 1, 2, 3)):
        observed.busy = workers[1 + slot % 3]
        observed.shutdown = turn + 1.0
        store.slot(slot).set(SHUTDOWN, observed.shutdown)
        observed.seen.clear()
        before = observed.looks
        with stopping_at_each_line(FILES, observed.look):
            store.retire(slot)
        observed.look()
        assert observed.looks - before > PLACES
        assert observed.seen == [everybody, everybody - {str(slot)}]
        workers[slot] = spawn(slot)
        observed.look()


def test_a_parent_may_stop_at_any_line_while_a_definition_gives_way(
    share: Callable[[int], Store], attach: Callable[[Store], Store]
) -> None:
    store = share(2)
    reader = attach(store)
    Worker(store, 1, 1).do_jobs("mail", 2).do_jobs("mail", 5, Family("app_other", "counter", labels=("queue",)))
    store.retire(1)
    Worker(store, 1, 2).do_jobs("mail", 9, OTHER_JOBS)

    def look() -> None:
        snapshot = reader.snapshot()
        # The newest definition holds from the moment in which it is known.
        assert jobs(snapshot) == {"mail": 9.0}
        assert jobs(snapshot, "app_other") == {"mail": 5.0}

    with stopping_at_each_line(FILES, look):
        assert store.retire(1) == [JOBS.name]
    look()


class Stepping:
    """A call in a thread of its own that runs as many lines of that code as it is told to."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._lines = 0
        self._has_ended = False
        self._go = threading.Semaphore(0)
        self._stopped = threading.Semaphore(0)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def step(self, lines: int) -> None:
        """Let it run so many lines; returns once it stands still."""
        if not self._has_ended:
            self._lines = lines
            self._go.release()
            self._stopped.acquire()

    def finish(self) -> None:
        """Let it run to its end."""
        self.step(1_000_000)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        self._go.acquire()
        try:
            with stopping_at_each_line(FILES, self._stop):
                self._call()
        except BaseException as error:
            self._error = error
        self._has_ended = True
        self._stopped.release()

    def _stop(self) -> None:
        if self._lines == 0:
            self._stopped.release()
            self._go.acquire()
        self._lines -= 1


TURNS = st.lists(st.tuples(st.sampled_from(["parent", "reader"]), st.integers(1, 400)), max_size=12)


@given(turns=TURNS, has_read=st.booleans(), gives_way=st.booleans())
@settings(max_examples=40)
def test_a_parent_and_a_reader_may_take_turns_at_any_lines(
    turns: list[tuple[str, int]], *, has_read: bool, gives_way: bool
) -> None:
    store = Store(3, shared=True)
    reader = Store.attach(os.dup(store.fd))
    for instance in (1, 2, 3):
        Worker(store, 1, instance).count(1).do_jobs("mail", 1)
        store.retire(1)
    Worker(store, 1, 4).count(10).do_jobs("mail", 10)
    Worker(store, 2, 5).count(20).do_jobs("mail", 20)
    if gives_way:
        Worker(store, 3, 6).do_jobs("mail", 9, OTHER_JOBS)
    expected = 33.0, (33.0, 66.0), {"mail": 9.0 if gives_way else 33.0}
    if has_read:
        reader.snapshot()
    snapshots: list[Snapshot] = []

    def retire_all() -> None:
        for number, slot in enumerate((3, 1, 2) if gives_way else (1, 2)):
            store.retire(slot)
            Worker(store, slot, 7 + number)

    sides = {"parent": Stepping(retire_all), "reader": Stepping(lambda: snapshots.append(reader.snapshot()))}
    for side, lines in turns:
        sides[side].step(lines)
    for stepping in sides.values():
        stepping.finish()
    for snapshot in (*snapshots, reader.snapshot()):
        assert (of(snapshot, CONNECTIONS), lasted(snapshot), jobs(snapshot)) == expected
    store.close()
    reader.close()
