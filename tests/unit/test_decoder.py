"""From bytes to messages (RFC 6455): what a client may send and what it may not, however it is cut."""

from __future__ import annotations

import sys

import pytest
from websockets import utils

from pagi_trio.config import Config
from pagi_trio.errors import WebSocketError
from pagi_trio.wire.close_frame import NO_CLOSE_CODE
from pagi_trio.wire.decoder import PIECES, Decoder
from pagi_trio.wire.deflate import DeflateParameters
from pagi_trio.wire.frames import BINARY, CLOSE, PING, PONG, TEXT

LIMIT = 2**20
MASK = b"\x37\xfa\x21\x3d"


def frame(first: int, payload: bytes = b"", *, mask: bytes = MASK) -> bytes:
    """A client's frame, written from the picture in RFC 6455 section 5.2."""
    return length(first, len(payload)) + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def length(first: int, size: int) -> bytes:
    if size < 126:
        return bytes((first, 0x80 | size))
    if size < 2**16:
        return bytes((first, 0xFE)) + size.to_bytes(2, "big")
    return bytes((first, 0xFF)) + size.to_bytes(8, "big")


def events(data: bytes, decoder: Decoder | None = None) -> list[object]:
    decoder = decoder or Decoder(LIMIT)
    found = [decoder.decode(data)]
    while found[-1] is not None or decoder.paused:
        found.append(decoder.next_event())
    return [event for event in found if event is not None]


def refusal(data: bytes, decoder: Decoder | None = None) -> WebSocketError:
    decoder = decoder or Decoder(LIMIT)
    with pytest.raises(WebSocketError) as caught:
        events(data, decoder)
    assert (decoder.buffered_bytes, decoder.in_message) == (0, False)
    assert events(frame(0x81, b"more"), decoder) == []
    return caught.value


def with_deflate(limit: int = LIMIT) -> Decoder:
    return Decoder(limit, DeflateParameters().inflater(2000))


# Whole frames


def test_rfc6455_5_7_the_masked_hello_of_the_standard():
    assert events(bytes.fromhex("818537fa213d7f9f4d5158")) == [(TEXT, "Hello")]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 133, 65535, 65536, 70000])
@pytest.mark.parametrize("cut", [0, 1, 2, 5, 6, 7, 13, 14])
def test_rfc6455_5_2_every_form_of_length_whole_and_in_two(size, cut):
    payload = bytes(i % 251 for i in range(size))
    data = frame(0x82, payload)
    decoder = Decoder(LIMIT)
    assert events(data[:cut], decoder) + events(data[cut:], decoder) == [(BINARY, payload)]
    assert decoder.buffered_bytes == 0


def test_rfc6455_5_6_text_is_str_and_binary_is_bytes():
    assert events(frame(0x81, "κόσμε".encode()) + frame(0x82, b"\xff")) == [(TEXT, "κόσμε"), (BINARY, b"\xff")]


def test_the_pure_python_mask_gives_the_same(monkeypatch):
    data = frame(0x81, b"Hello") + frame(0x01, b"wo") + frame(0x80, b"rld")
    monkeypatch.setattr("pagi_trio.wire.decoder.apply_mask", utils.apply_mask)
    assert events(data) == [(TEXT, "Hello"), (TEXT, "world")]
    decoder = Decoder(LIMIT)
    assert [event for byte in data for event in events(bytes((byte,)), decoder)] == [(TEXT, "Hello"), (TEXT, "world")]


def test_empty_frames():
    assert events(frame(0x81) + frame(0x82) + frame(0x01) + frame(0x80)) == [(TEXT, ""), (BINARY, b""), (TEXT, "")]


# Fragments and control frames


def test_rfc6455_5_4_fragments_make_one_message():
    assert events(frame(0x01, b"Hel") + frame(0x00, b"l") + frame(0x80, b"o")) == [(TEXT, "Hello")]


def test_rfc6455_5_4_control_frames_come_between_fragments():
    data = frame(0x02, b"a") + frame(0x89, b"ping") + frame(0x00, b"b") + frame(0x8A, b"pong") + frame(0x80, b"c")
    assert events(data) == [(PING, b"ping"), (PONG, b"pong"), (BINARY, b"abc")]


def test_rfc6455_5_4_a_character_may_be_split_between_fragments():
    assert events(frame(0x01, b"\xe2") + frame(0x00, b"") + frame(0x80, b"\x82\xac")) == [(TEXT, "€")]


@pytest.mark.parametrize("data", [frame(0x80, b"x"), frame(0x00), frame(0x81, b"x") + frame(0x80)])
def test_rfc6455_5_4_a_continuation_continues_something(data):
    assert refusal(data).code == 1002


@pytest.mark.parametrize("first", [0x01, 0x81, 0x02, 0x82])
def test_rfc6455_5_4_messages_do_not_interleave(first):
    assert refusal(frame(0x01, b"x") + frame(first, b"y")).code == 1002
    decoder = Decoder(LIMIT)
    assert events(frame(0x01, b"x"), decoder) == []
    assert refusal(frame(first, b"y"), decoder).code == 1002


@pytest.mark.parametrize("first", [0x08, 0x09, 0x0A])
def test_rfc6455_5_5_control_frames_are_not_fragmented(first):
    assert refusal(frame(first)).code == 1002


@pytest.mark.parametrize("first", [0x88, 0x89, 0x8A])
def test_rfc6455_5_5_control_frames_have_at_most_125_bytes(first):
    assert len(events(frame(first, b"\x03\xe8" + b"x" * 123))) == 1
    assert refusal(frame(first, b"\x03\xe8" + b"x" * 124)[:2]).code == 1002


# What no client may send


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
def test_rfc6455_5_2_opcodes_without_a_meaning(opcode):
    assert refusal(frame(0x80 | opcode)).code == 1002


@pytest.mark.parametrize("bits", [0x10, 0x20, 0x30, 0x40, 0x50, 0x70])
@pytest.mark.parametrize("first", [0x81, 0x82, 0x88, 0x89, 0x01])
def test_rfc6455_5_2_reserved_bits_are_zero(first, bits):
    assert refusal(frame(first | bits, b"\x03\xe8")).code == 1002


@pytest.mark.parametrize("data", [b"\x81\x05Hello", b"\x82\x00", b"\x89\x00", b"\x81\x7e\x00\x80" + b"x" * 128])
def test_rfc6455_5_1_frames_of_a_client_are_masked(data):
    assert refusal(data).code == 1002


@pytest.mark.parametrize(
    "data",
    [
        b"\x82\xfe\x00\x7d" + MASK + bytes(125),
        b"\x82\xfe\x00\x00" + MASK,
        b"\x82\xff" + (65535).to_bytes(8, "big") + MASK + bytes(65535),
        b"\x82\xff" + (127 - 14).to_bytes(8, "big") + MASK + bytes(127 - 14),
        b"\x82\xff" + (2**63).to_bytes(8, "big"),
    ],
)
def test_rfc6455_5_2_a_length_has_its_shortest_form_and_63_bits(data):
    assert refusal(data, Decoder(2**64)).code == 1002


def outcome(chunks: list[bytes]) -> object:
    decoder = Decoder(LIMIT)
    try:
        return [event for chunk in chunks for event in events(chunk, decoder)]
    except WebSocketError as error:
        return error.code


@pytest.mark.parametrize("second", range(256))
def test_no_length_misleads_the_direct_path(second):
    """Whatever the second byte says and however long the read is: as if the first byte had come alone."""
    for size in range(6, 140):
        data = (bytes((0x82, second)) + b"\x00\x7e" + bytes(range(140)))[:size]
        assert outcome([data]) == outcome([data[:1], data[1:]])


# UTF-8


@pytest.mark.parametrize(
    "text",
    [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"a\x80", b"\xf5", b"ok\xe2\x28\xa1"],
)
def test_rfc6455_8_1_text_is_utf8_however_it_comes(text):
    whole = frame(0x81, text)
    assert refusal(whole).code == 1007
    assert refusal(frame(0x89) + whole).code == 1007
    assert refusal(frame(0x01, text) + frame(0x80)).code == 1007
    decoder = Decoder(LIMIT)
    with pytest.raises(WebSocketError) as caught:
        for byte in whole:
            events(bytes((byte,)), decoder)
    assert caught.value.code == 1007


@pytest.mark.parametrize("bad", [b"\xf4\x90", b"\xed\xa0\x80", b"\xc0", b"\xf5", b"\xe2\x28"])
def test_rfc6455_8_1_bad_text_fails_at_its_first_wrong_byte(bad):
    """Autobahn 6.4: the rest of the frame has not come yet."""
    data = frame(0x81, b"x" * 1000 + bad + b"x" * 1000)
    decoder = Decoder(LIMIT)
    end = 8 + 1000 + len(bad)
    assert events(data[: end - 1], decoder) == []
    assert refusal(data[end - 1 : end], decoder).code == 1007


def test_binary_is_anything():
    assert events(frame(0x02, b"\xff") + frame(0x80, b"\xc0")) == [(BINARY, b"\xff\xc0")]


# The end


def test_rfc6455_5_5_1_a_close_is_handed_out_with_what_it_carries():
    assert events(frame(0x88, b"\x03\xe8bye")) == [(CLOSE, (1000, "bye"))]
    assert refusal(frame(0x88, b"\x03\xe7")).code == 1002
    assert refusal(frame(0x88, b"\x03\xe8\xff")).code == 1007


def test_rfc6455_5_5_1_nothing_comes_after_a_close():
    decoder = Decoder(LIMIT)
    assert events(frame(0x01, b"x") + frame(0x88) + frame(0x81, b"more") + b"\xff\xff", decoder) == [
        (CLOSE, (NO_CLOSE_CODE, ""))
    ]
    assert events(b"\xff\xff" * 100, decoder) == []
    assert (decoder.buffered_bytes, decoder.in_message) == (0, False)


def test_what_came_before_an_error_is_handed_out_first():
    decoder = Decoder(LIMIT)
    assert decoder.decode(frame(0x81, b"one") + frame(0x82, b"two") + b"\xff\xff") == (TEXT, "one")
    assert decoder.next_event() == (BINARY, b"two")
    with pytest.raises(WebSocketError):
        decoder.next_event()
    assert decoder.next_event() is None


# Limits


@pytest.mark.parametrize("size", [101, 126, 70000])
def test_rfc6455_7_4_1_a_message_over_the_limit_fails_at_its_length(size):
    assert refusal(length(0x82, size), Decoder(100)).code == 1009
    assert refusal(frame(0x82, bytes(size)), Decoder(100)).code == 1009
    assert events(frame(0x82, bytes(100)), Decoder(100)) == [(BINARY, bytes(100))]


def test_rfc6455_10_4_fragments_over_the_limit_together():
    decoder = Decoder(100)
    assert events(frame(0x02, bytes(60)), decoder) == []
    assert refusal(length(0x80, 41), decoder).code == 1009
    assert events(frame(0x02, bytes(60)) + frame(0x80, bytes(40)), Decoder(100)) == [(BINARY, bytes(100))]


def test_rfc6455_10_4_the_number_of_fragments_is_bounded():
    three = frame(0x01, b"a") + frame(0x00) + frame(0x80, b"b")
    assert events(three, Decoder(100, fragments_max=3)) == [(TEXT, "ab")]
    assert refusal(three, Decoder(100, fragments_max=2)).code == 1009


def test_the_default_bound_takes_the_most_fragments_that_autobahn_sends():
    decoder = Decoder(4 * 2**20, fragments_max=Config().websocket.fragments)
    # Case 9.3.1: frames of 64 bytes, then one of none, since the last full one does not know that it is the last.
    middle = frame(0x00, bytes(64))
    sent = frame(0x02, bytes(64)) + middle * 65_535 + frame(0x80)
    assert events(sent, decoder) == [(BINARY, bytes(4 * 2**20))]


@pytest.mark.parametrize("payload", [b"", b"a"])
def test_fragments_are_taken_so_many_at_a_time_that_others_can_run(payload):
    decoder = Decoder(LIMIT)
    count = 10 * PIECES
    assert decoder.decode(frame(0x02) + frame(0x00, payload) * count + frame(0x80)) is None
    turns = 1
    while decoder.paused:
        # Each frame is a piece, and so is the payload of one that is not empty.
        assert decoder.in_message
        event = decoder.next_event()
        turns += 1
    assert event == (BINARY, payload * count)
    assert 10 <= turns <= 21
    assert (decoder.buffered_bytes, decoder.decode(frame(0x89, b"x"))) == (0, (PING, b"x"))


def test_the_limit_is_of_each_message():
    decoder = Decoder(10, fragments_max=2)
    for _ in range(3):
        assert events(frame(0x02, bytes(5)) + frame(0x80, bytes(5)), decoder) == [(BINARY, bytes(10))]


def test_a_message_in_single_bytes_takes_no_memory_but_its_own():
    decoder = Decoder(LIMIT)
    data = frame(0x81, b"x" * 5000)
    for i in range(len(data) - 1):
        assert decoder.decode(data[i : i + 1]) is None
    assert decoder.in_message
    assert decoder.buffered_bytes == 4999
    message = decoder._message
    assert sys.getsizeof(message.data) < 5000 * 9 / 8 + 200
    assert (message.undecoded, decoder._buffer) == (b"", b"")


def test_an_idle_decoder_is_small():
    decoder = Decoder(LIMIT)
    events(frame(0x01, b"x" * 500) + frame(0x80, b"y"), decoder)
    events(frame(0x81, b"x" * 500), decoder)
    assert sys.getsizeof(decoder) + sys.getsizeof(decoder._buffer) < 256
    assert (decoder._buffer, decoder._message) == (b"", None)


# Compressed messages (RFC 7692)


def test_rfc7692_7_2_3_1_a_compressed_message():
    assert events(frame(0xC1, bytes.fromhex("f248cdc9c90700")), with_deflate()) == [(TEXT, "Hello")]


def test_rfc7692_7_2_3_1_a_compressed_message_in_fragments():
    data = frame(0x41, bytes.fromhex("f248cd")) + frame(0x89) + frame(0x80, bytes.fromhex("c9c90700"))
    assert events(data, with_deflate()) == [(PING, b""), (TEXT, "Hello")]


def test_rfc7692_6_plain_messages_come_beside_compressed_ones():
    hello = frame(0xC2, bytes.fromhex("f248cdc9c90700"))
    data = hello + frame(0x81, b"plain") + frame(0x01, b"in ") + frame(0x80, b"two") + hello
    expected = [(BINARY, b"Hello"), (TEXT, "plain"), (TEXT, "in two"), (BINARY, b"Hello")]
    assert events(data, with_deflate()) == expected


@pytest.mark.parametrize("first", [0xC0, 0x40, 0xC8, 0xC9, 0xCA])
def test_rfc7692_6_1_rsv1_is_for_the_first_frame_of_a_message(first):
    assert refusal(frame(0x41, bytes.fromhex("f248cd")) + frame(first), with_deflate()).code == 1002


def test_rfc7692_8_a_message_over_the_limit_once_inflated():
    compressed = DeflateParameters().deflater().compress(bytes(101))
    assert len(compressed) < 20
    assert refusal(frame(0xC2, compressed), with_deflate(100)).code == 1009
    assert refusal(frame(0x42, compressed[:8]) + frame(0x80, compressed[8:]), with_deflate(100)).code == 1009
    assert events(frame(0xC2, compressed), with_deflate(101)) == [(BINARY, bytes(101))]


def test_rfc7692_8_the_limit_is_of_all_fragments_together():
    deflater = DeflateParameters().deflater()
    first = deflater.compress(bytes(60)) + b"\x00\x00\xff\xff"
    data = frame(0x42, first) + frame(0x80, deflater.compress(bytes(60)))
    assert refusal(data, with_deflate(119)).code == 1009
    assert events(data, with_deflate(120)) == [(BINARY, bytes(120))]


def test_rfc7692_the_limit_counts_what_is_inflated_and_not_what_comes():
    incompressible = bytes((i * 167 ^ i >> 3) & 0xFF for i in range(100))
    compressed = DeflateParameters().deflater().compress(incompressible)
    assert len(compressed) > 100
    assert events(frame(0xC2, compressed), with_deflate(100)) == [(BINARY, incompressible)]
    in_two = frame(0x42, compressed[:50]) + frame(0x80, compressed[50:])
    assert events(in_two, with_deflate(100)) == [(BINARY, incompressible)]


@pytest.mark.parametrize("cut", [3, 1000])
def test_rfc7692_compressed_text_is_utf8(cut):
    compressed = DeflateParameters().deflater().compress(b"ab\xff")
    data = frame(0x41, compressed[:cut]) + frame(0x80, compressed[cut:])
    assert refusal(data, with_deflate()).code == 1007
    assert refusal(frame(0xC1, compressed), with_deflate()).code == 1007


def test_rfc7692_data_that_is_not_deflated():
    assert refusal(frame(0xC2, b"\xff\xff\xff"), with_deflate()).code == 1007
