"""Bytes into events: WHATWG HTML section 9.2.6, "Interpreting an event stream", and the examples of 9.2.5."""

from __future__ import annotations

import pytest

from pagi_trio.testing.event_parser import Event, EventParser

CASES = [
    ("nothing", b"", []),
    ("one line", b"data: x\n\n", [Event(data="x")]),
    ("no white space", b"data:x\n\n", [Event(data="x")]),
    ("one space of two", b"data:  x \n\n", [Event(data=" x ")]),
    ("a tab stays", b"data:\tx\n\n", [Event(data="\tx")]),
    ("three lines", b"data: a\ndata: b\ndata: c\n\n", [Event(data="a\nb\nc")]),
    ("carriage returns", b"data: a\rdata: b\r\rdata: c\r\r", [Event(data="a\nb"), Event(data="c")]),
    ("both", b"data: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n", [Event(data="a\nb"), Event(data="c")]),
    ("both, and one", b"data: a\r\n\ndata: b\r\n\n", [Event(data="a"), Event(data="b")]),
    ("all mixed", b"data: a\rdata: b\ndata: c\r\n\r\n\ndata: d\n\r", [Event(data="a\nb\nc"), Event(data="d")]),
    ("a colon in the value", b"data: a:b: c\n\n", [Event(data="a:b: c")]),
    ("other line ends of text", "data: a\u2028b\x0bc\x0cd\x85e\n\n".encode(), [Event(data="a\u2028b\x0bc\x0cd\x85e")]),
    ("a type", b"event: add\ndata: 73857293\n\n", [Event(event="add", data="73857293")]),
    ("a type is of one event", b"event: a\ndata: 1\n\ndata: 2\n\n", [Event(event="a", data="1"), Event(data="2")]),
    ("a type without data", b"event: a\n\ndata: 2\n\n", [Event(data="2")]),
    ("an empty type", b"event: a\nevent\ndata: 2\n\n", [Event(data="2")]),
    ("empty data", b"data\n\ndata\ndata\n\ndata:", [Event(data=""), Event(data="\n")]),
    ("the same twice", b"data:test\n\ndata: test\n\n", [Event(data="test"), Event(data="test")]),
    ("no blank line behind", b"data: x\n", []),
    ("no line end behind", b"data: a\n\ndata: b\n\nid: 9", [Event(data="a"), Event(data="b")]),
    ("comments", b": a\n:\n:data: no\ndata: x\n: b\n\n:\n\n", [Event(data="x")]),
    ("unknown fields", b"Data: no\n data: no\nfoo: bar\nfoo\ndata: x\n\n", [Event(data="x")]),
    ("an id stays", b"id: 1\ndata: a\n\ndata: b\n\n", [Event(data="a", id="1"), Event(data="b", id="1")]),
    ("an id is forgotten", b"id: 1\ndata: a\n\nid\ndata: b\n\n", [Event(data="a", id="1"), Event(data="b")]),
    ("an id of a block without data", b"id: 1\n\ndata: b\n\n", [Event(data="b", id="1")]),
    ("an id with NUL", b"id: 1\nid: 2\x003\ndata: a\n\n", [Event(data="a", id="1")]),
    ("a retry", b"retry: 1500\ndata: a\n\ndata: b\n\n", [Event(data="a", retry=1500), Event(data="b")]),
    (
        "no retry",
        "retry: 1.5\nretry: -1\nretry: x\nretry:\nretry:  2\nretry: ٣\ndata: a\n\n".encode(),
        [Event(data="a")],
    ),
    ("a byte order mark", b"\xef\xbb\xbfdata: x\n\n", [Event(data="x")]),
    ("two of them", b"\xef\xbb\xbf\xef\xbb\xbfdata: x\n\ndata: y\n\n", [Event(data="y")]),
    ("one further on", b"data: x\n\n\xef\xbb\xbfdata: y\n\n", [Event(data="x")]),
    ("UTF-8", "data: häuser €\n\n".encode(), [Event(data="häuser €")]),
    ("not UTF-8", b"data: a\xffb\xe2\x82\ndata: c\n\n", [Event(data="a\ufffdb\ufffd\nc")]),
]


@pytest.mark.parametrize(("sent", "events"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_events_are_the_same_however_the_stream_is_cut(sent, events):
    assert EventParser().feed(sent) == events
    for size in (1, 2, 3, 5):
        parser = EventParser()
        got = []
        for start in range(0, len(sent), size):
            got += parser.feed(sent[start : start + size])
            got += parser.feed(b"")
        assert got == events
    for cut in range(len(sent)):
        parser = EventParser()
        assert parser.feed(sent[:cut]) + parser.feed(sent[cut:]) == events


def test_an_event_is_there_with_the_byte_that_ends_it():
    parser = EventParser()
    assert parser.feed(b"data: a\r\n") == []
    assert parser.feed(b"\r") == [Event(data="a")]
    assert parser.feed(b"\n") == []
    assert parser.feed(b"\n") == []


def test_the_id_to_come_back_with_is_that_of_the_last_block():
    parser = EventParser("before")
    assert parser.last_event_id == "before"
    assert parser.feed(b"data: a\n\n") == [Event(data="a", id="before")]
    parser.feed(b"id: 5\n")
    assert parser.last_event_id == "before"
    parser.feed(b"\n")
    assert parser.last_event_id == "5"


def test_a_retry_counts_without_an_event():
    parser = EventParser()
    assert parser.feed(b"retry: 10\n\nretry: 20\n") == []
    assert parser.retry_ms == 20


def test_data_is_read_as_json():
    assert Event(data='{"a": [1, 2]}').json() == {"a": [1, 2]}
