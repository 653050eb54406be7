"""Request lines: method, target, version, and what stands in front of them."""

from __future__ import annotations

from .case import (
    BAD,
    REJECTED,
    SHOULD,
    Case,
    Then,
    dropped,
    get,
    refused,
    request,
    taken,
)

TOKEN = "!#$%&'*+-.^_`|~09azAZ"


def invalid(name: str, line: bytes) -> Case:
    """A line that no grammar allows: RFC 9112 section 3 asks for a 400, or for a redirect."""
    return Case(name, "RFC 9112 3.2", request(line), refused(400, 301), SHOULD)


def version(name: str, text: bytes) -> Case:
    return Case(name, "RFC 9112 2.3", request(b"GET / " + text), refused(400, 505), SHOULD)


METHODS = (
    Case("GET", "RFC 9110 9.1", get(), taken()),
    Case(
        "a method that nobody knows",
        "RFC 9110 9.1",
        request(b"BREW / HTTP/1.1"),
        taken(method="BREW") + refused(405, 501),
        SHOULD,
    ),
    Case(
        "every character of a token in the method",
        "RFC 9110 5.6.2",
        request(TOKEN.encode() + b" / HTTP/1.1"),
        taken(method=TOKEN) + refused(405, 501),
        SHOULD,
    ),
    Case(
        "a method in lower case is another",
        "RFC 9110 9.1",
        request(b"get / HTTP/1.1"),
        taken(method="get") + refused(400, 405, 501),
        SHOULD,
    ),
    Case(
        "a method of 100 characters",
        "RFC 9112 3",
        request(b"A" * 100 + b" / HTTP/1.1"),
        taken(method="A" * 100) + refused(405, 501),
        SHOULD,
    ),
    invalid("an @ in the method", b"G@T / HTTP/1.1"),
    invalid("a bracket in the method", b"G(T / HTTP/1.1"),
    invalid("a colon behind the method", b"GET: / HTTP/1.1"),
    invalid("UTF-8 in the method", b"G\xc3\x89T / HTTP/1.1"),
    invalid("a NUL in the method", b"GE\0T / HTTP/1.1"),
    invalid("no method", b"/ HTTP/1.1"),
)

# RFC 9112 section 3: a recipient may take any white space for the separator; it need not.
LENIENT = taken() + BAD

WHITE_SPACE = (
    Case("a space in front of the method", "RFC 9112 3", request(b" GET / HTTP/1.1"), LENIENT, SHOULD),
    Case("two spaces behind the method", "RFC 9112 3", request(b"GET  / HTTP/1.1"), LENIENT, SHOULD),
    Case("two spaces behind the target", "RFC 9112 3", request(b"GET /  HTTP/1.1"), LENIENT, SHOULD),
    Case("a space behind the version", "RFC 9112 3", request(b"GET / HTTP/1.1 "), LENIENT, SHOULD),
    Case("tabs instead of spaces", "RFC 9112 3", request(b"GET\t/\tHTTP/1.1"), LENIENT, SHOULD),
    Case("a vertical tab instead of a space", "RFC 9112 3", request(b"GET\x0b/ HTTP/1.1"), LENIENT, SHOULD),
    Case("a form feed instead of a space", "RFC 9112 3", request(b"GET\x0c/ HTTP/1.1"), LENIENT, SHOULD),
    Case("a bare CR instead of a space", "RFC 9112 2.2", request(b"GET\r/ HTTP/1.1"), taken() + REJECTED),
    Case("a bare CR in the target", "RFC 9112 2.2", request(b"GET /a\rb HTTP/1.1"), taken(path="/a b") + REJECTED),
    Case("a bare CR behind the version", "RFC 9112 2.2", request(b"GET / HTTP/1.1\r"), taken() + REJECTED),
    Case("a bare CR in front of the method", "RFC 9112 2.2", b"\r" + get(), taken() + REJECTED),
    invalid("no separator at all", b"GET/HTTP/1.1"),
    invalid("a non-breaking space instead of a space", b"GET\xa0/ HTTP/1.1"),
)

TARGETS = (
    Case("a path and a query", "RFC 9112 3.2.1", request(b"GET /x/y?a=%20&b HTTP/1.1"), taken(path="/x/y", query="a=%20&b")),
    Case("an empty query", "RFC 9112 3.2.1", request(b"GET /x? HTTP/1.1"), taken(path="/x")),
    Case("a question mark in the query", "RFC 9112 3.2.1", request(b"GET /x??y HTTP/1.1"), taken(path="/x", query="?y")),
    Case("a path that is percent-encoded", "RFC 9110 4.2.3", request(b"GET /%61b HTTP/1.1"), taken(path="/ab"), SHOULD),
    Case("a path that begins with two slashes", "RFC 9112 3.2.1", request(b"GET //b/c HTTP/1.1"), taken(path="//b/c")),
    Case("a path with a URL in it", "RFC 9112 3.2.1", request(b"GET /http://b/ HTTP/1.1"), taken(path="/http://b/")),
    invalid("a space in the target", b"GET /a b HTTP/1.1"),
    invalid("a fragment", b"GET /#a HTTP/1.1"),
    invalid("a NUL in the target", b"GET /\0 HTTP/1.1"),
    invalid("a DEL in the target", b"GET /\x7f HTTP/1.1"),
    invalid("UTF-8 in the target", b"GET /\xc3\xa9 HTTP/1.1"),
    invalid("no target", b"GET HTTP/1.1"),
    invalid("a target without a slash", b"GET a HTTP/1.1"),
    invalid("a target that is a query", b"GET ?a HTTP/1.1"),
    invalid("an asterisk for GET", b"GET * HTTP/1.1"),
    invalid("an authority for GET", b"GET a:80 HTTP/1.1"),
    invalid("two asterisks", b"OPTIONS ** HTTP/1.1"),
    Case("a request line of 8,000 bytes", "RFC 9112 3", request(b"GET /" + b"a" * 7986 + b" HTTP/1.1"), taken(path="/" + "a" * 7986), SHOULD),
    Case("a request line of 100,000 bytes", "RFC 9112 3", request(b"GET /" + b"a" * 99_986 + b" HTTP/1.1"), taken(path="/" + "a" * 99_986) + refused(414)),
)  # fmt: skip

# Of the https target: whether the client is a gateway that is trusted, as the clause allows, only the server knows.
ABSOLUTE = (
    Case("an absolute target", "RFC 9112 3.2.2", request(b"GET http://a/x?y HTTP/1.1"), taken(path="/x", query="y")),
    Case("an absolute target without a path", "RFC 9112 3.2.2", request(b"GET http://a HTTP/1.1"), taken()),
    Case("an absolute target with a query alone", "RFC 9112 3.2.2", request(b"GET http://a?y HTTP/1.1"), taken(query="y")),
    Case("an absolute target with its scheme in upper case", "RFC 9112 3.2.2", request(b"GET HTTP://a/ HTTP/1.1"), taken()),
    Case("an absolute target with an IPv6 address", "RFC 9112 3.2.2", request(b"GET http://[::1]:80/ HTTP/1.1", host=b"Host: [::1]:80"), taken()),
    Case("an absolute target without a host", "RFC 9110 4.2.1", request(b"GET http:///x HTTP/1.1", host=b"Host:"), REJECTED),
    Case("an absolute target with a port alone", "RFC 9110 4.2.1", request(b"GET http://:80/ HTTP/1.1"), REJECTED),
    Case("an absolute target with a user", "RFC 9110 4.2.4", request(b"GET http://u@a/ HTTP/1.1"), REJECTED, SHOULD),
    Case("an absolute target with a fragment", "RFC 9112 3.2.2", request(b"GET http://a/#b HTTP/1.1"), refused(400, 301), SHOULD),
    Case("an https target over an unencrypted connection", "RFC 9110 7.4", request(b"GET https://a/ HTTP/1.1"), REJECTED, SHOULD),
    Case("an absolute target over HTTP/1.0", "RFC 9112 3.2.2", request(b"GET http://a/x HTTP/1.0"), taken(path="/x", then=Then.CLOSED)),
)  # fmt: skip

VERSIONS = (
    Case("HTTP/1.0", "RFC 9112 9.3", request(b"GET / HTTP/1.0"), taken(then=Then.CLOSED)),
    Case("HTTP/1.2", "RFC 9110 2.5", request(b"GET / HTTP/1.2"), taken(), SHOULD),
    Case("HTTP/1.9", "RFC 9110 2.5", request(b"GET / HTTP/1.9"), taken(), SHOULD),
    version("HTTP/0.9 in words", b"HTTP/0.9"),
    version("HTTP/2.0", b"HTTP/2.0"),
    version("HTTP/3.0", b"HTTP/3.0"),
    version("a version in lower case", b"http/1.1"),
    version("a version of two digits", b"HTTP/1.10"),
    version("a leading zero in the version", b"HTTP/01.1"),
    version("a version without its minor", b"HTTP/1"),
    version("a version without its dot", b"HTTP/11"),
    version("a version that ends in its dot", b"HTTP/1."),
    version("a superscript digit in the version", b"HTTP/1.\xb9"),
    version("a sign in the version", b"HTTP/+1.1"),
    version("another protocol", b"HTTPS/1.1"),
    Case("HTTP/0.9", "RFC 9112 2.2", b"GET /\r\n\r\n", BAD, SHOULD),
    Case("HTTP/0.9 with fields", "RFC 9112 2.2", request(b"GET /"), BAD, SHOULD),
)

IN_FRONT = (
    Case("an empty line in front", "RFC 9112 2.2", b"\r\n" + get(), taken(), SHOULD),
    Case("two empty lines in front", "RFC 9112 2.2", b"\r\n\r\n" + get(), taken() + BAD, SHOULD),
    Case("a line feed in front", "RFC 9112 2.2", b"\n" + get(), taken() + BAD, SHOULD),
    Case("a line of white space in front", "RFC 9112 2.2", b" \r\n" + get(), BAD, SHOULD),
    Case("line feeds alone end the lines", "RFC 9112 2.2", b"GET / HTTP/1.1\nHost: a\n\n", taken() + BAD, SHOULD),
    Case("a line feed alone ends the request line", "RFC 9112 2.2", b"GET / HTTP/1.1\nHost: a\r\n\r\n", taken() + BAD, SHOULD),
    Case("a CR alone ends the request line", "RFC 9112 2.2", b"GET / HTTP/1.1\rHost: a\r\n\r\n", REJECTED),
    Case("a response instead of a request", "RFC 9112 2.2", b"HTTP/1.1 200 OK\r\nHost: a\r\n\r\n", BAD, SHOULD),
    Case("a TLS handshake", "RFC 9112 2.2", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", BAD + dropped(), SHOULD),
    Case("nonsense", "RFC 9112 2.2", b"\x00\x01\x02\x03\r\n\r\n", BAD + dropped(), SHOULD),
)  # fmt: skip

CASES = (*METHODS, *WHITE_SPACE, *TARGETS, *ABSOLUTE, *VERSIONS, *IN_FRONT)
