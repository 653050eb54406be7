"""The opening handshake of a WebSocket, the server's side.

Source: RFC 6455 sections 4.2, 9.1 and 11.3.
"""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha1
from typing import TYPE_CHECKING, Final, TypeAlias

from pagi_trio.errors import AppProtocolError, RequestError
from pagi_trio.wire.response import DATE, ResponseFields

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pagi_trio.asgi import Headers

Extension: TypeAlias = tuple[str, list[tuple[str, str | None]]]
"""An extension offered: its name, and its parameters with their values, None where there is none."""

# What a key and this are hashed to proves that the server speaks WebSocket (RFC 6455 section 1.3).
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

# 16 bytes in base64.
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")

_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # noqa: S105 - a token of RFC 9110, no secret
# A quoted value must be a token once it is unquoted (RFC 6455 section 9.1), so it needs no escapes.
_PARAMETER: Final = rf'[ \t]*;[ \t]*({_TOKEN})(?:[ \t]*=[ \t]*("?)({_TOKEN})\2)?'
_token = re.compile(_TOKEN)
_parameter = re.compile(_PARAMETER)

_OWN_FIELDS: Final = frozenset(
    (
        b"connection",
        b"content-length",
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
        b"sec-websocket-key",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
        b"transfer-encoding",
        b"upgrade",
    )
)


@dataclass(frozen=True, slots=True)
class Handshake:
    """A valid opening handshake.

    Attributes:
        key: As sent; `accept_response` proves that it was read.
        subprotocols: Offered by the client, the preferred one first.
        extensions: Offered by the client, the preferred one first.
    """

    key: bytes
    subprotocols: list[str]
    extensions: list[Extension]


def read_handshake(method: str, headers: Headers) -> Handshake:
    """Read the request that asks for a WebSocket.

    Args:
        method: As sent.
        headers: Names in lower case; whoever calls has seen the upgrade in them.

    Raises:
        RequestError: 426 for another version of the protocol, to be answered with a Sec-WebSocket-Version
            of 13; 400 for all else that is wrong.
    """
    if method != "GET":
        raise RequestError(400, "a WebSocket handshake must be a GET")
    if _single(headers, b"sec-websocket-version") != b"13":
        raise RequestError(426, "the only version of WebSocket spoken here is 13")
    key = _single(headers, b"sec-websocket-key")
    if _KEY.fullmatch(key) is None:
        raise RequestError(400, "Sec-WebSocket-Key is not 16 bytes in base64")
    subprotocols = _elements(headers, b"sec-websocket-protocol")
    for subprotocol in subprotocols:
        if _token.fullmatch(subprotocol) is None:
            raise RequestError(400, "Sec-WebSocket-Protocol is not a list of tokens")
    extensions = [_read_extension(offer) for offer in _elements(headers, b"sec-websocket-extensions")]
    return Handshake(key, subprotocols, extensions)


def _single(headers: Headers, name: bytes) -> bytes:
    values = [value for other, value in headers if other == name]
    if len(values) != 1:
        raise RequestError(400, f"{name.decode('ascii')} must be given once, not {len(values)} times")
    return values[0]


def _elements(headers: Headers, name: bytes) -> list[str]:
    """Return the elements of a list that may be spread over several fields, empty ones left out."""
    values = b",".join([value for other, value in headers if other == name]).decode("latin-1")
    return [element for part in values.split(",") if (element := part.strip(" \t"))]


def _read_extension(offer: str) -> Extension:
    match = _token.match(offer)
    position = 0
    parameters: list[tuple[str, str | None]] = []
    name = ""
    if match is not None:
        name, position = match.group(), match.end()
        while (match := _parameter.match(offer, position)) is not None:
            parameters.append((match[1], match[3]))
            position = match.end()
    if position != len(offer):
        # RFC 6455 section 9.1: whoever receives malformed data here fails the connection at once.
        raise RequestError(400, "Sec-WebSocket-Extensions is malformed")
    return name, parameters


def accept_key(key: bytes) -> bytes:
    """Return the value of Sec-WebSocket-Accept for a key."""
    return b64encode(sha1(key + _GUID, usedforsecurity=False).digest())


def accept_response(
    handshake: Handshake,
    date: bytes,
    subprotocol: str | None = None,
    extensions: bytes | None = None,
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> bytes:
    """Write the head of the 101 response.

    Args:
        handshake: What is accepted.
        date: The date line, left out if the application sends its own.
        subprotocol: Chosen by the application.
        extensions: The value of Sec-WebSocket-Extensions.
        headers: Of the application.

    Raises:
        AppProtocolError: If the subprotocol was not offered, or a header is invalid or belongs to the
            handshake.
    """
    lines = [
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n",
        b"sec-websocket-accept: %s\r\n" % accept_key(handshake.key),
    ]
    if subprotocol is not None:
        if subprotocol not in handshake.subprotocols:
            offered = ", ".join(handshake.subprotocols) or "none"
            raise AppProtocolError(f"the client did not offer the subprotocol {subprotocol!r}, but {offered}")
        lines.append(b"sec-websocket-protocol: %s\r\n" % subprotocol.encode("ascii"))
    if extensions is not None:
        lines.append(b"sec-websocket-extensions: %s\r\n" % extensions)
    own = list(headers)
    fields = ResponseFields(own)
    for name, _ in own:
        if name.lower() in _OWN_FIELDS:
            raise AppProtocolError(f"{name!r} belongs to the handshake and is the server's to send, leave it out")
    if not fields.flags & DATE:
        lines.append(date)
    return b"".join((*lines, *fields.lines, b"\r\n"))
