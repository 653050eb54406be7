"""Frames of RFC 6455: the heads that a client's may have, and whole ones as the server writes them."""

from __future__ import annotations

import pytest

from pagi_trio.errors import WebSocketError
from pagi_trio.wire.frames import BINARY, CLOSE, PING, PONG, TEXT, encode, read_head

MASK = b"\x37\xfa\x21\x3d"


# Heads of a client


@pytest.mark.parametrize(
    ("head", "size"),
    [
        ("8280", 0),
        ("82fd", 125),
        ("82fe007e", 126),
        ("82feffff", 65535),
        ("82ff0000000000010000", 65536),
        ("82ff7fffffffffffffff", 2**63 - 1),
    ],
)
def test_rfc6455_5_2_every_form_of_length_is_known_before_its_mask(head, size):
    before = bytes.fromhex(head)
    known = (0x82, size, 1 + len(before) + 4)
    assert read_head(b"?" + before, 1, deflate=False) == known
    assert read_head(b"?" + before + MASK + b"payload", 1, deflate=False) == known
    assert [read_head(b"?" + before[:held], 1, deflate=False) for held in range(len(before))] == [None] * len(before)


@pytest.mark.parametrize("first", range(256))
def test_rfc6455_5_2_first_bytes_that_a_client_may_send_without_and_with_deflate(first):
    plain = {0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8A}
    compressed = {0x41, 0x42, 0xC1, 0xC2}
    for deflate, allowed in ((False, plain), (True, plain | compressed)):
        head = bytes((first, 0x80))
        if first in allowed:
            assert read_head(head, 0, deflate=deflate) == (first, 0, 6)
        else:
            with pytest.raises(WebSocketError) as caught:
                read_head(head, 0, deflate=deflate)
            assert caught.value.code == 1002


# Frames of the server


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, "8200"),
        (125, "827d"),
        (126, "827e007e"),
        (65535, "827effff"),
        (65536, "827f0000000000010000"),
    ],
)
def test_rfc6455_5_2_frames_of_the_server_are_not_masked(size, head):
    assert encode(BINARY, bytes(size)) == bytes.fromhex(head) + bytes(size)


@pytest.mark.parametrize(("opcode", "first"), [(TEXT, 0x81), (BINARY, 0x82), (CLOSE, 0x88), (PING, 0x89), (PONG, 0x8A)])
def test_rfc6455_5_2_the_first_byte(opcode, first):
    assert encode(opcode, b"x") == bytes((first, 1)) + b"x"


@pytest.mark.parametrize("size", [0, 125, 126, 65536])
def test_rfc7692_6_1_rsv1_marks_compressed_messages(size):
    plain = encode(TEXT, bytes(size))
    assert encode(TEXT, bytes(size), True) == b"\xc1" + plain[1:]
