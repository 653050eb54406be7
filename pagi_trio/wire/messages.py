"""WebSocket messages: from the payloads of their frames to what an application receives.

Source: RFC 6455 sections 5.4, 5.6 and 8.1.
"""

from __future__ import annotations

from codecs import utf_8_decode
from typing import TYPE_CHECKING, Literal, TypeAlias

from pagi_trio.errors import WebSocketError
from pagi_trio.wire.frames import BINARY, TEXT

if TYPE_CHECKING:
    from pagi_trio.wire.deflate import Inflater

DataEvent: TypeAlias = tuple[Literal[1], str] | tuple[Literal[2], bytes]
"""An opcode and the message."""


class PartialMessage:
    """A message that arrives in pieces.

    Its bytes are kept in one array, whatever the pieces: an object per piece would let a client that sends
    single bytes take forty times the memory that the limit allows. Text is decoded twice, to check it early
    and to return it; only messages in pieces pay that.
    """

    __slots__ = ("data", "fragments", "inflater", "opcode", "undecoded")

    def __init__(self, opcode: int, inflater: Inflater | None) -> None:
        self.opcode = opcode
        self.inflater = inflater
        self.data = bytearray()
        self.fragments = 0
        self.undecoded = b""

    def add(self, piece: bytes, max_bytes: int, *, final: bool) -> None:
        """Take the next piece.

        Args:
            piece: Of the payload, unmasked.
            max_bytes: The largest message allowed once it is inflated.
            final: Whether the message ends with it.

        Raises:
            WebSocketError: 1007 for text that cannot become UTF-8 any more, and as `Inflater.inflate`.
        """
        if self.inflater is not None:
            piece = self.inflater.inflate(piece, max_bytes - len(self.data), final=final)
        if self.opcode == TEXT:
            text = self.undecoded + piece
            try:
                # Not final: a character that is cut off at the end fails in `to_event`.
                self.undecoded = text[utf_8_decode(text, "strict", False)[1] :]
            except UnicodeDecodeError:
                raise not_utf8() from None
        self.data += piece


def to_event(opcode: int, payload: bytes | bytearray) -> DataEvent:
    """Return a message that is whole.

    Raises:
        WebSocketError: 1007 for text that is not UTF-8.
    """
    if opcode == BINARY:
        return BINARY, bytes(payload)
    try:
        return TEXT, str(payload, "utf-8")
    except UnicodeDecodeError:
        raise not_utf8() from None


def not_utf8() -> WebSocketError:
    """Make the error of a text message that is none."""
    return WebSocketError(1007, "a text message is not UTF-8")
