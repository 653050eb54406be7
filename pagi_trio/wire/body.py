"""Take request bodies out of their framing: a length announced, or chunks.

Source: RFC 9112 sections 6 and 7.
"""

from __future__ import annotations

import re
from typing import Final

from pagi_trio.errors import RequestError
from pagi_trio.wire.head import check_field_line

# 15 hexadecimal digits stay below 2**63; more would only be read to overflow somebody else.
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")

# What a body may carry besides its data. No known client sends extensions or trailers of more than some hundred
# bytes; without a bound, one-byte chunks with long extensions would multiply the work (CVE-2023-39326 in Go).
LINE_MAX_BYTES: Final = 4096
EXTRA_MAX_BYTES: Final = 65536

FEED_STEPS: Final = 1024
"""Lines and pieces of data taken in one go: 64 KiB of one-byte chunks would keep the loop for 50 ms."""


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

    Attributes:
        done: Whether the last chunk and its trailers have been taken.
    """

    __slots__ = ("_extra", "_left", "_line", "_state", "done")

    def __init__(self) -> None:
        self._state = _SIZE
        self._left = 0
        self._line = b""
        self._extra = 0
        self.done = False

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """Take what belongs to the body; trailers are checked and dropped.

        Returns:
            The body's bytes, and how many of `data` were used; the rest is the next request's.

        Raises:
            RequestError: 400 where the framing is broken.
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
        if len(line) > LINE_MAX_BYTES:
            raise RequestError(400, f"a chunk or trailer line is longer than {LINE_MAX_BYTES} bytes")
        if self._state == _DATA_END and not b"\r\n".startswith(line):
            raise RequestError(400, "a chunk does not end with CR LF")
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
            self._state = _DATA if self._left else _TRAILERS
            self._spend(len(line) - len(match[1]))
        elif line:
            check_field_line(line)
            self._spend(len(line))
        else:
            self.done = True

    def _spend(self, count: int) -> None:
        self._extra += count
        if self._extra > EXTRA_MAX_BYTES:
            raise RequestError(400, f"chunk extensions and trailers are longer than {EXTRA_MAX_BYTES} bytes")
