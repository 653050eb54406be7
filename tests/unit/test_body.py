"""Request bodies out of their framing: RFC 9112 sections 6.2, 6.3 and 7.1."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from time import process_time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pagi_trio.errors import RequestError
from pagi_trio.wire.body import ChunkedBody, LengthBody

EXTENSION_MAX = 1000
TRAILER_MAX = 500


def take(body, *parts: bytes) -> tuple[bytes, bytes]:
    """Feed parts, and return the body and what was left for the next request."""
    taken = b""
    for position, part in enumerate(parts):
        rest = part
        while rest:
            payload, used = body.feed(rest)
            taken += payload
            rest = rest[used:]
            if body.done:
                return taken, rest + b"".join(parts[position + 1 :])
            assert used, "an unfinished body leaves nothing over"
    return taken, b""


def chunked():
    return ChunkedBody(EXTENSION_MAX, TRAILER_MAX)


def refusal(data: bytes) -> str:
    with pytest.raises(RequestError) as caught:
        take(chunked(), data)
    assert caught.value.status == 400
    return str(caught.value)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


CUTS = st.lists(st.integers(0, 10_000), max_size=12)


# Of announced length


def test_a_body_ends_after_its_length_and_leaves_the_rest_rfc9112_6_3():
    body = LengthBody(5)
    assert not body.done
    assert body.feed(b"he") == (b"he", 2)
    assert not body.done
    assert body.feed(b"lloGET") == (b"llo", 3)
    assert body.done


def test_a_length_of_nothing_is_done_at_once_rfc9112_6_2():
    assert LengthBody(0).done


@given(st.binary(max_size=200), st.binary(max_size=50), CUTS)
@settings(max_examples=100)
def test_any_cut_gives_the_same_body_of_announced_length(payload, rest, places):
    body = LengthBody(len(payload))
    if payload:
        assert take(body, *cut(payload + rest, places)) == (payload, rest)
    assert body.done


# In chunks


@pytest.mark.parametrize(
    ("data", "payload"),
    [
        (b"0\r\n\r\n", b""),
        (b"000\r\n\r\n", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", b"0123456789" * 2),
        (b"00000000005\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
        (b'1;a\r\nx\r\n0;b="c;d"\r\n\r\n', b"x"),
        (b"1 \t;a\r\nx\r\n0\r\n\r\n", b"x"),
        (b'1 ; a\t= "b\\"\xe9" ;c=d\r\nx\r\n0\r\n\r\n', b"x"),
        (b"0" * 100 + b"1\r\nx\r\n" + b"0" * 100 + b"\r\n\r\n", b"x"),
        (b"1\r\nx\r\n0\r\nA: b\r\nC: d\r\n\r\n", b"x"),
    ],
)
def test_chunks_are_joined_and_extensions_and_trailers_dropped_rfc9112_7_1(data, payload):
    body = chunked()
    assert take(body, data + b"GET /") == (payload, b"GET /")
    assert body.done


@pytest.mark.parametrize(
    "size",
    [
        b"",
        b" 5",
        b"5 ",
        b"+5",
        b"-5",
        b"0x5",
        b"5_0",
        b"0_5",
        b"5.",
        b"g",
        b"\xd9\xa5",
        b"5\xa0",
        b"\x0b5",
        b"5\x0c",
        b"5,",
        b"5\x00",
        b"f" * 16,
        b"5;",
        b"5;=b",
        b"5;a=",
        b"5;a b",
        b"5;a,b",
        b"5;a ",
        b'5;a="b',
        b'5;a="b""',
        b'5;a="b\\',
        b"5;\x00",
        b"5;a\x7f",
        b"5;\r",
    ],
)
def test_a_chunk_size_is_hexadecimal_digits_rfc9112_7_1(size):
    assert refusal(size + b"\r\nhello\r\n") == "a chunk size is not a hexadecimal number"


@pytest.mark.parametrize("data", [b"5\nhello\r\n", b"\n", b"5\r\nhello\r\n0\n\n", b"0\r\nA: b\n\r\n", b"0\r\n\n"])
def test_lines_end_in_cr_lf_rfc9112_2_2(data):
    assert refusal(data) == "lines end in CR LF"


@pytest.mark.parametrize("data", [b"5\r\nhelloX", b"5\r\nhello\n", b"5\r\nhello\rX", b"5\r\nhello0\r\n\r\n"])
def test_a_chunk_is_followed_by_its_line_end_rfc9112_7_1(data):
    assert refusal(data) == "a chunk does not end with CR LF"


@pytest.mark.parametrize("trailer", [b"A : b", b" folded", b"A", b": b", b"A: b\x00", b"A: b\rc"])
def test_a_trailer_is_a_field_line_rfc9112_7_1_2(trailer):
    assert refusal(b"0\r\n" + trailer + b"\r\n\r\n") == "a trailer line is not name, colon, value"


EXTENSIONS_COMPLAINT = "the chunk extensions are longer than is allowed"
TRAILERS_COMPLAINT = "the trailers are longer than is allowed"


def test_a_chunk_line_is_bounded_however_it_comes():
    longest = b"1;" + b"a" * (EXTENSION_MAX - 1) + b"\r\n"
    assert take(chunked(), longest + b"x\r\n0\r\n\r\n") == (b"x", b"")
    assert refusal(b"1;" + b"a" * EXTENSION_MAX + b"\r\n") == EXTENSIONS_COMPLAINT
    body = chunked()
    with pytest.raises(RequestError, match=EXTENSIONS_COMPLAINT):
        take(body, *([b"0"] * (EXTENSION_MAX + 100)))


def test_extensions_may_be_as_long_as_the_data_and_a_bound_more():
    signed = b"64;" + b"s" * 99 + b"\r\n" + b"x" * 100 + b"\r\n"
    assert take(chunked(), signed * 100 + b"0\r\n\r\n") == (b"x" * 10_000, b"")
    small = b"1;" + b"s" * 99 + b"\r\nx\r\n"
    assert take(chunked(), small * 10 + b"0\r\n\r\n") == (b"x" * 10, b"")
    assert refusal(small * 12) == EXTENSIONS_COMPLAINT


def test_data_earns_no_more_than_the_bound_since_a_line_is_held_until_it_ends():
    large = b"fffff\r\n" + b"x" * 0xFFFFF + b"\r\n"
    assert refusal(large + b"1;" + b"a" * (EXTENSION_MAX + 100)) == EXTENSIONS_COMPLAINT


def test_trailers_are_bounded_in_all_and_get_a_431_rfc6585_5():
    line = b"A: " + b"b" * 97 + b"\r\n"
    assert take(chunked(), b"0\r\n" + line * 5 + b"\r\n") == (b"", b"")
    for trailers in (line * 6, b"A: " + b"b" * TRAILER_MAX):
        with pytest.raises(RequestError, match=TRAILERS_COMPLAINT) as caught:
            take(chunked(), b"0\r\n" + trailers)
        assert caught.value.status == 431


CHUNKS = st.lists(st.binary(min_size=1, max_size=40), max_size=8)
EXTENSIONS = st.sampled_from([b"", b";a", b";a=b", b' ;c="d"'])
TRAILERS = st.lists(st.sampled_from([b"A: b", b"C:", b"D: \xff"]), max_size=3)


@given(CHUNKS, EXTENSIONS, TRAILERS, st.binary(max_size=20), CUTS)
@example([b"\r\n0\r\n\r\n"], b"", [], b"", list(range(30)))
@settings(max_examples=300)
def test_any_cut_gives_the_same_chunked_body_rfc9112_7_1_3(chunks, extension, trailers, rest, places):
    data = b"".join(b"%x%s\r\n%s\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    data += b"0\r\n" + b"".join(line + b"\r\n" for line in trailers) + b"\r\n"
    body = chunked()
    assert take(body, *cut(data + rest, places)) == (b"".join(chunks), rest)
    assert body.done


PIECES = st.sampled_from([b"0", b"5", b"\r\n", b"\r", b"\n", b";", b"a", b"A: b", b"hello", b" ", b"_", b"+", b"\x00"])


@given(st.one_of(st.binary(max_size=100), st.lists(PIECES, max_size=30).map(b"".join)), CUTS)
@settings(max_examples=300)
def test_any_bytes_raise_nothing_but_a_request_error_and_the_same_however_cut(data, places):
    def outcome(parts):
        body = chunked()
        try:
            return (*take(body, *parts), body.done)
        except RequestError as error:
            return error.status, str(error)

    assert outcome(cut(data, places)) == outcome([data])


def test_digits_that_are_none_in_the_end_cost_no_more_than_those_that_are():
    """There were 15 ways to read each zero of such a line, and all were tried."""
    size = 16_000

    def spent_s(line):
        spent = []
        for _ in range(9):
            body = ChunkedBody(size, TRAILER_MAX)
            began = process_time()
            with suppress(RequestError):
                body.feed(line)
            spent.append(process_time() - began)
        return sorted(spent)[len(spent) // 2]

    assert spent_s(b"0" * size + b"g\r\n") < 50 * spent_s(b"0" * size + b"1\r\n")
