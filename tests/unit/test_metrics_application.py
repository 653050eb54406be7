"""The application's own metrics over several processes, as prometheus_client's multiprocess mode defines them."""

from __future__ import annotations

import math
from dataclasses import replace
from math import fsum, inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagi_trio.metrics.application.aggregation import REMOVED, WRITTEN, Sample, Source, absorb, aggregate, worker_label
from pagi_trio.metrics.application.region import CELLS, REGION_BYTES, Family, Region
from pagi_trio.metrics.application.region_reader import RegionReader

COUNTER = Family("hits", "counter", "Hits.", ("path",))
SUMMARY = Family("size", "summary")
HISTOGRAM = Family("seconds", "histogram", bounds=("0.5", "2.0", "+Inf"))


def gauge(mode, *labels):
    return Family("level", "gauge", labels=labels, mode=mode)


class Process:
    """A region with a reader."""

    def __init__(self, instance=0, slot=None):
        self.instance = instance
        self.slot = slot
        area = memoryview(bytearray(REGION_BYTES))
        self.region = Region(area)
        self.reader = RegionReader(area)

    def put(self, family, labels=(), values=(1.0,), stamp=0.0):
        cell = self.region.add_series(family, labels)
        for place, value in enumerate(values, cell):
            self.region.values[place] = value
            self.region.stamps[place] = stamp
        return self

    @property
    def source(self):
        return Source(self.reader.read(), self.instance, self.slot)


class Server:
    """Processes that come and die, and what is left of them."""

    def __init__(self):
        self.retired = Process()
        self.live = {}
        self.spawned = 0

    def spawn(self, slot=1):
        self.spawned += 1
        self.live[slot] = Process(self.spawned, slot)
        return self.live[slot]

    def die(self, slot=1):
        dead = self.live.pop(slot)
        return absorb(self.retired.region, dead.reader.read(), slot=slot, instance=dead.instance)

    def page(self):
        return aggregate([self.retired.source, *(process.source for process in self.live.values())])

    def samples(self, name):
        (family,) = [one for one in self.page() if one.family.name == name]
        return family.samples

    def value(self, name, **labels):
        (value,) = [sample.value for sample in self.samples(name) if sample.labels == labels]
        return value


@pytest.fixture
def server():
    return Server()


def test_counters_are_added_up_over_the_living_and_the_dead(server):
    server.spawn(1).put(COUNTER, ("/a",), [1.0])
    server.spawn(2).put(COUNTER, ("/a",), [2.0]).put(COUNTER, ("/b",), [4.0])
    expected = [Sample("_total", {"path": "/a"}, 3.0), Sample("_total", {"path": "/b"}, 4.0)]
    assert sorted(server.samples("hits"), key=str) == expected
    server.die(2)
    assert sorted(server.samples("hits"), key=str) == expected
    server.spawn(2).put(COUNTER, ("/b",), [8.0])
    server.die(1)
    server.die(2)
    assert server.value("hits", path="/b") == 12.0


def test_summaries_are_added_up(server):
    server.spawn(1).put(SUMMARY, (), [2.0, 10.0])
    server.die(1)
    server.spawn(1).put(SUMMARY, (), [1.0, 0.5])
    assert server.samples("size") == [Sample("_count", {}, 3.0), Sample("_sum", {}, 10.5)]


def test_a_histograms_buckets_are_cumulative_and_make_its_count(server):
    server.spawn(1).put(HISTOGRAM, (), [7.5, 1.0, 2.0, 3.0])
    server.die(1)
    server.spawn(1).put(HISTOGRAM, (), [0.5, 1.0, 0.0, 0.0])
    assert server.samples("seconds") == [
        Sample("_bucket", {"le": "0.5"}, 2.0),
        Sample("_bucket", {"le": "2.0"}, 4.0),
        Sample("_bucket", {"le": "+Inf"}, 7.0),
        Sample("_count", {}, 7.0),
        Sample("_sum", {}, 8.0),
    ]


def test_a_histogram_of_negative_numbers_has_no_sum(server):
    server.spawn().put(Family("change", "histogram", bounds=("-1.0", "+Inf")), (), [-2.0, 1.0, 0.0])
    assert [sample.suffix for sample in server.samples("change")] == ["_bucket", "_bucket", "_count"]


@pytest.mark.parametrize(
    ("mode", "living", "with_dead"),
    [
        ("min", 2.0, 1.0),
        ("max", 3.0, 9.0),
        ("sum", 5.0, 15.0),
        ("mostrecent", 2.0, 9.0),
        ("livemin", 2.0, 2.0),
        ("livemax", 3.0, 3.0),
        ("livesum", 5.0, 5.0),
        ("livemostrecent", 2.0, 2.0),
    ],
)
def test_a_gauge_of_several_processes_is_one_by_its_mode(server, mode, living, with_dead):
    server.spawn(1).put(gauge(mode), (), [2.0], stamp=20.0)
    server.spawn(2).put(gauge(mode), (), [3.0], stamp=10.0)
    assert server.samples("level") == [Sample("", {}, living)]
    server.spawn(3).put(gauge(mode), (), [1.0], stamp=5.0)
    server.spawn(4).put(gauge(mode), (), [9.0], stamp=30.0)
    server.die(3)
    server.die(4)
    assert server.samples("level") == [Sample("", {}, with_dead)]


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("values", [(math.nan, 2.0), (2.0, math.nan)])
def test_what_is_no_number_is_neither_the_least_nor_the_most(server, mode, values):
    for slot, value in enumerate(values, 1):
        server.spawn(slot).put(gauge(mode), (), [value])
    assert server.samples("level") == [Sample("", {}, 2.0)]
    server.die(1)
    assert server.samples("level") == [Sample("", {}, 2.0)]


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_gauge_that_is_a_number_nowhere_is_none(server, mode):
    server.spawn(1).put(gauge(mode), (), [math.nan])
    assert math.isnan(server.value("level"))


def test_a_gauge_of_mode_all_has_the_slots_of_the_living_and_the_dead(server):
    server.spawn(1).put(gauge("all", "room"), ("a",), [1.0], stamp=WRITTEN)
    server.spawn(2).put(gauge("all", "room"), ("a",), [2.0], stamp=WRITTEN)
    server.die(2)
    assert server.value("level", room="a", worker="1") == 1.0
    assert server.value("level", room="a", worker="2") == 2.0


def test_a_slots_last_value_stays_until_its_next_process_sets_its_own(server):
    server.spawn(1).put(gauge("all"), (), [5.0], stamp=WRITTEN)
    server.die(1)
    server.spawn(1).put(gauge("all"), (), [0.0])
    assert server.value("level", worker="1") == 5.0
    server.die(1)
    server.spawn(1).put(gauge("all"), (), [7.0], stamp=WRITTEN)
    assert server.samples("level") == [Sample("", {"worker": "1"}, 7.0)]


def test_a_gauge_of_mode_all_that_nobody_has_set_is_there(server):
    server.spawn(1).put(gauge("all"), (), [0.0])
    assert server.value("level", worker="1") == 0.0


def test_a_gauge_of_mode_liveall_ends_with_its_process(server):
    server.spawn(1).put(gauge("liveall"), (), [1.0], stamp=WRITTEN)
    server.spawn(2).put(gauge("liveall"), (), [2.0], stamp=WRITTEN)
    server.die(1)
    assert server.samples("level") == [Sample("", {"worker": "2"}, 2.0)]


@pytest.mark.parametrize(
    ("labels", "label"),
    [((), "worker"), (("room", "worker"), "worker_slot"), (("worker_slot", "worker"), "worker_slot_slot")],
)
def test_the_slots_label_is_none_of_the_applications(server, labels, label):
    assert worker_label(labels) == label
    server.spawn(3).put(gauge("all", *labels), labels)
    (sample,) = server.samples("level")
    assert sample.labels == {**dict(zip(labels, labels, strict=True)), label: "3"}


@pytest.mark.parametrize("mode", ["all", "max", "livesum"])
def test_a_removed_gauge_is_gone_and_stays_gone(server, mode):
    server.spawn(1).put(gauge(mode, "room"), ("a",), [5.0], stamp=WRITTEN)
    server.live[1].put(gauge(mode, "room"), ("b",), [6.0], stamp=REMOVED)
    assert [sample.labels["room"] for sample in server.samples("level")] == ["a"]
    server.die(1)
    assert all(sample.labels["room"] == "a" for sample in server.samples("level"))


def test_removing_a_gauge_of_a_slot_removes_its_predecessors_as_well(server):
    server.spawn(1).put(gauge("all"), (), [5.0], stamp=WRITTEN)
    server.die(1)
    server.spawn(1).put(gauge("all"), (), [6.0], stamp=REMOVED)
    assert server.samples("level") == []
    server.die(1)
    assert server.samples("level") == []


def test_a_family_without_series_is_on_the_page(server):
    server.spawn(1).region.add_family(COUNTER)
    assert server.samples("hits") == []


def test_the_newest_process_defines_a_name(server):
    other = Family("hits", "gauge", labels=("path",), mode="sum")
    server.spawn(1).put(COUNTER, ("/a",), [1.0])
    server.die(1)
    server.spawn(1).put(COUNTER, ("/a",), [2.0])
    server.spawn(2).put(other, ("/a",), [4.0], stamp=WRITTEN)
    assert server.samples("hits") == [Sample("", {"path": "/a"}, 4.0)]


def test_families_are_put_together_one_by_one_so_that_others_can_run_in_between(server):
    server.spawn(1).put(COUNTER, ("/a",), [1.0])
    server.spawn(2).put(SUMMARY, (), [1.0, 2.0])
    taken = []

    class Values(list):
        def __getitem__(self, place):
            taken.append(place)
            return super().__getitem__(place)

    sources = [server.live[slot].source for slot in (2, 1)]
    sources = [replace(one, reading=one.reading._replace(values=Values(one.reading.values))) for one in sources]
    families = aggregate(sources)
    assert next(families).family == SUMMARY
    before = len(taken)
    assert next(families).family == COUNTER
    assert 0 < before < len(taken)


def test_the_newest_process_says_what_a_metric_is_for(server):
    """As new code does that a SIGHUP has brought: nothing else of the definition may differ."""
    old, new = (Family("hits", "counter", text, ("path",)) for text in ("Hits.", "Hits of the cache."))
    server.spawn().put(old, ("/",))
    server.die()
    server.spawn(1).put(old, ("/",))
    server.spawn(2).put(new, ("/",))
    [one] = server.page()
    assert one.family.help == "Hits of the cache."
    assert [sample.value for sample in one.samples] == [3.0]


def test_a_new_definition_drops_the_figures_of_the_old_one(server):
    other = Family("hits", "counter", labels=("method",))
    server.spawn(1).put(COUNTER, ("/a",), [1.0]).put(SUMMARY, (), [1.0, 2.0])
    server.die(1)
    server.spawn(1).put(other, ("GET",), [2.0])
    assert server.die(1) == (["hits"], 0)
    assert server.samples("hits") == [Sample("_total", {"method": "GET"}, 2.0)]
    assert server.samples("size")[0].value == 1.0


def test_an_older_process_that_dies_later_does_not_bring_its_definition_back(server):
    other = Family("hits", "counter", labels=("method",))
    server.spawn(1).put(COUNTER, ("/a",), [1.0])
    server.spawn(2).put(other, ("GET",), [2.0])
    server.die(2)
    assert server.samples("hits") == [Sample("_total", {"method": "GET"}, 2.0)]
    assert server.die(1) == ([], 0)
    assert server.samples("hits") == [Sample("_total", {"method": "GET"}, 2.0)]


def test_the_dead_are_as_new_as_the_newest_of_them(server):
    other = Family("hits", "counter", labels=("method",))
    server.spawn(1).put(COUNTER, ("/a",), [1.0])
    server.spawn(2).put(other, ("GET",), [2.0])
    server.spawn(3).put(COUNTER, ("/a",), [4.0])
    server.die(3)
    server.die(1)
    assert server.samples("hits") == [Sample("_total", {"path": "/a"}, 5.0)]


def test_a_live_gauge_that_replaced_another_keeps_its_name_when_it_ends(server):
    server.spawn(1).put(gauge("sum"), (), [1.0])
    server.die(1)
    server.spawn(1).put(gauge("livesum"), (), [2.0])
    assert server.die(1).replaced == ["level"]
    assert server.samples("level") == []


def test_other_buckets_are_another_definition(server):
    server.spawn(1).put(HISTOGRAM, (), [1.0, 1.0, 1.0, 1.0])
    server.die(1)
    server.spawn(1).put(Family("seconds", "histogram", bounds=("1.0", "+Inf")), (), [1.0, 1.0, 0.0])
    assert server.samples("seconds")[-2:] == [Sample("_count", {}, 1.0), Sample("_sum", {}, 1.0)]


def test_a_thousand_recycles_take_no_more_room_than_one(server):
    def recycle():
        process = server.spawn(1).put(COUNTER, ("/a",), [1.0]).put(HISTOGRAM, (), [1.0, 0.0, 1.0, 0.0])
        process.put(gauge("all"), (), [1.0], stamp=WRITTEN)
        server.die(1)
        return len(server.retired.reader.read().values)

    room = recycle()
    assert {recycle() for _ in range(999)} == {room}
    assert server.value("hits", path="/a") == 1000.0


def test_a_thousand_recycles_lose_nothing_to_rounding(server):
    for _ in range(1000):
        server.spawn(1).put(COUNTER, ("/a",), [0.1])
        server.die(1)
    assert server.value("hits", path="/a") == fsum([0.1] * 1000)


def test_names_that_change_with_every_process_take_no_more_room_either(server):
    def recycle(number):
        server.spawn(1).put(Family("hits", "counter", labels=(f"label_{number % 7}",)), ("x",), [1.0])
        server.die(1)
        return len(server.retired.reader.read().values)

    assert len({recycle(number) for number in range(50)}) == 1


def test_what_finds_no_room_is_counted(server):
    wide = Family("seconds", "histogram", labels=("path",), bounds=tuple(map(str, range(CELLS // 8 - 1))))
    for number in range(2):
        process = server.spawn(1)
        for series in range(7):
            process.region.add_series(wide, (f"{number} {series}",))
        assert server.die(1).dropped == number * 7


def fill(room, server):
    """Have dead processes leave so much that this many cells are free."""
    wide = Family("wide", "histogram", bounds=tuple(map(str, range(CELLS - room - 2))))
    server.spawn(1).region.add_series(wide, ())
    assert server.die(1).dropped == 0


def test_counters_find_room_before_gauges(server):
    fill(4, server)
    process = server.spawn(1)
    for room in "abcd":
        process.put(gauge("max", "room"), (room,), [1.0], stamp=WRITTEN)
    process.put(COUNTER, ("/a",), [3.0])
    assert server.die(1).dropped == 3
    assert server.value("hits", path="/a") == 3.0
    assert server.value("level", room="a") == 1.0


def test_gauges_of_slots_make_way_for_counters(server):
    peak = Family("peak", "gauge", mode="max")
    fill(9, server)
    server.spawn(1).put(COUNTER, ("/a",), [3.0]).put(peak, (), [7.0], stamp=WRITTEN)
    process = server.live[1]
    for room in "abcd":
        process.put(gauge("all", "room"), (room,), [1.0], stamp=WRITTEN)
    assert server.die(1).dropped == 0
    server.spawn(1).put(COUNTER, ("/b",), [4.0])
    assert server.die(1).dropped == 0
    assert server.value("hits", path="/a") == 3.0
    assert server.value("hits", path="/b") == 4.0
    assert server.value("peak") == 7.0
    assert [one.family.name for one in server.page() if one.family.mode == "all"] == []


def test_infinities_are_no_error(server):
    for slot, value in enumerate((inf, -inf, 1e308, 1e308), 1):
        server.spawn(slot).put(gauge("sum"), (), [value], stamp=WRITTEN).put(COUNTER, ("/a",), [abs(value)])
    assert server.value("hits", path="/a") == inf
    for slot in range(1, 5):
        server.die(slot)
    assert server.value("hits", path="/a") == inf
    assert len(server.samples("level")) == 1


AMOUNTS = st.floats(2**-20, 2**20) | st.integers(0, 10).map(float)


@given(st.lists(st.tuples(st.integers(1, 4), AMOUNTS | st.none()), max_size=60))
def test_the_page_says_what_all_have_counted_and_never_steps_back(events):
    """Counts of four slots in any order; None is the death of the process that has the slot."""
    server = Server()
    counted = []
    page = 0.0
    cells = {}
    for slot, amount in events:
        if amount is None:
            if slot in server.live:
                counted.append(server.live[slot].region.values[cells[slot]])
                server.die(slot)
        else:
            if slot not in server.live:
                cells[slot] = server.spawn(slot).region.add_series(COUNTER, ("/a",))
            server.live[slot].region.values[cells[slot]] += amount
        if server.spawned:
            total = server.value("hits", path="/a")
            assert total >= page
            page = total
            living = [process.region.values[cells[slot]] for slot, process in server.live.items()]
            assert page == fsum([*counted, *living])
