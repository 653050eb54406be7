"""Response fields and their memo: RFC 9110 sections 5, 6.6 and 15, RFC 9112 sections 4 to 6."""

from __future__ import annotations

import re
from http import HTTPStatus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagi_trio.errors import AppProtocolError
from pagi_trio.wire import response as response_module
from pagi_trio.wire.date import DateCache
from pagi_trio.wire.response import (
    CLOSE,
    DATE,
    ENCODED,
    EVENT_STREAM,
    ResponseFields,
    error_response,
    status_line,
)


def complaint(*fields) -> str:
    with pytest.raises(AppProtocolError) as caught:
        ResponseFields(fields)
    return str(caught.value)


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (200, b"HTTP/1.1 200 OK\r\n"),
        (404, b"HTTP/1.1 404 Not Found\r\n"),
        (HTTPStatus.NO_CONTENT, b"HTTP/1.1 204 No Content\r\n"),
        (299, b"HTTP/1.1 299 \r\n"),
        (999, b"HTTP/1.1 999 \r\n"),
    ],
)
def test_a_status_line_rfc9112_4(status, line):
    assert status_line(status) == line


@pytest.mark.parametrize("status", [0, -1, 99, 100, 101, 103, 199, 1000, "200", None, True, 200.5, b"200"])
def test_what_is_no_final_status_is_refused_by_its_value_rfc9110_15(status):
    with pytest.raises(AppProtocolError, match=re.escape(f"must be an int from 200 to 999, not {status!r}")):
        status_line(status)


def test_fields_stay_as_given_and_in_order_rfc9110_5_3():
    fields = ResponseFields([(b"Set-Cookie", b"a"), (b"x", b""), (b"Set-Cookie", b"b"), (b"y", b"\xff\t ")])
    assert fields.lines == [b"Set-Cookie: a\r\n", b"x: \r\n", b"Set-Cookie: b\r\n", b"y: \xff\t \r\n"]
    assert (fields.flags, fields.content_length) == (0, -1)


def test_lists_and_any_iterable_are_taken_as_asgi_allows():
    assert ResponseFields(iter([[b"a", b"b"], (b"c", b"d")])).lines == [b"a: b\r\n", b"c: d\r\n"]


@pytest.mark.parametrize("name", [b"", b" a", b"a ", b"a:", b"a b", b"\xc3\xa9", b"a\r\nb", b"a\n", b"a\x00", b"a("])
def test_a_name_is_a_token_rfc9110_5_1(name):
    assert complaint((name, b"x")) == f"{name!r} is not a header name"


@pytest.mark.parametrize("value", [b"a\r\nb: c", b"a\n", b"\r", b"\x00", b"\x0b", b"\x0c", b"\x1f", b"\x7f"])
def test_a_value_has_no_control_characters_rfc9110_5_5(value):
    assert complaint((b"x", value)) == "the value of b'x' has control characters, such as the end of a line"


@pytest.mark.parametrize("name", ["a", None, 5, bytearray(b"a")])
def test_names_are_bytes_asgi_2_4(name):
    assert complaint((name, b"b")) == f"a header name must be bytes, not {name!r}"


@pytest.mark.parametrize("value", ["secret", None, 5, bytearray(b"secret")])
def test_values_are_bytes_and_not_shown_where_they_are_not_asgi_2_4(value):
    assert complaint((b"a", value)) == f"the value of the header b'a' must be bytes, not {type(value).__name__}"


@pytest.mark.parametrize("value", [b"", b"+5", b"-1", b"0_5", b" 5", b"5 ", b"5,5", b"\xd9\xa5", b"9" * 20])
def test_content_length_is_decimal_digits_rfc9110_8_6(value):
    assert complaint((b"Content-Length", value)) == f"content-length must be a number of bytes, not {value!r}"


def test_content_length_is_read_once_rfc9110_8_6():
    assert ResponseFields([(b"CONTENT-length", b"0012")]).content_length == 12
    assert complaint((b"content-length", b"1"), (b"Content-Length", b"1")) == "content-length is given twice"


@pytest.mark.parametrize(
    ("value", "flag"),
    [
        (b"close", CLOSE),
        (b"Close", CLOSE),
        (b"keep-alive, close", CLOSE),
        (b"keep-alive,\tclose", CLOSE),
        (b"keep-alive", 0),
        (b"closed", 0),
        (b"c lose", 0),
        (b"", 0),
    ],
)
def test_an_app_may_only_ask_for_the_end_of_the_connection_rfc9112_9_6(value, flag):
    fields = ResponseFields([(b"Connection", value)])
    assert fields.lines == [b""]
    assert fields.flags & CLOSE == flag


def test_framing_is_the_servers_to_write_rfc9112_6_1():
    assert ResponseFields([(b"Transfer-Encoding", b"Chunked")]).lines == [b""]
    assert (
        complaint((b"transfer-encoding", b"gzip"))
        == "transfer-encoding is the server's to choose, leave it out: b'gzip' cannot be had"
    )


@pytest.mark.parametrize(
    ("field", "flags"),
    [
        ((b"Date", b"x"), DATE),
        ((b"Content-Type", b"TEXT/event-stream; charset=utf-8"), EVENT_STREAM),
        ((b"content-type", b"text/plain"), 0),
        ((b"content-encoding", b"gzip"), ENCODED),
        ((b"content-encoding", b"Identity"), 0),
    ],
)
def test_what_a_field_means_is_known(field, flags):
    for _ in range(2):  # the second time from the memo
        fields = ResponseFields([field])
        assert fields.flags == flags
        assert fields.lines == [b"%s: %s\r\n" % field]


@pytest.fixture
def memo(monkeypatch):
    """The memo, empty and with room for 8 fields."""
    memo = {}
    monkeypatch.setattr(response_module, "_MEMO_FIELDS", 8)
    monkeypatch.setattr(response_module, "_fields", memo)
    return memo


def test_the_memo_is_bounded_in_fields_and_bytes(memo):
    for number in range(100):
        ResponseFields([(b"x", b"%d" % number)])
        assert 0 < len(memo) <= 8
    memo.clear()
    ResponseFields([(b"x", b"a" * 300)])
    assert memo == {}


def test_what_is_refused_is_not_remembered(memo):
    for _ in range(2):
        complaint((b"a b", b"c"))
        complaint((b"a", b"\n"))
        complaint((b"content-length", b"+5"))
    assert memo == {}


def test_names_that_differ_in_case_are_remembered_apart(memo):
    assert ResponseFields([(b"Etag", b"x"), (b"ETag", b"x")]).lines == [b"Etag: x\r\n", b"ETag: x\r\n"]


@given(st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=8)), max_size=5))
@settings(max_examples=200)
def test_no_field_puts_a_line_of_its_own_on_the_wire_rfc9112_11_1(fields):
    try:
        lines = ResponseFields(fields).lines
    except AppProtocolError as error:
        assert str(error).isprintable()  # noqa: PT017 - it need not raise
    else:
        for line in lines:
            assert line == b"" or (line.count(b"\r") == line.count(b"\n") == 1 and line.endswith(b"\r\n"))


def test_an_error_response_is_whole_and_ends_the_connection_rfc9112_9_6():
    assert error_response(404, "not here", b"date: x\r\n", b"retry-after: 1\r\n") == (
        b"HTTP/1.1 404 Not Found\r\ndate: x\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 9\r\n"
        b"retry-after: 1\r\nconnection: close\r\n\r\nnot here\n"
    )


def test_an_error_response_to_head_has_no_content_rfc9110_9_3_2():
    assert error_response(404, "not here", b"date: x\r\n", to_head=True) == (
        b"HTTP/1.1 404 Not Found\r\ndate: x\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 9\r\n"
        b"connection: close\r\n\r\n"
    )


def test_the_date_is_of_the_current_second_rfc9110_6_6_1(monkeypatch):
    cache = DateCache()
    for second, line in (
        (784111777.9, b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"),
        (784111777.0, b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"),
        (784111778.0, b"date: Sun, 06 Nov 1994 08:49:38 GMT\r\n"),
    ):
        monkeypatch.setattr("pagi_trio.wire.date.time", lambda second=second: second)
        assert cache.line() == line
