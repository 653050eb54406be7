"""The contract of exporters (`pagi_trio.metrics.push.protocol`), for every one that there is.

The Prometheus page is read, not pushed; an exporter of a few lines that writes it shows that the contract is enough
for it.
"""

from __future__ import annotations

import re

import pytest
import trio
import trio.testing

from pagi_trio.config_statsd import parse_daemon
from pagi_trio.errors import PushFailedError
from pagi_trio.metrics.application.region import Family
from pagi_trio.metrics.meter import Meter
from pagi_trio.metrics.push.protocol import families_of
from pagi_trio.metrics.push.recorder import Recorder
from pagi_trio.metrics.push.statsd import StatsD
from pagi_trio.metrics.push.statsd_format import DogStatsDWriter, StatsDWriter
from pagi_trio.metrics.pushing import Pushing
from pagi_trio.metrics.server_metrics import ServerMetrics
from tests.statsd import Daemon, address_of, bound
from tests.unit.stores import Worker

pytestmark = pytest.mark.trio

DEPTH = Family("app_depth", "gauge", labels=("queue",), mode="sum")
SIZES = Family("app_size_bytes", "histogram", unit="bytes", bounds=("1.0", "2.5", "+Inf"))


class ToRecorder:
    """The recorder, which a test can make fail."""

    interval_s = 1.0

    def __init__(self):
        self.exporter = self
        self.name = "recorder"
        self.is_broken = False
        self._recorder = Recorder()

    async def push(self, families, *, is_last):
        if self.is_broken:
            raise PushFailedError("broken")
        await self._recorder.push(families, is_last=is_last)

    def delivered(self, family, sample):
        return self._recorder.value(family.name + sample.suffix, **sample.labels)

    def close(self):
        pass


class ToPage(ToRecorder):
    """The Prometheus page, written of what is pushed."""

    def __init__(self):
        super().__init__()
        self._client = pytest.importorskip("prometheus_client")

    async def push(self, families, *, is_last):
        client = self._client
        await super().push(families, is_last=is_last)

        class Collected:
            def collect(self):
                for one in families:
                    metric = client.Metric(one.name, one.help, one.kind)
                    for suffix, labels, value in one.samples:
                        metric.add_sample(one.name + suffix, labels, value)
                    yield metric

        lines = client.generate_latest(Collected()).decode().splitlines()
        self._page = {name: float(value) for name, _, value in (x.rpartition(" ") for x in lines if x[0] != "#")}

    def delivered(self, family, sample):
        labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()))
        return self._page[family.name + sample.suffix + (f"{{{labels}}}" if labels else "")]


class ToStatsD:
    """A daemon, which a test can stop."""

    writer = StatsDWriter("web.")

    def __init__(self):
        self._bound = bound()
        self._sock = self._bound.__enter__()
        self._address = self._sock.getsockname()
        self._daemon = Daemon()
        self.exporter = StatsD(parse_daemon(address_of(self._sock)), self.writer, 1.0)

    @property
    def is_broken(self):
        return self._sock.fileno() < 0

    @is_broken.setter
    def is_broken(self, value):
        if value:
            # What has been sent was taken.
            self._daemon.take_all(self._sock)
            self.close()
        else:
            self._bound = bound(self._address)
            self._sock = self._bound.__enter__()

    def key(self, name, labels):
        return ".".join(["web", name, *(re.sub("[^a-zA-Z0-9_-]", "_", one.lstrip("+")) for one in labels.values())])

    def delivered(self, family, sample):
        self._daemon.take_all(self._sock)
        known = self._daemon.gauges if family.kind == "gauge" else self._daemon.counters
        return known[self.key(family.name + sample.suffix, sample.labels)]

    def close(self):
        self._bound.__exit__(None, None, None)


class ToDogStatsD(ToStatsD):
    """The same with tags."""

    writer = DogStatsDWriter("web.", ["env:test"])

    def key(self, name, labels):
        return (f"web.{name}", "env:test", *(f"{key}:{value.lstrip('+')}" for key, value in labels.items()))


@pytest.fixture(params=[ToRecorder, ToPage, ToStatsD, ToDogStatsD])
def target(request):
    made = request.param()
    yield made
    made.close()


class Site:
    """What a parent has: a store, and two workers that count."""

    def __init__(self, store):
        self.metrics = ServerMetrics(Meter(store, None, is_owner=True))
        self.workers = [Worker(store, slot, slot) for slot in (1, 2)]
        self._store = store

    def count(self, number):
        for worker in self.workers:
            worker.count(number, active=-1).do_jobs("mail", number)
            depth = worker.region.add_series(DEPTH, ("mail",))
            worker.region.values[depth] = -number / 4
            worker.region.stamps[depth] = 1.0
            size = worker.region.add_series(SIZES, ())
            for offset, amount in enumerate((0.5, 1, 0, number)):
                worker.region.values[size + offset] += amount

    def retire(self, slot):
        self._store.retire(slot)

    def pushes(self, outcome):
        exporters = ("statsd", "other")
        return sum(self.metrics.value("pagi_metrics_pushes_total", exporter=one, outcome=outcome) for one in exporters)


@pytest.fixture
def site(share):
    return Site(share(2))


def check(target, families):
    """Check that all of it has been delivered."""
    kinds = set()
    for family in families:
        for sample in family.samples:
            assert target.delivered(family, sample) == pytest.approx(sample.value, rel=1e-12), (family.name, sample)
            kinds.add(family.kind)
    assert kinds >= {"counter", "gauge", "histogram"}
    assert not [family.name for family in families if "le" in family.labels]


async def test_every_family_arrives_with_the_values_of_all_workers_again_and_again(target, site):
    for number in (1, 2, 5):
        site.count(number)
        families = families_of(site.metrics.snapshot())
        await target.exporter.push(families, is_last=False)
        check(target, families)
        names = {family.name: family for family in families}
        assert names["app_jobs"].samples[0].value == 2 * sum(one for one in (1, 2, 5) if one <= number)
        assert names["app_depth"].samples[0].value == -number / 2
        assert names["app_size_bytes"].unit == "bytes"
    site.retire(1)
    families = families_of(site.metrics.snapshot())
    await target.exporter.push(families, is_last=True)
    check(target, families)


async def test_what_fails_is_counted_logged_once_and_comes_with_the_next_that_succeeds(
    target, site, autojump_clock, caplog
):
    pushing = Pushing(site.metrics, [target.exporter])
    async with trio.open_nursery() as nursery:
        pushing.start(nursery)
        site.count(1)
        await trio.sleep(0.5)
        assert (site.pushes("ok"), site.pushes("failed")) == (1, 0)
        target.is_broken = True
        site.count(2)
        await trio.sleep(2)
        assert (site.pushes("ok"), site.pushes("failed")) == (1, 2)
        target.is_broken = False
        site.count(3)
        await trio.sleep(1)
        assert (site.pushes("ok"), site.pushes("failed")) == (2, 2)
        nursery.cancel_scope.cancel()
    assert [record.getMessage().startswith("metrics were not pushed to ") for record in caplog.records] == [True]
    site.count(4)
    families = families_of(site.metrics.snapshot())
    await pushing.finish()
    check(target, families)
    assert (site.pushes("ok"), site.pushes("failed")) == (3, 2)


async def test_any_number_get_the_same_at_once(site, autojump_clock):
    targets = [ToRecorder(), ToStatsD(), ToDogStatsD(), ToRecorder()]
    site.count(3)
    families = families_of(site.metrics.snapshot())
    await Pushing(site.metrics, [one.exporter for one in targets]).finish()
    for target in targets:
        check(target, families)
        target.close()
    assert site.pushes("ok") == 4


async def test_a_push_is_a_checkpoint_whatever_there_is_to_push(target, site):
    for families in (families_of(site.metrics.snapshot()), ()):
        with trio.testing.assert_checkpoints():
            await target.exporter.push(families, is_last=False)
    with trio.testing.assert_checkpoints():
        await target.exporter.push((), is_last=True)
