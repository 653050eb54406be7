"""Request heads: RFC 9112 sections 2, 3, 5 and 6, RFC 9110 sections 5 and 7.2."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pagi_trio.errors import RequestError
from pagi_trio.wire import head as head_module
from pagi_trio.wire.head import check_field_line, check_unfinished, check_unfinished_fields, parse_head

TOKEN = b"!#$%&'*+-.^_`|~09azAZ"


def parse(
    *fields: bytes,
    line: bytes = b"GET / HTTP/1.1",
    host: bytes | None = b"Host: x",
    headers_max: int = 100,
    header_max_bytes: int = 8000,
):
    lines = [line, *([host] if host is not None else []), *fields]
    return parse_head(b"\r\n".join(lines), headers_max, header_max_bytes)


def refusal(*fields: bytes, **options) -> tuple[int, str]:
    with pytest.raises(RequestError) as caught:
        parse(*fields, **options)
    return caught.value.status, str(caught.value)


# The request line


def test_a_request_line_is_taken_apart_rfc9112_3():
    line = parse(line=b"GET /a%20b/%C3%A9?x=%20&y HTTP/1.1").line
    assert line == ("GET", "/a b/é", b"/a%20b/%C3%A9", b"x=%20&y", "1.1", None, None)


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/?", "/", b""),
        (b"/??a", "/", b"?a"),
        (b"/a/../b", "/a/../b", b""),
        (b"//a", "//a", b""),
        (b"/%2F%3f", "//?", b""),
        (b"/%ff", "/�", b""),
        (b"/%zz%", "/%zz%", b""),
    ],
)
def test_a_path_is_decoded_once_and_never_normalised_rfc9112_3_2_1(target, path, query):
    line = parse(line=b"GET " + target + b" HTTP/1.1").line
    assert (line.path, line.query, line.raw_path) == (path, query, target.partition(b"?")[0])


def test_methods_are_case_sensitive_tokens_rfc9110_9_1():
    assert parse(line=b"get / HTTP/1.1").line.method == "get"
    assert parse(line=TOKEN + b" / HTTP/1.1").line.method == TOKEN.decode()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"GET",
        b"GET /",
        b"GET  / HTTP/1.1",
        b"GET /  HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b" GET / HTTP/1.1",
        b"GET\t/\tHTTP/1.1",
        b"GET / http/1.1",
        b"GET / HTTP/1.1\n",
        b"GET / HTTP/1",
        b"GET / HTTP/1.10",
        b"GET / HTTP/01.1",
        b"GET / HTTP/1.\xb2",
        b"GET / HTTPS/1.1",
        b"G@T / HTTP/1.1",
        b"G\xc3\x89T / HTTP/1.1",
        b"GET /a b HTTP/1.1",
        b"GET /\xc3\xa9 HTTP/1.1",
        b"GET /\x00 HTTP/1.1",
        b"GET /\x7f HTTP/1.1",
        b"GET /\r HTTP/1.1",
        b"GET /#fragment HTTP/1.1",
        b"GET a HTTP/1.1",
        b"GET * HTTP/1.1",
        b"GET ?q HTTP/1.1",
        b"OPTIONS ** HTTP/1.1",
    ],
)
def test_what_is_no_request_line_is_a_400_rfc9112_3(line):
    assert refusal(line=line)[0] == 400


@pytest.mark.parametrize("version", [b"0.9", b"2.0", b"3.0", b"9.9"])
def test_another_major_version_is_a_505_rfc9110_15_6_6(version):
    assert refusal(line=b"GET / HTTP/" + version) == (505, "only HTTP/1.1 and HTTP/1.0 are spoken here")


@pytest.mark.parametrize(("minor", "read"), [(b"0", "1.0"), (b"1", "1.1"), (b"2", "1.1"), (b"9", "1.1")])
def test_a_higher_minor_version_is_read_as_1_1_rfc9110_2_5(minor, read):
    assert parse(line=b"GET / HTTP/1." + minor).line.version == read


@pytest.mark.parametrize("target", [b"x:443", b"x", b"x:", b"/", b"*", b"http://x/"])
def test_connect_is_a_501_whatever_its_target_rfc9110_9_3_6(target):
    assert refusal(line=b"CONNECT " + target + b" HTTP/1.1") == (501, "CONNECT is not served")


def test_an_asterisk_is_a_target_of_options_alone_rfc9112_3_2_4():
    assert parse(line=b"OPTIONS * HTTP/1.1").line.path == "*"
    assert refusal(line=b"GET * HTTP/1.1")[0] == 400


@pytest.mark.parametrize(
    ("target", "path", "query", "scheme", "host"),
    [
        (b"http://a.example/b?c", "/b", b"c", "http", b"a.example"),
        (b"HTTPS://a:443/", "/", b"", "https", b"a:443"),
        (b"http://a", "/", b"", "http", b"a"),
        (b"http://a?q", "/", b"q", "http", b"a"),
        (b"http://[::1]:80/", "/", b"", "http", b"[::1]:80"),
    ],
)
def test_an_absolute_target_overrules_host_rfc9112_3_2_2(target, path, query, scheme, host):
    parsed = parse(b"X: y", line=b"GET " + target + b" HTTP/1.1", host=b"Host: other")
    assert (parsed.line.path, parsed.line.query, parsed.line.scheme) == (path, query, scheme)
    assert parsed.headers == [(b"host", host), (b"x", b"y")]


@pytest.mark.parametrize(
    "target",
    [
        b"http://",
        b"http:///path",
        b"http://:80/",
        b"http://user@host/",
        b"http://a b/",
        b"http://[::1/",
        b"http://[1:2]/",
        b"http://a:b/",
        b"http://a/#f",
        b"ftp://a/",
        b"http:/a",
    ],
)
def test_an_absolute_target_has_a_host_and_no_user_rfc9110_4_2(target):
    assert refusal(line=b"GET " + target + b" HTTP/1.1")[0] == 400


# Field lines


def test_names_are_lowered_and_values_trimmed_of_sp_and_htab_alone_rfc9112_5_1():
    fields = [b"A-B: \t c d\t ", b"E:", b"F:  ", b"G:h:i", TOKEN + b":x", b"Z: \xa0\xff\xa0"]
    assert parse(*fields).headers[1:] == [
        (b"a-b", b"c d"),
        (b"e", b""),
        (b"f", b""),
        (b"g", b"h:i"),
        (TOKEN.lower(), b"x"),
        (b"z", b"\xa0\xff\xa0"),
    ]


def test_repeated_fields_stay_in_order_rfc9110_5_3():
    assert parse(b"A: 1", b"B: 2", b"a: 3").headers[1:] == [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]


@pytest.mark.parametrize(
    "field",
    [
        b"A : b",
        b" A: b",
        b"\tfolded",
        b": b",
        b"A",
        b"A\x00: b",
        b"A(: b",
        b"\xc3\xa9: b",
        b"A: b\x00c",
        b"A: b\rc",
        b"A: b\nC: d",
        b"A: b\n",
        b"A: \x0bb",
        b"A: b\x0c",
        b"A: \x7f",
        b"A: \x1b",
    ],
)
def test_what_is_no_field_line_is_a_400_rfc9112_5(field):
    assert refusal(field) == (400, "a header line is not name, colon, value")


def test_more_fields_than_allowed_are_a_431_rfc6585_5():
    assert len(parse(b"A: b", b"C: d", headers_max=3).headers) == 3
    assert refusal(b"A: b", b"C: d", headers_max=2) == (431, "more than 2 header fields")


def test_cookies_are_joined_where_the_first_stood_rfc9113_8_2_3():
    parsed = parse(b"A: b", b"Cookie: one=1", b"C: d", b"Cookie: two=2", b"cookie: three=3")
    assert parsed.headers[1:] == [(b"a", b"b"), (b"cookie", b"one=1; two=2; three=3"), (b"c", b"d")]


# Host


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b"a",
        b"a:80",
        b"a:",
        b"[::1]:8000",
        b"[1:2:3:4:5:6:7:8]",
        b"[::ffff:1.2.3.4]",
        b"[v7.a:b]",
        b"127.0.0.1",
        b"a%20b",
        b"a_b",
        b":80",
    ],
)
def test_a_host_is_a_host_and_perhaps_a_port_rfc9110_7_2(host):
    assert parse(host=b"Host: " + host).headers == [(b"host", host)]


@pytest.mark.parametrize(
    "host",
    [
        b"a b",
        b"a,b",
        b"a/b",
        b"u@a",
        b"a:b",
        b"a:1:2",
        b"::1",
        b"[::1",
        b"[x]",
        b"[]",
        b"[1:2]",
        b"[1::2::3]",
        b"[12345::]",
        b"[1:2:3:4:5:6:7:8:9]",
        b"[1.2.3.4]",
        b"[::1%25lo]",
        b"[v7.]",
        b"a%2",
        b"a\xc3\xa9",
        b"a?b",
    ],
)
def test_what_is_no_host_is_a_400_rfc9112_3_2(host):
    if host == b"a,b":  # RFC 3986 section 3.2.2 has the comma among the sub-delims of a registered name.
        assert parse(host=b"Host: " + host).headers == [(b"host", host)]
    else:
        assert refusal(host=b"Host: " + host) == (400, "Host is not a host and port")


def test_one_host_no_more_and_no_less_rfc9112_3_2():
    assert refusal(host=None) == (400, "Host is missing")
    assert refusal(b"Host: x") == (400, "host is given twice")
    assert parse(line=b"GET / HTTP/1.0", host=None).headers == []


# The body's framing


@pytest.mark.parametrize(
    ("value", "length"), [(b"0", 0), (b"5", 5), (b"007", 7), (b"9" * 18, 10**18 - 1), (b"0" * 5000 + b"5", 5)]
)
def test_content_length_is_decimal_digits_rfc9110_8_6(value, length):
    parsed = parse(b"Content-Length: " + value)
    assert (parsed.content_length, parsed.has_body) == (length, length > 0)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"+5",
        b"-5",
        b"0_5",
        b"5_0",
        b"5.0",
        b"0x5",
        b"5 5",
        b"5,5",
        b"5, 6",
        b"5\xa0",
        b"\xa05",
        b"\xb2",
        b"\xd9\xa5",  # an Arabic five, which int() takes
        b"9" * 20,
        b"1" * 5000,  # above int()'s limit of 4,300 digits
    ],
)
def test_content_length_is_nothing_else_rfc9112_6_3(value):
    assert refusal(b"Content-Length: " + value) == (400, "Content-Length is not a number of bytes")


def test_two_content_lengths_are_a_400_even_if_they_agree_rfc9112_6_3():
    assert refusal(b"Content-Length: 5", b"Content-Length: 5") == (400, "content-length is given twice")


def test_chunked_is_understood_in_any_case_rfc9112_6_1():
    for value in (b"chunked", b"Chunked", b"\tCHUNKED "):
        parsed = parse(b"Transfer-Encoding:" + value)
        assert (parsed.has_body, parsed.content_length) == (True, 0)


@pytest.mark.parametrize("values", [[b", chunked"], [b"chunked ,\t,"], [b"", b"chunked"], [b"chunked", b","]])
def test_chunked_may_be_in_a_list_of_its_own_rfc9110_5_6_1_2(values):
    parsed = parse(*[b"Transfer-Encoding:" + value for value in values])
    assert parsed.flags & head_module.CHUNKED
    assert parsed.has_body


@pytest.mark.parametrize(
    "values", [[b"gzip, chunked"], [b"gzip", b"chunked"], [b"identity, Chunked"], [b"chunked, chunked"]]
)
def test_another_transfer_coding_in_front_of_chunked_is_a_501_rfc9112_6_1(values):
    assert refusal(*[b"Transfer-Encoding: " + value for value in values])[0] == 501


@pytest.mark.parametrize(
    "values",
    [
        [b""],
        [b","],
        [b"gzip"],
        [b"chunked, gzip"],
        [b"chunked", b"gzip"],
        [b"chunked;x"],
        [b"identity"],
        [b"\xa0chunked"],
        [b"xchunked"],
        [b"chun\xe2\x84\xaaed"],
    ],
)
def test_a_body_that_chunked_does_not_end_is_a_400_rfc9112_6_3(values):
    assert refusal(*[b"Transfer-Encoding: " + value for value in values])[0] == 400


def test_transfer_encoding_beside_content_length_is_a_400_rfc9112_6_3():
    for fields in (
        (b"Transfer-Encoding: chunked", b"Content-Length: 5"),
        (b"Content-Length: 0", b"Transfer-Encoding: chunked"),
    ):
        assert refusal(*fields) == (400, "Transfer-Encoding and Content-Length contradict each other")
    assert refusal(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked")[0] == 400


def test_transfer_encoding_over_1_0_is_a_400_rfc9112_6_1():
    assert refusal(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0") == (400, "HTTP/1.0 has no Transfer-Encoding")


def test_another_expectation_is_a_417_rfc9110_10_1_1():
    for value in (b"100-Continue", b", 100-continue", b"100-continue, 100-continue"):
        assert parse(b"Expect: " + value).flags & head_module.EXPECT_CONTINUE
    assert not parse(b"Expect:").flags & head_module.EXPECT_CONTINUE
    for value in (b"200-ok", b"100-continue, 200-ok", b"100-continue;x"):
        assert refusal(b"Expect: " + value)[0] == 417


# The connection


@pytest.mark.parametrize(
    ("line", "fields", "stays"),
    [
        (b"GET / HTTP/1.1", [], True),
        (b"GET / HTTP/1.1", [b"Connection: close"], False),
        (b"GET / HTTP/1.1", [b"Connection: x, CLOSE\t,y"], False),
        (b"GET / HTTP/1.1", [b"Connection: x", b"Connection: close"], False),
        (b"GET / HTTP/1.1", [b"Connection: closed"], True),
        (b"GET / HTTP/1.1", [b"Connection: keep-alive, close"], False),
        (b"GET / HTTP/1.0", [], False),
        (b"GET / HTTP/1.0", [b"Connection: Keep-Alive"], True),
        (b"GET / HTTP/1.0", [b"Connection: keep-alive, close"], False),
        # U+212A, the Kelvin sign, is a k once str.lower() has seen it.
        (b"GET / HTTP/1.0", [b"Connection: \xe2\x84\xaaeep-alive"], False),
        (b"GET / HTTP/1.0", [b"Connection: \xa0keep-alive"], False),
    ],
)
def test_whether_the_connection_stays_rfc9112_9_3(line, fields, stays):
    assert parse(*fields, line=line).keep_alive is stays


def test_a_websocket_is_asked_for_by_get_over_1_1_with_both_fields_rfc6455_4_2_1():
    upgrade = (b"Upgrade: h2c, WebSocket", b"Connection: keep-alive, Upgrade")
    assert parse(*upgrade).is_websocket
    assert not parse(upgrade[0]).is_websocket
    assert not parse(upgrade[1]).is_websocket
    assert not parse(b"Upgrade: websocket\xc2\xa0", upgrade[1]).is_websocket
    assert not parse(b"Upgrade: websoc\xe2\x84\xaaet", upgrade[1]).is_websocket
    assert not parse(*upgrade, line=b"POST / HTTP/1.1").is_websocket
    assert not parse(*upgrade, line=b"GET / HTTP/1.0").is_websocket


# Heads that have not ended yet


def test_an_endless_request_line_is_a_414_before_it_ends_rfc9112_3():
    check_unfinished(b"GET /" + b"a" * 59, 64, 1000)
    with pytest.raises(RequestError, match="longer than 64 bytes") as caught:
        check_unfinished(b"GET /" + b"a" * 61, 64, 1000)
    assert caught.value.status == 414


def test_endless_fields_are_a_431_before_they_end_rfc6585_5():
    head = b"GET / HTTP/1.1\r\nA: "
    for begun in (b"", b"\r", b"\r\n", b"\r\n\r"):
        check_unfinished(head.ljust(1000, b"a") + begun, 64, 1000)
    with pytest.raises(RequestError, match="longer than 1000 bytes") as caught:
        check_unfinished(head.ljust(1001, b"a"), 64, 1000)
    assert caught.value.status == 431


LINE = b"GET /" + b"a" * 500 + b" HTTP/1.1\r\n"


@pytest.mark.parametrize("end", [b"", b"\r", b"\r\n", b"\r\nA: b"])
@pytest.mark.parametrize("checked", [0, 100, len(LINE) - 1, len(LINE), len(LINE) + 100, len(LINE) + 256])
def test_an_endless_field_is_a_431_before_it_ends_rfc6585_5(end, checked):
    check_unfinished_fields(LINE + b"A: ".ljust(256, b"a") + end, 2, 256, checked)
    with pytest.raises(RequestError, match="longer than 256 bytes") as caught:
        check_unfinished_fields(LINE + b"A: ".ljust(257, b"a") + end, 2, 256, checked)
    assert caught.value.status == 431


def test_fields_without_end_are_a_431_as_soon_as_they_are_too_many_rfc6585_5():
    check_unfinished_fields(LINE + b"A: b\r\n" * 2 + b"\r", 2, 256)
    with pytest.raises(RequestError, match="more than 2 ") as caught:
        check_unfinished_fields(LINE + b"A: b\r\n" * 3, 2, 256)
    assert caught.value.status == 431


@given(sizes=st.lists(st.integers(2, 300), max_size=5), cuts=st.lists(st.integers(0, 2000), max_size=5))
def test_fields_that_are_refused_early_would_be_refused_in_the_end(sizes, cuts):
    """And none that would not."""
    raw = LINE + b"Host: x\r\n" + b"".join(b"a:".ljust(size, b"b") + b"\r\n" for size in sizes)
    whole = None
    try:
        parse_head(raw[:-2], 4, 256)
    except RequestError as error:
        whole = error.status
    early = None
    checked = 0
    try:
        for cut in (*sorted(cuts), len(raw)):
            check_unfinished_fields(raw[:cut], 4, 256, checked)
            checked = min(cut, len(raw))
    except RequestError as error:
        early = error.status
    assert early == whole


@pytest.mark.parametrize("head", [b"GET / HTTP/1.1\nHost: x", b"\nGET", b"GET / HTTP/1.1\r\nHost: x\n\n"])
def test_a_bare_line_feed_is_refused_before_the_head_ends_rfc9112_2_2(head):
    for checked in (0, head.index(b"\n")):
        with pytest.raises(RequestError, match="CR LF") as caught:
            check_unfinished(head, 64, 1000, checked)
        assert caught.value.status == 400


def test_a_line_feed_has_its_cr_in_what_was_checked_before():
    head = b"GET / HTTP/1.1\r\nHost: x"
    check_unfinished(head, 64, 1000, head.index(b"\n"))


def test_trailers_are_field_lines_rfc9112_7_1_2():
    check_field_line(b"A: b")
    for line in (b"A : b", b" A: b", b"A", b"A: b\x00"):
        with pytest.raises(RequestError, match="trailer"):
            check_field_line(line)


# The memos


@pytest.fixture
def small_memos(monkeypatch):
    """Both memos, empty and with room for 8 lines."""
    monkeypatch.setattr(head_module, "_MEMO_LINES", 8)
    monkeypatch.setattr(head_module, "_MEMO_REQUEST_LINES", 8)
    memos = {"_request_lines": {}, "_field_lines": {}}
    for name, memo in memos.items():
        monkeypatch.setattr(head_module, name, memo)
    return memos


def test_the_memos_are_bounded_in_lines_and_bytes(small_memos):
    for number in range(100):
        parse(b"X: %d" % number, line=b"GET /%d HTTP/1.1" % number)
        assert all(0 < len(memo) <= 8 for memo in small_memos.values())
    long = b"a" * 300
    parse(b"X: " + long, line=b"GET /" + long + b" HTTP/1.1")
    assert max(len(line) for memo in small_memos.values() for line in memo) <= 256


def test_a_line_means_the_same_from_the_memo(small_memos):
    fields = (b"Content-Length: 5", b"Connection: close", b"Cookie: a", b"Cookie: b")
    first, again = (parse(*fields, line=b"POST /%41?b HTTP/1.1") for _ in range(2))
    assert len(small_memos["_field_lines"]) == 5
    for attribute in ("line", "headers", "flags", "content_length", "keep_alive"):
        assert getattr(first, attribute) == getattr(again, attribute)
    first.headers.clear()
    assert len(parse(*fields).headers) == 4


def test_what_is_refused_is_not_remembered(small_memos):
    for _ in range(2):
        assert refusal(b"Content-Length: +5")[0] == 400
        assert refusal(b"A : b")[0] == 400
        assert refusal(line=b"GET a HTTP/1.1")[0] == 400
    assert list(small_memos["_field_lines"]) == [b"Host: x"]
    assert list(small_memos["_request_lines"]) == [b"GET / HTTP/1.1"]


# Properties

PIECES = st.sampled_from(
    [
        b"GET",
        b"POST",
        b" ",
        b"/",
        b"*",
        b"http://",
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"\r\n",
        b"\r",
        b"\n",
        b"Host",
        b":",
        b"x",
        b"Content-Length",
        b"Transfer-Encoding",
        b"chunked",
        b"5",
        b"+",
        b"_",
        b"\x0b",
        b"\x0c",
        b"\xa0",
        b"\t",
        b"[",
        b"]",
        b"%",
        b"?",
        b"#",
        b"@",
        b"Cookie",
        b"Connection",
        b"Upgrade",
        b"websocket",
        b"Expect",
        b",",
        b";",
    ]
)


@given(st.one_of(st.binary(), st.lists(PIECES, max_size=40).map(b"".join)))
@example(b"")
@example(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"\xd9\xa5")
@settings(max_examples=300)
def test_any_bytes_are_a_head_or_a_request_error(raw):
    try:
        parsed = parse_head(raw, 100, 1000)
    except RequestError as error:
        assert error.status in {400, 417, 431, 501, 505}  # noqa: PT017 - it need not raise
        assert str(error).isprintable()  # noqa: PT017 - it need not raise
    else:
        assert parsed.content_length == 0 or not parsed.flags & head_module.CHUNKED
        assert all(name == name.lower() and value == value.strip(b" \t") for name, value in parsed.headers)
    with_limits = (64, 256)
    try:
        check_unfinished(raw, *with_limits)
    except RequestError as error:
        assert error.status in {400, 414, 431}  # noqa: PT017 - it need not raise


NAMES = st.text("abcXYZ-_09", min_size=1, max_size=12).map(str.encode)
VALUES = st.binary(max_size=20).map(lambda value: bytes(b for b in value if b >= 0x20 and b != 0x7F).strip(b" \t"))


@given(st.lists(st.tuples(NAMES, st.sampled_from([b"", b" ", b"\t", b" \t "]), VALUES), max_size=10))
@settings(max_examples=200)
def test_any_valid_fields_come_out_as_they_went_in(fields):
    lines = [name + b":" + space + value + space for name, space, value in fields]
    assert parse(*lines).headers[1:] == [(name.lower(), value) for name, _, value in fields]
