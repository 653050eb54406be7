from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from pagi_trio.metrics import catalog
from pagi_trio.metrics.flush import Flush
from pagi_trio.metrics.store import Store
from pagi_trio.metrics.tally import EventTally, MessageTally, Tally

if TYPE_CHECKING:
    from collections.abc import Callable

WEBSOCKET = {
    "received": "pagi_websocket_messages_received_total",
    "received_bytes": "pagi_websocket_bytes_received_total",
    "sent": "pagi_websocket_messages_sent_total",
    "sent_bytes": "pagi_websocket_bytes_sent_total",
}
COMMENTS = "pagi_sse_comments_sent_total"
SSE = {"sent": "pagi_sse_events_sent_total", "sent_bytes": "pagi_sse_bytes_sent_total", "comments": COMMENTS}


class Bench:
    """A flush over a store of its own, and what was counted, kept apart."""

    def __init__(self) -> None:
        self.store = Store()
        self.flush = Flush(self.store.parent, 0.05)
        self.tallies = [
            (names, self.flush.tally(kind, *map(catalog.index, names.values())))
            for names, kind in ((WEBSOCKET, MessageTally), (SSE, EventTally))
        ]
        self.counted = dict.fromkeys([*WEBSOCKET.values(), *SSE.values()], 0)

    def count(self, which: int, direction: str, size: int) -> None:
        names, tally = self.tallies[which]
        if isinstance(tally, MessageTally):
            getattr(tally, direction).append(size)
        else:
            tally.sent += 1
            tally.sent_bytes += size
            tally.count_comments(size % 3)
            self.counted[COMMENTS] += size % 3
        self.counted[names[direction]] += 1
        self.counted[names[f"{direction}_bytes"]] += size
        if not tally.dirty:
            tally.mark()

    def folded(self, name: str) -> float:
        return self.store.snapshot().value(name)

    def check(self) -> None:
        """The invariant: counted = folded + waiting."""
        for names, tally in self.tallies:
            for field, name in names.items():
                assert self.counted[name] == self.folded(name) + waiting(tally, field)

    def check_all_folded(self) -> None:
        for name, amount in self.counted.items():
            assert self.folded(name) == amount


def waiting(tally: MessageTally | EventTally, field: str) -> int:
    """What a tally has counted and nobody has folded."""
    if isinstance(tally, EventTally):
        return int(getattr(tally, field))
    sizes = getattr(tally, field.removesuffix("_bytes"))
    return sum(sizes) if field.endswith("_bytes") else len(sizes)


COUNT = st.tuples(
    st.just("count"),
    st.sampled_from([(0, "received"), (0, "sent"), (1, "sent")]),
    st.integers(0, 1 << 40),
)
STEP = st.one_of(
    COUNT,
    COUNT,
    st.tuples(st.just("fold")),
    st.tuples(st.just("yield")),
    st.tuples(st.just("sleep"), st.sampled_from([0.02, 0.05, 0.2])),
    st.tuples(st.just("cancel")),
    st.tuples(st.just("run")),
)


@given(steps=st.lists(STEP, max_size=25))
@settings(max_examples=40)
def test_counted_is_folded_plus_waiting_at_every_moment(steps: list[tuple[object, ...]]) -> None:
    async def scenario() -> None:
        bench = Bench()
        running: list[trio.CancelScope] = []

        async def run() -> None:
            with trio.CancelScope() as scope:
                running.append(scope)
                await bench.flush.run()
            bench.check_all_folded()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            for step in steps:
                match step:
                    case ("count", (int() as which, str() as direction), int() as size):
                        bench.count(which, direction, size)
                    case ("fold",):
                        bench.flush.fold_all()
                        bench.check_all_folded()
                    case ("yield",):
                        await trio.lowlevel.checkpoint()
                    case ("sleep", float() as seconds):
                        await trio.sleep(seconds)
                    case ("cancel",):
                        for scope in running:
                            scope.cancel()
                    case _:
                        nursery.start_soon(run)
                bench.check()
            await trio.testing.wait_all_tasks_blocked()
            for scope in running:
                scope.cancel()
        bench.flush.fold_all()
        bench.check_all_folded()

    trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))


def run(scenario: Callable[[Bench, trio.Nursery], object], *, task: bool = True) -> None:
    """Run a scenario beside the flush task, on a clock that jumps."""

    async def main() -> None:
        bench = Bench()
        async with trio.open_nursery() as nursery:
            if task:
                nursery.start_soon(bench.flush.run)
                await trio.testing.wait_all_tasks_blocked()
            await scenario(bench, nursery)  # type: ignore[misc]
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_the_task_folds_one_interval_after_the_first_count() -> None:
    async def scenario(bench: Bench, nursery: trio.Nursery) -> None:
        bench.count(0, "sent", 10)
        await trio.sleep(0.04)
        bench.count(0, "sent", 10)
        assert bench.folded(WEBSOCKET["sent"]) == 0
        await trio.sleep(0.02)
        assert bench.folded(WEBSOCKET["sent"]) == 2
        assert bench.folded(WEBSOCKET["sent_bytes"]) == 20
        assert bench.folded("pagi_metrics_flushes_total") == 1

    run(scenario)


def test_a_fold_finds_the_tally_that_was_handed_to_the_task_but_not_yet_taken_by_it() -> None:
    async def scenario(bench: Bench, nursery: trio.Nursery) -> None:
        bench.count(0, "received", 3)
        bench.flush.fold_all()
        assert bench.folded(WEBSOCKET["received"]) == 1

    run(scenario)


def test_a_fold_during_the_interval_leaves_nothing_to_count_twice() -> None:
    async def scenario(bench: Bench, nursery: trio.Nursery) -> None:
        bench.count(1, "sent", 3)
        await trio.sleep(0.01)
        bench.flush.fold_all()
        await trio.sleep(1)
        bench.check_all_folded()
        assert bench.folded("pagi_metrics_flushes_total") == 1

    run(scenario)


def test_the_task_sleeps_while_there_is_nothing_to_fold() -> None:
    async def scenario(bench: Bench, nursery: trio.Nursery) -> None:
        ticks = 0

        def tick() -> None:
            nonlocal ticks
            ticks += 1

        bench.flush.samplers.append(tick)
        await trio.sleep(10)
        assert ticks == 0
        assert bench.folded("pagi_metrics_flushes_total") == 0

    run(scenario)


def test_cancelling_the_task_folds_what_waits() -> None:
    async def scenario(bench: Bench, nursery: trio.Nursery) -> None:
        bench.count(0, "sent", 5)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
            bench.check_all_folded()
            assert bench.folded(WEBSOCKET["sent"]) == 1

    run(scenario)


def test_samplers_write_before_the_snapshot_also_when_nothing_was_counted() -> None:
    async def scenario(bench: Bench, nursery: trio.Nursery) -> None:
        idle = catalog.index("pagi_server_connections_by_state", state="idle")
        bench.flush.samplers.append(lambda: bench.store.parent.set(idle, 3.0))
        bench.flush.fold_all()
        assert bench.store.snapshot().value("pagi_server_connections_by_state", state="idle") == 3.0
        assert bench.folded("pagi_metrics_flushes_total") == 0

    run(scenario)


def test_a_raising_sampler_is_counted_logged_once_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> None:
        raise RuntimeError("no")

    async def scenario(bench: Bench, nursery: trio.Nursery) -> None:
        sampled: list[int] = []
        bench.flush.samplers += [broken, lambda: sampled.append(1)]
        for _ in range(3):
            bench.count(0, "sent", 1)
            await trio.sleep(0.1)
        bench.check_all_folded()
        assert len(sampled) == 3
        assert bench.store.snapshot().value("pagi_metrics_errors_total", part="flush") == 3.0

    with caplog.at_level(logging.ERROR, logger="pagi_trio"):
        run(scenario)
    assert [record.exc_info is not None for record in caplog.records] == [True]


def test_a_tally_is_sent_once_however_much_it_counts() -> None:
    async def scenario(bench: Bench, nursery: trio.Nursery) -> None:
        for _ in range(1000):
            bench.count(0, "sent", 1)
            bench.count(1, "sent", 1)
        assert bench.flush._send.statistics().current_buffer_used == 2

    run(scenario, task=False)


def test_folds_leave_nothing_in_the_channel_where_no_task_takes_from_it() -> None:
    async def scenario(bench: Bench, nursery: trio.Nursery) -> None:
        for _ in range(10):
            bench.count(0, "sent", 1)
            bench.flush.fold_all()
        assert bench.flush._send.statistics().current_buffer_used == 0

    run(scenario, task=False)


@pytest.mark.parametrize("kind", [MessageTally, EventTally])
def test_a_tally_without_a_channel_is_dirty_for_ever(kind: type[Tally]) -> None:
    tally = kind()
    assert tally.dirty
    with pytest.raises(AssertionError):
        tally.mark()


def test_a_tally_that_nobody_folds_keeps_nothing() -> None:
    tally = MessageTally()
    for _ in range(10):
        tally.sent.append(1)
        tally.received.append(1)
    assert not tally.sent
    assert not tally.received
