"""Write HTTP/1.1 response heads, and check what an application puts into them.

As with requests, a bounded memo maps a field that was validated once to its line and what that line means.

Source: RFC 9110 sections 5, 6.6 and 15; RFC 9112 sections 4, 6 and 9.6.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from pagi_trio.errors import AppProtocolError
from pagi_trio.wire.sse import is_event_stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

# What a field of the application means for the response, as bits.
LENGTH: Final = 1
DATE: Final = 2
CLOSE: Final = 4
EVENT_STREAM: Final = 8
ENCODED: Final = 16
DROP: Final = 32

_MEMO_FIELDS: Final = 2048
_MEMO_FIELD_BYTES: Final = 256

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_DIGITS = re.compile(rb"[0-9]{1,19}")

# Python 3.11 has the names of RFC 7231 for these.
_PHRASES: Final = {413: "Content Too Large", 414: "URI Too Long", 422: "Unprocessable Content"}

_STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, _PHRASES.get(status.value, status.phrase).encode("ascii"))
    for status in HTTPStatus
    if status >= 200
}

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_fields: dict[tuple[bytes, bytes], tuple[bytes, int]] = {}


def status_line(status: int) -> bytes:
    """Return the status line of a final response, with its line end.

    Raises:
        AppProtocolError: If the status is not a final one.
    """
    # Looked up by type as well: 200.0 would be found, since it equals 200.
    line = _STATUS_LINES.get(status) if type(status) is int else None
    if line is None:
        if not isinstance(status, int) or isinstance(status, bool) or not 200 <= status <= 999:
            raise AppProtocolError(f"the status of a response must be an int from 200 to 999, not {status!r}")
        line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
    return line


class ResponseFields:
    """The header fields of one response, checked.

    Attributes:
        lines: Each field as a line with its end; those that are the server's to write are empty.
        flags: The bits above.
        content_length: Bytes of body that the application announced; -1 if it announced none.
    """

    __slots__ = ("content_length", "flags", "lines")

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Check the fields that an application gave.

        Raises:
            AppProtocolError: If a name is not a token, a value has control characters, either is not bytes, or
                the framing they ask for is contradictory.
        """
        self.content_length = -1
        flags = 0
        lines: list[bytes] = []
        for field in headers:
            try:
                known = _fields.get(field)
            except TypeError:  # a list, which ASGI allows as well
                known = None
            line, meaning = known if known is not None else _read_field(field)
            if meaning:
                if meaning & LENGTH:
                    if flags & LENGTH:
                        raise AppProtocolError("content-length is given twice")
                    self.content_length = int(field[1])
                flags |= meaning
            lines.append(line)
        self.flags = flags
        self.lines = lines


def _read_field(field: tuple[bytes, bytes]) -> tuple[bytes, int]:
    if not isinstance(field, (tuple, list)) or len(field) != 2:
        raise AppProtocolError(f"a header must be a pair of name and value, both bytes, not {type(field).__name__}")
    name, value = field
    # The value is not shown: it may be a cookie.
    if not isinstance(name, bytes):
        raise AppProtocolError(f"a header name must be bytes, not {name!r}")
    if not isinstance(value, bytes):
        raise AppProtocolError(f"the value of the header {name!r} must be bytes, not {type(value).__name__}")
    if _NAME.fullmatch(name) is None:
        raise AppProtocolError(f"{name!r} is not a header name")
    if _VALUE.fullmatch(value) is None:
        raise AppProtocolError(f"the value of {name!r} has control characters, such as the end of a line")
    read = _READERS.get(name.lower())
    line = b"%s: %s\r\n" % (name, value)
    meaning = 0
    if read is not None:
        meaning = read(value)
        if meaning & DROP:
            line = b""
    if len(line) <= _MEMO_FIELD_BYTES:
        if len(_fields) >= _MEMO_FIELDS:
            _fields.clear()
        _fields[name, value] = line, meaning
    return line, meaning


def _read_length(value: bytes) -> int:
    if _DIGITS.fullmatch(value) is None:
        raise AppProtocolError(f"content-length must be a number of bytes, not {value!r}")
    return LENGTH


def _read_connection(value: bytes) -> int:
    # Whether the connection stays is the server's to say; an application may only ask for its end.
    options = [option.strip(b" \t") for option in value.lower().split(b",")]
    return DROP | CLOSE if b"close" in options else DROP


def _read_transfer_encoding(value: bytes) -> int:
    # Framing is the server's as well.
    if value.lower() != b"chunked":
        raise AppProtocolError(f"transfer-encoding is the server's to choose, leave it out: {value!r} cannot be had")
    return DROP


_READERS: Final[Mapping[bytes, Callable[[bytes], int]]] = {
    b"content-length": _read_length,
    b"date": lambda _: DATE,
    b"connection": _read_connection,
    b"transfer-encoding": _read_transfer_encoding,
    b"content-type": lambda value: EVENT_STREAM if is_event_stream(value) else 0,
    b"content-encoding": lambda value: 0 if value.lower() == b"identity" else ENCODED,
}


def error_response(status: int, reason: str, date: bytes, extra: bytes = b"", *, to_head: bool = False) -> bytes:
    """Write a whole response that ends the connection.

    Args:
        status: Of a client or server error.
        reason: A sentence for whoever reads the answer.
        date: The date line.
        extra: More field lines, ends included.
        to_head: Whether it answers a HEAD: then its length is that of the answer to a GET, and nothing follows (RFC
            9110 section 9.3.2).
    """
    body = reason.encode("utf-8") + b"\n"
    head = (
        status_line(status),
        date,
        b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n" % len(body),
        extra,
        # RFC 9110 section 7.8: a message with Upgrade says so in Connection.
        b"connection: close, upgrade\r\n\r\n" if b"upgrade:" in extra else b"connection: close\r\n\r\n",
    )
    return b"".join(head if to_head else (*head, body))


def body_bytes(answer: bytes) -> int:
    """Return how long the body of a whole response is."""
    return len(answer.partition(b"\r\n\r\n")[2])
