from __future__ import annotations

import platform
import time

import pytest
import trio
import trio.testing

from pagi_trio.metrics import catalog
from pagi_trio.metrics.meter import Meter, NullMeter
from pagi_trio.metrics.server_metrics import ServerMetrics, current_metrics

ACTIVE = catalog.index("pagi_server_connections_active")


def test_a_new_meter_tells_its_versions_and_its_start() -> None:
    before = time.time()
    snapshot = Meter.create().snapshot()
    after = time.time()
    info, *others = [samples for metric, samples in snapshot if metric.name == "pagi_server_info"]
    assert not others
    [(_, labels, value)] = info
    assert value == 1.0
    assert labels["python"] == platform.python_version()
    assert labels["trio"] == trio.__version__
    assert labels["version"]
    assert before <= snapshot.value("pagi_server_start_time_seconds") <= after


def test_a_meter_leaves_the_workers_to_the_server() -> None:
    snapshot = Meter.create().snapshot()
    assert snapshot.value("pagi_server_workers_active") == 0
    assert snapshot.value("pagi_server_worker_spawns_total") == 0


def test_rare_counts_are_there_at_once() -> None:
    meter = Meter.create()
    metrics = ServerMetrics(meter)
    meter.add(ACTIVE)
    meter.add(ACTIVE, 2.0)
    meter.add(ACTIVE, -1.0)
    assert metrics.value("pagi_server_connections_active") == 2.0
    meter.set(ACTIVE, 9.0)
    assert metrics.snapshot().value("pagi_server_connections_active") == 9.0


def test_reading_folds_first() -> None:
    meter = Meter.create()
    metrics = ServerMetrics(meter)
    states = iter([1.0, 2.0])
    meter.sample(lambda: meter.set(ACTIVE, next(states)))
    meter.websocket.sent.append(5)
    meter.sse.sent += 1
    meter.sse.sent_bytes += 5
    for tally in (meter.websocket, meter.sse):
        tally.mark()
    assert metrics.value("pagi_websocket_messages_sent_total") == 1
    snapshot = metrics.snapshot()
    assert snapshot.value("pagi_websocket_bytes_sent_total") == 5
    assert snapshot.value("pagi_sse_events_sent_total") == 1
    assert snapshot.value("pagi_sse_bytes_sent_total") == 5
    assert snapshot.value("pagi_server_connections_active") == 2.0


def test_two_meters_do_not_see_each_other() -> None:
    one, other = Meter.create(), Meter.create()
    one.add(ACTIVE)
    one.websocket.received.append(1)
    one.websocket.mark()
    assert ServerMetrics(one).value("pagi_websocket_messages_received_total") == 1
    assert ServerMetrics(other).value("pagi_websocket_messages_received_total") == 0
    assert ServerMetrics(other).value("pagi_server_connections_active") == 0


def test_the_numbers_name_what_they_miss() -> None:
    with pytest.raises(KeyError, match="takes part; got none"):
        ServerMetrics(Meter.create()).value("pagi_metrics_errors_total")


def test_outside_a_server_there_are_no_current_metrics() -> None:
    assert current_metrics.get() is None


@pytest.mark.trio
async def test_a_meter_runs_its_flush_task() -> None:
    meter = Meter.create(interval_s=0.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(meter.run)
        meter.sse.sent += 1
        meter.sse.mark()
        while meter.sse.dirty:
            await trio.lowlevel.checkpoint()
        assert meter._store.snapshot().value("pagi_sse_events_sent_total") == 1
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_a_null_meter_does_nothing_and_its_task_ends_at_once() -> None:
    meter = NullMeter()
    called: list[int] = []
    meter.sample(lambda: called.append(1))
    meter.websocket.sent.append(1)
    meter.sse.sent += 1
    for tally in (meter.websocket, meter.sse):
        assert tally.dirty
    meter.add(ACTIVE)
    meter.set(ACTIVE, 1.0)
    meter.fold_all()
    await meter.run()
    assert meter.websocket.dirty
    assert not called
