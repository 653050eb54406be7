"""WebSocket frames: the heads that those of a client may have, and whole ones as a server writes them.

Source: RFC 6455 sections 5.1, 5.2 and 5.5; RFC 7692 section 6 for RSV1.
"""

from __future__ import annotations

import struct
from typing import Final

from pagi_trio.errors import WebSocketError

CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

OPCODE: Final = 0x0F
"""The bits of a frame's first byte that say what it is."""

CONTROL: Final = 0x08
"""The one of them that all control frames have, and no others."""

FIN: Final = 0x80
RSV1: Final = 0x40

CONTROL_MAX_BYTES: Final = 125
"""Of a control frame's payload (RFC 6455 section 5.5)."""

_FIRST_BYTES: Final = frozenset((0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8A))
_FIRST_BYTES_DEFLATE: Final = _FIRST_BYTES | {0x41, 0x42, 0xC1, 0xC2}

# The two bytes before a short payload, by opcode and length: a look-up is twice as fast as making them.
_SHORT_HEADS: Final = {
    opcode: tuple(bytes((FIN | opcode, size)) for size in range(126)) for opcode in (TEXT, BINARY, CLOSE, PING, PONG)
}
_MEDIUM_HEAD: Final = struct.Struct("!BBH")
_LONG_HEAD: Final = struct.Struct("!BBQ")


def read_head(buffer: bytes, position: int, *, deflate: bool) -> tuple[int, int, int] | None:
    """Read the head of a client's frame.

    Args:
        buffer: What the client has sent.
        position: Where in it the frame begins.
        deflate: Whether permessage-deflate was agreed on.

    Returns:
        The first byte, the size of the payload, and where that begins; this may be behind what is here, since the mask
        comes last and everything else is known before it. None if more bytes are needed.

    Raises:
        WebSocketError: 1002 if no client may send this.
    """
    held = len(buffer) - position
    if held < 2:
        return None
    first = buffer[position]
    if first not in (_FIRST_BYTES_DEFLATE if deflate else _FIRST_BYTES):
        raise _bad_first_byte(first)
    second = buffer[position + 1]
    if not second & 0x80:
        raise WebSocketError(1002, "a client's frame is not masked")
    size = second & 0x7F
    if size < 126:
        return first, size, position + 6
    if first & CONTROL:
        raise WebSocketError(1002, f"a control frame is longer than {CONTROL_MAX_BYTES} bytes")
    head_bytes = 8 if size == 126 else 14
    if held < head_bytes - 4:
        return None
    size = int.from_bytes(buffer[position + 2 : position + head_bytes - 4], "big")
    # RFC 6455 section 5.2: the shortest form, the highest bit 0.
    if size < (126 if head_bytes == 8 else 2**16):
        raise WebSocketError(1002, "the length of a frame is not in its shortest form")
    if size >= 2**63:
        raise WebSocketError(1002, "the length of a frame has its highest bit set")
    return first, size, position + head_bytes


def _bad_first_byte(first: int) -> WebSocketError:
    opcode = first & OPCODE
    if first & 0x30:
        return WebSocketError(1002, "a reserved bit is set")
    if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
        return WebSocketError(1002, f"opcode {opcode} is not defined")
    if first & RSV1:
        return WebSocketError(1002, "RSV1 is set where no compressed message begins")
    return WebSocketError(1002, "a control frame is fragmented")


def encode(opcode: int, payload: bytes, rsv1: bool = False) -> bytes:
    """Encode one whole message, or a control frame, as a server's frame.

    Args:
        opcode: TEXT, BINARY, CLOSE, PING or PONG.
        payload: What the frame carries; at most `CONTROL_MAX_BYTES` of a control frame.
        rsv1: Whether the payload is compressed.
    """
    size = len(payload)
    if size < 126 and not rsv1:
        return _SHORT_HEADS[opcode][size] + payload
    first = FIN | RSV1 | opcode if rsv1 else FIN | opcode
    if size < 126:
        return bytes((first, size)) + payload
    if size < 2**16:
        return _MEDIUM_HEAD.pack(first, 126, size) + payload
    return _LONG_HEAD.pack(first, 127, size) + payload
