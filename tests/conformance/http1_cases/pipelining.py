"""Several requests on one connection, sent without waiting: their order, and where one ends and the next begins."""

from __future__ import annotations

from .case import (
    ERRORS,
    SHOULD,
    Allowed,
    Answer,
    Call,
    Case,
    Outcome,
    Step,
    Then,
    answered,
    by_app,
    by_server,
    get,
    refused,
    request,
    too_late,
)


def to(path: str, *fields: bytes, method: str = "GET", body: bytes = b"", version: str = "1.1") -> bytes:
    return request(f"{method} {path} HTTP/{version}".encode(), *fields, body=body)


def post(path: str, body: bytes = b"hello") -> bytes:
    return to(path, b"Content-Length: %d" % len(body), method="POST", body=body)


def chunks(path: str, trailer: bytes = b"") -> bytes:
    body = b"5\r\nhello\r\n0\r\n" + trailer + b"\r\n"
    return to(path, b"Transfer-Encoding: chunked", method="POST", body=body)


def called(path: str, method: str = "GET", body: bytes | None = b"") -> Call:
    return Call(method, path, body=body)


def empty(path: str, status: int) -> Answer:
    """An answer without content."""
    return by_app(called(path), status, body=b"")


A, B, C = called("/a"), called("/b"), called("/c")
POSTED = called("/p", "POST", b"hello")
UNREAD = called("/unread", "POST", None)


def in_order(*answers: Answer) -> Allowed:
    """All of these, or the first of them and the end of the connection: a server may close behind any of them."""
    shorter = [Outcome(answers[:count], Then.CLOSED) for count in range(1, len(answers))]
    return (Outcome(answers, Then.EITHER), *shorter)


def called_in_order(*calls: Call) -> Allowed:
    return in_order(*[by_app(call) for call in calls])


THEN_BAD = (Outcome((by_app(A), by_server(400)), Then.CLOSED),)
"""RFC 9112 sections 2.2 and 9.3.2: a 400 in its turn, behind the answers that are due."""

CASES = (
    Case("three requests", "RFC 9112 9.3.2", to("/a") + to("/b") + to("/c"), called_in_order(A, B, C)),
    Case("20 requests", "RFC 9112 9.3.2", b"".join(to(f"/{n}") for n in range(20)), called_in_order(*[called(f"/{n}") for n in range(20)])),
    Case("GET, HEAD, POST, GET", "RFC 9112 9.3.2", to("/a") + to("/h", method="HEAD") + post("/p") + to("/c"), called_in_order(A, called("/h", "HEAD"), POSTED, C)),
    Case("HEAD, HEAD, GET", "RFC 9112 9.3.2", to("/h", method="HEAD") * 2 + to("/c"), called_in_order(called("/h", "HEAD"), called("/h", "HEAD"), C)),
    Case("a body, then a request", "RFC 9112 9.3", post("/p") + to("/b"), called_in_order(POSTED, B)),
    Case("two bodies", "RFC 9112 9.3", post("/p") + post("/q", b"you"), called_in_order(POSTED, called("/q", "POST", b"you"))),
    Case("chunks, then a request", "RFC 9112 7.1", chunks("/p") + to("/b"), called_in_order(POSTED, B)),
    Case("chunks and a trailer, then a request", "RFC 9112 7.1.2", chunks("/p", b"X: y\r\n") + to("/b"), called_in_order(POSTED, B)),
    Case("chunks, then a body, then chunks", "RFC 9112 7.1", chunks("/p") + post("/p") + chunks("/p"), called_in_order(POSTED, POSTED, POSTED)),
    Case("a body that is not read, then a request", "RFC 9112 9.3", post("/unread") + to("/b"), called_in_order(UNREAD, B)),
    Case("chunks that are not read, then a request", "RFC 9112 9.3", chunks("/unread") + to("/b"), called_in_order(UNREAD, B)),
    Case("a 204 between two", "RFC 9112 6.3", to("/a") + to("/204") + to("/c"), in_order(by_app(A), empty("/204", 204), by_app(C))),
    Case("a 304 between two", "RFC 9112 6.3", to("/a") + to("/304") + to("/c"), in_order(by_app(A), empty("/304", 304), by_app(C))),
    Case("a streamed answer between two", "RFC 9112 7.1", to("/a") + to("/stream") + to("/c"), in_order(by_app(A), by_app(called("/stream"), body=b"onetwo"), by_app(C))),
    Case("an empty line between two", "RFC 9112 2.2", to("/a") + b"\r\n" + to("/b"), answered(A, B), SHOULD),
    Case("an empty line behind a body", "RFC 9112 2.2", post("/p") + b"\r\n" + to("/b"), answered(POSTED, B), SHOULD),
    # What is wrong behind what is right
    Case("nonsense behind a request", "RFC 9112 2.2", to("/a") + b"nonsense\r\n\r\n", THEN_BAD, SHOULD),
    Case("a request without Host behind another", "RFC 9112 3.2", to("/a") + get(host=b""), in_order(by_app(A), by_server(400))),
    Case("an invalid length behind a request", "RFC 9112 6.3", to("/a") + to("/b", b"Content-Length: x", method="POST"), THEN_BAD + answered(A, then=Then.CLOSED)),
    Case("more of a body than announced", "RFC 9112 2.2", to("/a", b"Content-Length: 5", body=b"hello((") + to("/b"), (Outcome((by_app(called("/a", body=b"hello")), by_server(400)), Then.CLOSED),), SHOULD),
    Case("nothing is served behind nonsense", "RFC 9112 2.2", b"nonsense\r\n\r\n" + to("/b"), refused(400, then=Then.CLOSED), SHOULD),
    Case("nothing is served behind an invalid length", "RFC 9112 6.3", to("/a", b"Content-Length: x") + to("/b"), refused(400, then=Then.CLOSED)),
    Case("nothing is served behind an invalid coding", "RFC 9112 6.3", to("/a", b"Transfer-Encoding: x") + to("/b"), refused(400, then=Then.CLOSED)),
    Case("nothing is served behind a length and a coding", "RFC 9112 6.1", to("/a", b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n") + to("/b"), answered(A, then=Then.CLOSED) + refused(400, then=Then.CLOSED)),
    # What ends the connection
    Case("nothing is served behind close", "RFC 9112 9.6", to("/a", b"Connection: close") + to("/b"), answered(A, then=Then.CLOSED) + too_late(400)),
    Case("nothing is served behind close and a body", "RFC 9112 9.6", to("/p", b"Connection: close", b"Content-Length: 5", method="POST", body=b"hello") + to("/b"), answered(POSTED, then=Then.CLOSED) + too_late(400)),
    Case("nothing is served behind a close of the server's", "RFC 9112 9.6", to("/close") + to("/b"), answered(called("/close"), then=Then.CLOSED)),
    Case("nothing is served behind HTTP/1.0", "RFC 9112 9.3", to("/a", version="1.0") + to("/b"), answered(A, then=Then.CLOSED) + too_late(400)),
    Case("HTTP/1.0 with keep-alive, twice", "RFC 9112 9.3", to("/a", b"Connection: keep-alive", version="1.0") * 2, answered(A, A, then=Then.EITHER) + answered(A, then=Then.CLOSED) + too_late(400)),
    Case("HTTP/1.0 behind HTTP/1.1", "RFC 9112 9.3", to("/a") + to("/b", version="1.0"), answered(A, B, then=Then.CLOSED) + answered(A, then=Then.CLOSED)),
    # Half-closed
    Case("three requests, then the client's end", "RFC 9112 9.6", (to("/a") + to("/b") + to("/c"), Step.FINISH), answered(A, B, C, then=Then.CLOSED), SHOULD),
    Case("a request, half of another, then the client's end", "RFC 9112 9.6", (to("/a") + b"GET /b HTTP/1.1\r\nHo", Step.FINISH), (*answered(A, then=Then.CLOSED), Outcome((by_app(A), by_server(*ERRORS)), Then.CLOSED)), SHOULD),
)  # fmt: skip
