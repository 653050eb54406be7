"""What must hold of every request head and body: `wire.head` and `wire.body`, with h11 as the other reader."""

from __future__ import annotations

import re
from typing import NamedTuple

import h11

from pagi_trio.errors import RequestError
from pagi_trio.wire import head as wire_head
from pagi_trio.wire.body import ChunkedBody, LengthBody
from pagi_trio.wire.head import CHUNKED, CODINGS, Head, check_unfinished, parse_head
from tests.fuzz.cutting import read_alike

FIELDS_MAX = 20
LINE_MAX = 60
HEAD_MAX = 200
EXTENSION_MAX = 100
TRAILER_MAX = 100
"""Small limits, which small inputs reach."""

FIELD_MAX = 256
"""The least that there may be."""

_HELD_BESIDE_EXTENSION = 17
"""The digits and the line end of a chunk size."""

_HEAD_STATUSES = {400, 417, 431, 501, 505}
_BODY_STATUSES = {400, 431}
_UNFINISHED_STATUSES = {400, 414, 431}

_MEMO_LINES = 2048

# What h11 refuses in a body and is taken here, by what it says.
_BODY_DIFFERENCES = re.compile(
    # RFC 9112 section 7.1.1 lets white space stand before the semicolon of a chunk extension, and any number of zeros
    # before a size.
    r"illegal chunk header: bytearray\(b['\"](0{6,}|[0-9A-Fa-f]{1,20}( |\\t)+;)"
    # Trailers are checked as lines and dropped (RFC 9110 section 6.5.1), so none of these can mean anything.
    r"|bad Content-Length|conflicting Content-Length headers"
    r"|multiple Transfer-Encoding headers|Only Transfer-Encoding: chunked is supported"
)


class Message(NamedTuple):
    """A request as it was understood; `left` is None where the body has not come to its end."""

    method: str
    target: bytes
    version: str
    headers: list[tuple[bytes, bytes]]
    body: bytes
    left: bytes | None


def check_head(data: bytes) -> None:
    """Check what becomes of bytes as a head: up to the first blank line, or all of them."""
    raw, blank, _ = data.partition(b"\r\n\r\n")
    outcome = _parse(raw)
    _check_memos(raw, outcome)
    # Cut anywhere, what is refused early is refused whole as well, for what it is or for its length.
    refused = not isinstance(outcome, Head) or len(raw.partition(b"\r\n")[0]) > LINE_MAX or len(raw) > HEAD_MAX
    early: int | None = None
    for end in range(len(raw) + 1):
        status = _check_unfinished(raw[:end])
        assert early is None or status is not None, "more bytes cannot mend a head"
        early = status
        assert status is None or refused, f"refused with {status} after {end} bytes"
    if isinstance(outcome, Head) and blank:
        _check_meaning(outcome)


def check_request(data: bytes) -> None:
    """Check that what is taken as a request, head and body, is the request that h11 reads."""
    raw, blank, rest = data.partition(b"\r\n\r\n")
    head = _parse(raw) if blank else None
    if not isinstance(head, Head):
        return
    body: LengthBody | ChunkedBody = _chunked() if head.flags & CHUNKED else LengthBody(head.content_length)
    try:
        content, used = _feed(body, rest)
    except RequestError:
        return
    line = head.line
    target = line.raw_path + (b"?" + line.query if line.query else b"")
    left = rest[used:] if body.done else None
    # h11 hands this value out in lower case.
    headers = [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in head.headers]
    _compare(Message(line.method, target, line.version, headers, content, left), head, data)


def check_chunked(data: bytes) -> None:
    """Check what becomes of bytes as a chunked body, however they come."""

    def read(pieces: list[bytes]) -> tuple[bytes, int, int | None]:
        body = _chunked()
        content = b""
        used = 0
        for piece in pieces:
            try:
                got, count = _feed(body, piece)
            except RequestError as error:
                assert error.status in _BODY_STATUSES
                # What came before the fault in the same piece is lost with it; what matters is that it failed.
                return b"", 0, error.status
            content += got
            used += count
            assert len(body._line) <= max(EXTENSION_MAX + _HELD_BESIDE_EXTENSION, TRAILER_MAX + 2)
            if body.done:
                break
            assert count == len(piece)
        assert len(content) <= used
        return content, used, None

    read_alike(read, data)


def check_length(data: bytes) -> None:
    """Check a body whose length, the first byte, is announced."""
    length, sent = (data[0], data[1:]) if data else (0, b"")

    def read(pieces: list[bytes]) -> bytes:
        body = LengthBody(length)
        content = b""
        left = b""
        for piece in pieces:
            got, used = body.feed(piece)
            content += got
            left += piece[used:]
        assert body.done == (len(sent) >= length)
        assert content + left == sent
        return content

    assert read_alike(read, sent) == sent[:length]


def _chunked() -> ChunkedBody:
    return ChunkedBody(EXTENSION_MAX, TRAILER_MAX)


def _parse(raw: bytes) -> Head | tuple[int, str]:
    try:
        return parse_head(raw, FIELDS_MAX, FIELD_MAX)
    except RequestError as error:
        assert error.status in _HEAD_STATUSES
        return error.status, str(error)


def _check_unfinished(raw: bytes) -> int | None:
    try:
        check_unfinished(raw, LINE_MAX, HEAD_MAX)
    except RequestError as error:
        assert error.status in _UNFINISHED_STATUSES
        return error.status
    return None


def _check_memos(raw: bytes, outcome: Head | tuple[int, str]) -> None:
    """Check that the memos change no outcome and stay small."""
    memos = wire_head._request_lines, wire_head._field_lines
    assert all(len(memo) <= _MEMO_LINES for memo in memos)
    wire_head._request_lines, wire_head._field_lines = {}, {}
    try:
        fresh = _parse(raw)
    finally:
        wire_head._request_lines, wire_head._field_lines = memos
    assert _plain(fresh) == _plain(outcome) == _plain(_parse(raw))


def _plain(outcome: Head | tuple[int, str]) -> object:
    return [getattr(outcome, name) for name in Head.__slots__] if isinstance(outcome, Head) else outcome


def _check_meaning(head: Head) -> None:
    """Check what an application and the framing rely on."""
    names = [name for name, _ in head.headers]
    assert names.count(b"host") <= 1
    assert names.count(b"cookie") <= 1
    assert names.count(b"content-length") <= 1
    assert not {b"content-length", b"transfer-encoding"} <= set(names)
    assert head.content_length >= 0
    assert len(names) <= FIELDS_MAX + 1
    for name, value in head.headers:
        assert name
        assert name == name.lower()
        assert value == value.strip()
        assert not any(byte in name + value for byte in b"\0\r\n")
    assert head.line.raw_path[:1] == b"/" or head.line.raw_path == b"*"


def _feed(body: LengthBody | ChunkedBody, data: bytes) -> tuple[bytes, int]:
    """Feed all that a body takes, which it may take in several steps."""
    content = b""
    position = 0
    while position < len(data) and not body.done:
        got, used = body.feed(data[position:])
        assert used > 0
        content += got
        position += used
    return content, position


def _compare(ours: Message, head: Head, data: bytes) -> None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=2**20)
    connection.receive_data(data)
    content = b""
    request = None
    try:
        request = connection.next_event()
        assert isinstance(request, h11.Request)
        while isinstance(event := connection.next_event(), h11.Data):
            content += event.data
    except h11.RemoteProtocolError as error:
        assert _is_allowed(str(error), head) if request is None else _BODY_DIFFERENCES.match(str(error)), error
        return
    left = connection.trailing_data[0] if isinstance(event, h11.EndOfMessage) else None
    headers = _as_ours(list(request.headers), head.line.authority)
    version = "1.0" if request.http_version == b"1.0" else "1.1"
    target = _origin_form(request.target)
    theirs = Message(request.method.decode(), target, version, headers, content, left)
    assert ours == theirs, f"read as {ours}, and by h11 as {theirs}"
    if version == "1.1" and left is not None:
        # Over 1.0 h11 always closes, where keep-alive is honoured here.
        connection.send(h11.Response(status_code=200, headers=[(b"content-length", b"0")]))
        connection.send(h11.EndOfMessage())
        assert head.keep_alive == (connection.our_state is h11.DONE)


def _is_allowed(refusal: str, head: Head) -> bool:
    """Tell whether what h11 refuses in a head is right to be taken."""
    if "Transfer-Encoding" in refusal:
        # A list may have empty elements (RFC 9110 section 5.6.1.2), and come over several lines.
        return head.flags & CODINGS != 0
    # RFC 9110 section 8.6: any number of digits, and so of zeros before the others.
    return refusal == "bad Content-Length" and any(
        name == b"content-length" and len(value) > 20 for name, value in head.headers
    )


def _origin_form(target: bytes) -> bytes:
    """Return path and query of a target; an empty query is none, as in the scope of ASGI."""
    if target[:1] != b"/" and target != b"*":
        target = re.sub(rb"^[A-Za-z]+://[^/?]+/?", b"/", target)
    path, _, query = target.partition(b"?")
    return path + (b"?" + query if query else b"")


def _as_ours(headers: list[tuple[bytes, bytes]], authority: bytes | None) -> list[tuple[bytes, bytes]]:
    """Do what is done here on purpose: cookies are joined, and an absolute target overrules Host."""
    cookies = [value for name, value in headers if name == b"cookie"]
    joined: list[tuple[bytes, bytes]] = []
    for name, value in headers:
        if name != b"cookie":
            joined.append((name, value))
        elif cookies:
            joined.append((name, b"; ".join(cookies)))
            cookies = []
    if authority is None:
        return joined
    return [(b"host", authority), *(field for field in joined if field[0] != b"host")]
