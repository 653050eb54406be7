"""Field lines: names, values, white space, folding, and how much of it is taken."""

from __future__ import annotations

from .case import BAD, ERRORS, REJECTED, SHOULD, Case, get, post, refused, request, taken


def value(name: str, clause: str, line: bytes, seen: str, strength: str = "MUST") -> Case:
    """A field X whose value the application sees like this."""
    return Case(name, clause, get(line), taken(fields={"x": seen}), strength)


def invalid(name: str, line: bytes) -> Case:
    return Case(name, "RFC 9112 2.2", get(line, b"Y: z"), BAD, SHOULD)


def control(name: str, byte: bytes) -> Case:
    """RFC 9110 section 5.5: invalid, though a recipient may retain it in a safe context."""
    seen = taken(fields={"x": f"a{byte.decode()}b"})
    return Case(name, "RFC 9110 5.5", get(b"X: a" + byte + b"b"), seen + BAD, SHOULD)


def folded(*seen: str) -> tuple:
    """RFC 9112 section 5.2: a 400, or one or more spaces in place of each fold."""
    return sum((taken(fields={"x": one}) for one in seen), refused(400))


COLONS = tuple(
    Case(f"{what} between the name and the colon of {line.partition(b':')[0].strip().decode()}", "RFC 9112 5.1", sent, refused(400))
    for what, line, sent in (
        ("a space", b"X : y", get(b"X : y")),
        ("a tab", b"X\t: y", get(b"X\t: y")),
        ("a space", b"Host : b", get(host=b"Host : b")),
        ("a space", b"Content-Length : 5", post(b"Content-Length : 5", body=b"hello")),
        ("a space", b"Transfer-Encoding : chunked", post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n")),
        ("a tab", b"Transfer-Encoding\t: chunked", post(b"Transfer-Encoding\t: chunked", body=b"0\r\n\r\n")),
    )
)  # fmt: skip

NAMES = (
    Case("a name in another case", "RFC 9110 5.1", get(b"x-NaMe: y"), taken(fields={"x-name": "y"})),
    Case("every character of a token in a name", "RFC 9110 5.6.2", get(b"!#$%&'*+-.^_`|~09aZ: y"), taken(fields={"!#$%&'*+-.^_`|~09az": "y"})),
    Case("an underscore is no hyphen", "RFC 9110 5.1", post(b"Content_Length: 5", b"Transfer_Encoding: chunked"), taken(method="POST") + REJECTED),
    invalid("no name", b": y"),
    invalid("no colon", b"X"),
    invalid("a space in a name", b"X Y: z"),
    invalid("a bracket in a name", b"X(: y"),
    invalid("a semicolon in a name", b"X;y: z"),
    invalid("a quoted name", b'"X": y'),
    invalid("a NUL in a name", b"X\0: y"),
    invalid("a control character in a name", b"X\x01: y"),
    invalid("UTF-8 in a name", b"\xc3\xa9: y"),
    invalid("a non-breaking space behind a name", b"X\xa0: y"),
    invalid("a line of a NUL", b"\0"),
)  # fmt: skip

VALUES = (
    value("no value", "RFC 9110 5.5", b"X:", ""),
    value("a value of white space", "RFC 9110 5.5", b"X: \t ", ""),
    value("no space behind the colon", "RFC 9112 5", b"X:y", "y"),
    value("white space in front of a value", "RFC 9110 5.5", b"X:  \t y", "y"),
    value("white space behind a value", "RFC 9110 5.5", b"X: y \t ", "y"),
    value("white space in a value", "RFC 9110 5.5", b"X: y  \t z", "y  \t z"),
    value("a colon in a value", "RFC 9112 5", b"X: y: z", "y: z"),
    value("obs-text in a value", "RFC 9110 5.5", b"X: \xe9\xff", "\xe9\xff", SHOULD),
    value("a non-breaking space is no white space", "RFC 9110 5.6.3", b"X: \xa0y\xa0", "\xa0y\xa0", SHOULD),
    Case("a field given twice stays in order", "RFC 9110 5.3", get(b"X: 1", b"Y: 2", b"x: 3"), taken(fields={"x": "1|3"}) + taken(fields={"x": "1, 3"})),
    Case("a NUL in a value", "RFC 9110 5.5", get(b"X: a\0b"), taken(fields={"x": "a b"}) + REJECTED),
    Case("a NUL behind a value", "RFC 9110 5.5", get(b"X: a\0"), taken(fields={"x": "a"}) + taken(fields={"x": "a "}) + REJECTED),
    Case("a bare CR in a value", "RFC 9112 2.2", get(b"X: a\rb"), taken(fields={"x": "a b"}) + REJECTED),
    Case("a bare CR that hides a field", "RFC 9112 2.2", get(b"X: a\rY: b"), taken(fields={"x": "a Y: b", "y": None}) + REJECTED),
    Case("a bare CR behind a value", "RFC 9112 2.2", get(b"X: a\r"), taken(fields={"x": "a"}) + taken(fields={"x": "a "}) + REJECTED),
    Case("a line feed alone ends a field", "RFC 9110 5.5", get(b"X: a\nY: b"), taken(fields={"x": "a", "y": "b"}) + taken(fields={"x": "a Y: b", "y": None}) + REJECTED),
    control("a control character in a value", b"\x01"),
    control("a vertical tab in a value", b"\x0b"),
    control("a form feed in a value", b"\x0c"),
    control("an escape in a value", b"\x1b"),
    control("a DEL in a value", b"\x7f"),
)  # fmt: skip

FOLDS = (
    Case("a value folded by a space", "RFC 9112 5.2", get(b"X: a\r\n b"), folded("a b", "a  b", "a   b")),
    Case("a value folded by a tab", "RFC 9112 5.2", get(b"X: a\r\n\tb"), folded("a b", "a  b", "a   b")),
    Case("a value folded twice", "RFC 9112 5.2", get(b"X: a\r\n b\r\n c", b"Y: z"), folded("a b c", "a  b  c")),
    Case("a value that begins with a fold", "RFC 9112 5.2", get(b"X:\r\n a"), folded("a")),
    Case("a fold with nothing behind it", "RFC 9112 5.2", get(b"X: a\r\n "), folded("a")),
    Case("a fold that looks like a field", "RFC 9112 5.2", get(b"X: a\r\n Y: b"), folded("a Y: b", "a  Y: b")),
    Case("a folded Host", "RFC 9112 3.2", get(host=b"Host: a\r\n b"), refused(400)),
    Case("a folded Content-Length", "RFC 9112 6.3", post(b"Content-Length: 1\r\n 0", body=b"0123456789"), BAD),
    Case("white space in front of the first field", "RFC 9112 2.2", b"GET / HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n", taken(fields={"x": None}) + REJECTED),
    Case("a tab in front of the first field", "RFC 9112 2.2", b"GET / HTTP/1.1\r\n\tX: y\r\nHost: a\r\n\r\n", taken(fields={"x": None}) + REJECTED),
    Case("white space in front of the only field", "RFC 9112 3.2", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", refused(400)),
    Case("a line of white space in front of the first field", "RFC 9112 2.2", b"GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n", taken() + REJECTED),
)  # fmt: skip

ENDS = (
    Case("a line feed alone ends the head", "RFC 9112 2.2", b"GET / HTTP/1.1\r\nHost: a\r\n\n", taken() + BAD, SHOULD),
    Case("line feeds alone end the fields", "RFC 9112 2.2", b"GET / HTTP/1.1\r\nHost: a\nX: y\n\r\n", taken(fields={"x": "y"}) + BAD, SHOULD),
    Case("a line feed alone in front of the empty line", "RFC 9112 2.2", b"GET / HTTP/1.1\r\nHost: a\n\r\n", taken() + BAD, SHOULD),
    Case("two CRs in front of a line feed", "RFC 9112 2.2", b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", taken() + REJECTED),
    Case("a CR and a field instead of the empty line", "RFC 9112 2.2", b"GET / HTTP/1.1\r\nHost: a\r\n\rX: y\r\n\r\n", taken() + REJECTED),
)  # fmt: skip

# RFC 9110 section 5.4: what is larger than a server wishes gets a 4xx.
LARGE = taken() + refused(*range(400, 500))

SIZES = (
    Case("a value of 4,000 bytes", "RFC 9110 2.3", get(b"X: " + b"y" * 4000), taken(fields={"x": "y" * 4000}), SHOULD),
    Case("a value of 100,000 bytes", "RFC 9110 5.4", get(b"X: " + b"y" * 100_000), LARGE),
    Case("a name of 100,000 bytes", "RFC 9110 5.4", get(b"x" * 100_000 + b": y"), LARGE),
    Case("5,000 fields", "RFC 9110 5.4", get(*[b"X: y"] * 5000), LARGE),
    Case("a request without any field", "RFC 9112 3.2", b"GET / HTTP/1.1\r\n\r\n", refused(400)),
    Case("a request line of 100,000 bytes that is no such line", "RFC 9112 2.2", request(b"a" * 100_000), refused(*ERRORS), SHOULD),
)  # fmt: skip

CASES = (*COLONS, *NAMES, *VALUES, *FOLDS, *ENDS, *SIZES)
