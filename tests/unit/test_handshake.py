"""The opening handshake of RFC 6455, as a server reads and answers it."""

from __future__ import annotations

import pytest

from pagi_trio.errors import AppProtocolError, RequestError
from pagi_trio.wire.handshake import Handshake, accept_key, accept_response, read_handshake

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
DATE = b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
REQUIRED = [(b"host", b"example"), (b"sec-websocket-key", KEY), (b"sec-websocket-version", b"13")]


def refusal(headers, method="GET") -> int:
    with pytest.raises(RequestError) as caught:
        read_handshake(method, headers)
    assert "\n" not in str(caught.value)
    return caught.value.status


def without(name: bytes) -> list[tuple[bytes, bytes]]:
    return [field for field in REQUIRED if field[0] != name]


def extensions(*values: bytes):
    return read_handshake("GET", REQUIRED + [(b"sec-websocket-extensions", value) for value in values]).extensions


def test_rfc6455_4_2_1_the_least_that_a_client_sends():
    assert read_handshake("GET", REQUIRED) == Handshake(KEY, [], [])


def test_rfc6455_4_2_1_the_method_is_get():
    assert refusal(REQUIRED, "POST") == 400


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"dGhlIHNhbXBsZSBub25jZQ=",
        b"dGhlIHNhbXBsZSBub25jZQ",
        b"dGhlIHNhbXBsZSBub25jZTE=",
        b"dGhlIHNhbXBsZSBub25jZ!==",
        b"dGhlIHNhbXBsZSBub25jZQ==\xff",
        b"dGhlIHNhbXBsZSBub25jZQ==dGhlIHNhbXBsZSBub25jZQ==",
    ],
)
def test_rfc6455_4_2_1_the_key_is_16_bytes_in_base64(key):
    assert refusal([*without(b"sec-websocket-key"), (b"sec-websocket-key", key)]) == 400


@pytest.mark.parametrize("name", [b"sec-websocket-key", b"sec-websocket-version"])
def test_rfc6455_11_3_key_and_version_are_given_once(name):
    assert refusal(without(name)) == 400
    assert refusal([*REQUIRED, *[field for field in REQUIRED if field[0] == name]]) == 400


@pytest.mark.parametrize("version", [b"8", b"0", b"14", b"", b"013", b"13, 8"])
def test_rfc6455_4_4_another_version_is_told_to_upgrade(version):
    assert refusal([*without(b"sec-websocket-version"), (b"sec-websocket-version", version)]) == 426


def test_rfc6455_11_3_4_subprotocols_over_several_fields_keep_their_order():
    headers = [
        *REQUIRED,
        (b"sec-websocket-protocol", b"chat.v2,\tchat.v1"),
        (b"sec-websocket-protocol", b", mqtt ,"),
        (b"sec-websocket-protocol", b""),
    ]
    assert read_handshake("GET", headers).subprotocols == ["chat.v2", "chat.v1", "mqtt"]


@pytest.mark.parametrize("value", [b"two words", b"a;b", b"\xe9", b'"quoted"', b"a, b/c"])
def test_rfc6455_4_1_subprotocols_are_tokens(value):
    assert refusal([*REQUIRED, (b"sec-websocket-protocol", value)]) == 400


def test_rfc6455_9_1_extensions_with_their_parameters():
    assert extensions(b"a", b'b; c ; d=1 ;e = "f", , g') == [
        ("a", []),
        ("b", [("c", None), ("d", "1"), ("e", "f")]),
        ("g", []),
    ]
    assert extensions(b"") == []


@pytest.mark.parametrize(
    "value",
    [
        b"a b",
        b"a;",
        b"a; b=",
        b'a; b="',
        b'a; b=""',
        b'a; b="c d"',
        b'a; b="c',
        b"a; b=c d",
        b"; a",
        b"a; b==c",
        b"\xe9",
    ],
)
def test_rfc6455_9_1_malformed_extensions_fail_the_handshake(value):
    assert refusal([*REQUIRED, (b"sec-websocket-extensions", value)]) == 400


def test_rfc6455_1_3_the_accept_key_of_the_standard():
    assert accept_key(KEY) == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_rfc6455_4_2_2_the_least_that_is_answered():
    assert accept_response(Handshake(KEY, ["chat"], []), DATE) == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"upgrade: websocket\r\n"
        b"connection: Upgrade\r\n"
        b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
        b"\r\n"
    )


def test_rfc6455_4_2_2_all_that_is_answered():
    handshake = Handshake(KEY, ["chat", "mqtt"], [])
    headers = iter([(b"set-cookie", b"a=1"), (b"Set-Cookie", b"b=2")])
    response = accept_response(handshake, DATE, "mqtt", b"permessage-deflate", headers)
    assert response == accept_response(handshake, b"").removesuffix(b"\r\n") + (
        b"sec-websocket-protocol: mqtt\r\n"
        b"sec-websocket-extensions: permessage-deflate\r\n"
        b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
        b"set-cookie: a=1\r\n"
        b"Set-Cookie: b=2\r\n"
        b"\r\n"
    )


def test_rfc9110_6_6_1_the_date_of_the_application_replaces_that_of_the_server():
    response = accept_response(Handshake(KEY, [], []), DATE, headers=[(b"date", b"then")])
    assert response.count(b"date: ") == 1
    assert b"date: then\r\n" in response


@pytest.mark.parametrize("subprotocol", ["", "chat", "Mqtt", "mqtt\r\nx: y", "mqtt, amqp"])
def test_rfc6455_4_2_2_only_an_offered_subprotocol_is_accepted(subprotocol):
    with pytest.raises(AppProtocolError, match=r"not offer .*mqtt, amqp"):
        accept_response(Handshake(KEY, ["mqtt", "amqp"], []), DATE, subprotocol)


@pytest.mark.parametrize(
    "name",
    [
        b"Connection",
        b"content-length",
        b"Sec-WebSocket-Accept",
        b"sec-websocket-extensions",
        b"sec-websocket-key",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
        b"transfer-encoding",
        b"upgrade",
    ],
)
def test_the_headers_of_the_handshake_are_the_servers(name):
    value = b"chunked" if name == b"transfer-encoding" else b"1"
    with pytest.raises(AppProtocolError, match="belongs to the handshake"):
        accept_response(Handshake(KEY, [], []), DATE, headers=[(name, value)])


@pytest.mark.parametrize(
    "field",
    [(b"a b", b"c"), (b"", b"c"), (b"a", b"b\r\nc: d"), (b"a", b"b\0"), (b"a", b"b\n"), ("a", "b"), (b"a:", b"")],
)
def test_rfc9110_5_1_headers_of_the_application_are_checked(field):
    with pytest.raises(AppProtocolError):
        accept_response(Handshake(KEY, [], []), DATE, headers=[field])
