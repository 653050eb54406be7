"""Responses on the wire: RFC 9110 sections 6.4.1, 8.6 and 15, RFC 9112 sections 6, 7.1 and 9.3."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagi_trio.errors import AppProtocolError
from pagi_trio.wire.body import ChunkedBody
from pagi_trio.wire.date import DateCache
from pagi_trio.wire.framing import ResponseFraming
from pagi_trio.wire.head import RequestLine


def start(status=200, headers=(), *, method="GET", version="1.1") -> ResponseFraming:
    return ResponseFraming(RequestLine(method, "/", b"/", b"", version, None, None), status, headers)


def head_of(response, size=0, *, more=False, keep_alive=True) -> tuple[dict[bytes, bytes], bool]:
    raw, stays = response.head(size, more=more, keep_alive=keep_alive, date=DateCache())
    assert raw.startswith(b"HTTP/1.1 %d " % response.status)
    assert raw.endswith(b"\r\n\r\n")
    lines = raw[:-4].split(b"\r\n")[1:]
    fields = dict(line.split(b": ", 1) for line in lines)
    assert len(fields) == len(lines), "a field is there twice"
    return fields, stays


def body_of(response, parts: list[bytes]) -> bytes:
    head_of(response, len(parts[0]), more=len(parts) > 1)
    wire = b""
    for number, part in enumerate(parts):
        wire += response.frame(part, more=number < len(parts) - 1)
    return wire


def test_a_body_in_one_part_gets_its_length_rfc9112_6_2():
    response = start()
    fields, stays = head_of(response, 5)
    assert fields.pop(b"date").endswith(b"GMT")
    assert (fields, stays) == ({b"content-length": b"5"}, True)
    assert not response.wrote_head
    assert response.frame(b"hello", more=False) == b"hello"
    assert response.wrote_head


def test_an_empty_body_has_length_0_rfc9110_8_6():
    assert head_of(start())[0][b"content-length"] == b"0"


def test_a_body_in_parts_is_chunked_on_1_1_rfc9112_7_1():
    response = start()
    fields, stays = head_of(response, 3, more=True)
    assert (fields[b"transfer-encoding"], stays, response.is_chunked) == (b"chunked", True, True)
    assert b"content-length" not in fields
    assert response.frame(b"one", more=True) == b"3\r\none\r\n"
    assert response.frame(b"", more=True) == b""
    assert response.frame(b"x" * 26, more=False) == b"1a\r\n" + b"x" * 26 + b"\r\n0\r\n\r\n"


@pytest.mark.parametrize("more", [True, False])
@pytest.mark.parametrize("streamed", [True, False])
def test_what_follows_a_part_is_known_for_the_count(streamed, more):
    response = start() if streamed else start(headers=[(b"content-length", b"8")])
    head_of(response, 4, more=True)
    response.frame(b"1234", more=True)
    wire = response.frame(b"5678", more=more)
    assert wire[: len(wire) - response.bytes_behind].endswith(b"5678")


def test_a_body_in_parts_ends_with_the_connection_on_1_0_rfc9112_6_3():
    response = start(version="1.0")
    fields, stays = head_of(response, 3, more=True)
    assert (fields[b"connection"], stays) == (b"close", False)
    assert b"transfer-encoding" not in fields
    assert (response.frame(b"one", more=True), response.frame(b"", more=False)) == (b"one", b"")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_announced_length_is_kept_rfc9110_8_6(version):
    response = start(headers=[(b"content-length", b"5")], version=version)
    fields, stays = head_of(response, 2, more=True)
    assert (fields[b"content-length"], stays) == (b"5", True)
    assert b"transfer-encoding" not in fields
    assert (response.frame(b"he", more=True), response.frame(b"llo", more=False)) == (b"he", b"llo")


def test_a_body_of_another_length_than_announced_fails_before_it_is_written_rfc9112_6_3():
    response = start(headers=[(b"content-length", b"5")])
    head_of(response, 6)
    with pytest.raises(AppProtocolError, match="1 bytes longer than its content-length"):
        response.frame(b"toomuch"[:6], more=False)
    assert not response.wrote_head
    response = start(headers=[(b"content-length", b"5")])
    head_of(response, 2, more=True)
    response.frame(b"he", more=True)
    with pytest.raises(AppProtocolError, match="3 bytes shorter than its content-length"):
        response.frame(b"", more=False)


def test_the_answer_to_head_has_the_length_of_get_and_no_body_rfc9110_9_3_2():
    response = start(method="HEAD")
    assert head_of(response, 5)[0][b"content-length"] == b"5"
    assert response.frame(b"hello", more=False) == b""
    response = start(method="HEAD", headers=[(b"content-length", b"7")])
    assert head_of(response, 0)[0][b"content-length"] == b"7"


def test_the_answer_to_head_has_no_length_that_get_would_not_have_rfc9110_8_6():
    # Of a body in parts the first part's size is not the length.
    assert b"content-length" not in head_of(start(method="HEAD"), 5, more=True)[0]
    assert b"content-length" not in head_of(start(method="HEAD"), 0, more=True)[0]


@pytest.mark.parametrize("status", [204, 304])
def test_204_and_304_have_no_body_and_no_framing_rfc9110_6_4_1(status):
    response = start(status)
    fields, stays = head_of(response)
    assert fields.keys() == {b"date"}
    assert stays
    with pytest.raises(AppProtocolError, match=f"status {status} has no body"):
        response.frame(b"x", more=False)
    assert response.frame(b"", more=False) == b""
    with pytest.raises(AppProtocolError, match="has ended"):
        response.frame(b"", more=False)


def test_a_204_has_no_content_length_and_a_304_may_rfc9110_8_6():
    length = [(b"Content-Length", b"5")]
    assert b"Content-Length" not in head_of(start(204, length))[0]
    assert head_of(start(304, length))[0][b"Content-Length"] == b"5"


@pytest.mark.parametrize(
    ("version", "headers", "keep_alive", "connection"),
    [
        ("1.1", [], True, None),
        ("1.1", [], False, b"close"),
        ("1.1", [(b"connection", b"close")], True, b"close"),
        ("1.0", [], True, b"keep-alive"),
        ("1.0", [], False, b"close"),
        ("1.0", [(b"connection", b"close")], True, b"close"),
        ("1.1", [(b"connection", b"keep-alive")], False, b"close"),
    ],
)
def test_what_is_said_of_the_connection_rfc9112_9(version, headers, keep_alive, connection):
    fields, stays = head_of(start(headers=headers, version=version), keep_alive=keep_alive)
    assert fields.get(b"connection") == connection
    assert stays is (connection != b"close")


def test_the_apps_own_date_is_the_only_one_rfc9110_6_6_1():
    assert head_of(start(headers=[(b"Date", b"then")]))[0] == {b"Date": b"then", b"content-length": b"0"}


def test_a_status_that_is_none_fails_at_the_start():
    with pytest.raises(AppProtocolError, match="from 200 to 999"):
        start(100)


@given(st.lists(st.binary(max_size=50), min_size=2, max_size=8))
@settings(max_examples=200)
def test_any_parts_come_out_of_their_chunks_as_they_went_in_rfc9112_7_1(parts):
    body = ChunkedBody(0, 0)
    wire = body_of(start(), parts)
    assert body.feed(wire) == (b"".join(parts), len(wire))
    assert body.done


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=8), st.integers(-3, 3))
@settings(max_examples=200)
def test_exactly_the_announced_length_goes_out_or_it_fails_rfc9112_6_3(parts, wrong):
    whole = b"".join(parts)
    announced = max(0, len(whole) + wrong)
    response = start(headers=[(b"content-length", b"%d" % announced)])
    if announced == len(whole):
        assert body_of(response, parts) == whole
    else:
        with pytest.raises(AppProtocolError, match="than its content-length"):
            body_of(response, parts)
