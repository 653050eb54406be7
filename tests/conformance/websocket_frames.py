"""What a client sends in the same packet as its handshake, and what it gets; Autobahn has no case of most of these.

Source: RFC 6455 sections 5 and 7; RFC 7692 section 6.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

MESSAGE_MAX_BYTES = 1000
"""The server's limit under these cases."""

FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


@dataclass(frozen=True)
class Failed:
    """A Close frame with one of these codes, then the end of the connection, whatever the client does."""

    codes: Collection[int]


@dataclass(frozen=True)
class Case:
    """Some frames, and the messages or frames that come back, in order.

    Attributes:
        answers: Opcode and payload of each frame, deflated messages inflated; `Failed` can only be the last.
        deflated: Whether permessage-deflate was negotiated.
    """

    name: str
    clause: str
    sent: bytes
    answers: Sequence[tuple[int, bytes] | Failed]
    deflated: bool = False

    def __str__(self) -> str:
        return f"{self.name}{' where messages may be deflated' if self.deflated else ''} ({self.clause})"


def frame(first: int, payload: bytes = b"", *, mask: bytes = b"\x01\x02\x03\x04", length: bytes = b"") -> bytes:
    """Make a client's frame.

    Args:
        first: The first byte.
        payload: At most 125 bytes, unless the length is given.
        mask: Four bytes.
        length: The second byte and what extends it, where it is not what the payload has.
    """
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return bytes([first]) + (length or bytes([0x80 | len(payload)])) + mask + masked


def deflate(payload: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return (stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]


def medium(size: int) -> bytes:
    return struct.pack("!BH", 0x80 | 126, size)


def long(size: int) -> bytes:
    return struct.pack("!BQ", 0x80 | 127, size)


PROTOCOL_ERROR = (Failed([1002]),)
TOO_BIG = (Failed([1009]),)
HELLO = frame(FIN | TEXT, b"hello")
SAID_HELLO = (TEXT, b"hello")
NORMAL = struct.pack("!H", 1000)

CASES = (
    Case("a message", "RFC 6455 5.6", HELLO, [SAID_HELLO]),
    Case("two messages", "RFC 6455 5.6", HELLO + frame(FIN | BINARY, b"\0"), [SAID_HELLO, (BINARY, b"\0")]),
    Case("an empty message", "RFC 6455 5.6", frame(FIN | TEXT), [(TEXT, b"")]),
    Case("a mask of zeros", "RFC 6455 5.3", frame(FIN | TEXT, b"hello", mask=bytes(4)), [SAID_HELLO]),
    Case("the longest message", "RFC 6455 5.2", frame(FIN | BINARY, bytes(1000), length=medium(1000)), [(BINARY, bytes(1000))]),
    Case("a ping, then a Close", "RFC 6455 5.5", frame(FIN | PING, b"a") + frame(FIN | CLOSE, NORMAL), [(PONG, b"a"), (CLOSE, NORMAL)]),
    Case("no mask", "RFC 6455 5.1", bytes([FIN | TEXT, 5]) + b"hello", PROTOCOL_ERROR),
    Case("no mask behind a message", "RFC 6455 5.1", HELLO + bytes([FIN | TEXT, 5]) + b"hello", [SAID_HELLO, *PROTOCOL_ERROR]),
    Case("an empty frame without a mask", "RFC 6455 5.1", bytes([FIN | TEXT, 0]), PROTOCOL_ERROR),
    Case("a Close without a mask", "RFC 6455 5.1", bytes([FIN | CLOSE, 2]) + NORMAL, PROTOCOL_ERROR),
    Case("a ping without a mask", "RFC 6455 5.1", bytes([FIN | PING, 0]), PROTOCOL_ERROR),
    Case("RSV1", "RFC 6455 5.2", frame(FIN | RSV1 | TEXT, b"hello"), PROTOCOL_ERROR),
    Case("a deflated message", "RFC 7692 6", frame(FIN | RSV1 | TEXT, deflate(b"hello")), PROTOCOL_ERROR),
    Case("RSV2", "RFC 6455 5.2", frame(FIN | RSV2 | TEXT, b"hello"), PROTOCOL_ERROR),
    Case("RSV3", "RFC 6455 5.2", frame(FIN | RSV3 | TEXT, b"hello"), PROTOCOL_ERROR),
    Case("RSV3 of a ping", "RFC 6455 5.2", frame(FIN | RSV3 | PING), PROTOCOL_ERROR),
    Case("5 bytes with a length of 16 bits", "RFC 6455 5.2", frame(FIN | TEXT, b"hello", length=medium(5)), PROTOCOL_ERROR),
    Case("5 bytes with a length of 64 bits", "RFC 6455 5.2", frame(FIN | TEXT, b"hello", length=long(5)), PROTOCOL_ERROR),
    Case("300 bytes with a length of 64 bits", "RFC 6455 5.2", frame(FIN | TEXT, b"a" * 300, length=long(300)), PROTOCOL_ERROR),
    Case("a length with its highest bit", "RFC 6455 5.2", frame(FIN | TEXT, length=long(2**63)), PROTOCOL_ERROR),
    Case("a long ping", "RFC 6455 5.5", frame(FIN | PING, b"a" * 126, length=medium(126)), PROTOCOL_ERROR),
    Case("a ping in parts", "RFC 6455 5.5", frame(PING, b"a"), PROTOCOL_ERROR),
    Case("the head of a frame of 2**62 bytes", "RFC 6455 10.4", frame(FIN | BINARY, length=long(2**62)), TOO_BIG),
    Case("the head of a frame over the limit", "RFC 6455 10.4", frame(FIN | BINARY, length=medium(1001)), TOO_BIG),
    Case("parts that are over the limit together", "RFC 6455 10.4", frame(BINARY, b"a" * 125) + frame(0, b"b" * 125) * 7 + frame(0, b"c"), TOO_BIG),
    Case("a deflated message", "RFC 7692 7.2.2", frame(FIN | RSV1 | TEXT, deflate(b"hello")), [SAID_HELLO], deflated=True),
    Case("a message that is not deflated", "RFC 7692 6", HELLO, [SAID_HELLO], deflated=True),
    Case("a deflated message in parts", "RFC 7692 6.1", frame(RSV1 | TEXT, deflate(b"hello")[:3]) + frame(FIN, deflate(b"hello")[3:]), [SAID_HELLO], deflated=True),
    Case("RSV1 of a part that is not the first", "RFC 7692 6.1", frame(RSV1 | TEXT, deflate(b"hello")[:3]) + frame(FIN | RSV1, deflate(b"hello")[3:]), PROTOCOL_ERROR, deflated=True),
    Case("RSV1 of a ping", "RFC 7692 6.1", frame(FIN | RSV1 | PING), PROTOCOL_ERROR, deflated=True),
    Case("RSV1 of a Close", "RFC 7692 6.1", frame(FIN | RSV1 | CLOSE, NORMAL), PROTOCOL_ERROR, deflated=True),
    Case("RSV2", "RFC 6455 5.2", frame(FIN | RSV1 | RSV2 | TEXT, deflate(b"hello")), PROTOCOL_ERROR, deflated=True),
    Case("what cannot be inflated", "RFC 7692 7.2.2", frame(FIN | RSV1 | TEXT, b"\xff" * 9), [Failed([1002, 1007])], deflated=True),
    Case("text that is none once inflated", "RFC 6455 8.1", frame(FIN | RSV1 | TEXT, deflate(b"\xff")), [Failed([1007])], deflated=True),
    Case("a message that is over the limit once inflated", "RFC 6455 10.4", frame(FIN | RSV1 | TEXT, deflate(b"a" * 1001)), TOO_BIG, deflated=True),
)  # fmt: skip
