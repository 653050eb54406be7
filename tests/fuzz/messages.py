"""What must hold of WebSocket frames and compressed messages: `wire.decoder`, `wire.frames` and `wire.deflate`.

The other reader and writer is the sans-I/O protocol of websockets.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import CLIENT, OPEN, SERVER, Protocol, Side

from pagi_trio.errors import WebSocketError
from pagi_trio.wire.decoder import Decoder
from pagi_trio.wire.deflate import DeflateParameters
from pagi_trio.wire.frames import BINARY, CLOSE, PING, PONG, TEXT, encode
from tests.fuzz.cutting import Program, read_alike

LIMITS = (4096, 0, 100, 1000)
FRAGMENTS_MAX = 8
RATIO_MAX = 100

_HELD_BESIDE_MESSAGE = 131
"""The longest frame that is not taken as it arrives: a control frame of 125 bytes, with its head."""

_TAIL = b"\x00\x00\xff\xff"


class Outcome(NamedTuple):
    """What a decoder made of a stream."""

    events: list[object]
    code: int | None
    reason: str


def check_frames(data: bytes) -> None:
    """Check what becomes of bytes as frames; the first byte chooses limit and compression."""
    program = Program(data)
    limit = program.choose(*LIMITS)
    deflate = program.choose(None, *_PARAMETERS)
    stream = program.rest()
    read_alike(lambda pieces: _settle(_decode(pieces, limit, deflate)), stream)
    ours = _decode([stream], limit, deflate)
    _compare(ours, _decode_by_other(stream, deflate), limit)


def check_messages(data: bytes) -> None:
    """Check that what the other side writes is read here, and what is written here is read there."""
    program = Program(data)
    deflate = program.choose(None, *_PARAMETERS)
    messages = []
    stream = b""
    answer = b""
    writer = [_Extension(deflate, CLIENT)] if deflate is not None else []
    deflater = deflate.deflater() if deflate is not None else None
    while program:
        opcode, payload = _read_message(program)
        messages.append((opcode, payload.decode() if opcode == TEXT else payload))
        compress = deflater is not None and opcode in (TEXT, BINARY) and program.choose(True, False)
        stream += _write_by_other(program, opcode, payload, writer if compress else [])
        answer += encode(opcode, deflater.compress(payload), rsv1=True) if compress else encode(opcode, payload)
    limit = 2**17
    ours = read_alike(lambda pieces: _decode(pieces, limit, deflate), stream)
    assert ours == Outcome(messages, None, "")
    theirs = _decode_by_other(answer, deflate, CLIENT)
    assert theirs == (Outcome(messages, None, ""), True)


def check_inflate(data: bytes) -> None:
    """Check what becomes of bytes as compressed messages, however their frames are cut."""
    program = Program(data)
    deflate = program.choose(*_PARAMETERS)
    limit = program.choose(*LIMITS)
    messages = [program.take(1 + program.number(256)) for _ in range(3)]

    def read(pieces: list[bytes]) -> list[bytes | int]:
        inflater = deflate.inflater(RATIO_MAX)
        found: list[bytes | int] = []
        for message in messages:
            content = b""
            try:
                for start, end in _spans(pieces, len(message)):
                    content += inflater.inflate(message[start:end], limit - len(content), final=end == len(message))
                    assert len(content) <= limit
            except WebSocketError as error:
                assert error.code in (1007, 1009)
                return [*found, error.code]
            found.append(content)
        return found

    ours = read([data])
    # As with `_settle`, how it fails may depend on cuts, but not where.
    read_alike(lambda pieces: [isinstance(one, int) or one for one in read(pieces)], data)
    theirs = _inflate_whole(messages, deflate)
    for mine, other in zip(ours, theirs, strict=False):
        if mine == 1007:
            assert other is None
        elif mine == 1009:
            assert other is None or len(other) > limit
        else:
            assert mine == other


_PARAMETERS = (
    DeflateParameters(),
    DeflateParameters(server_no_context_takeover=True, client_no_context_takeover=True),
    DeflateParameters(server_max_window_bits=9, client_max_window_bits=9),
    DeflateParameters(client_no_context_takeover=True, client_max_window_bits=15),
)


def _decode(pieces: list[bytes], limit: int, deflate: DeflateParameters | None) -> Outcome:
    decoder = Decoder(limit, deflate.inflater(RATIO_MAX) if deflate is not None else None, fragments_max=FRAGMENTS_MAX)
    events: list[object] = []
    for piece in pieces:
        try:
            event = decoder.decode(piece)
            while event is not None or decoder.paused:
                if event is None:
                    event = decoder.next_event()
                    continue
                assert event[0] in (TEXT, BINARY, CLOSE, PING, PONG)
                if event[0] in (TEXT, BINARY):
                    assert _size(event[1]) <= limit
                events.append(event)
                event = decoder.next_event()
        except WebSocketError as error:
            assert error.code in (1002, 1007, 1009)
            decoder.feed(b"\x81\x81\0\0\0\0a")
            assert (decoder.next_event(), decoder.buffered_bytes) == (None, 0)
            return Outcome(events, error.code, str(error))
        assert decoder.buffered_bytes <= limit + _HELD_BESIDE_MESSAGE
    return Outcome(events, None, "")


def _settle(outcome: Outcome) -> Outcome:
    """Return what may not depend on cuts.

    Where deflated data is broken and what it holds is too long or no text as well, zlib tells of the one first that it
    comes to, and within one call it first looks at the data.
    """
    return outcome._replace(code=1007, reason="") if outcome.code in (1007, 1009) else outcome


def _size(value: object) -> int:
    assert isinstance(value, str | bytes)
    return len(value.encode()) if isinstance(value, str) else len(value)


# The other implementation


class _FinalBlockError(ProtocolError):
    """A final block of deflate: the other reads no further, and RFC 7692 section 7.2.3.4 lets a sender go on."""


class _Extension(PerMessageDeflate):
    """The other's compression, which says where it cannot be compared to any more."""

    def __init__(self, deflate: DeflateParameters, side: Side) -> None:
        server = deflate.server_no_context_takeover, deflate.server_max_window_bits or 15
        client = deflate.client_no_context_takeover, deflate.client_max_window_bits or 15
        remote, local = (client, server) if side is SERVER else (server, client)
        # It would drop its stream at the end of a message, and with it what the stream knows.
        super().__init__(False, local[0], remote[1], local[1])
        self._renews = remote[0]

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        if self._renews and frame.rsv1 and frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self.decoder = zlib.decompressobj(-self.remote_max_window_bits)
        decoded = super().decode(frame, max_size=max_size)
        if self.decoder.eof:
            raise _FinalBlockError
        return decoded


def _decode_by_other(data: bytes, deflate: DeflateParameters | None, side: Side = SERVER) -> tuple[Outcome, bool]:
    """Return what websockets makes of a stream, and whether that can be compared to its end."""
    protocol = Protocol(side, state=OPEN, max_size=None)
    protocol.extensions = [_Extension(deflate, side)] if deflate is not None else []
    protocol.receive_data(data)
    events: list[object] = []
    opcode = BINARY
    content = b""
    for frame in protocol.events_received():
        assert isinstance(frame, Frame)
        if frame.opcode is Opcode.CLOSE:
            close = Close.parse(frame.data)
            events.append((CLOSE, (close.code, close.reason)))
        elif frame.opcode in (Opcode.PING, Opcode.PONG):
            events.append((int(frame.opcode), bytes(frame.data)))
        else:
            if frame.opcode is not Opcode.CONT:
                opcode = int(frame.opcode)
                content = b""
            content += frame.data
            if frame.fin:
                try:
                    events.append((opcode, content.decode() if opcode == TEXT else content))
                except UnicodeDecodeError:
                    return Outcome(events, 1007, "not UTF-8"), True
    error = protocol.parser_exc
    if error is None:
        return Outcome(events, None, ""), True
    return Outcome(events, _code_of(error), str(error)), not isinstance(error, _FinalBlockError)


def _code_of(error: Exception) -> int:
    return 1002 if isinstance(error, ProtocolError) else {UnicodeDecodeError: 1007, PayloadTooBig: 1009}[type(error)]


def _compare(ours: Outcome, other: tuple[Outcome, bool], limit: int) -> None:
    theirs, whole = other
    both = min(len(ours.events), len(theirs.events))
    assert ours.events[:both] == theirs.events[:both]
    if not whole:
        return
    if theirs.reason == "incomplete fragmented message":
        # RFC 6455 section 5.4 lets control frames come between fragments, and Close is one.
        assert ours.code is not None or ours.events[both][0] == CLOSE  # type: ignore[index]
        return
    assert len(ours.events) == both, "events that the other does not see"
    following = theirs.events[both:]
    if ours.code is None:
        assert (following, theirs.code) == ([], None), "the other sees more, or a fault"
    elif ours.reason.startswith("a message is larger") or ours.reason.startswith("a message is over"):
        data = [value for opcode, value in following if opcode in (TEXT, BINARY)]  # type: ignore[misc]
        assert not data or _size(data[0]) > limit
    elif ours.code == 1002 and not ours.reason.startswith(("the length of a frame", "a control frame is longer")):
        # It does not ask for lengths in their shortest form, and reads the reason of a Close before its code; text and
        # deflated data fail here as they arrive.
        assert following == []
        assert theirs.code in ((None, 1002, 1007) if ours.reason.startswith("a Close") else (None, 1002))


def _write_by_other(program: Program, opcode: int, payload: bytes, extensions: Sequence[PerMessageDeflate]) -> bytes:
    """Write a message as websockets does, data in a few fragments."""
    cuts = (
        sorted(program.number(len(payload) + 1) for _ in range(program.number(4))) if opcode in (TEXT, BINARY) else []
    )
    data = b""
    for i, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(payload)], strict=True)):
        frame = Frame(Opcode(opcode if i == 0 else 0), payload[start:end], fin=i == len(cuts))
        data += frame.serialize(mask=True, extensions=extensions)
    return data


def _read_message(program: Program) -> tuple[int, bytes]:
    opcode = program.choose(TEXT, BINARY, PING, PONG)
    payload = program.take(program.number(126))
    if opcode == TEXT:
        payload = payload.decode("latin-1").encode()[:125].decode(errors="ignore").encode()
    if opcode in (TEXT, BINARY):
        # Rarely so long that its length takes 64 bits.
        times = program.number(256)
        payload *= 600 if times == 255 else 1 + times % 4
    return opcode, payload


def _spans(pieces: list[bytes], size: int) -> list[tuple[int, int]]:
    """Cut a range at the same places as pieces of something longer, and at its end."""
    ends: list[int] = []
    for piece in pieces:
        ends.append(min((ends[-1] if ends else 0) + len(piece), size))
    ends = [end for end in dict.fromkeys(ends) if 0 < end < size] + [size]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _inflate_whole(messages: list[bytes], deflate: DeflateParameters) -> list[bytes | None]:
    """Inflate whole messages in the plainest way; None for one that is no deflated data, which is the last."""
    found: list[bytes | None] = []
    bits = -(deflate.client_max_window_bits or 15)
    stream = zlib.decompressobj(bits)
    for message in messages:
        content = b""
        left = message + _TAIL
        try:
            while left:
                if stream.eof:
                    if left == _TAIL:
                        break
                    stream = zlib.decompressobj(bits)
                content += stream.decompress(left)
                left = stream.unused_data
        except zlib.error:
            return [*found, None]
        found.append(content)
        if deflate.client_no_context_takeover:
            stream = zlib.decompressobj(bits)
    return found
