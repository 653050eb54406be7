"""prometheus_client's metrics, defined as anyone defines them, with their numbers in a region."""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import subprocess
import sys
import threading
from unittest import mock

import pytest

pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Info, Summary, generate_latest, values
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.samples import Exemplar

from pagi_trio.metrics.application.aggregation import Source, absorb, aggregate
from pagi_trio.metrics.application.region import CELLS, REGION_BYTES, SHARES, Region
from pagi_trio.metrics.application.region_reader import RegionReader
from pagi_trio.metrics.application.turns import Turns
from pagi_trio.metrics.exporters.families import merge, to_prometheus
from pagi_trio.metrics.exporters.prometheus_values import install


class Worker:
    """What a worker process has: a region, and a registry that stands for the default one."""

    def __init__(self):
        area = memoryview(bytearray(REGION_BYTES))
        self.region = Region(area)
        self.turns = Turns(self.region)
        self.reader = RegionReader(area)
        self.registry = CollectorRegistry(auto_describe=True)
        self.app = install(self.turns, registry=self.registry)

    def page(self):
        return aggregate([Source(self.reader.read(), 1, 1)])

    def lines(self):
        """Return the samples of the page of all workers."""
        registry = mock.Mock(collect=lambda: to_prometheus(self.page()))
        return {line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")}


@pytest.fixture
def worker():
    made = Worker()
    yield made
    made.app.close()


def test_what_is_not_labelled_is_on_the_page_at_once(worker):
    Counter("hits", "Hits.", registry=worker.registry)
    Gauge("level", "Level.", registry=worker.registry, multiprocess_mode="sum")
    Summary("size", "Size.", registry=worker.registry)
    Histogram("seconds", "Seconds.", registry=worker.registry, buckets=(1, 2))
    assert worker.lines() == {
        "hits_total 0.0",
        "level 0.0",
        "size_count 0.0",
        "size_sum 0.0",
        'seconds_bucket{le="1.0"} 0.0',
        'seconds_bucket{le="2.0"} 0.0',
        'seconds_bucket{le="+Inf"} 0.0',
        "seconds_count 0.0",
        "seconds_sum 0.0",
    }


def test_one_process_has_the_page_of_a_plain_registry(worker):
    """The same metrics written the same way, once with the hooks and once without."""

    def write(registry):
        hits = Counter("hits_total", "Hits,\nin two lines.", ["path"], registry=registry, namespace="app")
        hits.labels("/a").inc()
        hits.labels(path='/"b"').inc(2.5)
        Gauge("level", "Level.", registry=registry, multiprocess_mode="max", unit="meters").set(3)
        Gauge("now", "Now.", ["room"], registry=registry, multiprocess_mode="mostrecent").labels("a").set(7)
        busy = Gauge("busy", "Busy.", registry=registry, multiprocess_mode="livesum")
        busy.inc()
        busy.dec(3)
        Summary("size", "Size.", registry=registry).observe(2)
        seconds = Histogram("seconds", "Seconds.", ["path"], registry=registry, buckets=(0.5, 2))
        for amount in (0.1, 0.7, 9):
            seconds.labels("/a").observe(amount)

    write(worker.registry)
    worker.app.close()
    plain = CollectorRegistry()
    write(plain)
    expected = [line for line in generate_latest(plain).decode().splitlines() if "_created" not in line]
    registry = mock.Mock(collect=lambda: to_prometheus(worker.page()))
    assert sorted(generate_latest(registry).decode().splitlines()) == sorted(expected)


def test_a_child_is_on_the_page_with_its_first_write(worker):
    hits = Counter("hits", "Hits.", ["path"], registry=worker.registry)
    child = hits.labels("/a")
    assert worker.lines() == set()
    child.inc()
    assert worker.lines() == {'hits_total{path="/a"} 1.0'}


def test_a_child_that_is_never_written_is_on_the_page_soon(worker):
    Counter("hits", "Hits.", ["path"], registry=worker.registry).labels("/a")
    Histogram("seconds", "Seconds.", ["path"], registry=worker.registry, buckets=(1,)).labels("/a")
    worker.app.place_pending()
    assert 'hits_total{path="/a"} 0.0' in worker.lines()
    assert 'seconds_count{path="/a"} 0.0' in worker.lines()


def test_a_child_that_is_just_being_made_is_not_forgotten(worker):
    class Slow(Counter):
        def _metric_init(self):
            super()._metric_init()
            worker.app.place_pending()  # as another thread may

    Slow("hits", "Hits.", ["path"], registry=worker.registry).labels("/a")
    worker.app.place_pending()
    assert worker.lines() == {'hits_total{path="/a"} 0.0'}


def test_get_is_the_processs_own_number(worker):
    hits = Counter("hits", "Hits.", registry=worker.registry)
    hits.inc(2)
    assert worker.registry.get_sample_value("hits_total") == 2.0


def test_another_registrys_metric_of_the_same_name_stays_out(worker):
    hits = Counter("hits", "Hits.", ["path"], registry=worker.registry)
    other = Counter("hits", "Hits.", ["path"], registry=CollectorRegistry())
    other.labels("/a").inc(5)
    worker.app.place_pending()
    other.labels("/b").inc(5)
    hits.labels("/a").inc()
    for _ in range(3):
        worker.app.place_pending()
        other.labels("/a").inc()
    assert worker.lines() == {'hits_total{path="/a"} 1.0'}
    assert other.labels("/a")._value.get() == 8.0


def test_a_metric_registered_later_brings_what_it_has_counted(worker):
    hits = Counter("hits", "Hits.", ["path"], registry=None)
    level = Gauge("level", "Level.", registry=None, multiprocess_mode="max")
    hits.labels("/a").inc(2)
    level.set(4)
    for _ in range(3):
        worker.app.place_pending()
    assert worker.lines() == set()
    worker.registry.register(hits)
    worker.registry.register(level)
    hits.labels("/a").inc()
    assert worker.lines() == {'hits_total{path="/a"} 3.0', "level 4.0"}


def test_a_gauge_of_mode_all_has_the_slot(worker):
    Gauge("level", "Level.", ["worker"], registry=worker.registry).labels("w").set(1)
    assert worker.lines() == {'level{worker="w",worker_slot="1"} 1.0'}


@pytest.mark.parametrize("forget", ["remove", "clear"])
def test_a_removed_counter_stays_in_the_total_and_goes_on(worker, forget):
    hits = Counter("hits", "Hits.", ["path"], registry=worker.registry)
    hits.labels("/a").inc(3)
    kept = hits.labels("/a")
    hits.remove("/a") if forget == "remove" else hits.clear()
    assert worker.lines() == {'hits_total{path="/a"} 3.0'}
    hits.labels("/a").inc()
    kept.inc(100)
    assert worker.lines() == {'hits_total{path="/a"} 4.0'}
    assert hits.labels("/a")._value.get() == 1.0


@pytest.mark.parametrize("mode", ["all", "max", "livesum"])
def test_a_removed_gauge_is_gone_until_it_comes_again(worker, mode):
    level = Gauge("level", "Level.", ["room"], registry=worker.registry, multiprocess_mode=mode)
    level.labels("a").set(3)
    worker.app.place_pending()
    level.remove("a")
    worker.app.place_pending()
    assert worker.lines() == set()
    level.labels("a").set(2)
    worker.app.place_pending()
    (line,) = worker.lines()
    assert line.endswith(" 2.0")


@pytest.mark.parametrize("forget", ["remove", "clear"])
def test_a_removed_gauge_is_gone_also_while_the_application_keeps_it(worker, forget):
    level = Gauge("level", "Level.", ["room"], registry=worker.registry, multiprocess_mode="max")
    kept = level.labels("a")
    kept.set(3)
    level.remove("a") if forget == "remove" else level.clear()
    worker.app.place_pending()
    assert worker.lines() == set()
    kept.set(4)
    worker.app.place_pending()
    assert worker.lines() == set()


def test_a_gauge_that_comes_again_is_not_taken_off_by_the_one_before(worker):
    level = Gauge("level", "Level.", ["room"], registry=worker.registry, multiprocess_mode="max")
    level.labels("a").set(3)
    before = level.labels("a")
    level.remove("a")
    level.labels("a").set(2)
    worker.app.place_pending()
    before.set(9)
    worker.app.place_pending()
    assert worker.lines() == {'level{room="a"} 2.0'}


def test_a_counter_that_is_reset_stays_in_the_total(worker):
    hits = Counter("hits", "Hits.", registry=worker.registry)
    hits.inc(3)
    hits._value.set(0)  # what Counter.reset does, which 0.20 has not
    hits.inc(2)
    assert worker.lines() == {"hits_total 5.0"}
    assert hits._value.get() == 2.0


def test_a_metric_that_is_unregistered_counts_no_more_until_it_is_registered_again(worker):
    hits = Counter("hits", "Hits.", registry=worker.registry)
    level = Gauge("level", "Level.", registry=worker.registry, multiprocess_mode="max")
    hits.inc(3)
    level.set(3)
    worker.registry.unregister(hits)
    worker.registry.unregister(level)
    hits.inc(2)
    assert worker.lines() == {"hits_total 3.0"}
    worker.registry.register(hits)
    worker.registry.register(level)
    hits.inc(1)
    assert worker.lines() == {"hits_total 6.0", "level 3.0"}


def test_a_reloaded_module_defines_its_metric_again(worker):
    before = Counter("hits", "Hits.", registry=worker.registry)
    before.inc(3)
    worker.registry.unregister(before)
    after = Counter("hits", "Hits.", registry=worker.registry)
    before.inc(100)
    after.inc(1)
    assert worker.lines() == {"hits_total 4.0"}
    worker.registry.unregister(after)
    Gauge("hits", "Hits.", registry=worker.registry, multiprocess_mode="sum").set(9)
    assert worker.lines() == {"hits 9.0"}


def test_a_duplicate_is_refused_as_ever(worker):
    first = Counter("hits", "Hits.", registry=worker.registry)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        Counter("hits", "Hits.", registry=worker.registry)
    first.inc()
    assert worker.lines() == {"hits_total 1.0"}


def test_threads_lose_no_count(worker):
    hits = Counter("hits", "Hits.", ["path"], registry=worker.registry)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [
            threading.Thread(target=lambda: [hits.labels(str(number % 5)).inc() for number in range(500)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert worker.lines() == {f'hits_total{{path="{number}"}} 400.0' for number in range(5)}


class Told:
    """A help text that does something when it is read, which is in the middle of placing the metric's series."""

    def __init__(self, act=lambda: None):
        self.act = act

    def __str__(self):
        self.act()
        return "Told."


@pytest.mark.parametrize("label", ["old", "new"])
def test_nobody_waits_for_placing(worker, label):
    """As in prometheus_client: the finalizers that placing may run can take locks that another thread counts with."""
    hits = Counter("hits", "Hits.", ["path"], registry=worker.registry)
    hits.labels("old").inc()
    stuck = []

    def count_elsewhere():
        thread = threading.Thread(target=lambda: hits.labels(label).inc(2), daemon=True)
        thread.start()
        thread.join(timeout=5)
        stuck.append(thread.is_alive())

    text = Told()
    made = Counter("made", text, ["path"], registry=worker.registry)
    text.act = count_elsewhere
    made.labels("/a").inc(4)
    assert stuck == [False]
    # What came meanwhile is placed as soon as that is possible, not at the next turn.
    expected = {"old": 3.0} if label == "old" else {"old": 1.0, "new": 2.0}
    assert worker.lines() == {
        'made_total{path="/a"} 4.0',
        *(f'hits_total{{path="{k}"}} {v}' for k, v in expected.items()),
    }


def test_what_is_counted_in_the_middle_of_placing_is_not_lost(worker):
    """By a finalizer, which may run wherever memory is allocated; here at the first places where it may."""
    made = Counter("made", "Made.", ["path"], registry=worker.registry)
    gone = Counter("gone", "Gone.", ["path"], registry=worker.registry)
    others = 0

    def collected(phase, _):
        nonlocal others
        if phase == "start" and others < 100:
            others += 1
            gone.labels(str(others)).inc(100)

    children = [made.labels(str(number)) for number in range(20)]
    threshold = gc.get_threshold()
    gc.callbacks.append(collected)
    gc.set_threshold(1)
    try:
        for child in children:
            child.inc()
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(collected)
    assert others == 100
    assert worker.lines() == {
        *(f'made_total{{path="{number}"}} 1.0' for number in range(20)),
        *(f'gone_total{{path="{number}"}} 100.0' for number in range(1, others + 1)),
    }


def test_a_metric_that_is_defined_in_the_middle_of_placing_is_on_the_page(worker):
    defined = []

    def define():
        if not defined:
            defined.append(None)
            defined.append(Counter("inner", "Inner.", registry=worker.registry))

    Counter("outer", Told(define), registry=worker.registry)
    defined[1].inc()
    assert worker.lines() == {"outer_total 0.0", "inner_total 1.0"}


def test_a_label_that_no_page_can_have_is_counted_and_told(worker):
    hits = Counter("hits", "Hits.", ["path"], registry=worker.registry)
    hits.labels("\udcff").inc()
    hits.labels("\udcfe").inc(2)
    hits.labels("\udcff").inc()
    assert worker.lines() == {'hits_total{path="?"} 4.0'}


def test_past_the_room_a_series_counts_for_itself_and_is_told_once(worker, caplog):
    wide = Histogram("wide", "Wide.", ["path"], registry=worker.registry, buckets=range(CELLS // SHARES // 2 - 1))
    for path in ("a", "b", "c"):
        wide.labels(path).observe(1)
    worker.app.place_pending()
    wide.labels("c").observe(1)
    assert worker.turns.dropped == 2
    assert wide.labels("c")._sum.get() == 2.0
    assert [record.getMessage() for record in caplog.records] == [
        "the application has more series than workers can share; the first that is missing is one of wide"
    ]


def test_what_cannot_be_shared_is_named_and_served_by_its_worker(worker):
    class Custom:
        def collect(self):
            yield GaugeMetricFamily("custom", "Custom.", value=1)

    class Lazy(Gauge):
        def collect(self):
            self.set(5)
            return super().collect()

    worker.registry.register(Custom())
    Info("build", "Build.", registry=worker.registry).info({"version": "1"})
    Enum("state", "State.", registry=worker.registry, states=["on", "off"])
    Lazy("lazy", "Lazy.", registry=worker.registry)
    Gauge("plain", "Plain.", registry=worker.registry, multiprocess_mode="max").set(1)
    assert worker.app.unshared() == {"custom", "build", "state", "lazy"}
    samples = {
        (sample.name, tuple(sample.labels.items()), sample.value)
        for family in worker.app.collect_unshared(3)
        for sample in family.samples
    }
    assert samples == {
        ("custom", (("worker", "3"),), 1),
        ("build_info", (("version", "1"), ("worker", "3")), 1.0),
        ("state", (("state", "on"), ("worker", "3")), 1),
        ("state", (("state", "off"), ("worker", "3")), 0),
        ("lazy", (("worker", "3"),), 5.0),
    }
    assert worker.lines() == {"plain 1.0"}


def test_the_functions_of_a_gauge_stand_beside_its_other_series(worker):
    level = Gauge("level", "Level.", ["room"], registry=worker.registry)
    level.labels("a").set(1)
    level.labels("b").set_function(lambda: 2.0)
    worker.app.place_pending()
    assert worker.lines() == {'level{room="a",worker="1"} 1.0'}
    alone = Gauge("alone", "Alone.", registry=worker.registry)
    alone.set_function(lambda: 3.0)
    assert worker.app.unshared() == {"level", "alone"}
    registry = mock.Mock(collect=lambda: merge(to_prometheus(worker.page()), worker.app.collect_unshared(1)))
    assert [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("# HELP")] == [
        "# TYPE level gauge",
        'level{room="a",worker="1"} 1.0',
        'level{room="b",worker="1"} 2.0',
        "# TYPE alone gauge",
        'alone{worker="1"} 3.0',
    ]


def test_a_function_may_be_set_on_what_was_written(worker):
    level = Gauge("level", "Level.", registry=worker.registry)
    level.set(1)
    level.set_function(lambda: 2.0)
    worker.app.unshared()
    level.set(7)
    worker.app.place_pending()
    assert worker.lines() == set()


def test_a_function_stands_in_place_of_what_its_series_had(worker):
    """Between two turns of the worker, or when the value is a dead process's of the same slot."""
    level = Gauge("level", "Level.", ["room"], registry=worker.registry)
    level.labels("a").set(1)
    level.labels("b").set(2)
    level.labels("a").set_function(lambda: 7.0)
    registry = mock.Mock(collect=lambda: merge(to_prometheus(worker.page()), worker.app.collect_unshared(1)))
    lines = [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]
    assert sorted(lines) == ['level{room="a",worker="1"} 7.0', 'level{room="b",worker="1"} 2.0']


def test_what_the_application_says_of_itself_is_of_no_worker(worker):
    worker.registry.set_target_info({"version": "1"})
    (target,) = worker.app.collect_unshared(1)
    assert [(sample.name, sample.labels, sample.value) for sample in target.samples] == [
        ("target_info", {"version": "1"}, 1)
    ]
    assert worker.app.unshared() == set()


def test_a_gauge_that_cannot_be_looked_at_is_told_and_hides_no_other(worker, caplog):
    class Expiring(dict):
        def copy(self):
            raise RuntimeError("it has changed")

        get = copy

    odd = Gauge("odd", "Odd.", ["room"], registry=worker.registry)
    odd.labels("a").set(1)
    odd.labels("b")
    plain = Gauge("plain", "Plain.", ["room"], registry=worker.registry, multiprocess_mode="max")
    plain.labels("a").set(1)
    plain.remove("a")
    plain.labels("b")
    Gauge("level", "Level.", registry=worker.registry).set_function(lambda: 1.0)
    odd._metrics = Expiring()
    assert worker.app.unshared() == {"level"}
    worker.app.place_pending()
    assert worker.lines() == {'plain{room="b"} 0.0'}
    assert "counts in its own process only: RuntimeError" in caplog.text


def test_children_may_be_made_while_they_are_looked_at(worker):
    """The garbage collector runs whatever it likes in the middle of a loop over the children."""
    level = Gauge("level", "Level.", ["room"], registry=worker.registry)
    for number in range(10):
        level.labels(str(number)).set_function(lambda: 1.0)
    made = 0

    def collected(*_):
        nonlocal made
        made += 1
        level.labels(f"more {made}")

    # Which also has no memory left for small objects, so that each needs an allocation.
    gc.collect()
    threshold = gc.get_threshold()
    gc.callbacks.append(collected)
    gc.set_threshold(1)
    try:
        unshared = worker.app.unshared()
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(collected)
    assert made
    assert unshared == {"level"}
    assert not worker.app._noted


def test_ignored_collectors_are_neither_named_nor_served():
    class Ours:
        def collect(self):
            yield GaugeMetricFamily("ours", "Ours.", value=1)

    registry = CollectorRegistry(auto_describe=True)
    app = install(Turns(Region(memoryview(bytearray(REGION_BYTES)))), registry=registry, ignored=(Ours,))
    registry.register(Ours())
    assert app.unshared() == set()
    assert list(app.collect_unshared(1)) == []
    app.close()


def test_a_metric_from_before_is_not_shared(worker):
    worker.app.close()
    Counter("early", "Early.", registry=worker.registry).inc()
    app = install(worker.turns, registry=worker.registry)
    assert app.unshared() == {"early"}
    (family,) = app.collect_unshared(2)
    assert family.samples[0].labels == {"worker": "2"}
    app.close()


def test_exemplars_are_kept_here_and_told_once(worker, caplog):
    hits = Counter("hits", "Hits.", registry=worker.registry)
    hits.inc(exemplar={"trace": "1"})
    hits.inc(exemplar={"trace": "2"})
    worker.app.place_pending()
    assert isinstance(hits._value.get_exemplar(), Exemplar)
    assert [record.getMessage() for record in caplog.records] == [
        "exemplars are not shared by workers, so the page has none; the first is of hits"
    ]


def test_a_subclass_that_only_counts_is_shared(worker):
    class Eager(Counter):
        def _metric_init(self):
            super()._metric_init()
            self._value.inc(1)

    Eager("hits", "Hits.", ["path"], registry=worker.registry).labels("/a")
    Eager("alone", "Alone.", registry=worker.registry)
    worker.app.place_pending()
    assert worker.lines() == {'hits_total{path="/a"} 1.0', "alone_total 1.0"}


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_mocks_and_oddities_break_nothing(worker):
    for odd in (mock.Mock(spec=Counter), mock.MagicMock(), mock.Mock(collect=list)):
        odd.describe = list
        worker.registry.register(odd)
        worker.registry.unregister(odd)
    hits = Counter("hits", "Hits.", ["path"], registry=worker.registry)
    with mock.patch.object(hits, "labels") as labels:
        hits.labels("/a").inc()
    labels.assert_called_once()
    hits._metrics = None
    hits_alone = Counter("alone", "Alone.", registry=worker.registry)
    hits_alone._value = values.MutexValue("counter", "alone", "alone_total", (), (), "")
    hits_alone.inc()
    worker.app.place_pending()
    assert worker.lines() == {"alone_total 0.0"}


def test_a_value_made_in_an_unknown_way_is_a_plain_one(worker, caplog):
    value = values.ValueClass("counter", "hits", "hits_total", labelnames=(), labelvalues=(), help_text="")
    value.inc(1)
    assert value.get() == 1.0
    worker.app.place_pending()
    assert "counts in its own process only" in caplog.text


def test_counting_goes_on_when_the_memory_is_gone(worker):
    hits = Counter("hits", "Hits.", registry=worker.registry)
    level = Gauge("level", "Level.", registry=worker.registry)
    hits.inc()
    worker.region.release()
    hits.inc()
    level.set(2)
    assert hits._value.get() == 2.0
    assert level._value.get() == 2.0


def test_closing_leaves_everything_as_it_was(worker):
    hits = Counter("hits", "Hits.", registry=worker.registry)
    hits.inc()
    worker.app.close()
    hits.inc()
    assert worker.lines() == {"hits_total 1.0"}
    assert values.ValueClass is values.MutexValue
    assert "register" not in vars(worker.registry)
    worker.registry.unregister(hits)
    assert worker.lines() == {"hits_total 1.0"}


def test_what_a_process_leaves_is_taken_on_by_the_next():
    """One process after the other, as a recycled worker, each with an exact part of the sum."""
    area = memoryview(bytearray(REGION_BYTES))
    retired, left = Region(area), RegionReader(area)
    for instance in range(1, 4):
        process = Worker()
        Counter("hits", "Hits.", ["path"], registry=process.registry).labels("/a").inc(instance)
        Gauge("peak", "Peak.", registry=process.registry, multiprocess_mode="max").set(10 - instance)
        process.app.close()
        absorb(retired, process.reader.read(), slot=1, instance=instance)
    samples = {one.family.name: one.samples[0].value for one in aggregate([Source(left.read())])}
    assert samples == {"hits": 6.0, "peak": 9.0}


COUNTING = """
import mmap, sys
from pagi_trio.metrics.exporters.prometheus_values import install
from pagi_trio.metrics.application.region import REGION_BYTES, Region
from pagi_trio.metrics.application.turns import Turns

fd, slot = map(int, sys.argv[1:])
app = install(Turns(Region(memoryview(mmap.mmap(fd, REGION_BYTES, offset=slot * REGION_BYTES)))))

from prometheus_client import Counter, Histogram
hits = Counter("hits", "Hits.", ["path"])
seconds = Histogram("seconds", "Seconds.", buckets=(1, 2))
number = 0
while True:
    hits.labels(str(number % 50)).inc()
    seconds.observe(number % 3)
    number += 1
    if number % 100 == 0:
        print(number, flush=True)
"""


def total(sources, suffix):
    return sum(s.value for one in aggregate(sources) for s in one.samples if s.suffix == suffix)


def test_processes_that_are_killed_leave_what_they_have_counted():
    """Starts two real processes over real shared memory, which takes most of its time."""
    fd = os.memfd_create("regions")
    os.ftruncate(fd, 3 * REGION_BYTES)
    octets = memoryview(mmap.mmap(fd, 0))
    areas = [octets[slot * REGION_BYTES : (slot + 1) * REGION_BYTES] for slot in range(3)]
    readers = [RegionReader(area) for area in areas]
    retired = Region(areas[0])

    def sources():
        return [Source(reader.read(), slot, slot or None) for slot, reader in enumerate(readers)]

    def start(slot):
        command = [sys.executable, "-c", COUNTING, str(fd), str(slot)]
        worker = subprocess.Popen(command, pass_fds=[fd], stdout=subprocess.PIPE)
        ended.callback(worker.__exit__, None, None, None)
        ended.callback(worker.kill)
        return worker

    with contextlib.ExitStack() as ended:
        told, page = 0, 0.0
        for slot, worker in [(slot, start(slot)) for slot in (1, 2)]:
            for _ in range(20):
                last = int(worker.stdout.readline())
                seen = total(sources(), "_total")
                assert seen >= max(page, told + last)
                page = seen
            worker.kill()
            *_, last = last, *worker.stdout.read().split()
            told += int(last)
            absorb(retired, readers[slot].read(), slot=slot, instance=slot)
            Region(areas[slot]).clear()
    counted = total(sources(), "_total")
    # No count is lost; after the last that it has told, a process has counted less than a hundred.
    assert told <= counted < told + 200
    assert counted - 2 <= total(sources(), "_count") <= counted
    os.close(fd)


IN_THE_DEFAULT_REGISTRY = """
import mmap, os
from pagi_trio.metrics.application.aggregation import Source, aggregate
from pagi_trio.metrics.exporters.prometheus_values import install
from pagi_trio.metrics.application.region import REGION_BYTES, Region
from pagi_trio.metrics.application.region_reader import RegionReader
from pagi_trio.metrics.application.turns import Turns

area = memoryview(mmap.mmap(-1, REGION_BYTES))
app = install(Turns(Region(area)))

from prometheus_client import Counter
hits = Counter("hits", "Hits.", ["path"])
hits.labels("/a").inc(2)
child = os.fork()
if child == 0:
    hits.labels("/a").inc(100)
    hits.labels("/b").inc(100)
    Counter("other", "Other.").inc()
    os._exit(int(hits.labels("/a")._value.get() - 102))
_, status = os.waitpid(child, 0)
hits.labels("/a").inc(1)
(family,) = aggregate([Source(RegionReader(area).read(), 1, 1)])
print(status, [(sample.labels, sample.value) for sample in family.samples])
print(sorted(app.unshared()))
for family in app.collect_unshared(4):
    print(family.name, sorted({name for sample in family.samples for name in sample.labels} & {"worker", "generation"}))
"""


FORKING_AMID_THREADS = """
import mmap, os, signal, threading
from pagi_trio.metrics.exporters.prometheus_values import install
from pagi_trio.metrics.application.region import REGION_BYTES, Region
from pagi_trio.metrics.application.turns import Turns

app = install(Turns(Region(memoryview(mmap.mmap(-1, REGION_BYTES)))))

from prometheus_client import Counter
hits = Counter("hits", "Hits.", ["path"])
hits.labels("/a").inc()
counting, forked = threading.Event(), threading.Event()

class Amount(float):
    def __radd__(self, other):
        counting.set()
        forked.wait()
        return other + float(self)

thread = threading.Thread(target=lambda: hits.labels("/a").inc(Amount(1)))
thread.start()
counting.wait()
child = os.fork()
if child == 0:
    signal.alarm(10)
    hits.labels("/a").inc()
    hits.labels("/b").inc()
    os._exit(0)
_, status = os.waitpid(child, 0)
forked.set()
thread.join()
print(status, hits.labels("/a")._value.get())
"""


def test_a_process_forked_while_a_thread_counts_can_count():
    """Runs in a process of its own, which takes most of its time to start."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING_AMID_THREADS]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "0 2.0\n"


def test_the_default_registry_of_a_process_that_forks():
    """Runs in a process of its own, which takes most of its time to start: the default registry is global."""
    done = subprocess.run([sys.executable, "-c", IN_THE_DEFAULT_REGISTRY], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    totals, unshared, *families = done.stdout.splitlines()
    assert totals == "0 [({'path': '/a'}, 3.0)]"
    assert unshared == "[]"
    assert sorted(families) == [
        "python_gc_collections ['generation', 'worker']",
        "python_gc_objects_collected ['generation', 'worker']",
        "python_gc_objects_uncollectable ['generation', 'worker']",
        "python_info []",
    ]


def test_a_family_that_another_owner_has_defined_is_left_alone_and_told_once(worker, caplog):
    worker.turns.claim("hits", "somebody else")
    hits = Counter("hits", "Hits.", ["path"], registry=worker.registry)
    hits.labels("/a").inc(2)
    hits.labels("/b").inc(2)
    assert worker.lines() == set()
    assert hits.labels("/a")._value.get() == 2
    assert [record.getMessage() for record in caplog.records] == [
        "the application has defined a metric twice, here and with Metrics, which is on the page: hits"
    ]
