"""Upgrade: to WebSocket where it is asked for properly, ignored or refused where it is not."""

from __future__ import annotations

from .case import ERRORS, SHOULD, Allowed, Call, Case, Outcome, Then, by_app, by_server, refused, request, taken

UPGRADE = b"Upgrade: websocket"
CONNECTION = b"Connection: Upgrade"
VERSION = b"Sec-WebSocket-Version: 13"
# The nonce of RFC 6455 section 1.3, and what it is answered with.
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
ALL = (UPGRADE, CONNECTION, VERSION, KEY)

UPGRADED: Allowed = (
    Outcome((by_app(Call(scope="websocket"), 101, fields={"sec-websocket-accept": ACCEPT}),), Then.UPGRADED),
)

WRONG = refused(*range(400, 500))
"""RFC 6455 section 4.2.1: a handshake that is none gets an error."""

# RFC 6455 section 4.4: the versions that are spoken.
OTHER_VERSION = (Outcome((by_server(*range(400, 500), fields={"sec-websocket-version": "13"}),), Then.EITHER),)


def upgrade(*fields: bytes, line: bytes = b"GET / HTTP/1.1", body: bytes = b"") -> bytes:
    return request(line, *fields, body=body)


def key(name: str, *values: bytes) -> Case:
    fields = [b"Sec-WebSocket-Key:" + value for value in values]
    return Case(name, "RFC 6455 4.2.1", upgrade(UPGRADE, CONNECTION, VERSION, *fields), WRONG)


CASES = (
    Case("a handshake", "RFC 6455 4.2.2", upgrade(*ALL), UPGRADED, SHOULD),
    Case("the tokens in another case", "RFC 6455 4.2.1", upgrade(b"Upgrade: WebSOCKET", b"Connection: uPGRADE", VERSION, KEY), UPGRADED, SHOULD),
    Case("the tokens in lists", "RFC 6455 4.2.1", upgrade(b"Upgrade: x/1, websocket", b"Connection: keep-alive, Upgrade", VERSION, KEY), UPGRADED, SHOULD),
    Case("the connection option in a second line", "RFC 6455 4.2.1", upgrade(UPGRADE, b"Connection: keep-alive", CONNECTION, VERSION, KEY), UPGRADED, SHOULD),
    Case("a handshake that expects a 100 and has no body", "RFC 9110 10.1.1", upgrade(*ALL, b"Expect: 100-continue"), (*UPGRADED, Outcome((by_server(100), *UPGRADED[0].answers), Then.UPGRADED)), SHOULD),
    # Ignored, or refused
    Case("HTTP/1.0 is not upgraded", "RFC 9110 7.8", upgrade(*ALL, line=b"GET / HTTP/1.0"), taken(then=Then.CLOSED)),
    Case("a POST is not upgraded", "RFC 6455 4.2.1", upgrade(*ALL, line=b"POST / HTTP/1.1"), taken(method="POST") + WRONG),
    Case("a HEAD is not upgraded", "RFC 6455 4.2.1", upgrade(*ALL, line=b"HEAD / HTTP/1.1"), (*taken(method="HEAD"), Outcome((by_server(*ERRORS, to_head=True),), Then.EITHER))),
    Case("a POST with a body is not upgraded", "RFC 6455 4.2.1", upgrade(*ALL, b"Content-Length: 5", line=b"POST / HTTP/1.1", body=b"hello"), taken(method="POST", body=b"hello") + WRONG),
    Case("a request with a body is answered as one", "RFC 9110 7.8", upgrade(*ALL, b"Content-Length: 5", body=b"hello"), taken(body=b"hello") + WRONG + UPGRADED),
    Case("a request with a chunked body is answered as one", "RFC 9110 7.8", upgrade(*ALL, b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n"), taken(body=b"hello") + WRONG + UPGRADED),
    Case("no connection option", "RFC 6455 4.2.1", upgrade(UPGRADE, VERSION, KEY), taken() + WRONG),
    Case("another connection option", "RFC 6455 4.2.1", upgrade(UPGRADE, b"Connection: keep-alive", VERSION, KEY), taken() + WRONG),
    Case("a connection option that only begins like it", "RFC 6455 4.2.1", upgrade(UPGRADE, b"Connection: Upgrades", VERSION, KEY), taken() + WRONG),
    Case("no Upgrade", "RFC 6455 4.2.1", upgrade(CONNECTION, VERSION, KEY), taken() + WRONG),
    Case("another protocol", "RFC 9110 7.8", upgrade(b"Upgrade: x/1", CONNECTION), taken()),
    Case("another protocol, with a key", "RFC 9110 7.8", upgrade(b"Upgrade: x/1", CONNECTION, VERSION, KEY), taken() + WRONG),
    Case("another protocol, with a body", "RFC 9110 7.8", upgrade(b"Upgrade: x/1", CONNECTION, b"Content-Length: 5", line=b"POST / HTTP/1.1", body=b"hello"), taken(method="POST", body=b"hello")),
    Case("a Kelvin sign for its k", "RFC 6455 4.2.1", upgrade(b"Upgrade: websoc\xe2\x84\xaaet", CONNECTION, VERSION, KEY), taken() + WRONG),
    Case("a non-breaking space behind the protocol", "RFC 6455 4.2.1", upgrade(b"Upgrade: websocket\xa0", CONNECTION, VERSION, KEY), taken() + WRONG),
    # Wrong
    Case("no Host", "RFC 9112 3.2", request(b"GET / HTTP/1.1", *ALL, host=b""), refused(400)),
    Case("two Hosts", "RFC 9112 3.2", upgrade(b"Host: b", *ALL), refused(400)),
    Case("an invalid Host", "RFC 9112 3.2", request(b"GET / HTTP/1.1", *ALL, host=b"Host: a b"), refused(400)),
    Case("version 99", "RFC 6455 4.4", upgrade(UPGRADE, CONNECTION, b"Sec-WebSocket-Version: 99", KEY), OTHER_VERSION),
    Case("version 8", "RFC 6455 4.4", upgrade(UPGRADE, CONNECTION, b"Sec-WebSocket-Version: 8", KEY), OTHER_VERSION),
    Case("no version", "RFC 6455 4.2.1", upgrade(UPGRADE, CONNECTION, KEY), WRONG),
    key("no key"),
    key("an empty key", b""),
    key("a key that is too short", b" dGhlIHNhbXBsZSBub25j"),
    key("a key that is too long", b" dGhlIHNhbXBsZSBub25jZXh4"),
    key("a key that is not in base64", b" dGhlIHNhbXBsZSBub25j!!=="),
    key("two keys", b" dGhlIHNhbXBsZSBub25jZQ==", b" AAAAAAAAAAAAAAAAAAAAAA=="),
)  # fmt: skip
