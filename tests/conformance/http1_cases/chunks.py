"""Chunks: sizes, data, line ends, extensions."""

from __future__ import annotations

from .case import BAD_BODY, REJECTED_BODY, SHOULD, Case, Step, chunked, refused, taken

LAST = b"0\r\n\r\n"
HELLO = taken(method="POST", body=b"hello")


def valid(name: str, body: bytes, data: bytes = b"hello", strength: str = "MUST") -> Case:
    return Case(name, "RFC 9112 7.1", chunked(body), taken(method="POST", body=data), strength)


def sized(name: str, size: bytes) -> Case:
    """A size line that the grammar does not allow, in front of five bytes."""
    return Case(name, "RFC 9112 7.1", chunked(size + b"\r\nhello\r\n" + LAST), BAD_BODY, SHOULD)


def broken(name: str, body: bytes) -> Case:
    return Case(name, "RFC 9112 7.1", chunked(body), BAD_BODY, SHOULD)


def too_large(name: str, size: bytes) -> Case:
    """RFC 9112 section 7.1: no overflow; five bytes are not all of such a chunk."""
    return Case(name, "RFC 9112 7.1", (chunked(size + b"\r\nhello\r\n" + LAST), Step.FINISH), REJECTED_BODY)


def extended(name: str, extension: bytes, clause: str = "RFC 9112 7.1.1") -> Case:
    """A valid extension, which must be ignored."""
    return Case(name, clause, chunked(b"5" + extension + b"\r\nhello\r\n0" + extension + b"\r\n\r\n"), HELLO)


def malformed(name: str, extension: bytes) -> Case:
    return Case(name, "RFC 9112 7.1.1", chunked(b"5" + extension + b"\r\nhello\r\n" + LAST), BAD_BODY, SHOULD)


SIZES = (
    valid("one chunk", b"5\r\nhello\r\n" + LAST),
    valid("two chunks", b"2\r\nhe\r\n3\r\nllo\r\n" + LAST),
    valid("no chunk", LAST, b""),
    valid("a size in lower case", b"a\r\n0123456789\r\n" + LAST, b"0123456789"),
    valid("a size in upper case", b"A\r\n0123456789\r\n" + LAST, b"0123456789"),
    valid("a size of two digits", b"1f\r\n" + b"x" * 31 + b"\r\n" + LAST, b"x" * 31),
    valid("leading zeros", b"0005\r\nhello\r\n" + LAST),
    valid("a size of 21 digits, all but one of them zeros", b"0" * 20 + b"5\r\nhello\r\n" + LAST, strength=SHOULD),
    valid("a last chunk of several zeros", b"5\r\nhello\r\n000\r\n\r\n"),
    valid("200 chunks of a byte", b"1\r\nx\r\n" * 200 + LAST, b"x" * 200),
    valid("a chunk of 100,000 bytes", b"186a0\r\n" + b"x" * 100_000 + b"\r\n" + LAST, b"x" * 100_000),
    valid("line ends in the data", b"6\r\n\r\n\r\n\r\n\r\n" + LAST, b"\r\n\r\n\r\n"),
    valid("a last chunk in the data", b"5\r\n" + LAST + b"\r\n" + LAST, LAST),
    valid("every byte in the data", b"100\r\n" + bytes(range(256)) + b"\r\n" + LAST, bytes(range(256))),
    sized("no size", b""),
    sized("an extension without a size", b";a=b"),
    sized("a word", b"hello"),
    sized("a digit that is not hexadecimal", b"5g"),
    sized("0x in front", b"0x5"),
    sized("a plus sign", b"+5"),
    sized("a minus sign", b"-5"),
    sized("an underscore", b"0_5"),
    sized("a fraction", b"5.0"),
    sized("white space in front", b" 5"),
    sized("a tab in front", b"\t5"),
    sized("a NUL behind", b"5\0"),
    sized("a non-breaking space behind", b"5\xa0"),
    sized("a vertical tab behind", b"5\x0b"),
    sized("an Arabic digit", b"\xd9\xa5"),
    sized("two sizes", b"5 5"),
    Case("white space behind the size", "RFC 9112 7.1", chunked(b"5 \r\nhello\r\n" + LAST), BAD_BODY + HELLO, SHOULD),
    too_large("5 more than 32 bits hold", b"100000005"),
    too_large("5 more than 63 bits hold", b"8000000000000005"),
    too_large("5 more than 64 bits hold", b"10000000000000005"),
    too_large("all that 64 bits hold", b"ffffffffffffffff"),
    too_large("a size of 5,000 digits", b"1" + b"0" * 4998 + b"5"),
)  # fmt: skip

LINES = (
    broken("nothing between the data and the next size", b"5\r\nhello0\r\n\r\n"),
    broken("other bytes instead of the end of a chunk", b"5\r\nhelloXX" + LAST),
    broken("more data than the size says", b"4\r\nhello\r\n" + LAST),
    broken("less data than the size says", b"6\r\nhello\r\n" + LAST),
    broken("a line feed alone behind the size", b"5\nhello\r\n" + LAST),
    broken("a line feed alone behind the data", b"5\r\nhello\n" + LAST),
    broken("a line feed alone behind the last size", b"5\r\nhello\r\n0\n\r\n"),
    broken("an empty line in front of the size", b"\r\n5\r\nhello\r\n" + LAST),
    broken("an empty line between chunks", b"5\r\nhello\r\n\r\n" + LAST),
    Case("a CR alone behind the size", "RFC 9112 2.2", chunked(b"5\rhello\r\n" + LAST), REJECTED_BODY),
    Case("a CR alone behind the data", "RFC 9112 2.2", chunked(b"5\r\nhello\r" + LAST), REJECTED_BODY),
    Case("two CRs behind the size", "RFC 9112 2.2", chunked(b"5\r\r\nhello\r\n" + LAST), REJECTED_BODY + HELLO),
    Case("two CRs behind the data", "RFC 9112 2.2", chunked(b"5\r\nhello\r\r\n" + LAST), REJECTED_BODY),
    Case("a line feed alone at the end", "RFC 9112 2.2", chunked(b"5\r\nhello\r\n0\r\n\n"), BAD_BODY + HELLO, SHOULD),
)  # fmt: skip

EXTENSIONS = (
    extended("an extension", b";a=b"),
    extended("an extension without a value", b";a"),
    extended("an extension with a quoted value", b';a="b"'),
    extended("an extension with an empty quoted value", b';a=""'),
    extended("an extension with separators in its quotes", b';a="b;c=d, e"'),
    extended("an extension with quoted quotes", b';a="b\\"c"'),
    extended("an extension with obs-text in its quotes", b';a="\xe9"'),
    extended("several extensions", b";a;b=c;d=e"),
    extended("white space around the parts of an extension", b" ; a = b\t;\tc", "RFC 9110 5.6.3"),
    malformed("a semicolon alone", b";"),
    malformed("an extension without a name", b";=b"),
    malformed("an extension without the value", b";a="),
    malformed("an extension of two words", b";a b"),
    malformed("a comma between extensions", b";a,b"),
    malformed("quotes that do not end", b';a="b'),
    malformed("quotes that end twice", b';a="b""'),
    malformed("a line end in the quotes", b';a="b\r\nc"'),
    malformed("a line feed in an extension", b";a\nb"),
    malformed("a line feed in the quotes", b';a="b\nc"'),
    malformed("a NUL in an extension", b";a\0"),
    malformed("a control character in an extension", b";a\x01"),
    Case("a CR in an extension", "RFC 9112 2.2", chunked(b"5;a\rb\r\nhello\r\n" + LAST), REJECTED_BODY),
    Case("an extension of 1,000 bytes", "RFC 9112 7.1.1", chunked(b"5;a=" + b"b" * 996 + b"\r\nhello\r\n" + LAST), HELLO, SHOULD),
    Case("an extension of 100,000 bytes", "RFC 9112 7.1.1", chunked(b"5;a=" + b"b" * 100_000 + b"\r\nhello\r\n" + LAST), HELLO + refused(*range(400, 500), begun=True)),
    Case("1,000 extensions of 100 bytes", "RFC 9112 7.1.1", chunked((b"1;a=" + b"b" * 97 + b"\r\nx\r\n") * 1000 + LAST), taken(method="POST", body=b"x" * 1000) + refused(*range(400, 500), begun=True)),
)  # fmt: skip

CASES = (*SIZES, *LINES, *EXTENSIONS)
