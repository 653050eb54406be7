"""The part of a segment whose series are known only at run time, and its readers in other processes."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagi_trio.metrics.application import region as layout
from pagi_trio.metrics.application.region import CELLS, REGION_BYTES, SHARES, TEXT_BYTES, Family, Region
from pagi_trio.metrics.application.region_reader import RegionReader

COUNTER = Family("hits", "counter", "Hits.", ("path",))
HISTOGRAM = Family("seconds", "histogram", "How long.", ("path",), bounds=("1.0", "5.0", "+Inf"))
GAUGE = Family("level", "gauge", mode="max", unit="level")


def make_area():
    return memoryview(bytearray(REGION_BYTES))


@pytest.fixture
def area():
    return make_area()


@pytest.fixture
def region(area):
    return Region(area)


@pytest.fixture
def reader(area):
    return RegionReader(area)


def series_of(reading, name):
    """Return the values of each series of a family, by its label values."""
    group = reading.groups[name]
    width = group.family.width
    return {labels: list(reading.values[cell : cell + width]) for labels, cell in group.series}


def test_untouched_memory_has_no_families(reader):
    assert reader.read() == ({}, [], [])


def test_a_reader_sees_families_series_and_numbers(region, reader):
    region.add_series(COUNTER, ("/a",), [3.0])
    region.add_series(HISTOGRAM, ("/a",), [0.5, 1.0, 2.0, 3.0])
    cell = region.add_series(GAUGE, ())
    region.values[cell] = 7.0
    region.stamps[cell] = 9.0
    reading = reader.read()
    assert [group.family for group in reading.groups.values()] == [COUNTER, HISTOGRAM, GAUGE]
    assert series_of(reading, "hits") == {("/a",): [3.0]}
    assert series_of(reading, "seconds") == {("/a",): [0.5, 1.0, 2.0, 3.0]}
    assert series_of(reading, "level") == {(): [7.0]}
    assert reading.stamps[cell] == 9.0


def test_a_reader_reads_on_where_it_stopped(region, reader):
    region.add_series(COUNTER, ("/a",), [1.0])
    before = reader.read()
    region.add_series(COUNTER, ("/b",), [2.0])
    region.add_series(GAUGE, (), [3.0])
    assert series_of(reader.read(), "hits") == {("/a",): [1.0], ("/b",): [2.0]}
    assert series_of(before, "hits") == {("/a",): [1.0]}, "a reading never changes"


def test_a_series_has_one_place(region, reader):
    cell = region.add_series(COUNTER, ("/a",), [1.0])
    assert region.add_series(COUNTER, ("/a",), [5.0]) == cell == region.find(COUNTER, ("/a",))
    assert series_of(reader.read(), "hits") == {("/a",): [1.0]}


def test_other_texts_make_no_other_family(region, reader):
    other = Family("hits", "counter", "Hits, told better.", ("path",))
    assert region.add_series(COUNTER, ("/a",)) == region.add_series(other, ("/a",))
    assert reader.read().groups["hits"].family.help == "Hits."


@pytest.mark.parametrize("reads_between", [True, False])
@pytest.mark.parametrize(
    "other",
    [
        Family("hits", "gauge", "Hits.", ("path",), mode="sum"),
        Family("hits", "counter", "Hits.", ("path", "method")),
        Family("hits", "summary", "Hits.", ("path",)),
    ],
)
def test_a_name_that_is_defined_otherwise_starts_anew(region, reader, other, reads_between):
    region.add_series(COUNTER, ("/a",), [1.0])
    if reads_between:
        reader.read()
    region.add_series(other, ("/b",) * len(other.labels))
    assert list(series_of(reader.read(), "hits")) == [("/b",) * len(other.labels)]
    assert region.find(COUNTER, ("/a",)) is None
    region.add_series(COUNTER, ("/c",), [4.0])
    assert series_of(reader.read(), "hits") == {("/c",): [4.0]}, "nor do its old figures come back"


def test_past_the_cells_there_is_no_place(region, reader):
    wide = Family("wide", "histogram", bounds=tuple(map(str, range(CELLS // 2 - 1))))
    assert region.add_series(wide, ()) is not None
    assert region.add_series(Family("wider", "histogram", bounds=wide.bounds), ()) is None
    assert region.add_series(COUNTER, ("/a",), [1.0]) is not None, "a smaller one has room yet"
    assert series_of(reader.read(), "hits") == {("/a",): [1.0]}


def test_past_the_text_there_is_no_place(region, reader):
    assert region.add_series(COUNTER, ("x" * TEXT_BYTES,)) is None
    assert region.add_series(COUNTER, ("x" * (TEXT_BYTES - 200),)) is not None
    assert region.add_series(COUNTER, ("y" * 200,)) is None
    assert len(series_of(reader.read(), "hits")) == 1


def test_a_living_process_leaves_room(region):
    region.leave_room()
    wide = Family("wide", "histogram", labels=("path",), bounds=tuple(map(str, range(CELLS // SHARES - 2))))
    assert region.add_series(wide, ("/a",)) is not None
    assert region.add_series(COUNTER, ("/a",)) is None
    region.clear()
    assert region.add_series(COUNTER, ("x" * (TEXT_BYTES // SHARES),)) is None


def test_a_cleared_region_is_another_for_its_reader(region, reader):
    region.add_series(COUNTER, ("/a",), [1.0])
    region.add_series(COUNTER, ("/b",), [1.0])
    reader.read()
    region.clear()
    assert reader.read() == ({}, [], [])
    # The same bytes at the same place, and behind them those of before, which nobody has overwritten.
    region.add_series(COUNTER, ("/a",))
    assert series_of(reader.read(), "hits") == {("/a",): [0.0]}


def test_what_an_earlier_writer_left_is_no_record(area, region, reader):
    region.add_series(COUNTER, ("/a",), [1.0])
    committed = region._words[layout.COMMITTED]
    region.clear()
    # A reader may see a new count before the record that it is about.
    region._words[layout.COMMITTED] = committed
    assert reader.read().groups == {}


def test_a_region_made_by_another_process_can_be_cleared(area, region, reader):
    region.add_series(COUNTER, ("/a",), [1.0])
    Region(area).clear()
    assert reader.read().groups == {}


def test_a_cleared_region_has_no_number_that_a_later_record_could_show(area, region):
    cell = region.add_series(COUNTER, ("/a",), [1.0], [2.0])
    Region(area).clear()
    assert (region.values[cell], region.stamps[cell]) == (0.0, 0.0)


def test_a_damaged_record_waits_for_the_next_time(area, region, reader):
    region.add_series(COUNTER, ("/a",), [1.0])
    start = layout.TEXT_AT + region._words[layout.COMMITTED]
    region.add_series(COUNTER, ("/b",), [2.0])
    region.add_series(COUNTER, ("/c",), [3.0])
    for place in range(start, start + 16):
        area[place] ^= 0xFF
        assert list(series_of(reader.read(), "hits")) == [("/a",)]
        area[place] ^= 0xFF
    assert list(series_of(reader.read(), "hits")) == [("/a",), ("/b",), ("/c",)]


def test_a_copy_is_equal_and_touches_no_more(region):
    region.add_series(COUNTER, ("/a",), [1.0])
    region.add_series(GAUGE, (), [2.0], [3.0])
    octets = memoryview(bytearray(b"\xaa" * REGION_BYTES))
    copy = Region(octets)
    copy.copy_from(region)
    assert RegionReader(octets).read() == RegionReader(region._octets).read()
    assert octets[layout.TEXT_AT + region._words[layout.COMMITTED]] == 0xAA
    assert octets[layout.VALUES_AT + 8 * region._words[layout.USED_CELLS]] == 0xAA
    copy.add_series(COUNTER, ("/b",))
    assert copy.find(COUNTER, ("/a",)) == region.find(COUNTER, ("/a",))
    assert region.find(COUNTER, ("/b",)) is None


def test_dropped_families_leave_no_gap(region, reader):
    region.add_series(COUNTER, ("/a",), [1.0])
    region.add_series(HISTOGRAM, ("/a",), [1.0, 2.0, 3.0, 4.0])
    region.add_series(GAUGE, (), [5.0], [6.0])
    region.values[region.family("level").cell] = 8.0
    reader.read()
    region.drop(["seconds"])
    reading = reader.read()
    assert set(reading.groups) == {"hits", "level"}
    assert series_of(reading, "hits") == {("/a",): [1.0]}
    assert series_of(reading, "level") == {(): [5.0]}
    assert reading.values[reading.groups["level"].cell] == 8.0
    assert sorted(reading.stamps) == [0.0, 0.0, 0.0, 6.0]


@given(
    st.lists(st.tuples(st.text(st.characters(codec="utf-8")), st.floats(allow_nan=False)), unique_by=lambda one: one[0])
)
def test_any_label_value_and_number_comes_back(series):
    area = make_area()
    region, reader = Region(area), RegionReader(area)
    for label, value in series:
        region.add_series(COUNTER, (label,), [value])
        reader.read()
    assert {labels[0]: values for labels, values in region_values(reader).items()} == {
        label: [value] for label, value in series
    }


def region_values(reader):
    reading = reader.read()
    return series_of(reading, "hits") if reading.groups else {}


def test_a_text_that_no_page_can_have_comes_back_as_one_that_it_can(region, reader):
    told = Family("told", "counter", "Lone: \udcff.", ("path",))
    cells = [region.add_series(told, (label,)) for label in ("\udcff", "\ud800", "\ud83d\ude00", "é")]
    group = reader.read().groups["told"]
    assert group.family.help == "Lone: ?."
    assert [one.labels for one in group.series] == [("?",), ("?",), ("??",), ("é",)]
    assert [one.cell for one in group.series] == cells


WRITER = """
import mmap, sys
from pagi_trio.metrics.application.region import CELLS, REGION_BYTES, Family, Region

region = Region(memoryview(mmap.mmap(int(sys.argv[1]), REGION_BYTES)))
print(flush=True)
number = 0
while True:
    cell = region.add_series(Family(f"hits_{number % 97}", "counter", "", ("n",)), (str(number),), [1.0])
    if cell is None:
        region.clear()
        number = 0
        continue
    for _ in range(3):
        region.values[cell] += 1.0
    number += 1
"""


def test_reading_survives_a_writer_that_is_killed_at_any_moment():
    """Starts a real process, which takes most of a second: it is what the region is for."""
    fd = os.memfd_create("region")
    os.ftruncate(fd, REGION_BYTES)
    with mmap.mmap(fd, REGION_BYTES) as memory, memoryview(memory) as area:
        reader = RegionReader(area)
        with subprocess.Popen([sys.executable, "-c", WRITER, str(fd)], pass_fds=[fd], stdout=subprocess.PIPE) as writer:
            writer.stdout.readline()
            seen = 0
            while seen < 300:
                reading = reader.read()
                for group in reading.groups.values():
                    assert group.family.kind == "counter"
                    for labels, cell in group.series:
                        assert labels[0].isdigit()
                        assert reading.values[cell] in {1.0, 2.0, 3.0, 4.0}
                seen = max(seen, len(reading.values))
            writer.kill()
        # Whatever it was about to write: a fresh reader, and a fresh writer.
        assert RegionReader(area).read().groups.keys() <= reader.read().groups.keys()
        region = Region(area)
        region.clear()
        region.add_series(COUNTER, ("/a",), [1.0])
        assert series_of(reader.read(), "hits") == {("/a",): [1.0]}
        reader.release()
        region.release()
    os.close(fd)
