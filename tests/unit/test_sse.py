"""Event streams: which responses are one, and how many events their bytes complete (WHATWG HTML section 9.2)."""

from __future__ import annotations

import sys
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pagi_trio.wire.sse import EventCounter, is_event_stream


def count_all(*chunks: bytes) -> tuple[int, int]:
    """Count events and comment lines."""
    comments: list[int] = []
    counter = EventCounter(comments.append)
    events = sum(counter.feed(chunk) for chunk in chunks)
    assert 0 not in comments
    return events, sum(comments)


def count(*chunks: bytes) -> int:
    return count_all(*chunks)[0]


def reference_all(data: bytes) -> tuple[int, int]:
    """Dispatched events, and comments, by the letter of sections 9.2.5 and 9.2.6."""
    text = data.decode("utf-8-sig", "replace").replace("\r\n", "\n").replace("\r", "\n")
    events = comments = 0
    buffer = ""
    for line in text.split("\n")[:-1]:
        if line == "":
            events += buffer != ""
            buffer = ""
        elif line.startswith(":"):
            comments += 1
        else:
            field, _, value = line.partition(":")
            if field == "data":
                buffer += value.removeprefix(" ") + "\n"
    return events, comments


def reference(data: bytes) -> int:
    return reference_all(data)[0]


@pytest.mark.parametrize(
    "value",
    [
        b"text/event-stream",
        b"Text/Event-Stream",
        b"text/event-stream; charset=utf-8",
        b"text/event-stream ;x",
        b" text/event-stream\t",
    ],
)
def test_rfc9110_8_3_1_a_media_type_is_an_event_stream(value):
    assert is_event_stream(value)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"text/plain",
        b"text/event-streams",
        b"xtext/event-stream",
        b"text/plain; text/event-stream",
        b"text / event-stream",
    ],
)
def test_rfc9110_8_3_1_a_media_type_is_not_an_event_stream(value):
    assert not is_event_stream(value)


@pytest.mark.parametrize("start", [b"", b"data: before\n\n"])
@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: x\n\n", 1),
        (b"data:x\n\n", 1),
        (b"data\n\n", 1),
        (b"data:\n\n", 1),
        (b"data: x\r\rdata: y\r\n\r\ndata: z\n\r\n", 3),
        (b"data: x\ndata: y\n\n", 1),
        (b"data: x\n\n\n\n\n", 1),
        (b"event: tick\nid: 7\nretry: 10\ndata: x\n\n", 1),
        (b": comment\ndata: x\n\n: comment\n\ndata: y\n\n", 2),
        (b"data: x\n\ndata: unfinished\n", 1),
        (b"data: x\n\ndata: y\n\n", 2),
        (b"data: a\rb\n\n", 1),
        (b"data: a\r\rdata: b\n\n", 2),
        # Nothing is dispatched.
        (b"", 0),
        (b"\n\n\r\r", 0),
        (b": heartbeat\n\n", 0),
        (b"event: tick\n\n", 0),
        (b"id: 7\nretry: 10\n\n", 0),
        (b"data: x\n", 0),
        (b"data: x\ny\n", 0),
        (b"data: x\r\n", 0),
        (b"Data: x\n\n", 0),
        (b"data2: x\n\n", 0),
        (b"dat\n\n", 0),
        (b"database\n\n", 0),
        (b" data: x\n\n", 0),
        (b":data: x\n\n", 0),
    ],
)
def test_whatwg_9_2_6_blocks_with_data_are_events(start, stream, events):
    assert reference(stream) == events
    assert count(start, stream) == events + bool(start)
    assert count(start, *[bytes((byte,)) for byte in stream]) == events + bool(start)
    assert count(start, memoryview(stream)) == events + bool(start)


def test_whatwg_9_2_5_one_leading_bom_is_ignored():
    bom = b"\xef\xbb\xbf"
    for stream, events in [
        (bom + b"data: x\n\n", 1),
        (bom * 2 + b"data: x\n\n", 0),
        (b"\n" + bom + b"data: x\n\n", 0),
        (b"data: x\n\n" + bom + b"data: y\n\n", 1),
        (bom + b"\n\ndata: x\n\n", 1),
    ]:
        assert reference(stream) == events
        assert count(stream) == count(*[bytes((byte,)) for byte in stream]) == events


def test_whatwg_9_2_5_a_line_end_may_be_split():
    assert count(b"data: x\r", b"\n\r", b"\ndata: y\r", b"", b"\n\n") == 2
    assert count(b"data: x\r", b"\r") == 1
    assert count(b"data: x\r\n\r", b"\n", b"\n") == 1
    assert count(b"data: x\r", b"", b"\n") == 0


def test_a_line_without_end_is_not_kept():
    counter = EventCounter(list[int]().append)
    for _ in range(1000):
        assert counter.feed(b"data: " + b"x" * 1000) == 0
    assert sum(sys.getsizeof(getattr(counter, name)) for name in counter.__slots__) < 300
    assert counter.feed(b"\n\n") == 1


def test_the_usual_chunk_counts_the_same_when_it_completes_something():
    assert count(b"data: x\n\n", b"data: a\n", b"data: b\n\n", b"\n") == 2
    assert count(b"data: x\n\n", b"dat", b"data: b\n\n") == 1
    assert count(b"data: x\n\r", b"data: b\n\n") == 2


streams = st.lists(
    st.sampled_from(
        [
            b"\n",
            b"\r",
            b"\r\n",
            b"data",
            b"data:",
            b"data: x",
            b":",
            b": c",
            b"id: 1",
            b"event: e",
            b"\xef\xbb\xbf",
            b" ",
            b"x" * 9,
        ]
    )
).map(b"".join)


@settings(derandomize=True, max_examples=100)
@given(st.one_of(streams, st.binary()), st.lists(st.integers(0, 60), max_size=8))
@example(b"data:\r\n\r\n", [6, 7, 8])
def test_any_split_counts_what_a_browser_dispatches(stream, positions):
    edges = [0, *sorted(min(position, len(stream)) for position in positions), len(stream)]
    chunks = [stream[start:end] for start, end in pairwise(edges)]
    assert count_all(*chunks) == reference_all(stream)


@pytest.mark.parametrize("start", [b"", b"data: before\n\n"])
@pytest.mark.parametrize(
    ("stream", "comments"),
    [
        (b": heartbeat\n\n", 1),
        (b":\n", 1),
        (b":\r:\r\n:\n", 3),
        (b": a\n: b\ndata: x\n\n", 2),
        (b"data: x\n: a\n\n", 1),
        (b"data: x\n\n: a\n", 1),
        (b": " + b"long" * 100 + b"\n", 1),
        (b":data: x\n\n", 1),
        (b": unfinished", 0),
        (b" : x\n", 0),
        (b"data:: x\n\n", 0),
        (b"\n\n", 0),
    ],
)
def test_whatwg_9_2_6_a_line_that_begins_with_a_colon_is_a_comment(start, stream, comments):
    assert reference_all(stream)[1] == comments
    assert count_all(start, stream)[1] == comments
    assert count_all(start, *[bytes((byte,)) for byte in stream])[1] == comments


def test_whatwg_9_2_5_a_comment_may_come_behind_a_bom():
    assert count_all(b"\xef\xbb\xbf: a\n\xef\xbb\xbf: b\n")[1] == 1
