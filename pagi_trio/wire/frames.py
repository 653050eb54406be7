"""WebSocket frames, the server's side: bytes to messages, and messages to bytes.

What nearly every read brings is one whole, unfragmented, uncompressed frame while nothing is held; that is
decoded straight from the bytes received. All else goes through `Decoder.next_event`, which takes the payload
of a data frame as it arrives, so that bad UTF-8 or a message over the limit fails as soon as it is seen and no
more than one message plus one read is ever held.

Source: RFC 6455 sections 5, 7.4 and 8.1; RFC 7692 section 6 for RSV1.
"""

from __future__ import annotations

import struct
from codecs import utf_8_decode
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from pagi_trio.errors import WebSocketError

try:
    from websockets.speedups import apply_mask
except ImportError:  # no compiled extension for this platform
    from websockets.utils import apply_mask

if TYPE_CHECKING:
    from pagi_trio.wire.deflate import Inflater

TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

NO_CLOSE_CODE: Final = 1005
"""Stands for a Close frame without a code (RFC 6455 section 7.1.5); never on the wire."""

Close: TypeAlias = tuple[int, str]
"""Close code and reason."""

Event: TypeAlias = (
    tuple[Literal[1], str] | tuple[Literal[2], bytes] | tuple[Literal[8], Close] | tuple[Literal[9, 10], bytes]
)
"""An opcode and what came with it; comparing ``event[0]`` narrows the type of ``event[1]``."""

_FIN: Final = 0x80
_RSV1: Final = 0x40
_CONTINUATION: Final = 0

_PLAIN_FIRST_BYTES: Final = frozenset((0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8A))
_DEFLATE_FIRST_BYTES: Final = frozenset((0x41, 0x42, 0xC1, 0xC2))

# The two bytes before a short payload, by opcode and length: a look-up is twice as fast as making them.
_SHORT_HEADS: Final = {
    opcode: tuple(bytes((_FIN | opcode, size)) for size in range(126)) for opcode in (TEXT, BINARY, CLOSE, PING, PONG)
}
_MEDIUM_HEAD: Final = struct.Struct("!BBH")
_LONG_HEAD: Final = struct.Struct("!BBQ")

PIECES: Final = 256
"""Pieces of messages taken in one go: 64 KiB of empty fragments would keep the loop for 10 ms, or 20 with deflate."""

REASON_MAX_BYTES: Final = 123
"""125 bytes of control frame, less two of code (RFC 6455 section 5.5)."""


class Decoder:
    """Turns what a client sends into events.

    An error is raised where its bytes are reached, after every event before it; from then on, as after a
    Close, all further bytes are dropped and there are no more events.

    Attributes:
        paused: Whether the last None of `next_event` was only to let others run: it wants to be called again before
            more is fed.
    """

    __slots__ = (
        "_at_rest",
        "_buffer",
        "_ended",
        "_fin",
        "_fragments_max",
        "_inflater",
        "_mask",
        "_message",
        "_message_max_bytes",
        "_position",
        "_unread",
        "paused",
    )

    def __init__(self, message_max_bytes: int, inflater: Inflater | None = None, *, fragments_max: int = 2**17) -> None:
        """Make a decoder at the start of a connection.

        Args:
            message_max_bytes: The largest message, after inflating; text as UTF-8.
            inflater: What inflates compressed messages; None where permessage-deflate was not negotiated.
            fragments_max: How many frames one message may have; empty ones grow no message, so without a bound
                one could go on for ever.
        """
        self._message_max_bytes = message_max_bytes
        self._inflater = inflater
        self._fragments_max = fragments_max
        self._buffer = b""
        self._position = 0
        self._message: _Message | None = None
        # Of the data frame being read: bytes of payload to come, their mask, whether it ends its message.
        self._unread = 0
        self._mask = b""
        self._fin = False
        self.paused = False
        self._ended = False
        # Neither bytes nor a message are held and more may come: one test instead of four on the direct path.
        self._at_rest = True

    @property
    def buffered_bytes(self) -> int:
        """Bytes held: not yet decoded, or of an unfinished message."""
        message = self._message
        return len(self._buffer) - self._position + (0 if message is None else len(message.data))

    @property
    def in_message(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._message is not None

    @property
    def ended(self) -> bool:
        """Whether there will be no more events: a Close came, or what a client must not send."""
        return self._ended

    def decode(self, data: bytes) -> Event | None:
        """Feed bytes and return the first event; `next_event` returns the ones after it.

        Raises:
            WebSocketError: As `next_event`.
        """
        if self._at_rest and len(data) > 5:
            first = data[0]
            if first == 0x81 or first == 0x82:  # noqa: PLR1714 - two compares are faster than a membership test
                size = data[1] - 128
                start = 6
                if size > 125:
                    medium = data[2] << 8 | data[3]
                    size = medium if size == 126 and medium > 125 else -9  # matches no length below
                    start = 8
                if len(data) == size + start and size <= self._message_max_bytes:
                    payload = apply_mask(data[start:], data[start - 4 : start])
                    if first == 0x82:
                        return BINARY, payload
                    try:
                        return TEXT, str(payload, "utf-8")
                    except UnicodeDecodeError:
                        self._end()
                        raise _not_utf8() from None
        self.feed(data)
        return self.next_event()

    def feed(self, data: bytes) -> None:
        """Take bytes from the client.

        Take the events out before more is fed: each feed copies what is held.
        """
        if self._ended:
            return
        self._buffer = self._buffer[self._position :] + data if self._buffer else data
        self._position = 0
        self._at_rest = False

    def next_event(self) -> Event | None:
        """Return the next event, or None until more bytes are fed, or as long as it is `paused`.

        Raises:
            WebSocketError: 1002 for what the protocol does not allow, 1007 for text that is not UTF-8 and for
                compressed data that is none, 1009 for a message over a limit.
        """
        if self._at_rest or self._ended:
            return None
        self.paused = False
        event = None
        try:
            for _ in range(PIECES):
                before = self._position
                event = self._read_payload() if self._unread else self._read_frame()
                if event is not None or self._position == before:
                    break
            else:
                self.paused = self._position < len(self._buffer)
        except WebSocketError:
            self._end()
            raise
        if event is not None and event[0] == CLOSE:
            self._end()
        elif self._position == len(self._buffer):
            self._buffer = b""
            self._position = 0
            self._at_rest = self._message is None
        return event

    def _end(self) -> None:
        self._ended = True
        self.paused = False
        self._at_rest = False
        self._buffer = b""
        self._position = 0
        self._message = None

    def _read_frame(self) -> Event | None:
        """Read one frame if it is whole, or the head of a data frame.

        Moves the position past what was read; leaves it where it was if more bytes are needed.
        """
        buffer, position = self._buffer, self._position
        held = len(buffer) - position
        if held < 2:
            return None
        first = buffer[position]
        if first not in _PLAIN_FIRST_BYTES and (self._inflater is None or first not in _DEFLATE_FIRST_BYTES):
            raise _bad_first_byte(first)
        if not buffer[position + 1] & 0x80:
            raise WebSocketError(1002, "a client's frame is not masked")
        size = buffer[position + 1] & 0x7F
        if first & 0x08:
            if size > 125:
                raise WebSocketError(1002, "a control frame is longer than 125 bytes")
            if held < size + 6:
                return None
            self._position = position + size + 6
            return _read_control(first & 0x0F, self._unmask(position + 6, size))
        head_size = 6 if size < 126 else 8 if size == 126 else 14
        if held < head_size - 4:
            return None
        if head_size > 6:
            size = int.from_bytes(buffer[position + 2 : position + head_size - 4], "big")
            _check_extended_size(size, head_size)
        self._check_data_frame(first, size)
        if held < head_size:
            return None
        return self._start_data_frame(first, position + head_size, size)

    def _check_data_frame(self, first: int, size: int) -> None:
        message = self._message
        compressed = first & _RSV1 != 0
        if first & 0x0F == _CONTINUATION:
            if message is None:
                raise WebSocketError(1002, "a continuation frame continues no message")
            if message.fragments >= self._fragments_max:
                raise WebSocketError(1009, f"a message has more than {self._fragments_max} fragments")
            compressed = message.inflater is not None
            size += len(message.data)
        elif message is not None:
            raise WebSocketError(1002, "a message begins before the one before it has ended")
        # The length of a compressed frame says nothing about the message in it: inflating keeps that limit.
        if size > self._message_max_bytes and not compressed:
            raise _too_big(self._message_max_bytes)

    def _start_data_frame(self, first: int, start: int, size: int) -> Event | None:
        """Begin the payload of a data frame; a message that is one whole frame is returned at once."""
        message = self._message
        if message is None:
            inflater = self._inflater if first & _RSV1 else None
            if first & _FIN and start + size <= len(self._buffer):
                self._position = start + size
                payload = self._unmask(start, size)
                if inflater is not None:
                    payload = inflater.inflate(payload, self._message_max_bytes, final=True)
                return _to_event(first & 0x0F, payload)
            message = self._message = _Message(first & 0x0F, inflater)
        message.fragments += 1
        self._position = start
        self._unread = size
        self._mask = self._buffer[start - 4 : start]
        self._fin = first & _FIN != 0
        return None if size else self._end_piece(message, b"")

    def _read_payload(self) -> Event | None:
        """Take what has arrived of a data frame's payload; return the message if that ends it."""
        message = self._message
        assert message is not None
        start = self._position
        end = min(start + self._unread, len(self._buffer))
        if start == end:
            return None
        piece = apply_mask(self._buffer[start:end], self._mask)
        taken = (end - start) % 4
        self._mask = self._mask[taken:] + self._mask[:taken]
        self._position = end
        self._unread -= end - start
        return self._end_piece(message, piece)

    def _end_piece(self, message: _Message, piece: bytes) -> Event | None:
        final = self._fin and not self._unread
        message.add(piece, self._message_max_bytes, final=final)
        if not final:
            return None
        self._message = None
        return _to_event(message.opcode, message.data)

    def _unmask(self, start: int, size: int) -> bytes:
        return apply_mask(self._buffer[start : start + size], self._buffer[start - 4 : start])


class _Message:
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
        if self.inflater is not None:
            piece = self.inflater.inflate(piece, max_bytes - len(self.data), final=final)
        if self.opcode == TEXT:
            text = self.undecoded + piece
            try:
                # Not final: a character that is cut off at the end fails in `_to_event`.
                self.undecoded = text[utf_8_decode(text, "strict", False)[1] :]
            except UnicodeDecodeError:
                raise _not_utf8() from None
        self.data += piece


def _to_event(opcode: int, payload: bytes | bytearray) -> Event:
    if opcode == BINARY:
        return BINARY, bytes(payload)
    try:
        return TEXT, str(payload, "utf-8")
    except UnicodeDecodeError:
        raise _not_utf8() from None


def _read_control(opcode: int, payload: bytes) -> Event:
    if opcode == PING:
        return PING, payload
    if opcode == PONG:
        return PONG, payload
    if not payload:
        return CLOSE, (NO_CLOSE_CODE, "")
    code = int.from_bytes(payload[:2], "big")
    if not is_sendable_close_code(code):
        raise WebSocketError(1002, "a Close frame has no valid code")
    try:
        return CLOSE, (code, str(payload[2:], "utf-8"))
    except UnicodeDecodeError:
        raise WebSocketError(1007, "the reason of a Close frame is not UTF-8") from None


def _check_extended_size(size: int, head_size: int) -> None:
    """Check a length of 16 or 64 bits (RFC 6455 section 5.2: the shortest form, the highest bit 0)."""
    if size < (126 if head_size == 8 else 2**16):
        raise WebSocketError(1002, "the length of a frame is not in its shortest form")
    if size >= 2**63:
        raise WebSocketError(1002, "the length of a frame has its highest bit set")


def _bad_first_byte(first: int) -> WebSocketError:
    opcode = first & 0x0F
    if first & 0x30:
        return WebSocketError(1002, "a reserved bit is set")
    if opcode not in (_CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
        return WebSocketError(1002, f"opcode {opcode} is not defined")
    if first & _RSV1:
        return WebSocketError(1002, "RSV1 is set where no compressed message begins")
    return WebSocketError(1002, "a control frame is fragmented")


def _not_utf8() -> WebSocketError:
    return WebSocketError(1007, "a text message is not UTF-8")


def _too_big(max_bytes: int) -> WebSocketError:
    return WebSocketError(1009, f"a message is larger than {max_bytes} bytes")


def encode(opcode: int, payload: bytes, rsv1: bool = False) -> bytes:
    """Encode one whole message, or a control frame, as a server's frame.

    Args:
        opcode: TEXT, BINARY, CLOSE, PING or PONG.
        payload: What the frame carries; at most 125 bytes for control frames.
        rsv1: Whether the payload is compressed.
    """
    size = len(payload)
    if size < 126 and not rsv1:
        return _SHORT_HEADS[opcode][size] + payload
    first = _FIN | _RSV1 | opcode if rsv1 else _FIN | opcode
    if size < 126:
        return bytes((first, size)) + payload
    if size < 2**16:
        return _MEDIUM_HEAD.pack(first, 126, size) + payload
    return _LONG_HEAD.pack(first, 127, size) + payload


def encode_close(code: int, reason: str = "") -> bytes:
    """Encode a Close frame.

    Args:
        code: A sendable code; NO_CLOSE_CODE makes an empty frame.
        reason: Cut to what fits, between two characters.
    """
    if code == NO_CLOSE_CODE:
        return _SHORT_HEADS[CLOSE][0]
    text = reason.encode("utf-8", "replace")[:REASON_MAX_BYTES]
    whole = utf_8_decode(text, "strict", False)[1]
    return encode(CLOSE, code.to_bytes(2, "big") + text[:whole])


def is_sendable_close_code(code: int) -> bool:
    """Tell whether a Close frame may carry this code.

    Source: RFC 6455 sections 7.4.1 and 7.4.2, and the IANA registry it founds (1012 to 1014).
    """
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999
