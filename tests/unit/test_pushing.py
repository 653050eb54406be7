"""When pushes come, and what becomes of those that fail."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from pagi_trio.errors import PushFailedError
from pagi_trio.metrics import catalog
from pagi_trio.metrics.meter import Meter
from pagi_trio.metrics.push.recorder import Recorder
from pagi_trio.metrics.pushing import LAST_PUSH_S, Pushing
from pagi_trio.metrics.server_metrics import ServerMetrics

pytestmark = pytest.mark.trio


@pytest.fixture
def metrics():
    return ServerMetrics(Meter.create())


class Faulty(Recorder):
    """Keeps what it gets, and then does what it is told to."""

    def __init__(self, interval_s=1.0, name="recorder"):
        super().__init__(interval_s)
        self.name = name
        self.raises = None
        self.hangs = False

    async def push(self, families, *, is_last):
        await super().push(families, is_last=is_last)
        if self.raises is not None:
            raise self.raises
        if self.hangs:
            await trio.sleep_forever()


@asynccontextmanager
async def pushing(metrics, *exporters):
    """Push for the length of a block, and a last time at its end."""
    tasks = Pushing(metrics, exporters)
    async with trio.open_nursery() as nursery:
        tasks.start(nursery)
        await trio.testing.wait_all_tasks_blocked()
        yield tasks
        nursery.cancel_scope.cancel()
    await tasks.finish()


def pushes(metrics, outcome, exporter="other"):
    return metrics.value("pagi_metrics_pushes_total", exporter=exporter, outcome=outcome)


async def test_the_first_push_comes_at_once_and_one_more_after_each_interval(metrics, autojump_clock):
    recorder = Recorder(10)
    async with pushing(metrics, recorder):
        assert len(recorder.pushes) == 1
        await trio.sleep(9.9)
        assert len(recorder.pushes) == 1
        await trio.sleep(10)
        assert len(recorder.pushes) == 2
        assert not recorder.is_ended


async def test_the_last_push_has_what_was_counted_to_the_end(metrics, autojump_clock):
    recorder = Recorder(10)
    async with pushing(metrics, recorder):
        metrics.meter.websocket.sent.append(3)
        metrics.meter.websocket.mark()
        assert recorder.value("pagi_websocket_messages_sent_total") == 0
    assert recorder.is_ended
    assert recorder.value("pagi_websocket_messages_sent_total") == 1
    assert recorder.value("pagi_websocket_bytes_sent_total") == 3
    assert len(recorder.pushes) == 2
    assert pushes(metrics, "ok") == 2


async def test_a_push_has_every_family_once(metrics, autojump_clock):
    recorder = Recorder()
    async with pushing(metrics, recorder):
        [families] = recorder.pushes
        names = [one.name.removesuffix("_total") for one in catalog.CATALOG]
        # Behind them is what other tests have left in the registry.
        assert [family.name for family in families][: len(names)] == names
        assert recorder.value("pagi_server_connections_closed_total", reason="done") == 0
        with pytest.raises(LookupError, match="no sample pagi_server_connections_closed_total"):
            recorder.value("pagi_server_connections_closed_total", reason="x")


async def test_exporters_push_each_at_its_own_pace(metrics, autojump_clock):
    fast, slow = Recorder(1), Recorder(5)
    async with pushing(metrics, fast, slow):
        await trio.sleep(9.5)
        assert (len(fast.pushes), len(slow.pushes)) == (10, 2)
    assert fast.is_ended
    assert slow.is_ended


@pytest.mark.parametrize(
    ("error", "line", "has_traceback"),
    [
        (PushFailedError("there: nobody"), "metrics were not pushed to mine: there: nobody; further", False),
        (LookupError("x"), "metrics were not pushed to mine: LookupError('x'); further", True),
        (ExceptionGroup("several", [ValueError()]), "metrics were not pushed to mine: ExceptionGroup(", True),
    ],
)
async def test_a_failure_is_counted_logged_once_and_nobody_elses(
    metrics, autojump_clock, caplog, error, line, has_traceback
):
    broken, well = Faulty(name="mine"), Faulty()
    broken.raises = error
    with caplog.at_level(logging.INFO, logger="pagi_trio"):
        async with pushing(metrics, broken, well):
            await trio.sleep(3.5)
    assert len(broken.pushes) == len(well.pushes) == 5
    assert (pushes(metrics, "failed"), pushes(metrics, "ok")) == (5, 5)
    [record] = caplog.records
    assert record.getMessage().startswith(line)
    assert bool(record.exc_info) == has_traceback


async def test_pushes_of_statsd_are_counted_by_its_name(metrics, autojump_clock):
    exporter = Faulty(name="statsd")
    async with pushing(metrics, exporter):
        exporter.raises = PushFailedError("there: nobody")
    assert (pushes(metrics, "ok", "statsd"), pushes(metrics, "failed", "statsd")) == (1, 1)
    assert (pushes(metrics, "ok"), pushes(metrics, "failed")) == (0, 0)


async def test_a_push_that_hangs_is_given_up_after_an_interval_and_failed(metrics, autojump_clock, caplog):
    hanging, well = Faulty(4), Recorder(1)
    hanging.hangs = True
    async with pushing(metrics, hanging, well):
        await trio.sleep(9)
        assert len(hanging.pushes) == 3
        assert len(well.pushes) >= 9
        assert pushes(metrics, "failed") == 2
        hanging.hangs = False
        await trio.sleep(4)
        assert pushes(metrics, "failed") == 3
    [record] = caplog.records
    assert (
        record.getMessage()
        == "metrics were not pushed to recorder: it took more than 4 s; further failures are only counted"
    )
    assert hanging.is_ended


async def test_a_last_push_that_hangs_keeps_nobody_for_long(metrics, autojump_clock):
    hanging = Faulty(60)
    well = Recorder(60)
    async with pushing(metrics, hanging, well):
        hanging.hangs = True
        since = trio.current_time()
    assert trio.current_time() - since == LAST_PUSH_S
    assert hanging.is_ended
    assert well.is_ended
    assert pushes(metrics, "failed") == 1


async def test_the_last_push_comes_though_all_is_cancelled(metrics, autojump_clock):
    class Waiting(Recorder):
        async def push(self, families, *, is_last):
            await trio.sleep(0.5)
            await super().push(families, is_last=is_last)

    exporter = Waiting()
    with trio.CancelScope() as scope:
        scope.cancel()
        await Pushing(metrics, [exporter]).finish()
    assert exporter.is_ended
    assert pushes(metrics, "ok") == 1


async def test_after_a_loop_that_stood_still_one_push_makes_up_for_all(metrics, mock_clock):
    recorder = Recorder(1)
    async with pushing(metrics, recorder):
        for seconds in (100, 0.9):
            mock_clock.jump(seconds)
            await trio.testing.wait_all_tasks_blocked()
            assert len(recorder.pushes) == 2
        mock_clock.jump(0.1)
        await trio.testing.wait_all_tasks_blocked()
        assert len(recorder.pushes) == 3


@pytest.fixture
def registry():
    """Let a test register in the default registry; what it has registered is taken off at the end."""
    prometheus_client = pytest.importorskip("prometheus_client")
    registered = []

    class Scratch:
        def register(self, collector):
            prometheus_client.REGISTRY.register(collector)
            registered.append(collector)
            return collector

    yield Scratch()
    for one in registered:
        prometheus_client.REGISTRY.unregister(one)


async def test_a_process_that_serves_by_itself_pushes_what_prometheus_client_has(metrics, registry, autojump_clock):
    prometheus_client = pytest.importorskip("prometheus_client")
    collector = pytest.importorskip("pagi_trio.metrics.exporters.prometheus").Collector
    jobs = registry.register(prometheus_client.Counter("push_jobs", "Jobs.", ["queue"], registry=None))
    sizes = registry.register(prometheus_client.Histogram("push_size", "Sizes.", buckets=(1,), registry=None))
    version = registry.register(prometheus_client.Info("push_build", "What it is.", registry=None))
    registry.register(collector(metrics, application=False))
    jobs.labels("mail").inc(3)
    sizes.observe(0.5)
    version.info({"version": "1"})
    recorder = Recorder()
    async with pushing(metrics, recorder):
        assert recorder.value("push_jobs_total", queue="mail") == 3
        assert recorder.value("push_size_bucket", le="1.0") == recorder.value("push_size_count") == 1
        assert recorder.value("push_size_sum") == 0.5
        assert recorder.value("push_build_info", version="1") == 1
    names = [family.name for family in recorder.pushes[-1]]
    assert len(names) == len(set(names))
    assert not any(name.startswith(("process_", "python_")) for name in names)
    suffixes = {sample.suffix for family in recorder.pushes[-1] for sample in family.samples}
    assert suffixes >= {"", "_total", "_bucket", "_count", "_sum", "_info"}
    assert "_created" not in suffixes


async def test_a_parent_pushes_nothing_of_its_own_registry(share, registry, autojump_clock):
    prometheus_client = pytest.importorskip("prometheus_client")
    registry.register(prometheus_client.Counter("push_parent", "Nobody's.", registry=None))
    recorder = Recorder()
    async with pushing(ServerMetrics(Meter(share(1), None, is_owner=True)), recorder):
        assert "push_parent" not in {family.name for family in recorder.pushes[0]}


async def test_a_collector_that_raises_costs_the_registry_alone_and_is_logged_once(
    metrics, registry, autojump_clock, caplog
):
    class Broken:
        def describe(self):
            return []

        def collect(self):
            raise LookupError("the application's own")

    registry.register(Broken())
    recorder = Recorder(1)
    async with pushing(metrics, recorder):
        await trio.sleep(2.5)
    assert (pushes(metrics, "ok"), pushes(metrics, "failed")) == (4, 0)
    assert len(recorder.pushes[-1]) == len(catalog.CATALOG)
    assert metrics.value("pagi_metrics_errors_total", part="render") == 4
    [record] = caplog.records
    assert record.getMessage().startswith("what prometheus_client has registered was not pushed")


async def test_without_metrics_or_exporters_there_is_nothing_to_do(metrics):
    recorder = Recorder()
    for tasks in (Pushing(None, [recorder]), Pushing(metrics, [])):
        async with trio.open_nursery() as nursery:
            tasks.start(nursery)
            assert nursery.child_tasks == set()
        await tasks.finish()
    assert recorder.pushes == []
