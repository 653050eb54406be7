"""From the bytes that a WebSocket's client sends to messages, pings, pongs and its Close.

What nearly every read brings is one whole, unfragmented, uncompressed frame while nothing is held; that is
decoded straight from the bytes received. All else goes through `Decoder.next_event`, which takes the payload
of a data frame as it arrives, so that bad UTF-8 or a message over the limit fails as soon as it is seen and no
more than one message plus one read is ever held.

Source: RFC 6455 sections 5.3, 5.4 and 7.4.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from pagi_trio.errors import WebSocketError
from pagi_trio.wire.close_frame import Close, read_close
from pagi_trio.wire.frames import BINARY, CLOSE, CONTINUATION, CONTROL, FIN, OPCODE, PING, PONG, RSV1, TEXT, read_head
from pagi_trio.wire.messages import DataEvent, PartialMessage, not_utf8, to_event

try:
    from websockets.speedups import apply_mask
except ImportError:  # no compiled extension for this platform
    from websockets.utils import apply_mask

if TYPE_CHECKING:
    from pagi_trio.wire.deflate import Inflater

Event: TypeAlias = DataEvent | tuple[Literal[8], Close] | tuple[Literal[9, 10], bytes]
"""An opcode and what came with it; comparing ``event[0]`` narrows the type of ``event[1]``."""

PIECES: Final = 256
"""Pieces of messages taken in one go: 64 KiB of empty fragments would keep the loop for 10 ms, or 20 with deflate."""


class Decoder:
    """Turns what a client sends into events.

    An error is raised where its bytes are reached, after every event before it; from then on, as after a
    Close, all further bytes are dropped and there are no more events.

    Attributes:
        pieces: How many pieces the messages were made of, and streams it took to inflate them, beyond one each, until
            somebody charges them and sets this to 0.
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
        "pieces",
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
        self._message: PartialMessage | None = None
        # Of the data frame being read: bytes of payload to come, their mask, whether it ends its message.
        self._unread = 0
        self._mask = b""
        self._fin = False
        self.paused = False
        self.pieces = 0
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
                        raise not_utf8() from None
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
            for piece in range(PIECES):
                before = self._position
                event = self._read_payload() if self._unread else self._read_frame()
                if event is not None or self._position == before:
                    self.pieces += piece
                    break
            else:
                self.paused = self._position < len(self._buffer)
        except WebSocketError:
            self._end()
            raise
        if self._inflater is not None:
            self.pieces += self._inflater.begun
            self._inflater.begun = 0
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
        buffer = self._buffer
        head = read_head(buffer, self._position, deflate=self._inflater is not None)
        if head is None:
            return None
        first, size, start = head
        if first & CONTROL:
            if start + size > len(buffer):
                return None
            self._position = start + size
            return _to_control_event(first & OPCODE, self._unmask(start, size))
        # Before the mask is here: a message that is too long ends at its length.
        self._check_data_frame(first, size)
        if start > len(buffer):
            return None
        return self._start_data_frame(first, start, size)

    def _check_data_frame(self, first: int, size: int) -> None:
        message = self._message
        compressed = first & RSV1 != 0
        if first & OPCODE == CONTINUATION:
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
            inflater = self._inflater if first & RSV1 else None
            if first & FIN and start + size <= len(self._buffer):
                self._position = start + size
                payload = self._unmask(start, size)
                if inflater is not None:
                    payload = inflater.inflate(payload, self._message_max_bytes, final=True)
                return to_event(first & OPCODE, payload)
            message = self._message = PartialMessage(first & OPCODE, inflater)
        message.fragments += 1
        self._position = start
        self._unread = size
        self._mask = self._buffer[start - 4 : start]
        self._fin = first & FIN != 0
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

    def _end_piece(self, message: PartialMessage, piece: bytes) -> Event | None:
        final = self._fin and not self._unread
        message.add(piece, self._message_max_bytes, final=final)
        if not final:
            return None
        self._message = None
        return to_event(message.opcode, message.data)

    def _unmask(self, start: int, size: int) -> bytes:
        return apply_mask(self._buffer[start : start + size], self._buffer[start - 4 : start])


def _to_control_event(opcode: int, payload: bytes) -> Event:
    if opcode == PING:
        return PING, payload
    if opcode == PONG:
        return PONG, payload
    return CLOSE, read_close(payload)


def _too_big(max_bytes: int) -> WebSocketError:
    return WebSocketError(1009, f"a message is larger than {max_bytes} bytes")
