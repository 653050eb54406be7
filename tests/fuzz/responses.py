"""What must hold of every response written: `wire.framing` and `wire.response`, with h11's client as the reader."""

from __future__ import annotations

import h11

from pagi_trio.errors import AppProtocolError
from pagi_trio.wire.date import DateCache
from pagi_trio.wire.framing import ResponseFraming
from pagi_trio.wire.head import RequestLine
from pagi_trio.wire.response import error_response
from tests.fuzz.cutting import Program

_STATUSES = (200, 204, 205, 304, 404, 999, 299, 101, 199, 1000)
_NAMES = (
    b"x-own",
    b"content-length",
    b"Content-Length",
    b"transfer-encoding",
    b"connection",
    b"date",
    b"content-type",
    b"content-encoding",
    b"set-cookie",
)
_OURS = {b"connection", b"transfer-encoding"}
"""Fields that the server writes, whatever the application gave."""

_DATE = DateCache()


def check_response(data: bytes) -> None:
    """Check a response that an application might send: it is refused, or the client reads what was sent."""
    program = Program(data)
    method = program.choose("GET", "HEAD", "POST")
    version = program.choose("1.1", "1.0")
    keep_alive = program.choose(True, False)
    status = program.choose(*_STATUSES)
    headers = [_read_field(program) for _ in range(program.number(5))]
    request = RequestLine(method, "/", b"/", b"", version, None, None)
    parts = [program.take(program.number(256)) for _ in range(1 + program.number(4))]
    try:
        framing = ResponseFraming(request, status, headers)
        stream, stays = framing.head(len(parts[0]), more=len(parts) > 1, keep_alive=keep_alive, date=_DATE)
        for i, part in enumerate(parts):
            stream += framing.frame(part, more=i < len(parts) - 1)
    except AppProtocolError:
        return
    assert framing.ended
    assert stays <= keep_alive
    _read_by_other(method, framing, stays, stream, headers, b"".join(parts))


def check_error_response(data: bytes) -> None:
    """Check that an answer to what is no request is a response, whatever reason it gives."""
    program = Program(data)
    status = 400 + program.number(200)
    reason = program.rest().decode("latin-1")
    events, left, closes = _read(b"GET", error_response(status, reason, _DATE.line()))
    assert isinstance(events[0], h11.Response)
    assert events[0].status_code == status
    assert _body(events) == reason.encode() + b"\n"
    assert (left, closes) == (b"", True)


def _read_field(program: Program) -> tuple[bytes, bytes]:
    name = program.choose(*_NAMES, None)
    if name is None:
        name = program.take(program.number(20))
    elif name.lower() == b"content-length" and program.choose(True, False):
        return name, b"%d" % program.number(256)
    return name, program.take(program.number(40))


def _read_by_other(
    method: str,
    framing: ResponseFraming,
    stays: bool,
    stream: bytes,
    headers: list[tuple[bytes, bytes]],
    sent: bytes,
) -> None:
    events, left, closes = _read(method.encode(), stream)
    response = events[0]
    assert isinstance(response, h11.Response)
    assert response.status_code == framing.status
    assert response.http_version == b"1.1"
    has_content = method != "HEAD" and framing.status not in (204, 205, 304)
    assert _body(events) == (sent if has_content else b"")
    assert isinstance(events[-1], h11.EndOfMessage)
    assert left == b""
    # A client may only go on where the server does; h11's never does after a body that ends with the connection.
    assert stays != closes
    written = list(response.headers)
    given = [(name.lower(), value.strip(b" \t")) for name, value in headers if name.lower() not in _OURS]
    if framing.status in (204, 205):
        given = [field for field in given if field[0] != b"content-length"]
    assert [field for field in written if field in given] == given
    added = [name for name, _ in written]
    for name, _ in given:
        added.remove(name)
    assert set(added) <= {b"date", b"content-length", b"connection", b"transfer-encoding"}
    assert len(set(added)) == len(added)


def _read(method: bytes, stream: bytes) -> tuple[list[object], bytes, bool]:
    """Return what h11's client reads: its events, what is left, and whether the connection must be closed."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(stream)
    events: list[object] = []
    closed = False
    while not events or not isinstance(events[-1], h11.EndOfMessage):
        event = client.next_event()
        if event is h11.NEED_DATA:
            assert not closed, "a response without an end"
            client.receive_data(b"")
            closed = True
        else:
            events.append(event)
    return events, client.trailing_data[0], closed or client.our_state is h11.MUST_CLOSE


def _body(events: list[object]) -> bytes:
    return b"".join(bytes(event.data) for event in events if isinstance(event, h11.Data))
