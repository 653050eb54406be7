"""How answers are framed, for each version, method and status."""

from __future__ import annotations

from .case import (
    PRESENT,
    SHOULD,
    Allowed,
    Answer,
    Call,
    Case,
    Outcome,
    Then,
    by_app,
    by_server,
    get,
    request,
)


def one(answer: Answer, then: Then = Then.EITHER) -> Allowed:
    return (Outcome((answer,), then),)


def to(path: str, *fields: bytes, method: str = "GET", version: str = "1.1") -> bytes:
    return request(f"{method} {path} HTTP/{version}".encode(), *fields)


def empty(status: int, method: str = "GET", **fields: str | None) -> Allowed:
    expected = {name.replace("_", "-"): value for name, value in fields.items()}
    return one(by_app(Call(method, f"/{status}"), status, fields=expected, body=b""))


UNTIL_CLOSE = {"transfer-encoding": None, "content-length": None}

CASES = (
    Case("a length that the application gives", "RFC 9110 8.6", get(), one(by_app(body=b"seen", fields={"content-length": "4", "transfer-encoding": None})), SHOULD),
    Case("a Date on a 200", "RFC 9110 6.6.1", get(), one(by_app(fields={"date": PRESENT}))),
    Case("a Date on a 304", "RFC 9110 6.6.1", to("/304"), empty(304, date=PRESENT)),
    Case("a Date on a 400", "RFC 9110 6.6.1", get(b"Content-Length: x"), one(by_server(400, fields={"date": PRESENT}), Then.CLOSED)),
    Case("close on an answer that ends the connection", "RFC 9112 9.6", get(b"Content-Length: x"), one(by_server(400, fields={"connection": "close"}), Then.CLOSED), SHOULD),
    # HEAD
    Case("HEAD has the fields of GET", "RFC 9110 9.3.2", to("/", method="HEAD"), one(by_app(Call("HEAD"), fields={"content-length": "4"})), SHOULD),
    Case("HEAD has no content", "RFC 9110 9.3.2", to("/", method="HEAD"), one(by_app(Call("HEAD")))),
    Case("HEAD has no content of a streamed answer", "RFC 9110 9.3.2", to("/stream", method="HEAD"), one(by_app(Call("HEAD", "/stream")))),
    Case("HEAD has no content over HTTP/1.0", "RFC 9110 9.3.2", to("/", method="HEAD", version="1.0"), one(by_app(Call("HEAD")), Then.CLOSED)),
    Case("HEAD has no content of a streamed answer over HTTP/1.0", "RFC 9110 9.3.2", to("/stream", method="HEAD", version="1.0"), one(by_app(Call("HEAD", "/stream"), fields={"transfer-encoding": None}), Then.CLOSED)),
    Case("HEAD has no content of a 400", "RFC 9110 9.3.2", request(b"HEAD / HTTP/1.1", host=b""), one(by_server(400, to_head=True), Then.EITHER)),
    Case("HEAD has no content of a 400 for its length", "RFC 9110 9.3.2", to("/", b"Content-Length: x", method="HEAD"), one(by_server(400, to_head=True), Then.CLOSED)),
    Case("HEAD has no content of a 500", "RFC 9110 9.3.2", to("/error", method="HEAD"), (Outcome((by_server(500, to_head=True),), Then.EITHER, begun=True),)),
    Case("an error of the application's", "RFC 9110 15.6.1", to("/error"), (Outcome((by_server(500),), Then.EITHER, begun=True),), SHOULD),
    # Without content
    Case("204 has no length", "RFC 9110 8.6", to("/204"), empty(204, content_length=None)),
    Case("204 has no coding", "RFC 9112 6.1", to("/204"), empty(204, transfer_encoding=None)),
    Case("204 to HEAD has neither", "RFC 9110 8.6", to("/204", method="HEAD"), empty(204, "HEAD", content_length=None, transfer_encoding=None)),
    Case("304 has no content", "RFC 9110 15.4.5", to("/304"), empty(304)),
    Case("205 has no content", "RFC 9110 15.3.6", to("/205"), empty(205)),
    Case("205 to HEAD has no content", "RFC 9110 15.3.6", to("/205", method="HEAD"), (Outcome((by_app(Call("HEAD", "/205"), 205),), Then.EITHER),)),
    # Of unknown length
    Case("a streamed answer", "RFC 9112 7.1", to("/stream"), one(by_app(Call(path="/stream"), body=b"onetwo"))),
    Case("a streamed answer and close", "RFC 9112 9.6", to("/stream", b"Connection: close"), one(by_app(Call(path="/stream"), body=b"onetwo"), Then.CLOSED)),
    Case("a streamed answer over HTTP/1.0", "RFC 9112 6.1", to("/stream", version="1.0"), one(by_app(Call(path="/stream"), body=b"onetwo", fields=UNTIL_CLOSE), Then.CLOSED)),
    Case("a streamed answer over HTTP/1.2", "RFC 9110 2.5", to("/stream", version="1.2"), one(by_app(Call(path="/stream"), body=b"onetwo")), SHOULD),
)  # fmt: skip
