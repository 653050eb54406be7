"""Content-Length: what is a number of bytes, and what becomes of a body that is not as long as that."""

from __future__ import annotations

from .case import (
    BAD,
    ERRORS,
    SHOULD,
    Allowed,
    Case,
    Outcome,
    Step,
    Then,
    chunked,
    dropped,
    get,
    post,
    refused,
    request,
    taken,
)

HELLO = taken(method="POST", body=b"hello")


def length(value: bytes) -> bytes:
    return post(b"Content-Length:" + value, body=b"hello")


def invalid(name: str, value: bytes) -> Case:
    """RFC 9112 section 6.3: a 400, and the connection ends, since nobody knows where the body does."""
    return Case(name, "RFC 9112 6.3", length(b" " + value), BAD)


def repeated(name: str, *values: bytes) -> Case:
    """The same number several times may be taken for one (RFC 9112 section 6.3)."""
    return Case(name, "RFC 9112 6.3", post(*values, body=b"hello"), HELLO + BAD)


def too_large(name: str, value: bytes) -> Case:
    """RFC 9110 section 8.6: no overflow; five bytes are not all of such a body."""
    clause = "RFC 9110 8.6"
    return Case(name, clause, (length(b" " + value), Step.FINISH), UNFINISHED)


# RFC 9112 section 8: a server may answer with an error before it closes.
UNFINISHED: Allowed = refused(*ERRORS, then=Then.CLOSED, begun=True) + dropped(begun=True)

VALID = (
    Case("a body", "RFC 9112 6.3", length(b" 5"), HELLO),
    Case("no white space in front of the length", "RFC 9112 5", length(b"5"), HELLO),
    Case("white space around the length", "RFC 9110 5.5", length(b" \t 5 \t"), HELLO),
    Case("the name in another case", "RFC 9110 5.1", post(b"cOnTeNt-lEnGtH: 5", body=b"hello"), HELLO),
    Case("a length of 0", "RFC 9112 6.3", post(b"Content-Length: 0"), taken(method="POST")),
    Case("leading zeros", "RFC 9110 8.6", length(b" 0005"), HELLO),
    Case("25 digits, all but one of them zeros", "RFC 9110 8.6", length(b" " + b"0" * 24 + b"5"), HELLO, SHOULD),
    Case("a POST without a length has no body", "RFC 9112 6.3", post(), taken(method="POST")),
    Case("a body of 100,000 bytes", "RFC 9112 6.3", post(b"Content-Length: 100000", body=b"x" * 100_000), taken(method="POST", body=b"x" * 100_000)),
    Case("a body of every byte", "RFC 9112 6.3", post(b"Content-Length: 256", body=bytes(range(256))), taken(method="POST", body=bytes(range(256)))),
    Case("a body over HTTP/1.0", "RFC 9112 6.3", request(b"POST / HTTP/1.0", b"Content-Length: 5", body=b"hello"), taken(method="POST", body=b"hello", then=Then.CLOSED)),
    Case("a body of a GET", "RFC 9110 9.3.1", get(b"Content-Length: 5") + b"hello", taken(body=b"hello") + refused(*range(400, 500), then=Then.CLOSED)),
)  # fmt: skip

INVALID = (
    invalid("no length", b""),
    invalid("a plus sign", b"+5"),
    invalid("a minus sign", b"-5"),
    invalid("minus zero", b"-0"),
    invalid("an underscore", b"0_5"),
    invalid("a fraction", b"5.0"),
    invalid("an exponent", b"5e0"),
    invalid("a hexadecimal number", b"0x5"),
    invalid("a hexadecimal digit", b"a"),
    invalid("a word", b"five"),
    invalid("two numbers", b"5 5"),
    invalid("a semicolon behind the number", b"5;"),
    invalid("a quoted number", b'"5"'),
    invalid("a superscript digit", b"\xb2"),
    invalid("an Arabic digit", b"\xd9\xa5"),
    invalid("a full-width digit", b"\xef\xbc\x95"),
    invalid("a non-breaking space in front", b"\xa05"),
    invalid("a non-breaking space behind", b"5\xa0"),
    invalid("a vertical tab behind", b"5\x0b"),
    invalid("a form feed in front", b"\x0c5"),
    invalid("5,000 digits and a letter", b"1" * 5000 + b"a"),
    invalid("a list of two lengths", b"5, 6"),
    invalid("a list with a word", b"5, five"),
    invalid("a list with a sign", b"5, +5"),
    Case("two lengths", "RFC 9112 6.3", post(b"Content-Length: 5", b"Content-Length: 6", body=b"hello!"), BAD),
    Case("two lengths, the longer one first", "RFC 9112 6.3", post(b"Content-Length: 6", b"Content-Length: 5", body=b"hello!"), BAD),
    Case("two lengths far apart", "RFC 9112 6.3", post(b"Content-Length: 0", b"X: y", b"content-length: 5", body=b"hello"), BAD),
    Case("a length and one with a sign", "RFC 9112 6.3", post(b"Content-Length: 5", b"Content-Length: +5", body=b"hello"), BAD),
    Case("two lengths over HTTP/1.0", "RFC 9112 6.3", request(b"POST / HTTP/1.0", b"Content-Length: 5", b"Content-Length: 6", body=b"hello!"), BAD),
    Case("an invalid length of a GET", "RFC 9112 6.3", get(b"Content-Length: -1"), BAD),
)  # fmt: skip

REPEATED = (
    repeated("a length twice in a list", b"Content-Length: 5, 5"),
    repeated("a length twice in a list without a space", b"Content-Length: 5,5"),
    repeated("a list that ends in a comma", b"Content-Length: 5,"),
    repeated("a list that begins with a comma", b"Content-Length: ,5"),
    repeated("a length twice", b"Content-Length: 5", b"Content-Length: 5"),
    repeated("a length twice with leading zeros", b"Content-Length: 5", b"Content-Length: 05"),
    repeated("a length three times", b"Content-Length: 5, 5", b"Content-Length: 5"),
)

OVERFLOWS = (
    too_large("5 more than 32 bits hold", b"%d" % (2**32 + 5)),
    too_large("5 more than 63 bits hold", b"%d" % (2**63 + 5)),
    too_large("5 more than 64 bits hold", b"%d" % (2**64 + 5)),
    too_large("5 more than 128 bits hold", b"%d" % (2**128 + 5)),
    too_large("5,000 digits", b"1" + b"0" * 4998 + b"5"),
)

INCOMPLETE = (
    Case("a body that ends too early", "RFC 9112 6.3", (length(b" 6"), Step.FINISH), UNFINISHED),
    Case("a body that does not come", "RFC 9112 6.3", (post(b"Content-Length: 5"), Step.FINISH), UNFINISHED),
    Case("a chunked body that does not come", "RFC 9112 8", (chunked(b""), Step.FINISH), UNFINISHED, SHOULD),
    Case("a chunk size that breaks off", "RFC 9112 8", (chunked(b"5"), Step.FINISH), UNFINISHED, SHOULD),
    Case("a chunk that breaks off", "RFC 9112 8", (chunked(b"5\r\nhel"), Step.FINISH), UNFINISHED, SHOULD),
    Case("a chunk without the last chunk", "RFC 9112 8", (chunked(b"5\r\nhello\r\n"), Step.FINISH), UNFINISHED, SHOULD),
    Case("a last chunk that breaks off", "RFC 9112 8", (chunked(b"5\r\nhello\r\n0"), Step.FINISH), UNFINISHED, SHOULD),
    Case("a last chunk without the empty line", "RFC 9112 8", (chunked(b"5\r\nhello\r\n0\r\n"), Step.FINISH), UNFINISHED, SHOULD),
    Case("trailers without the empty line", "RFC 9112 8", (chunked(b"5\r\nhello\r\n0\r\nX: y\r\n"), Step.FINISH), UNFINISHED, SHOULD),
    Case(
        "the first body ends too early, after a request",
        "RFC 9112 6.3",
        (get() + length(b" 6"), Step.FINISH),
        tuple(Outcome(taken()[0].answers + one.answers, one.then, one.begun) for one in UNFINISHED),
    ),
)  # fmt: skip

CASES = (*VALID, *INVALID, *REPEATED, *OVERFLOWS, *INCOMPLETE)
