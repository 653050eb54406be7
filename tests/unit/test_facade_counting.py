"""Counting by applications' own metrics: where it goes, where it goes nowhere, and that nothing is lost."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import gc
import math
import os
import sys
import threading
import time
import weakref
from decimal import Decimal
from enum import Enum

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from pagi_trio.metrics import Metrics, catalog
from pagi_trio.metrics.application import ledger
from pagi_trio.metrics.application.resolution import serving
from pagi_trio.metrics.balance import CONNECTIONS
from pagi_trio.metrics.meter import Meter
from pagi_trio.metrics.server_metrics import ServerMetrics

from .facade import context_of, counting, counting_beside, counting_workers, lines, metrics
from .stores import stopping_at_each_line

__all__ = ["metrics"]

WORKERS = catalog.index("pagi_server_workers_active")

THREADS = 8
TIMES = 2_000


def untold(function):
    """Call a function where no server has made the context, as a plain thread does."""
    return contextvars.Context().run(function)


# One server


def test_each_type_counts_what_it_is_told(metrics):
    hits = metrics.counter("hits_total", "Hits.")
    paths = metrics.counter("paths_total", "Paths.", labels=["path", "method"])
    depth = metrics.gauge("depth", "Depth.")
    size = metrics.histogram("size_bytes", "Size.", unit="bytes", buckets=(10, 100))
    with counting() as server:
        hits.inc()
        hits.inc(2.5)
        paths.labels(path="/", method="GET").inc()
        paths.labels(method="GET", path="/").inc()
        depth.set(7)
        depth.inc(3)
        depth.dec()
        for amount in (10, 11, 1000):
            size.observe(amount)
        assert lines(server) == {
            "shop_hits_total": 3.5,
            'shop_paths_total{path="/",method="GET"}': 2,
            "shop_depth": 9,
            'shop_size_bytes_bucket{le="10.0"}': 1,
            'shop_size_bytes_bucket{le="100.0"}': 2,
            'shop_size_bytes_bucket{le="+Inf"}': 3,
            "shop_size_bytes_count": 3,
            "shop_size_bytes_sum": 1021,
        }


def test_what_was_defined_is_on_the_page_with_0_from_the_start(metrics):
    kept = [
        metrics.counter("hits_total", "Hits."),
        metrics.counter("paths_total", "Paths.", labels=["path"]).labels(path="/"),
        metrics.gauge("depth", "Depth."),
        metrics.gauge("peak", "Peak.", workers="max"),
    ]
    with counting() as server:
        # The smallest or largest of several must not be that of one that was never set.
        assert lines(server) == {"shop_hits_total": 0, 'shop_paths_total{path="/"}': 0, "shop_depth": 0}
        labelled = metrics.counter("labelled_total", "Labelled.", labels=["path"])
        assert "shop_labelled" in [one.family.name for one in server.snapshot().application()]
        assert labelled
        late = metrics.counter("late_total", "Late.")
        assert lines(server)["shop_late_total"] == 0
        assert kept
        assert late


def test_a_label_set_is_on_the_page_of_the_server_that_asked_for_it_alone(metrics):
    paths = metrics.counter("paths_total", "Paths.", labels=["path"])
    with counting() as one, counting_beside() as other:
        context_of(one).run(lambda: paths.labels(path="/mine"))
        assert lines(one) == {'shop_paths_total{path="/mine"}': 0}
        assert lines(other) == {}


@pytest.mark.parametrize(("workers", "value"), [("sum", 4), ("max", 4), ("min", 4), ("latest", 4)])
def test_a_gauge_of_one_process_is_what_it_was_set_to(metrics, workers, value):
    depth = metrics.gauge("depth", "Depth.", workers=workers)
    with counting() as server:
        depth.set(1)
        depth.inc(3)
        assert lines(server) == {"shop_depth": value}


@pytest.mark.parametrize(
    ("workers", "values"), [("sum", [5, 8, 4]), ("max", [5, 5, 3]), ("min", [5, 3, 1]), ("latest", [5, 3, 1])]
)
def test_a_gauge_of_several_workers_is_what_its_definition_says(metrics, monkeypatch, workers, values):
    clock = iter(range(1, 10))
    monkeypatch.setattr("pagi_trio.metrics.application.handles.monotonic", lambda: float(next(clock)))
    depth = metrics.gauge("depth", "Depth.", workers=workers)
    with counting_workers() as (one, other):
        told = []
        for server, value in ((one, 5), (other, 3), (one, 1)):
            context_of(server).run(depth.set, value)
            told.append(lines(other)["shop_depth"])
        assert told == values
        if workers == "latest":
            context_of(other).run(depth.inc)
            assert lines(one)["shop_depth"] == 4


def test_the_latest_of_several_workers_does_not_change_where_the_wall_clock_is_set_back(metrics, monkeypatch):
    wall = iter((1000.0, 10.0))
    monkeypatch.setattr(time, "time", lambda: next(wall, 10.0))
    # Functions that were imported by name have not been patched.
    monkeypatch.setattr("pagi_trio.metrics.application.handles.time", time.time, raising=False)
    depth = metrics.gauge("depth", "Depth.", workers="latest")
    with counting_workers() as (one, other):
        context_of(one).run(depth.set, 1)
        context_of(other).run(depth.set, 2)
        assert lines(one)["shop_depth"] == 2


def test_two_workers_add_up_counters_and_histograms(metrics):
    hits = metrics.counter("hits_total", "Hits.", labels=["path"])
    size = metrics.histogram("size", "Size.", buckets=(1, 2))
    with counting_workers() as (one, other):
        for server, path in ((one, "/a"), (other, "/a"), (other, "/b")):
            context_of(server).run(lambda path: hits.labels(path=path).inc(), path)
            context_of(server).run(size.observe, 1.5)
        told = lines(one)
        assert told == lines(other)
        assert (told['shop_hits_total{path="/a"}'], told['shop_hits_total{path="/b"}']) == (2, 1)
        assert (told['shop_size_bucket{le="2.0"}'], told["shop_size_count"], told["shop_size_sum"]) == (3, 3, 4.5)


def test_a_gauge_for_each_worker_has_its_slot(metrics):
    depth = metrics.gauge("depth", "Depth.", workers="each")
    with counting() as server:
        depth.set(4)
        assert lines(server) == {'shop_depth{worker="1"}': 4}
    with counting_workers() as (one, other):
        context_of(other).run(depth.set, 3)
        assert lines(one) == {'shop_depth{worker="2"}': 3}


def test_a_handle_is_the_same_for_the_same_labels(metrics):
    paths = metrics.counter("paths_total", "Paths.", labels=["path", "method"])
    assert paths.labels(path="/", method="GET") is paths.labels(method="GET", path="/")
    assert paths.labels(path="GET", method="/") is not paths.labels(path="/", method="GET")


def test_a_deep_copy_is_the_same_also_where_it_has_counted(metrics):
    """Middlewares that copy the scope deeply copy what the lifespan has put in its state."""
    hits = metrics.counter("hits_total", "Hits.")
    paths = metrics.counter("paths_total", "Paths.", labels=["path"])
    with counting() as server:
        state = {"hits": hits, "paths": paths, "root": paths.labels(path="/")}
        for _ in range(2):
            copied = copy.deepcopy(state)
            assert all(copied[name] is state[name] for name in state)
            copied["hits"].inc()
            copied["root"].inc()
        assert lines(server) == {"shop_hits_total": 2, 'shop_paths_total{path="/"}': 2}


def test_values_of_an_enumeration_are_their_text(metrics):
    class Method(str, Enum):  # noqa: UP042 - whose str() is another text
        GET = "get"

    paths = metrics.counter("paths_total", "Paths.", labels=["method"])
    with counting() as server:
        paths.labels(method=Method.GET).inc()
        paths.labels(method="get").inc()
        assert lines(server) == {'shop_paths_total{method="get"}': 2}


class Narrow:
    """A number of another type, whose sums are of it: as numpy's float32, which so stops at 16,777,216."""

    def __init__(self, number):
        self.number = number

    def __add__(self, other):
        return Narrow(min(self.number + float(other), 10.0))

    __radd__ = __add__

    def __float__(self):
        return self.number


@pytest.mark.parametrize("kind", ["counter", "gauge", "histogram"])
def test_a_number_of_another_type_counts_and_leaves_the_sum_a_float(metrics, kind):
    made = {"counter": "hits_total", "gauge": "depth", "histogram": "size"}
    metric = getattr(metrics, kind)(made[kind], "Any.")
    count = metric.observe if kind == "histogram" else metric.inc
    with counting() as server:
        if kind == "gauge":
            metric.set(Narrow(1.0))
            metric.dec(Narrow(1.0))
        count(Narrow(1.0))
        count(20.0)
        assert lines(server)["shop_size_sum" if kind == "histogram" else f"shop_{made[kind]}"] == 21


# Wrong use


@pytest.mark.parametrize("amount", [-1, -0.001, math.nan, math.inf, -math.inf])
def test_a_counter_does_not_go_down_with_a_server_or_without(metrics, amount):
    hits = metrics.counter("hits_total", "Hits.")
    message = f"shop_hits_total: a counter goes up by a finite number, at least 0, not {amount!r}"
    with pytest.raises(ValueError) as caught:
        hits.inc(amount)
    assert str(caught.value) == message
    with counting() as server:
        with pytest.raises(ValueError):
            hits.inc(amount)
        assert lines(server) == {"shop_hits_total": 0}


def test_what_is_no_number_is_refused_by_name(metrics):
    hits, depth = metrics.counter("hits_total", "Hits."), metrics.gauge("depth", "Depth.")
    size = metrics.histogram("size", "Size.")
    with counting() as server:
        for call in (hits.inc, depth.set, depth.inc, depth.dec, size.observe):
            for wrong in ("1", None, [], 1j, Decimal(1), 10**400):
                with pytest.raises(TypeError, match=r"^shop_"):
                    call(wrong)
        for wrong in (math.nan, math.inf):
            with pytest.raises(ValueError, match=r"^shop_size: an observation is a finite number"):
                size.observe(wrong)
        assert set(lines(server).values()) == {0}


def test_a_label_that_is_no_text_is_refused_by_name_where_numbers_are_read(metrics):
    """It would seem to be 0, since what counts refuses it as well."""
    answers = metrics.counter("answers_total", "Answers.", labels=["status"])
    with counting() as server:
        answers.labels(status="404").inc()
        assert server.value("shop_answers_total", status="404") == 1
        with pytest.raises(TypeError, match=r"^shop_answers_total: the label status is text, not 404$"):
            server.value("shop_answers_total", status=404)
        with pytest.raises(TypeError, match=r"^pagi_websocket_closes_total: the label code is text, not 1000$"):
            server.value("pagi_websocket_closes_total", code=1000, side="client")


def test_wrong_labels_are_refused_by_name(metrics):
    paths = metrics.counter("paths_total", "Paths.", labels=["path", "method"])
    paths.labels(path="/", method="GET")
    for wrong, got in (
        ({"path": "/"}, "path"),
        ({"path": "/", "verb": "GET"}, "path, verb"),
        ({"path": "/", "method": "GET", "verb": "GET"}, "path, method, verb"),
        ({}, "none"),
    ):
        with pytest.raises(ValueError) as caught:
            paths.labels(**wrong)
        assert str(caught.value) == f"shop_paths_total: its labels are path, method; got {got}"
    for wrong in (3, None, ["/"]):
        with pytest.raises(TypeError) as caught:
            paths.labels(path=wrong, method="GET")
        assert str(caught.value) == f"shop_paths_total: the label path is text, not {wrong!r}"


def test_labels_without_their_names_are_refused_by_the_metrics_name(metrics):
    paths = metrics.counter("paths_total", "Paths.", labels=["path", "method"])
    for values, labels in ((("/", "GET"), {}), (("/",), {"method": "GET"}), (("/",), {"path": "/", "method": "GET"})):
        with pytest.raises(TypeError) as caught:
            paths.labels(*values, **labels)
        message = "shop_paths_total: takes labels by name, .labels(path=..., method=...); got '/'"
        assert str(caught.value) == message


def test_a_metric_with_labels_is_not_counted_without_nor_the_other_way(metrics):
    paths = metrics.counter("paths_total", "Paths.", labels=["path"])
    with pytest.raises(TypeError, match=r"^shop_paths_total: has labels, so count with .labels\(path=...\)$"):
        paths.inc()
    hits = metrics.counter("hits_total", "Hits.")
    with pytest.raises(TypeError, match=r"^shop_hits_total: has no labels here; got path$"):
        hits.labels(path="/")
    with pytest.raises(TypeError, match=r"^shop_hits_total: has no labels here; got '/'$"):
        hits.labels("/")


# Timers


def test_a_timer_measures_blocks_and_functions_of_both_kinds(metrics):
    work = metrics.timer("work_seconds", "Work.", labels=["kind"])

    @work.labels(kind="sync").time()
    def add(one, *, other):
        """Add."""
        return one + other

    @work.labels(kind="async").time()
    async def add_later(one, *, other):
        await trio.lowlevel.checkpoint()
        return one + other

    async def main():
        return await add_later(1, other=2)

    with counting() as server:
        assert add(1, other=2) == 3
        assert add.__doc__ == "Add."
        assert trio.run(main) == 3
        with work.labels(kind="block").time():
            pass
        with pytest.raises(KeyError), work.labels(kind="failed").time():
            raise KeyError
        told = lines(server)
        for kind in ("sync", "async", "block", "failed"):
            assert told[f'shop_work_seconds_count{{kind="{kind}"}}'] == 1
            assert told[f'shop_work_seconds_sum{{kind="{kind}"}}'] > 0


def test_a_function_that_calls_itself_is_measured_each_time(metrics):
    work = metrics.timer("work_seconds", "Work.")

    @work.time()
    def count_down(number):
        return number and count_down(number - 1)

    with counting() as server:
        count_down(4)
        assert lines(server)["shop_work_seconds_count"] == 5


def test_generators_are_not_measured_by_decorating_them(metrics):
    work = metrics.timer("work_seconds", "Work.")

    def plain():
        yield

    async def later():
        yield

    for function in (plain, later):
        with pytest.raises(TypeError, match=r"^shop_work_seconds: cannot measure a generator"):
            work.time()(function)


# No server


def test_without_a_server_everything_is_nothing(metrics):
    hits, depth = metrics.counter("hits_total", "Hits."), metrics.gauge("depth", "Depth.")
    work = metrics.timer("work_seconds", "Work.")
    assert not metrics
    hits.inc()
    depth.set(3)
    with work.time():
        pass
    with counting() as server:
        assert metrics
        assert set(lines(server).values()) == {0}
    assert not metrics
    hits.inc()


def test_where_metrics_are_off_everything_is_nothing_though_another_server_counts(metrics):
    hits = metrics.counter("hits_total", "Hits.")
    with counting() as server, serving(None):
        assert not metrics
        hits.inc()
        metrics.add_batch_callback(hits.inc)
        kept = metrics.counter("paths_total", "Paths.", labels=["path"]).labels(path="/")
        assert context_of(server).run(lines, server) == {"shop_hits_total": 0}
        assert not kept.values
    with counting() as server:
        assert lines(server) == {"shop_hits_total": 0}


def test_a_context_outlives_its_server_and_counts_for_nobody(metrics):
    hits = metrics.counter("hits_total", "Hits.")
    with counting() as stopped:
        hits.inc()
        context = contextvars.copy_context()
    with counting() as server:
        assert not context.run(lambda: bool(metrics))
        context.run(hits.inc, 5)
        assert lines(server) == {"shop_hits_total": 0}
    assert lines(stopped) == {"shop_hits_total": 1}


# Several servers


def test_two_servers_each_count_what_is_theirs(metrics):
    hits = metrics.counter("hits_total", "Hits.")
    with counting() as one, counting_beside() as other:
        context_of(one).run(hits.inc)
        context_of(other).run(hits.inc, 10)
        context_of(one).run(hits.inc)
        assert lines(one) == {"shop_hits_total": 2}
        assert lines(other) == {"shop_hits_total": 10}


def test_without_a_context_the_only_server_counts(metrics):
    hits = metrics.counter("hits_total", "Hits.")
    with counting() as server:
        untold(hits.inc)
        assert untold(lambda: bool(metrics))
        assert lines(server) == {"shop_hits_total": 1}


def test_without_a_context_two_servers_count_only_that_and_say_it_once(metrics, caplog):
    hits = metrics.counter("hits_total", "Hits.")
    with counting() as one, counting_beside() as other:
        for _ in range(3):
            untold(hits.inc)
        assert not untold(lambda: bool(metrics))
        for server in (one, other):
            assert lines(server) == {"shop_hits_total": 0}
            assert server.value("pagi_metrics_errors_total", part="context") == 3
        assert len([record for record in caplog.records if "several servers run" in record.getMessage()]) == 1
        one_left = contextvars.Context()
    with counting() as server:
        one_left.run(hits.inc)
        assert lines(server) == {"shop_hits_total": 1}


def test_a_stopped_server_leaves_nothing_in_the_handles(metrics):
    hits = metrics.counter("hits_total", "Hits.")
    paths = metrics.counter("paths_total", "Paths.", labels=["path"])
    with counting() as server:
        hits.inc()
        paths.labels(path="/").inc()
        ref = weakref.ref(server.ledger)
        assert hits.values
        assert paths.labels(path="/").values
    assert not hits.values
    assert not paths.labels(path="/").values
    del server
    gc.collect()
    assert ref() is None


def test_tests_one_after_another_begin_at_0(metrics):
    hits = metrics.counter("hits_total", "Hits.")
    for _ in range(3):
        with counting() as server:
            hits.inc()
            assert lines(server) == {"shop_hits_total": 1}


@pytest.mark.trio
async def test_ctrl_c_in_the_application_does_not_come_while_a_label_set_gets_its_number(metrics):
    """Or it would have one that is on no page."""
    paths = metrics.counter("paths_total", "Paths.", labels=["path"])
    protected = []
    with (
        counting() as server,
        stopping_at_each_line({ledger.__file__}, lambda: protected.append(trio.lowlevel.currently_ki_protected())),
    ):
        paths.labels(path="/")
        assert lines(server)['shop_paths_total{path="/"}'] == 0
    assert len(protected) > 10
    assert all(protected)


# Threads and tasks


@pytest.fixture
def often():
    """Have threads take turns as often as can be."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.parametrize("kind", ["counter", "gauge", "histogram"])
def test_what_another_thread_counts_in_the_middle_of_a_count_is_not_lost(metrics, kind):
    """One is held up where it has read the number and not yet written it."""
    made = {"counter": "hits_total", "gauge": "depth", "histogram": "size"}
    metric = getattr(metrics, kind)(made[kind], "Any.")
    count = metric.observe if kind == "histogram" else metric.inc
    reached, go_on = threading.Event(), threading.Event()

    class Amount(float):
        def __radd__(self, other):
            reached.set()
            go_on.wait()
            return other + float(self)

    with counting() as server:
        count(0.0)
        # The handle would make a plain float of it.
        value = metric.values[server]
        slow = threading.Thread(target=value.observe if kind == "histogram" else value.inc, args=(Amount(1),))
        slow.start()
        reached.wait()
        quick = threading.Thread(target=count, args=(1.0,))
        quick.start()
        # Without a lock it is done by now; with one it waits, which takes as long as this does.
        quick.join(0.05)
        go_on.set()
        slow.join()
        quick.join()
        told = lines(server)
    assert told["shop_size_sum" if kind == "histogram" else f"shop_{made[kind]}"] == 2


@pytest.mark.parametrize("kind", ["counter", "gauge", "histogram"])
def test_what_a_signal_handler_counts_in_the_middle_of_a_count_is_not_lost(metrics, kind):
    """It counts at each call inside of the count: those are where the interpreter calls signal handlers."""
    made = {"counter": "hits_total", "gauge": "depth", "histogram": "size"}
    metric = getattr(metrics, kind)(made[kind], "Any.")
    count = metric.observe if kind == "histogram" else metric.inc
    counted = 1

    def handle(_frame, event, _argument):
        nonlocal counted
        if event in ("call", "c_return"):
            counted += 1
            count(1.0)

    with counting() as server:
        # The first one makes the number.
        count(1.0)
        sys.setprofile(handle)
        try:
            count(1.0)
        finally:
            sys.setprofile(None)
        counted += 1
        told = lines(server)
    assert counted > 3
    assert told["shop_size_sum" if kind == "histogram" else f"shop_{made[kind]}"] == counted


@pytest.mark.usefixtures("often")
def test_threads_and_tasks_lose_nothing(metrics):
    """Eight threads and eight tasks count in the same and in new series; takes its time by its numbers."""
    hits = metrics.counter("hits_total", "Hits.")
    paths = metrics.counter("paths_total", "Paths.", labels=["path"])
    depth = metrics.gauge("depth", "Depth.")
    size = metrics.histogram("size", "Size.", buckets=(1, 2, 3))

    def count(number):
        hits.inc()
        paths.labels(path=str(number % 50)).inc()
        depth.inc(2)
        depth.dec()
        size.observe(number % 4)

    def work():
        for number in range(TIMES):
            count(number)

    async def task():
        for number in range(TIMES):
            count(number)
            if number % 100 == 0:
                await trio.lowlevel.checkpoint()

    async def main():
        async with trio.open_nursery() as nursery:
            for _ in range(THREADS // 2):
                nursery.start_soon(trio.to_thread.run_sync, work)
            for _ in range(THREADS):
                nursery.start_soon(task)

    with counting() as server:
        plain = [threading.Thread(target=work) for _ in range(THREADS // 2)]
        for thread in plain:
            thread.start()
        trio.run(main)
        for thread in plain:
            thread.join()
        total = 2 * THREADS * TIMES
        told = lines(server)
    assert told["shop_hits_total"] == told["shop_depth"] == total
    assert sum(value for line, value in told.items() if line.startswith("shop_paths_total")) == total
    assert told["shop_size_count"] == total
    assert told["shop_size_sum"] == total * 1.5
    assert told['shop_size_bucket{le="2.0"}'] == total * 0.75


def test_a_finalizer_and_a_loop_of_asyncio_count_too(metrics):
    hits = metrics.counter("hits_total", "Hits.", labels=["by"])

    class Thing:
        def __del__(self):
            hits.labels(by="finalizer").inc()

    async def main():
        hits.labels(by="asyncio").inc()

    with counting() as server:
        thing = Thing()
        thing.me = thing
        del thing
        gc.collect()
        asyncio.run(main())
        assert lines(server) == {'shop_hits_total{by="finalizer"}': 1, 'shop_hits_total{by="asyncio"}': 1}


# Labels without end


def test_past_the_limit_label_sets_count_together_and_each_is_told_once(metrics, caplog):
    users = metrics.counter("users_total", "Users.", labels=["user", "kind"])
    other = metrics.counter("other_total", "Other.", labels=["user"])
    with counting(series_per_metric=3) as server:
        for _ in range(2):
            for number in range(10):
                users.labels(user=str(number), kind="x").inc()
        other.labels(user="9").inc()
        told = lines(server)
        assert told == {
            'shop_users_total{user="0",kind="x"}': 2,
            'shop_users_total{user="1",kind="x"}': 2,
            'shop_users_total{user="2",kind="x"}': 2,
            'shop_users_total{user="other",kind="other"}': 14,
            'shop_other_total{user="9"}': 1,
        }
        assert server.value("pagi_metrics_dropped_series_total") == 7
        assert [record.getMessage() for record in caplog.records] == [
            "shop_users_total has more than 3 label sets, see metrics.series_per_metric; the others are counted together, with 'other' for each label"
        ]


def test_a_definition_that_comes_again_after_another_of_its_name_begins_anew(metrics):
    """Nobody holds the older ones any more, as where modules are imported again."""
    with counting(series_per_metric=1) as server:
        for number, buckets in enumerate(((1, 2), (1, 3), (1, 2)), 1):
            size = metrics.histogram("size", "Size.", buckets=buckets, labels=["path"])
            size.labels(path="/").observe(1.5)
            size.labels(path="/too-much").observe(1.5)
            told = lines(server)
            assert told['shop_size_count{path="/"}'] == told['shop_size_count{path="other"}'] == 1
            assert told[f'shop_size_bucket{{path="/",le="{buckets[1]}.0"}}'] == 1
            assert server.value("pagi_metrics_dropped_series_total") == number
            del size
            gc.collect()


def test_what_is_turned_away_is_remembered_only_so_far(metrics, monkeypatch):
    monkeypatch.setattr("pagi_trio.metrics.application.ledger.REMEMBERED", 5)
    monkeypatch.setattr("pagi_trio.metrics.application.labelled.HANDLES_MOST", 2)
    users = metrics.counter("users_total", "Users.", labels=["user"])
    with counting(series_per_metric=1) as server:
        for number in [*range(4), *range(4), *range(100)]:
            users.labels(user=str(number)).inc()
            if number == 3:
                assert server.value("pagi_metrics_dropped_series_total") == 3
        assert lines(server) == {'shop_users_total{user="0"}': 3, 'shop_users_total{user="other"}': 105}
        assert server.value("pagi_metrics_dropped_series_total") == 5
        assert len(users._handles) == 2


def test_without_room_in_the_region_the_rest_counts_on_no_page(metrics, caplog):
    size = metrics.histogram("size", "Size.", labels=["path"], buckets=range(3000))
    with counting() as server:
        for number in range(5):
            size.labels(path=str(number)).observe(1)
        counts = [line for line in lines(server) if line.startswith("shop_size_count")]
        assert len(counts) == 2
        assert server.value("pagi_metrics_dropped_series_total") == 3
        assert [record.getMessage() for record in caplog.records] == [
            "the application has more series than there is room for; one of shop_size is missing"
        ]


# No text of four letters is what label sets become beyond the limit.
@given(st.lists(st.tuples(st.text(max_size=4), st.text(max_size=4)), max_size=20), st.integers(1, 6))
def test_whatever_the_label_values_everything_is_counted_somewhere(sets, limit):
    paths = Metrics("any").counter("paths_total", "Paths.", labels=["one", "two"])
    with counting(series_per_metric=limit) as server:
        for one, two in sets:
            paths.labels(one=one, two=two).inc()
        found = {
            tuple(sample.labels.values()): sample.value
            for family in server.snapshot().application()
            for sample in family.samples
            if family.family.name == "any_paths"
        }
    assert sum(found.values()) == len(sets)
    assert len(found) <= limit + 1
    for labels in list(dict.fromkeys(sets))[:limit]:
        assert found[labels] == sets.count(labels)


# A process that is forked


def in_a_child(function):
    """Fork, call a function in the child, and return whether it returned true."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if function() else 1
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_counts_on_no_page(metrics):
    hits = metrics.counter("hits_total", "Hits.")
    size = metrics.histogram("size", "Size.", buckets=(1,))
    paths = metrics.counter("paths_total", "Paths.", labels=["path"])

    def child():
        hits.inc(100)
        size.observe(100)
        paths.labels(path="/").inc(100)
        assert not metrics
        # It may serve by itself.
        with counting() as own:
            hits.inc(5)
            return lines(own)["shop_hits_total"] == 5

    with counting() as server:
        hits.inc()
        size.observe(1)
        assert in_a_child(child)
        hits.inc()
        told = lines(server)
        assert told["shop_hits_total"] == 2
        assert told["shop_size_sum"] == 1
        assert 'shop_paths_total{path="/"}' not in told


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_that_reads_the_numbers_or_leaves_what_is_open_changes_none(share):
    """It has a copy of the counts that wait, and folds it; unwound, it leaves the connections of its parent."""
    store = share(1)
    store.slot(1).occupy(1)
    for meter in (Meter.create(), Meter(store, 1, is_owner=False)):
        server = ServerMetrics(meter)
        with serving(server):
            meter.websocket.sent.append(10)
            meter.websocket.mark()

            def child(server=server):
                server.meter.add(CONNECTIONS.active, -1)
                server.meter.owner.add(WORKERS)
                return server.value("pagi_websocket_messages_sent_total") == 1

            assert in_a_child(child)
            assert server.value("pagi_websocket_messages_sent_total") == 1
            assert server.value("pagi_server_connections_active") == 0
            assert server.value("pagi_server_workers_active") == 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_process_forked_while_a_thread_counts_can_go_on(metrics):
    hits = metrics.counter("hits_total", "Hits.")
    counts, forked = threading.Event(), threading.Event()

    class Amount(float):
        def __radd__(self, other):
            counts.set()
            forked.wait()
            return other + float(self)

    with counting() as server:
        hits.inc()
        # The handle would make a plain float of it.
        thread = threading.Thread(target=hits.values[server].inc, args=(Amount(1),))
        thread.start()
        counts.wait()
        assert in_a_child(lambda: hits.inc() is None)
        forked.set()
        thread.join()
        assert lines(server) == {"shop_hits_total": 2}
