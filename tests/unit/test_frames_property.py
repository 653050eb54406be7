"""Frames of RFC 6455, however they are cut and whatever they hold."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from pagi_trio.errors import WebSocketError
from pagi_trio.wire.deflate import DeflateParameters
from pagi_trio.wire.frames import BINARY, CLOSE, PING, PONG, TEXT, Decoder, encode

LIMIT = 4096
QUICK = settings(deadline=None, derandomize=True, max_examples=60)

messages = st.tuples(
    st.one_of(
        st.tuples(st.just(TEXT), st.text("aß€\U0001f600\n", max_size=300)),
        st.tuples(st.just(BINARY), st.binary(max_size=300)),
    ),
    st.lists(st.integers(0, 400), max_size=3),  # where it is cut into fragments
    st.one_of(st.none(), st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125))),  # between them
    st.booleans(),  # whether it is compressed
)
cuts = st.lists(st.integers(0, 3000), max_size=12)


def pieces(data: bytes, positions: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(position, len(data)) for position in positions), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def write(stream, *, deflate: bool) -> tuple[bytes, list[object]]:
    """Write messages as another implementation's client does; return the bytes and what they should give."""
    extension = PerMessageDeflate(False, False, 15, 15)
    data = b""
    expected: list[object] = []
    for (opcode, value), positions, control, compress in stream:
        parts = pieces(value.encode() if opcode == TEXT else value, positions)
        for i, part in enumerate(parts):
            frame = Frame(Opcode(opcode if i == 0 else 0), part, fin=i == len(parts) - 1)
            data += frame.serialize(mask=True, extensions=[extension] if deflate and compress else [])
            if control is not None and not frame.fin:
                data += Frame(Opcode(control[0]), control[1]).serialize(mask=True)
                expected.append(control)
        expected.append((opcode, value))
    return data, expected


def read(chunks: list[bytes], decoder: Decoder) -> list[object]:
    found: list[object] = []
    for chunk in chunks:
        event = decoder.decode(chunk)
        while event is not None:
            found.append(event)
            event = decoder.next_event()
    return found


@QUICK
@given(st.lists(messages, max_size=4), cuts)
def test_rfc6455_5_4_any_split_of_a_stream_gives_the_same_events(stream, positions):
    data, expected = write(stream, deflate=False)
    decoder = Decoder(LIMIT)
    assert read(pieces(data, positions), decoder) == expected
    assert (decoder.buffered_bytes, decoder.in_message) == (0, False)


@QUICK
@given(st.lists(messages, max_size=4), cuts)
def test_rfc7692_6_any_split_of_a_compressed_stream_gives_the_same_events(stream, positions):
    data, expected = write(stream, deflate=True)
    decoder = Decoder(LIMIT, DeflateParameters().inflater(2000))
    assert read(pieces(data, positions), decoder) == expected


first_bytes = st.sampled_from([0x01, 0x81, 0x02, 0x82, 0x00, 0x80, 0x88, 0x89, 0xC1, 0x41, 0x83, 0xA1])
noise = st.one_of(
    st.binary(max_size=40),
    st.builds(
        lambda first, second, rest: bytes((first, second)) + rest,
        first_bytes,
        st.integers(0, 255),
        st.binary(max_size=200),
    ),
)


@QUICK
@given(st.lists(noise, max_size=6), cuts, st.booleans())
def test_random_bytes_fail_the_same_way_however_they_are_cut(parts, positions, deflate):
    data = b"".join(parts)
    outcomes = []
    for chunks in ([data], pieces(data, positions), [data[i : i + 1] for i in range(len(data))]):
        decoder = Decoder(LIMIT, DeflateParameters().inflater(2000) if deflate else None)
        found: list[object] = []
        error = None
        try:
            for chunk in chunks:
                decoder.feed(chunk)
                while (event := decoder.next_event()) is not None:
                    found.append(event)
                    assert event[0] in (TEXT, BINARY, CLOSE, PING, PONG)
        except WebSocketError as caught:
            error = caught.code
            assert error in (1002, 1007, 1009)
        assert decoder.buffered_bytes <= LIMIT + len(data)
        outcomes.append((found, error))
    assert outcomes[0] == outcomes[1] == outcomes[2]


@QUICK
@given(st.sampled_from([TEXT, BINARY]), st.binary(max_size=200), st.sampled_from([1, 3, 700]))
def test_rfc6455_5_2_another_implementation_reads_what_is_encoded(opcode, payload, times):
    frame = _parse(encode(opcode, payload * times))
    assert (frame.opcode, frame.data, frame.fin) == (opcode, payload * times, True)


def _parse(data: bytes) -> Frame:
    position = 0

    def read_exact(size: int):
        nonlocal position
        position += size
        return data[position - size : position]
        yield  # a generator that has it all

    parser = Frame.parse(read_exact, mask=False)
    try:
        next(parser)
    except StopIteration as finished:
        assert position == len(data)
        return finished.value
    raise AssertionError
