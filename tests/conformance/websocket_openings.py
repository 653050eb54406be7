"""What a client may ask for in the opening handshake, and what may become of it; Autobahn has no case of these.

Source: RFC 6455 sections 4.2, 4.4, 9.1 and 11.3; RFC 7692 sections 5 and 7.1; RFC 9110 section 7.8.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The key of RFC 6455 section 1.3, and what it is answered with."""

REQUIRED = {
    b"host": b"Host: x",
    b"upgrade": b"Upgrade: websocket",
    b"connection": b"Connection: Upgrade",
    b"sec-websocket-key": b"Sec-WebSocket-Key: " + KEY,
    b"sec-websocket-version": b"Sec-WebSocket-Version: 13",
}


@dataclass(frozen=True)
class Opened:
    """A 101.

    Attributes:
        extensions: The whole Sec-WebSocket-Extensions as a regular expression; None where there must be none.
        subprotocol: Sec-WebSocket-Protocol; None where there must be none.
    """

    extensions: str | None = None
    subprotocol: str | None = None


@dataclass(frozen=True)
class Refused:
    """An error that the application has no part in, and the end of the connection."""

    status: int


@dataclass(frozen=True)
class Plain:
    """What the application answers to the same request without its upgrade, which is ignored (RFC 9110 7.8)."""


Outcome = Opened | Refused | Plain

OPENED = (Opened(),)
BAD = (Refused(400),)
VERSION = (Refused(426),)
NO_VERSION = (Refused(426), Refused(400))
NOT_ASKED = (Plain(), Refused(400))
DECLINED = (Opened(),)


@dataclass(frozen=True)
class Case:
    """One request, and any of what may come of it."""

    name: str
    clause: str
    sent: bytes
    allowed: Sequence[Outcome]

    def __str__(self) -> str:
        return f"{self.name} ({self.clause})"


def ask(*lines: bytes, start: bytes = b"GET /ws HTTP/1.1", body: bytes = b"") -> bytes:
    """Make a request: the required fields, but where a line has the name of one, only that line or lines.

    A line of a name alone leaves the required field out.
    """
    given = {line.partition(b":")[0].lower() for line in lines}
    kept = [line for name, line in REQUIRED.items() if name not in given]
    return b"\r\n".join([start, *kept, *(line for line in lines if b":" in line), b"", b""]) + body


def key(name: str, value: bytes, allowed: Sequence[Outcome] = BAD) -> Case:
    return Case(f"a key {name}", "RFC 6455 4.2.1", ask(b"Sec-WebSocket-Key: " + value), allowed)


def version(value: bytes, allowed: Sequence[Outcome] = VERSION) -> Case:
    return Case(f"version {value.decode() or 'of nothing'}", "RFC 6455 4.4", ask(b"Sec-WebSocket-Version: " + value), allowed)  # fmt: skip


def subprotocols(name: str, clause: str, *values: bytes, allowed: Sequence[Outcome]) -> Case:
    return Case(name, clause, ask(*(b"Sec-WebSocket-Protocol: " + value for value in values)), allowed)


def offer(name: str, clause: str, *values: bytes, allowed: Sequence[Outcome]) -> Case:
    return Case(name, clause, ask(*(b"Sec-WebSocket-Extensions: " + value for value in values)), allowed)


def declined(clause: str, *parameters: bytes) -> Iterator[Case]:
    """Offers that cannot be met; the connection opens without the extension."""
    for parameter in parameters:
        yield offer(f"{parameter.decode()} is declined", clause, b"permessage-deflate; " + parameter, allowed=DECLINED)


def malformed(*values: bytes) -> Iterator[Case]:
    for value in values:
        yield offer(f"{value.decode('latin-1')} is no extension", "RFC 6455 9.1", value, allowed=BAD)


def agreed(parameters: str = "") -> Sequence[Outcome]:
    return (Opened(extensions=f"permessage-deflate{parameters}"),)


REQUESTS = (
    Case("the least that opens", "RFC 6455 4.2.1", ask(), OPENED),
    Case("values and names in any case", "RFC 6455 4.2.1", ask(b"UPGRADE: WebSocket", b"connection: uPGRADE"), OPENED),
    Case("upgrade beside other options", "RFC 6455 4.2.1", ask(b"Connection: keep-alive ,\tUpgrade"), OPENED),
    Case("upgrade in a second line", "RFC 9110 5.3", ask(b"Connection: keep-alive", b"Connection: Upgrade"), OPENED),
    Case("WebSocket beside other protocols", "RFC 9110 7.8", ask(b"Upgrade: h2c, websocket"), OPENED),
    Case("the whole URL as target", "RFC 9112 3.2.2", ask(start=b"GET http://x/ws HTTP/1.1"), OPENED),
    Case("a body of no bytes", "RFC 9112 6.3", ask(b"Content-Length: 0"), OPENED),
    Case("no Host", "RFC 9112 3.2", ask(b"Host"), BAD),
    Case("no Upgrade", "RFC 6455 4.2.1", ask(b"Upgrade"), NOT_ASKED),
    Case("no Connection", "RFC 6455 4.2.1", ask(b"Connection"), NOT_ASKED),
    Case("Connection without upgrade", "RFC 6455 4.2.1", ask(b"Connection: keep-alive"), NOT_ASKED),
    Case("Connection with a word that has upgrade in it", "RFC 6455 4.2.1", ask(b"Connection: upgrades"), NOT_ASKED),
    Case("Upgrade to something else", "RFC 6455 4.2.1", ask(b"Upgrade: websockets"), NOT_ASKED),
    Case("Upgrade to a version of its own", "RFC 6455 4.2.1", ask(b"Upgrade: websocket/13"), NOT_ASKED),
    Case("POST", "RFC 6455 4.2.1", ask(start=b"POST /ws HTTP/1.1"), NOT_ASKED),
    Case("OPTIONS", "RFC 6455 4.2.1", ask(start=b"OPTIONS /ws HTTP/1.1"), NOT_ASKED),
    Case("a method that is not quite GET", "RFC 9110 9.1", ask(start=b"get /ws HTTP/1.1"), NOT_ASKED),
    Case("HTTP/1.0", "RFC 9110 7.8", ask(start=b"GET /ws HTTP/1.0"), NOT_ASKED),
    Case("a body", "RFC 9110 7.8", ask(b"Content-Length: 5", body=b"hello"), NOT_ASKED),
    Case("a chunked body", "RFC 9110 7.8", ask(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"), NOT_ASKED),
    version(b"99"),
    version(b"8"),
    version(b"0"),
    version(b"\t13 ", OPENED),
    version(b"013", NO_VERSION),
    version(b"13, 8", NO_VERSION),
    version(b"", NO_VERSION),
    Case("no version", "RFC 6455 4.2.1", ask(b"Sec-WebSocket-Version"), NO_VERSION),
    Case("the version twice", "RFC 6455 11.3.5", ask(*[b"Sec-WebSocket-Version: 13"] * 2), BAD),
    Case("no key", "RFC 6455 4.2.1", ask(b"Sec-WebSocket-Key"), BAD),
    Case("the key twice", "RFC 6455 11.3.1", ask(*[b"Sec-WebSocket-Key: " + KEY] * 2), BAD),
    key("of nothing", b""),
    key("of 15 bytes", b"dGhlIHNhbXBsZSBub25j"),
    key("of 17 bytes", b"dGhlIHNhbXBsZSBub25jZTE="),
    key("without its end", b"dGhlIHNhbXBsZSBub25jZQ"),
    key("in the alphabet of URLs", b"__hlIHNhbXBsZSBub25jZQ=="),
    key("with a comment", KEY + b"; a"),
    subprotocols("a subprotocol that is not known", "RFC 6455 4.2.2", b"other", allowed=(Opened(),)),
    subprotocols("the known one of several", "RFC 6455 4.2.2", b"other, known", allowed=(Opened(subprotocol="known"),)),
    subprotocols("several over two lines", "RFC 6455 11.3.4", b"other", b"known", allowed=(Opened(subprotocol="known"),)),
    subprotocols("another case is another subprotocol", "RFC 6455 4.2.2", b"Known", allowed=(Opened(),)),
    subprotocols("a space in a subprotocol", "RFC 6455 4.1", b"not known", allowed=BAD),
    subprotocols("a slash in a subprotocol", "RFC 6455 4.1", b"known/1", allowed=BAD),
)  # fmt: skip

EXTENSIONS = (
    offer("an extension that is not known", "RFC 6455 9.1", b"x-other; a=1", allowed=(Opened(),)),
    offer("no extension", "RFC 6455 9.1", b"", allowed=(Opened(),)),
    offer("the one known", "RFC 7692 5.1", b"permessage-deflate", allowed=agreed()),
    offer("the known one of several", "RFC 6455 9.1", b"x-other, permessage-deflate", allowed=agreed()),
    offer("several over two lines", "RFC 6455 11.3.2", b"x-other", b"permessage-deflate", allowed=agreed()),
    offer("the second choice", "RFC 7692 5.1", b"permessage-deflate; x-new, permessage-deflate", allowed=agreed()),
    offer("only one of two", "RFC 7692 5.1", b"permessage-deflate, permessage-deflate", allowed=agreed()),
    offer("no context for the server", "RFC 7692 7.1.1.1", b"permessage-deflate; server_no_context_takeover", allowed=agreed("; server_no_context_takeover")),
    offer("no context for the client", "RFC 7692 7.1.1.2", b"permessage-deflate; client_no_context_takeover", allowed=agreed("(; client_no_context_takeover)?")),
    offer("a window for the server", "RFC 7692 7.1.2.1", b"permessage-deflate; server_max_window_bits=10", allowed=agreed("; server_max_window_bits=([89]|10)")),
    offer("the smallest window for the server", "RFC 7692 7.1.2.1", b"permessage-deflate; server_max_window_bits=8", allowed=(Opened(), *agreed("; server_max_window_bits=8"))),
    offer("a window for the client", "RFC 7692 7.1.2.2", b"permessage-deflate; client_max_window_bits=10", allowed=agreed("(; client_max_window_bits=([89]|10))?")),
    offer("any window for the client", "RFC 7692 7.1.2.2", b"permessage-deflate; client_max_window_bits", allowed=agreed("(; client_max_window_bits=([89]|1[0-5]))?")),
    offer("a window in quotes", "RFC 6455 9.1", b'permessage-deflate; server_max_window_bits="10"', allowed=agreed('; server_max_window_bits="?([89]|10)"?')),
    *declined("RFC 7692 7.1", b"x-new", b"x-new=1", b"server_no_context_takeover; server_no_context_takeover"),
    *declined("RFC 7692 7.1", b"server_max_window_bits=10; server_max_window_bits=10"),
    *declined("RFC 7692 7.1.1", b"server_no_context_takeover=1", b"client_no_context_takeover=true"),
    *declined("RFC 7692 7.1.2.1", *(b"server_max_window_bits" + bits for bits in (b"", b"=7", b"=16", b"=010", b"=+9", b"=ten"))),
    *declined("RFC 7692 7.1.2.2", *(b"client_max_window_bits=" + bits for bits in (b"7", b"16", b"010", b"8.0", b"4294967304"))),
    *malformed(b"permessage-deflate;", b"permessage-deflate; =10", b"permessage-deflate; a b", b"; server_no_context_takeover", b"permessage deflate"),
    *malformed(b'permessage-deflate; server_max_window_bits="10', b'permessage-deflate; a=""', b'permessage-deflate; a="b c"', b"permessage-deflate; a==1"),
    *malformed(b"permessage-d\xe9flate"),
)  # fmt: skip

CASES = REQUESTS + EXTENSIONS
