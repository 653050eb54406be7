"""Histograms of the catalog: what is counted in which bucket, over processes that come and go."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

import pagi_trio.metrics.segment as segment_module
import pagi_trio.metrics.store as store_module
from pagi_trio.metrics import catalog
from pagi_trio.metrics.application.aggregation import Sample
from pagi_trio.metrics.balance import BALANCES, STREAMS, Balance
from pagi_trio.metrics.catalog import SERIES
from pagi_trio.metrics.histogram import histogram
from pagi_trio.metrics.meter import Meter
from pagi_trio.metrics.store import Store

from .stores import Worker, of, stopping_at_each_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from pagi_trio.metrics.snapshot import Snapshot

NAME = "pagi_server_connection_seconds"
SECONDS = histogram(NAME)
BOUNDS = SECONDS.series.metric.buckets


def buckets(snapshot: Snapshot, name: str = NAME) -> dict[str, float]:
    """Return the buckets as they stand on the page."""
    [samples] = [samples for metric, samples in snapshot if metric.name == name]
    return {one.labels["le"]: one.value for one in samples if one.suffix == "_bucket"}


# One process


@pytest.mark.parametrize(
    ("value", "le"), [(0.0, "0.01"), (0.01, "0.01"), (0.0100001, "0.1"), (3600.0, "3600.0"), (3600.1, "+Inf")]
)
def test_a_value_is_in_the_first_bucket_that_is_not_below_it(value: float, le: str) -> None:
    store = Store()
    SECONDS.observe(store.parent, value)
    found = buckets(store.snapshot())
    assert next(bound for bound, count in found.items() if count) == le
    assert set(found.values()) <= {0.0, 1.0}
    assert store.snapshot().value(f"{NAME}_sum") == value


def test_the_samples_are_cumulative_and_in_the_order_of_the_page() -> None:
    store = Store()
    for value in (0.5, 0.5, 20.0, 9999.0):
        SECONDS.observe(store.parent, value)
    [samples] = [samples for metric, samples in store.snapshot() if metric.name == NAME]
    counts = {"0.01": 0, "0.1": 0, "1.0": 2, "10.0": 2, "60.0": 3, "300.0": 3, "3600.0": 3, "+Inf": 4}
    assert samples == [
        *(Sample("_bucket", {"le": le}, count) for le, count in counts.items()),
        Sample("_count", {}, 4),
        Sample("_sum", {}, 10_020.0),
    ]


def test_one_number_of_it_is_read_by_the_name_of_its_sample() -> None:
    store = Store()
    SECONDS.observe(store.parent, 2.0, times=3)
    snapshot = store.snapshot()
    assert snapshot.value(f"{NAME}_count") == 3
    assert snapshot.value(f"{NAME}_sum") == 6.0
    for le, count in (("1", 0), ("1.0", 0), ("10", 3), ("1e1", 3), ("+Inf", 3), ("inf", 3)):
        assert snapshot.value(f"{NAME}_bucket", le=le) == count


@pytest.mark.parametrize(
    ("part", "labels", "said"),
    [
        ("", {}, f"{NAME} is a histogram, with {NAME}_bucket, {NAME}_count, {NAME}_sum"),
        ("_bucket", {"le": "5"}, f"{NAME}_bucket has no le='5'; it is one of 0.01, 0.1, 1.0, 10.0, 60.0, "),
        ("_bucket", {"le": "five"}, f"{NAME}_bucket has no le='five'; it is one of "),
        ("_bucket", {}, f"{NAME}_bucket has no le=None; it is one of "),
        ("_bucket", {"le": "1", "code": "1000"}, f"{NAME} takes no labels; got code"),
        ("_count", {"le": "1"}, f"{NAME} takes no labels; got le"),
        ("_total", {}, "no metric"),
    ],
)
def test_what_it_does_not_have_is_told_what_it_has(part: str, labels: dict[str, str], said: str) -> None:
    with pytest.raises(KeyError) as caught:
        Store().snapshot().value(NAME + part, **labels)
    assert said in caught.value.args[0]


# Over processes


def test_processes_are_added_up_bucket_by_bucket_and_outlive_their_worker(share: Callable[[int], Store]) -> None:
    store = share(2)
    for slot, values in ((1, (0.5, 20.0)), (2, (0.5, 9999.0))):
        worker = Worker(store, slot, slot)
        for value in values:
            SECONDS.observe(worker.segment, value)
    SECONDS.observe(store.parent, 0.001)
    counts = [1, 1, 3, 3, 4, 4, 4, 5]
    for retire in (list, lambda: store.retire(1), lambda: store.retire(2)):
        retire()
        snapshot = store.snapshot()
        assert list(buckets(snapshot).values()) == counts
        assert snapshot.value(f"{NAME}_count") == 5
        assert snapshot.value(f"{NAME}_sum") == 10_020.001


@given(
    durations=st.lists(st.lists(st.floats(0, 1e7), max_size=6), min_size=3, max_size=3),
    order=st.lists(st.integers(1, 3), max_size=8),
)
@settings(max_examples=60)
def test_a_sum_is_exact_and_never_steps_back_whoever_dies_first(durations: list[list[float]], order: list[int]) -> None:
    store = Store(3, shared=True)
    for slot, values in enumerate(durations, 1):
        worker = Worker(store, slot, slot)
        for value in values:
            SECONDS.observe(worker.segment, value)
    parts = [sum((Fraction(0), *(Fraction(store.slot(slot).values()[SECONDS.total]),))) for slot in (1, 2, 3)]
    exact = float(sum(parts, Fraction(0)))
    for instance, slot in enumerate(order, 4):
        store.retire(slot)
        Worker(store, slot, instance)
        snapshot = store.snapshot()
        assert snapshot.value(f"{NAME}_sum") == exact
        assert snapshot.value(f"{NAME}_count") == sum(map(len, durations))
    store.close()


# What a killed worker had open


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=1000.0)
    clock.monotonic = lambda: clock.now
    for module in (segment_module, store_module):
        monkeypatch.setattr(module, "time", clock)
    return clock


def name_of(balance: Balance) -> str:
    return balance.lasted.series.metric.name


@pytest.mark.parametrize("balance", BALANCES, ids=name_of)
def test_what_a_killed_worker_had_open_lasted_its_mean_time(
    share: Callable[[int], Store], clock: SimpleNamespace, balance: Balance
) -> None:
    store = share(2)
    Worker(store, 1, 1).segment.start_clock()
    other = Worker(store, 2, 2).segment
    other.start_clock()
    other.begin(balance, 90.0)
    segment = store.slot(1)
    for at in (0.0, 30.0, 90.0):
        segment.begin(balance, at)
    segment.add(balance.ended[0])
    segment.end(balance, 90.0, 95.0)
    clock.now += 100.0
    store.retire(1)
    snapshot = store.snapshot()
    name = name_of(balance)
    assert snapshot.value(f"{name}_count") == 3
    # One has lasted 100 and one 70 seconds.
    assert snapshot.value(f"{name}_sum") == 5.0 + 170.0
    assert snapshot.value(f"{name}_bucket", le="60") == 1
    assert snapshot.value(f"{name}_bucket", le="300") == 3
    assert of(snapshot, balance.active) == 1
    # Nothing of that is left for the next in either slot.
    Worker(store, 1, 3).segment.start_clock()
    store.retire(1)
    assert store.snapshot().value(f"{name}_sum") == 175.0
    clock.now += 10.0
    store.retire(2)
    assert store.snapshot().value(f"{name}_count") == 4
    assert store.snapshot().value(f"{name}_sum") == 175.0 + 20.0


class KilledError(Exception):
    """Nothing is done any more."""


def test_who_was_killed_between_two_steps_of_counting_is_made_up_for(
    share: Callable[[int], Store], clock: SimpleNamespace
) -> None:
    step = 0
    is_killed = True
    while is_killed:
        step += 1
        store = share(1)
        segment = Worker(store, 1, 1).segment
        segment.start_clock()
        segment.begin(STREAMS, 10.0)
        lines = 0

        def kill(step: int = step) -> None:
            nonlocal lines
            lines += 1
            if lines == step:
                raise KilledError

        try:
            with stopping_at_each_line({segment_module.__file__}, kill):
                segment.begin(STREAMS, 50.0)
                segment.add(STREAMS.ended[0])
                segment.end(STREAMS, 50.0, 50.5)
            is_killed = False
        except KilledError:
            pass
        clock.now += 55.0
        store.retire(1)
        snapshot = store.snapshot()
        begun = snapshot.value("pagi_sse_connections_total")
        assert begun in {1, 2}
        assert sum(of(snapshot, place) for place in STREAMS.ended) == begun, f"killed at line {step}"
        assert snapshot.value("pagi_sse_stream_seconds_count") == begun, f"killed at line {step}"
        assert of(snapshot, STREAMS.active) == 0
        # Too little at worst, never what was not.
        assert 0 <= snapshot.value("pagi_sse_stream_seconds_sum") <= 50.0, f"killed at line {step}"
        store.close()
    assert step > 12
    assert snapshot.value("pagi_sse_stream_seconds_sum") == 0.5 + 45.0


def test_a_killed_worker_s_clock_is_trio_s_from_its_start_on(
    share: Callable[[int], Store], clock: SimpleNamespace
) -> None:
    store = share(1)
    Worker(store, 1, 1)
    trios = trio.testing.MockClock()

    def let_pass(seconds: float) -> None:
        trios.jump(seconds)
        clock.now += seconds

    async def work() -> None:
        let_pass(1000.0)
        meter = Meter(store, 1, is_owner=False)
        meter.start_clock(trio.current_time())
        let_pass(10.0)
        since = meter.begin(STREAMS)
        meter.begin(STREAMS)
        let_pass(2.5)
        meter.add(STREAMS.ended[0])
        meter.end(STREAMS, since)

    trio.run(work, clock=trios)
    assert store.snapshot().value("pagi_sse_stream_seconds_sum") == 2.5
    clock.now += 100.0
    store.retire(1)
    assert store.snapshot().value("pagi_sse_stream_seconds_sum") == 2.5 + 102.5


def test_a_worker_whose_clock_has_not_begun_had_nothing_open_for_long(share: Callable[[int], Store]) -> None:
    store = share(1)
    Worker(store, 1, 1)
    store.slot(1).begin(STREAMS, 0.0)
    store.retire(1)
    assert store.snapshot().value("pagi_sse_stream_seconds_count") == 1
    assert store.snapshot().value("pagi_sse_stream_seconds_sum") == 0.0


def test_every_balance_has_a_counter_of_each_of_its_ends_and_one_for_the_killed() -> None:
    by_place = {series.index: series for series in SERIES}
    for balance in BALANCES:
        names = {by_place[place].metric.name for place in balance.ended}
        assert len(names) == 1
        assert balance.cut in balance.ended
        assert balance.opened >= catalog.PLACES
    assert len({balance.opened for balance in BALANCES}) == len(BALANCES)
