"""Whether a connection stays, how it ends, and who is told."""

from __future__ import annotations

from .case import (
    CONTINUE,
    ERRORS,
    SHOULD,
    Answer,
    Call,
    Case,
    Outcome,
    Step,
    Then,
    by_app,
    chunked,
    dropped,
    get,
    post,
    refused,
    request,
    taken,
)

CLOSED = taken(then=Then.CLOSED)
EITHER = taken(then=Then.EITHER)
OPEN = taken(then=Then.OPEN)


def connection(*values: bytes, version: bytes = b"1.1") -> bytes:
    return request(b"GET / HTTP/" + version, *[b"Connection:" + value for value in values])


def closes(name: str, *values: bytes) -> Case:
    return Case(name, "RFC 9112 9.6", connection(*values), CLOSED)


def stays(name: str, *values: bytes) -> Case:
    return Case(name, "RFC 9112 9.3", connection(*values), OPEN, SHOULD)


def stays_behind(name: str, sent: bytes, *answers: Answer) -> Case:
    """Nothing that a request or its answer is made of ends the connection."""
    return Case(f"the connection stays behind {name}", "RFC 9112 9.3", sent, (Outcome(answers, Then.OPEN),), SHOULD)


def closes_1_0(name: str, *values: bytes) -> Case:
    return Case(name, "RFC 9112 9.3", connection(*values, version=b"1.0"), CLOSED)


def says(path: str, value: str | None, then: Then) -> tuple[Outcome, ...]:
    return (Outcome((by_app(Call(path=path), fields={"connection": value}),), then),)


HELLO = Call("POST", body=b"hello")

HALF = dropped() + refused(*ERRORS, then=Then.CLOSED)
"""RFC 9112 section 8: a request that does not end may be answered with an error, and is never taken."""

CASES = (
    stays("HTTP/1.1"),
    stays("keep-alive", b" keep-alive"),
    stays("another option", b" x"),
    stays("an option that begins like close", b" closed"),
    stays("an option that ends like close", b" x-close"),
    stays("an empty list", b""),
    closes("close", b" close"),
    closes("close without white space in front", b"close"),
    closes("close in another case", b" Close"),
    closes("close in capital letters", b" CLOSE"),
    closes("close behind another option", b" x, close"),
    closes("close in front of another option", b" close,x"),
    closes("close and white space in a list", b" x\t,\t close\t,y"),
    closes("close behind an empty element", b" , close"),
    closes("close and keep-alive", b" close, keep-alive"),
    closes("keep-alive and close", b" keep-alive, close"),
    closes("close in a second line", b" keep-alive", b" close"),
    closes("close in a first line", b" close", b" keep-alive"),
    closes("close twice", b" close", b" close"),
    Case("close is said to the client in return", "RFC 9112 9.6", connection(b" close"), says("/", "close", Then.CLOSED), SHOULD),
    Case("a close of the server's is one", "RFC 9112 9.6", request(b"GET /close HTTP/1.1"), says("/close", "close", Then.CLOSED)),
    Case("close with a body", "RFC 9112 9.6", post(b"Connection: close", b"Content-Length: 5", body=b"hello"), taken(method="POST", body=b"hello", then=Then.CLOSED)),
    Case("close to a HEAD", "RFC 9112 9.6", request(b"HEAD / HTTP/1.1", b"Connection: close"), taken(method="HEAD", then=Then.CLOSED)),
    Case("a field named Close is no close", "RFC 9112 9.6", get(b"Close: close"), OPEN, SHOULD),
    Case("Proxy-Connection is no Connection", "RFC 9112 9.3", get(b"Proxy-Connection: close"), OPEN, SHOULD),
    stays_behind("a body", post(b"Content-Length: 5", body=b"hello"), by_app(HELLO)),
    stays_behind("chunks", chunked(b"5\r\nhello\r\n0\r\n\r\n"), by_app(HELLO)),
    stays_behind("trailers", chunked(b"5\r\nhello\r\n0\r\nX: y\r\n\r\n"), by_app(HELLO)),
    Case("the connection stays behind an expectation", "RFC 9112 9.3", post(b"Expect: 100-continue", b"Content-Length: 5", body=b"hello"), (Outcome((by_app(HELLO),), Then.OPEN), Outcome((CONTINUE, by_app(HELLO)), Then.OPEN)), SHOULD),
    stays_behind("an upgrade that is ignored", get(b"Upgrade: x/1", b"Connection: Upgrade"), by_app()),
    stays_behind("an absolute target", request(b"GET http://a/ HTTP/1.1"), by_app()),
    stays_behind("a HEAD", request(b"HEAD / HTTP/1.1"), by_app(Call("HEAD"))),
    stays_behind("a 204", request(b"GET /204 HTTP/1.1"), by_app(Call(path="/204"), 204)),
    stays_behind("a 205", request(b"GET /205 HTTP/1.1"), by_app(Call(path="/205"), 205)),
    stays_behind("a 304", request(b"GET /304 HTTP/1.1"), by_app(Call(path="/304"), 304)),
    stays_behind("a streamed answer", request(b"GET /stream HTTP/1.1"), by_app(Call(path="/stream"))),
    stays_behind("HTTP/1.2", connection(version=b"1.2"), by_app()),
    stays_behind("three requests", get() * 3, by_app(), by_app(), by_app()),
    # HTTP/1.0
    closes_1_0("HTTP/1.0"),
    closes_1_0("HTTP/1.0 with close", b" close"),
    closes_1_0("HTTP/1.0 with keep-alive and close", b" keep-alive, close"),
    closes_1_0("HTTP/1.0 with close in a second line", b" keep-alive", b" close"),
    closes_1_0("HTTP/1.0 with another option", b" x"),
    closes_1_0("HTTP/1.0 with an option that begins like keep-alive", b" keep-alives"),
    closes_1_0("HTTP/1.0 with a Kelvin sign for its k", b" \xe2\x84\xaaeep-alive"),
    closes_1_0("HTTP/1.0 with a non-breaking space in front of keep-alive", b" \xa0keep-alive"),
    Case("HTTP/1.0 with Proxy-Connection", "RFC 9112 9.3", request(b"GET / HTTP/1.0", b"Proxy-Connection: keep-alive"), CLOSED),
    Case("HTTP/1.0 with keep-alive", "RFC 9112 9.3", connection(b" keep-alive", version=b"1.0"), says("/", "keep-alive", Then.OPEN) + CLOSED),
    Case("HTTP/1.0 with keep-alive in another case", "RFC 9112 9.3", connection(b" Keep-Alive", version=b"1.0"), EITHER),
    Case("HTTP/1.0 with keep-alive and a streamed answer", "RFC 9112 9.3", request(b"GET /stream HTTP/1.0", b"Connection: keep-alive"), (Outcome((by_app(Call(path="/stream"), body=b"onetwo"),), Then.CLOSED),)),
    # Half-closed
    Case("the client's end behind a request", "RFC 9112 9.6", (get(), Step.FINISH), CLOSED, SHOULD),
    Case("the client's end behind a body", "RFC 9112 9.6", (post(b"Content-Length: 5", body=b"hello"), Step.FINISH), taken(method="POST", body=b"hello", then=Then.CLOSED), SHOULD),
    Case("the client's end behind chunks", "RFC 9112 9.6", (post(b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n"), Step.FINISH), taken(method="POST", body=b"hello", then=Then.CLOSED), SHOULD),
    Case("the client's end behind HTTP/1.0", "RFC 9112 9.6", (connection(version=b"1.0"), Step.FINISH), CLOSED, SHOULD),
    Case("the client's end, and a streamed answer", "RFC 9112 9.6", (request(b"GET /stream HTTP/1.1"), Step.FINISH), (Outcome((by_app(Call(path="/stream"), body=b"onetwo"),), Then.CLOSED),), SHOULD),
    Case("the client's end in front of everything", "RFC 9112 9.5", (b"", Step.FINISH), dropped(), SHOULD),
    Case("the client's end behind an empty line", "RFC 9112 8", (b"\r\n", Step.FINISH), HALF, SHOULD),
    Case("the client's end in the request line", "RFC 9112 8", (b"GET / HT", Step.FINISH), HALF, SHOULD),
    Case("the client's end in the fields", "RFC 9112 8", (b"GET / HTTP/1.1\r\nHost: a\r\nX", Step.FINISH), HALF, SHOULD),
    Case("the client's end in front of the empty line", "RFC 9112 8", (b"GET / HTTP/1.1\r\nHost: a\r\n", Step.FINISH), HALF, SHOULD),
    Case("the client's end in the empty line", "RFC 9112 8", (b"GET / HTTP/1.1\r\nHost: a\r\n\r", Step.FINISH), HALF, SHOULD),
    Case("an answer can be read while a body is still being sent", "RFC 9112 9.6", post(b"Content-Length: 300000x", body=b"x" * 300_000), refused(400), SHOULD),
)  # fmt: skip
