"""Close frames of RFC 6455: which codes they may carry, and how their reasons are read and cut."""

from __future__ import annotations

import pytest

from pagi_trio.errors import WebSocketError
from pagi_trio.wire.close_frame import NO_CLOSE_CODE, encode_close, is_sendable_close_code, read_close


def refusal(payload: bytes) -> int:
    with pytest.raises(WebSocketError) as caught:
        read_close(payload)
    return caught.value.code


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999])
def test_rfc6455_7_4_close_codes_that_may_come(code):
    assert read_close(code.to_bytes(2, "big") + "tschüß".encode()) == (code, "tschüß")
    assert is_sendable_close_code(code)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_rfc6455_7_4_close_codes_that_may_not(code):
    assert refusal(code.to_bytes(2, "big")) == 1002
    assert not is_sendable_close_code(code)


def test_rfc6455_7_1_5_an_empty_close_has_no_code():
    assert read_close(b"") == (NO_CLOSE_CODE, "")


def test_rfc6455_5_5_1_a_close_of_one_byte():
    assert refusal(b"\x03") == 1002


def test_rfc6455_5_5_1_the_reason_of_a_close_is_utf8():
    assert refusal(b"\x03\xe8\xff") == 1007


def test_rfc6455_5_5_1_a_close_frame():
    assert encode_close(1000) == b"\x88\x02\x03\xe8"
    assert encode_close(1011, "tschüß") == b"\x88\x0a\x03\xf3tsch\xc3\xbc\xc3\x9f"
    assert encode_close(NO_CLOSE_CODE, "unsaid") == b"\x88\x00"


@pytest.mark.parametrize(
    ("reason", "kept"),
    [
        ("x" * 123, b"x" * 123),
        ("x" * 124, b"x" * 123),
        ("x" * 122 + "ü", b"x" * 122),
        ("x" * 120 + "€", b"x" * 120 + "€".encode()),
        ("x" * 121 + "€", b"x" * 121),
        ("x" * 120 + "\U0001f600", b"x" * 120),
        ("\udc80", b"?"),
    ],
)
def test_rfc6455_5_5_a_reason_is_cut_between_characters(reason, kept):
    assert encode_close(4000, reason) == bytes((0x88, 2 + len(kept))) + b"\x0f\xa0" + kept
