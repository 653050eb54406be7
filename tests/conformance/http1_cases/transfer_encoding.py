"""Transfer-Encoding: what is chunked, what is not, and what it means beside a length or over HTTP/1.0."""

from __future__ import annotations

from .case import BAD, SHOULD, Case, Then, get, post, refused, request, taken

BODY = b"5\r\nhello\r\n0\r\n\r\n"
HELLO = taken(method="POST", body=b"hello")
HELLO_CLOSED = taken(method="POST", body=b"hello", then=Then.CLOSED)


def coding(*values: bytes, line: bytes = b"POST / HTTP/1.1") -> bytes:
    return request(line, *[b"Transfer-Encoding:" + value for value in values], body=BODY)


def is_chunked(name: str, clause: str, *values: bytes) -> Case:
    return Case(name, clause, coding(*values), HELLO)


def not_chunked(name: str, *values: bytes) -> Case:
    """The final coding is not chunked (RFC 9112 section 6.3): a 400, and the connection ends."""
    return Case(name, "RFC 9112 6.3", coding(*values), BAD)


def unknown(name: str, *values: bytes) -> Case:
    """RFC 9112 section 6.1: a coding that is not understood gets a 501."""
    return Case(name, "RFC 9112 6.1", coding(*values), refused(501), SHOULD)


def both(name: str, *fields: bytes, line: bytes = b"POST / HTTP/1.1") -> Case:
    """RFC 9112 section 6.1: refused or taken as chunked, and the connection ends either way."""
    return Case(name, "RFC 9112 6.1", request(line, *fields, body=BODY), HELLO_CLOSED + BAD)


CASES = (
    is_chunked("chunked", "RFC 9112 6.1", b" chunked"),
    is_chunked("no white space in front", "RFC 9112 5", b"chunked"),
    is_chunked("white space around it", "RFC 9110 5.5", b"\t chunked \t"),
    is_chunked("a capital letter", "RFC 9112 7", b" Chunked"),
    is_chunked("capital letters", "RFC 9112 7", b" CHUNKED"),
    is_chunked("an empty element in front", "RFC 9110 5.6.1.2", b" , chunked"),
    is_chunked("an empty element behind", "RFC 9110 5.6.1.2", b" chunked ,"),
    is_chunked("an empty line of it in front", "RFC 9110 5.6.1.2", b"", b" chunked"),
    Case("the name in another case", "RFC 9110 5.1", post(b"tRaNsFeR-eNcOdInG: chunked", body=BODY), HELLO),
    Case("chunked over HTTP/1.2", "RFC 9110 2.5", coding(b" chunked", line=b"POST / HTTP/1.2"), HELLO, SHOULD),
    Case("TE is another field", "RFC 9110 10.1.4", post(b"TE: chunked", b"Connection: TE"), taken(method="POST")),
    Case(
        "a chunked body of a GET",
        "RFC 9110 9.3.1",
        get(b"Transfer-Encoding: chunked") + BODY,
        taken(body=b"hello") + refused(*range(400, 500), then=Then.CLOSED),
    ),
    # Not chunked at the end
    not_chunked("no coding", b""),
    not_chunked("gzip alone", b" gzip"),
    not_chunked("identity", b" identity"),
    not_chunked("a letter more in front", b" xchunked"),
    not_chunked("a letter more behind", b" chunkedx"),
    not_chunked("a letter less", b" chunke"),
    not_chunked("chunked in quotes", b' "chunked"'),
    not_chunked("chunked in single quotes", b" 'chunked'"),
    not_chunked("gzip behind chunked", b" chunked, gzip"),
    not_chunked("identity behind chunked", b" chunked, identity"),
    not_chunked("identity in a line behind chunked", b" chunked", b" identity"),
    not_chunked("nonsense in a line behind chunked", b" chunked", b" x"),
    not_chunked("two words", b" x chunked"),
    not_chunked("a non-breaking space in front", b" \xa0chunked"),
    not_chunked("a non-breaking space behind", b" chunked\xa0"),
    not_chunked("a vertical tab in front", b" \x0bchunked"),
    not_chunked("a vertical tab behind", b" chunked\x0b"),
    not_chunked("a form feed behind", b" chunked\x0c"),
    not_chunked("a Kelvin sign for its k", b" chun\xe2\x84\xaaed"),
    not_chunked("a semicolon instead of a comma", b" chunked; gzip"),
    Case("a NUL behind", "RFC 9110 5.5", coding(b" chunked\0"), HELLO + BAD),
    Case("a parameter", "RFC 9112 7.1", coding(b" chunked;a=b"), refused(400, 501), SHOULD),
    # Chunked at the end, but not alone
    unknown("gzip in front of chunked", b" gzip, chunked"),
    unknown("gzip in a line in front of chunked", b" gzip", b" chunked"),
    unknown("an unknown coding in front of chunked", b" x, chunked"),
    unknown("identity in front of chunked", b" identity, chunked"),
    Case("chunked twice in a list", "RFC 9112 6.1", coding(b" chunked, chunked"), refused(400, 501), SHOULD),
    Case("chunked twice", "RFC 9112 6.1", coding(b" chunked", b" chunked"), refused(400, 501), SHOULD),
    # Beside a length
    both("a length in front of it", b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    both("a length behind it", b"Transfer-Encoding: chunked", b"Content-Length: 5"),
    both("a length of 0", b"Content-Length: 0", b"Transfer-Encoding: chunked"),
    both("the length of the framed body", b"Content-Length: 15", b"Transfer-Encoding: chunked"),
    both("a length and keep-alive", b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Connection: keep-alive"),
    both("an invalid length", b"Content-Length: x", b"Transfer-Encoding: chunked"),
    Case("a length and no coding", "RFC 9112 6.3", post(b"Content-Length: 15", b"Transfer-Encoding:", body=BODY), BAD),
    Case("a length and identity", "RFC 9112 6.3", post(b"Content-Length: 15", b"Transfer-Encoding: identity", body=BODY), BAD),
    Case("a length and nonsense", "RFC 9112 6.3", post(b"Content-Length: 15", b"Transfer-Encoding: x", body=BODY), BAD),
    # Over HTTP/1.0
    both("HTTP/1.0", b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0"),
    both("HTTP/1.0 and a length", b"Transfer-Encoding: chunked", b"Content-Length: 5", line=b"POST / HTTP/1.0"),
    both("HTTP/1.0 and keep-alive", b"Transfer-Encoding: chunked", b"Connection: keep-alive", line=b"POST / HTTP/1.0"),
    both("HTTP/1.0, a length and keep-alive", b"Transfer-Encoding: chunked", b"Content-Length: 5", b"Connection: keep-alive", line=b"POST / HTTP/1.0"),
)  # fmt: skip
