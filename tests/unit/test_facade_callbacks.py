"""Batch callbacks: when they are called, for whom, and what becomes of one that fails."""

from __future__ import annotations

import threading

import pytest

from pagi_trio.metrics.application import callbacks

from .facade import counting, counting_beside, lines, metrics

__all__ = ["metrics"]


@pytest.fixture
def add(metrics):
    """Register callbacks that are removed at the end."""
    removes = []

    def register(function):
        removes.append(metrics.add_batch_callback(function))
        return removes[-1]

    yield register
    for remove in removes:
        remove()


def test_they_are_called_before_each_reading_in_their_order(metrics, add):
    depth = metrics.gauge("depth", "Depth.")
    called = []
    add(lambda: called.append("first"))
    with counting() as server:
        add(lambda: (called.append("second"), depth.set(len(called))))
        add(lambda: called.append("third"))
        assert lines(server) == {"shop_depth": 2}
        assert called == ["first", "second", "third"]
        assert lines(server) == {"shop_depth": 5}


def test_a_plain_integer_is_enough_for_a_hot_path(metrics, add):
    hits = metrics.counter("hits_total", "Hits.")
    waiting = [0]

    def flush():
        hits.inc(waiting[0])
        waiting[0] = 0

    add(flush)
    with counting() as server:
        waiting[0] += 3
        assert lines(server) == {"shop_hits_total": 3}
        assert lines(server) == {"shop_hits_total": 3}


def test_one_that_is_removed_is_called_no_more(metrics, add):
    called = []
    with counting() as server:
        remove = add(lambda: called.append(1))
        server.snapshot()
        remove()
        remove()
        server.snapshot()
    assert called == [1]


def test_one_may_remove_itself_and_add_another(add):
    called = []

    def once():
        called.append("once")
        remove()
        add(lambda: called.append("then"))

    with counting() as server:
        remove = add(once)
        server.snapshot()
        server.snapshot()
        assert called == ["once", "then"]


def test_one_that_raises_stops_nobody_and_is_told_once_and_counted(metrics, add, caplog):
    hits = metrics.counter("hits_total", "Hits.")

    def fail():
        raise RuntimeError("no")

    with counting() as server:
        add(fail)
        add(hits.inc)
        assert lines(server) == {"shop_hits_total": 1}
        assert lines(server) == {"shop_hits_total": 2}
        assert server.value("pagi_metrics_errors_total", part="callback") == 3
        [record] = caplog.records
        assert "fail failed; its further failures are only counted" in record.getMessage()
        assert record.exc_info


def test_each_is_called_in_the_context_of_the_server_that_is_read(metrics, add):
    depth = metrics.gauge("depth", "Depth.")
    add(depth.inc)
    with counting() as one, counting_beside() as other:
        assert lines(other) == {"shop_depth": 1}
        assert lines(other) == {"shop_depth": 2}
        assert lines(one) == {"shop_depth": 1}


def test_one_that_a_running_server_was_given_ends_with_it(metrics):
    called = []
    with counting() as server:
        metrics.add_batch_callback(lambda: called.append(1))
        server.snapshot()
    assert not callbacks.has_any(server)
    with counting() as server:
        server.snapshot()
    assert called == [1]


def test_one_that_a_running_server_was_given_is_called_for_no_other(add):
    called = []
    with counting() as one, counting_beside() as other:
        add(lambda: called.append(1))
        other.snapshot()
        assert called == []
        one.snapshot()
        assert called == [1]


def test_one_that_was_registered_before_is_called_for_every_server(add):
    called = []
    add(lambda: called.append(1))
    for _ in range(2):
        with counting() as server:
            server.snapshot()
    assert called == [1, 1]


def test_one_that_reads_is_not_called_for_that(metrics, add):
    depth = metrics.gauge("depth", "Depth.")
    with counting() as server:
        add(lambda: depth.set(1 + server.value("pagi_metrics_scrapes_total")))
        assert lines(server) == {"shop_depth": 1}
        assert server.value("pagi_metrics_errors_total", part="callback") == 0


def test_none_is_called_in_another_thread(add):
    called = []
    with counting() as server:
        add(lambda: called.append(1))
        thread = threading.Thread(target=server.snapshot)
        thread.start()
        thread.join()
        assert called == []


def test_what_is_no_function_or_an_async_one_or_a_generator_is_refused(metrics):
    async def later():
        pass

    def step():
        yield

    async def step_later():
        yield

    for wrong in (None, 3, later, step, step_later):
        with pytest.raises(TypeError, match=r"^a batch callback is "):
            metrics.add_batch_callback(wrong)


def test_one_that_turns_out_to_be_async_is_told_and_leaves_nothing(metrics, add, caplog):
    async def later():
        pass

    with counting() as server:
        add(lambda: later())  # noqa: PLW0108 - a plain function to look at
        server.snapshot()
        assert server.value("pagi_metrics_errors_total", part="callback") >= 1
        assert "returned a coroutine" in str(caplog.records[0].exc_info[1])
