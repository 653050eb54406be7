"""What must hold of every opening handshake: `wire.handshake` and what `wire.deflate` agrees to.

The other side is websockets: its parsers of the fields, and its client, which judges the answer.
"""

from __future__ import annotations

from websockets.exceptions import InvalidHandshake, NegotiationError
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.headers import parse_extension, parse_subprotocol
from websockets.http11 import Response
from websockets.streams import StreamReader
from websockets.utils import accept_key

from pagi_trio.errors import RequestError
from pagi_trio.wire.deflate import negotiate
from pagi_trio.wire.handshake import Extension, Handshake, accept_response, read_handshake
from pagi_trio.wire.head import parse_head
from tests.fuzz.cutting import Program

_FIXED = (
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def check_handshake(data: bytes) -> None:
    """Check what becomes of bytes as the head of a request for a WebSocket."""
    try:
        head = parse_head(data.partition(b"\r\n\r\n")[0], 100, 1000)
    except RequestError:
        return
    if not head.is_websocket:
        return
    try:
        handshake = read_handshake(head.line.method, head.headers)
    except RequestError as error:
        assert error.status in (400, 426)
        return
    _check(handshake, head.headers)


def check_extensions(data: bytes) -> None:
    """Check what becomes of bytes as the fields of a handshake in which all else is right."""
    program = Program(data)
    name = program.choose(b"Sec-WebSocket-Extensions", b"Sec-WebSocket-Protocol")
    check_handshake(_FIXED + b"\r\n".join(name + b": " + value for value in program.rest().split(b"\n")))


def _check(handshake: Handshake, headers: list[tuple[bytes, bytes]]) -> None:
    subprotocols = _field(headers, b"sec-websocket-protocol")
    extensions = _field(headers, b"sec-websocket-extensions")
    # It takes no list without an element, where RFC 9110 section 5.6.1.2 has an empty one be none.
    if subprotocols.strip(", \t"):
        assert handshake.subprotocols == parse_subprotocol(subprotocols)
    else:
        assert handshake.subprotocols == []
    if extensions.strip(", \t"):
        assert handshake.extensions == parse_extension(extensions)
    else:
        assert handshake.extensions == []
    agreed = negotiate(handshake.extensions)
    if agreed is not None:
        _check_agreed(agreed.header, handshake.extensions)
    subprotocol = handshake.subprotocols[-1] if handshake.subprotocols else None
    written = accept_response(
        handshake, b"date: x\r\n", subprotocol, agreed.header if agreed is not None else None, [(b"x-own", b"1")]
    )
    response = _read_response(written)
    assert response.status_code == 101
    assert response.headers["Sec-WebSocket-Accept"] == accept_key(handshake.key.decode())
    assert response.headers.get("Sec-WebSocket-Protocol") == subprotocol
    assert response.headers["X-Own"] == "1"


def _check_agreed(answer: bytes, offers: list[Extension]) -> None:
    """Check that a client which made one of the offers may take the answer (RFC 7692 section 7.1)."""
    ((name, parameters),) = parse_extension(answer.decode())
    assert name == "permessage-deflate"
    # Its client has no window of 8 bits, which others may offer, and then get.
    parameters = [(key, "9" if (key, value) == ("client_max_window_bits", "8") else value) for key, value in parameters]
    failures = []
    for offer, offered in offers:
        if offer == name:
            try:
                _client(dict(offered)).process_response_params(parameters, [])
            except (NegotiationError, ValueError) as error:
                failures.append(error)
            else:
                return
    raise AssertionError(f"{answer!r} answers none of {offers}: {failures}")


def _client(offered: dict[str, str | None]) -> ClientPerMessageDeflateFactory:
    server_bits = offered.get("server_max_window_bits")
    client_bits: int | bool | None = None
    if "client_max_window_bits" in offered:
        value = offered["client_max_window_bits"]
        client_bits = True if value is None else max(int(value), 9)
    return ClientPerMessageDeflateFactory(
        server_no_context_takeover="server_no_context_takeover" in offered,
        client_no_context_takeover="client_no_context_takeover" in offered,
        server_max_window_bits=None if server_bits is None else int(server_bits),
        client_max_window_bits=client_bits,
    )


def _field(headers: list[tuple[bytes, bytes]], name: bytes) -> str:
    return ", ".join(value.decode("latin-1") for other, value in headers if other == name)


def _read_response(data: bytes) -> Response:
    reader = StreamReader()
    reader.feed_data(data)
    parser = Response.parse(reader.read_line, reader.read_exact, reader.read_to_eof)
    try:
        next(parser)
    except StopIteration as finished:
        assert next(reader.read_exact(0), None) is None
        response = finished.value
        assert isinstance(response, Response)
        return response
    except InvalidHandshake as error:
        raise AssertionError(f"{data!r} is no response") from error
    raise AssertionError(f"{data!r} has no end")
