"""Trailers: read and kept apart from the header fields, or refused; never merged."""

from __future__ import annotations

from .case import BAD_BODY, REJECTED_BODY, SHOULD, Allowed, Case, chunked, refused, taken

DATA = b"5\r\nhello\r\n0\r\n"
HELLO = taken(method="POST", body=b"hello")


def seen(name: str, value: str | None) -> Allowed:
    return taken(method="POST", body=b"hello", fields={name: value})


def kept_apart(name: str, trailer: bytes, value: str | None, *before: bytes) -> Case:
    """RFC 9110 section 6.5.1: a trailer must not become a header field, which is there in front or is not."""
    field = trailer.partition(b":")[0].decode().lower()
    sent = chunked(DATA + trailer + b"\r\n\r\n", *before)
    return Case(name, "RFC 9110 6.5.1", sent, seen(field, value) + REJECTED_BODY)


def invalid(name: str, trailers: bytes) -> Case:
    return Case(name, "RFC 9112 7.1.2", chunked(DATA + trailers + b"\r\n"), BAD_BODY, SHOULD)


CASES = (
    Case("a trailer", "RFC 9112 7.1.2", chunked(DATA + b"X: y\r\n\r\n"), HELLO),
    Case("two trailers", "RFC 9112 7.1.2", chunked(DATA + b"X: y\r\nZ:\r\n\r\n"), HELLO),
    Case("a trailer that is announced", "RFC 9110 6.6.2", chunked(DATA + b"X: y\r\n\r\n", b"Trailer: X"), HELLO),
    Case("a trailer behind no data", "RFC 9112 7.1.2", chunked(b"0\r\nX: y\r\n\r\n"), taken(method="POST")),
    kept_apart("a trailer is no header field", b"X: y", None),
    kept_apart("a trailer that is announced is no header field", b"X: y", None, b"Trailer: X"),
    kept_apart("a trailer beside a header field of its name", b"X: z", "y", b"X: y"),
    kept_apart("Host in a trailer", b"Host: b", "a"),
    kept_apart("Content-Length in a trailer", b"Content-Length: 50", None),
    # A server may take the coding that it has removed out of the fields (RFC 9112 section 7.1.3).
    Case("Transfer-Encoding in a trailer", "RFC 9110 6.5.1", chunked(DATA + b"Transfer-Encoding: gzip\r\n\r\n"), seen("transfer-encoding", "chunked") + seen("transfer-encoding", None) + REJECTED_BODY),
    kept_apart("Connection in a trailer", b"Connection: close", None),
    kept_apart("Authorization in a trailer", b"Authorization: Basic YTpi", None),
    kept_apart("Cookie in a trailer", b"Cookie: a=b", None),
    kept_apart("Content-Type in a trailer", b"Content-Type: text/html", "text/plain", b"Content-Type: text/plain"),
    invalid("no colon in a trailer", b"X\r\n"),
    invalid("no name in a trailer", b": y\r\n"),
    invalid("a space in front of the colon of a trailer", b"X : y\r\n"),
    invalid("a space in front of the first trailer", b" X: y\r\n"),
    invalid("a space in the name of a trailer", b"X Y: z\r\n"),
    invalid("a request line in a trailer", b"GET / HTTP/1.1\r\n"),
    Case("a NUL in a trailer", "RFC 9110 5.5", chunked(DATA + b"X: a\0b\r\n\r\n"), HELLO + REJECTED_BODY),
    Case("a bare CR in a trailer", "RFC 9112 2.2", chunked(DATA + b"X: a\rb\r\n\r\n"), HELLO + REJECTED_BODY),
    Case("a folded trailer", "RFC 9112 5.2", chunked(DATA + b"X: a\r\n b\r\n\r\n"), HELLO + BAD_BODY),
    Case("a line feed alone behind a trailer", "RFC 9112 2.2", chunked(DATA + b"X: y\n\r\n"), HELLO + BAD_BODY, SHOULD),
    Case("a trailer of 100,000 bytes", "RFC 9110 5.4", chunked(DATA + b"X: " + b"y" * 100_000 + b"\r\n\r\n"), HELLO + refused(*range(400, 500), begun=True)),
    Case("10,000 trailers", "RFC 9110 5.4", chunked(DATA + b"X: y\r\n" * 10_000 + b"\r\n"), HELLO + refused(*range(400, 500), begun=True)),
)  # fmt: skip
