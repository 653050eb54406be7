"""Take request bodies out of their framing: a length announced, or chunks.

Source: RFC 9112 sections 6 and 7.
"""

from __future__ import annotations

import re
from typing import Final

from pagi_trio.errors import RequestError
from pagi_trio.wire.head import check_field_line

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED: Final = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
# Held to its grammar (RFC 9112 section 7.1.1), since whoever sees a line end inside it sees other chunks behind it.
_EXTENSION: Final = rb"[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?" % (_TOKEN, _TOKEN, _QUOTED)
# 15 hexadecimal digits stay below 2**63; more would only be read to overflow somebody else. There is one way to read
# them: 16,000 zeros before what is no digit would have 200,000.
_SIZE_LINE = re.compile(rb"(?>0*([0-9A-Fa-f]{1,15}))(?:%b)*" % _EXTENSION)

# The digits and the line end of a chunk size.
_SIZE_LINE_BYTES: Final = 17

FEED_STEPS: Final = 256
"""Lines and pieces of data taken in one go, for a millisecond: 64 KiB of one-byte chunks would keep the loop for 50."""


class LengthBody:
    """A body of an announced number of bytes.

    Attributes:
        done: Whether the last byte has been taken.
    """

    __slots__ = ("_left", "done")

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """Take what belongs to the body.

        Returns:
            The body's bytes, and how many of `data` were used; the rest is the next request's.
        """
        size = len(data)
        left = self._left
        if size < left:
            self._left = left - size
            return data, size
        self._left = 0
        self.done = True
        return (data if size == left else data[:left]), left


_SIZE, _DATA, _DATA_END, _TRAILERS = range(4)


class ChunkedBody:
    """A body in chunks.

    What it carries besides its data is bounded: without that, one-byte chunks with long extensions would multiply the
    work (CVE-2023-39326 in Go).

    Args:
        extension_max_bytes: How much longer than the data before them the chunk extensions may be. A fixed sum would
            end the long bodies of clients that sign each chunk (AWS does, with 85 bytes).
        trailer_max_bytes: The longest trailers together.

    Attributes:
        done: Whether the last chunk and its trailers have been taken.
    """

    __slots__ = (
        "_extension_bytes_left",
        "_extension_max_bytes",
        "_left",
        "_line",
        "_state",
        "_trailer_bytes_left",
        "done",
    )

    def __init__(self, extension_max_bytes: int, trailer_max_bytes: int) -> None:
        self._extension_max_bytes = self._extension_bytes_left = extension_max_bytes
        self._trailer_bytes_left = trailer_max_bytes
        self._state = _SIZE
        self._left = 0
        self._line = b""
        self.done = False

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """Take what belongs to the body; trailers are checked and dropped.

        Returns:
            The body's bytes, and how many of `data` were used; the rest is the next request's.

        Raises:
            RequestError: 400 where the framing is broken, 431 for trailers over the limit.
        """
        parts: list[bytes] = []
        position = 0
        end = len(data)
        for _ in range(FEED_STEPS):
            if position == end or self.done:
                break
            if self._state == _DATA:
                part = data[position : position + self._left]
                parts.append(part)
                position += len(part)
                self._left -= len(part)
                if self._left == 0:
                    self._state = _DATA_END
            else:
                position = self._feed_line(data, position)
        return (parts[0] if len(parts) == 1 else b"".join(parts)), position

    def _feed_line(self, data: bytes, position: int) -> int:
        """Read one line, or the part of it that is there; return where it ends."""
        end = data.find(b"\n", position)
        stop = len(data) if end < 0 else end + 1
        line = self._line + data[position:stop]
        if self._state == _DATA_END and not b"\r\n".startswith(line):
            raise RequestError(400, "a chunk does not end with CR LF")
        # Before the line has ended, since it may never do so.
        if self._state == _TRAILERS and len(line) > self._trailer_bytes_left + 2:
            raise RequestError(431, "the trailers are longer than is allowed")
        if self._state == _SIZE and len(line) > self._extension_bytes_left + _SIZE_LINE_BYTES:
            raise _long_extensions()
        if end < 0:
            self._line = line
            return stop
        self._line = b""
        if line[-2:] != b"\r\n":
            raise RequestError(400, "lines end in CR LF")
        self._read_line(line[:-2])
        return stop

    def _read_line(self, line: bytes) -> None:
        if self._state == _DATA_END:
            self._state = _SIZE
        elif self._state == _SIZE:
            match = _SIZE_LINE.fullmatch(line)
            if match is None:
                raise RequestError(400, "a chunk size is not a hexadecimal number")
            self._left = int(match[1], 16)
            extension_bytes = len(line) - len(match[1])
            if extension_bytes > self._extension_bytes_left:
                raise _long_extensions()
            # The data earns what the next extension may take, up to a bound, since a line is held until it ends.
            earned = self._extension_bytes_left - extension_bytes + self._left
            self._extension_bytes_left = min(earned, self._extension_max_bytes)
            self._state = _DATA if self._left else _TRAILERS
        elif line:
            check_field_line(line)
            self._trailer_bytes_left -= len(line)
        else:
            self.done = True


def _long_extensions() -> RequestError:
    return RequestError(400, "the chunk extensions are longer than is allowed")
