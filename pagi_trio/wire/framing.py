"""Frame a response: its head, and what goes around each part of its body.

The application says whether more follows; what that becomes on the wire depends on the request, on the status and on
the fields it sent. A response that would not be what its head says is refused before a byte of it is written.

Source: RFC 9110 sections 6.4.1, 8.6, 9.3.2 and 15; RFC 9112 sections 6 and 9.3.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pagi_trio.errors import AppProtocolError
from pagi_trio.wire.response import CLOSE, DATE, ResponseFields, status_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pagi_trio.wire.date import DateCache
    from pagi_trio.wire.head import RequestLine

_IS_LENGTH = re.compile(rb"(?i)content-length:").match

# How the body is framed; decided with the head.
_UNDECIDED, _EMPTY, _LENGTH, _CHUNKED, _UNTIL_CLOSE = range(5)


class ResponseFraming:
    """One response on its way out.

    Attributes:
        status: As the application gave it.
        fields: As the application gave them, checked.
        wrote_head: Whether the head has been handed out.
        ended: Whether the last part of the body has.
    """

    __slots__ = ("_framing", "_left", "_request", "_status_line", "ended", "fields", "status", "wrote_head")

    def __init__(self, request: RequestLine, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Check what the application starts its response with.

        Raises:
            AppProtocolError: If the status or a header field is none.
        """
        self._status_line = status_line(status)
        self._request = request
        self.status = status
        self.fields = ResponseFields(headers)
        if status in (204, 205):
            # Without content by definition, and without a length (RFC 9110 sections 8.6 and 15.3.6).
            self.fields.lines = [line for line in self.fields.lines if not _IS_LENGTH(line)]
        self.wrote_head = False
        self.ended = False
        self._framing = _UNDECIDED
        self._left = 0

    @property
    def has_body(self) -> bool:
        """Whether what the application gives as body goes out at all; known once the head is written."""
        return self._framing != _EMPTY

    @property
    def is_chunked(self) -> bool:
        """Whether the body goes out in chunks."""
        return self._framing == _CHUNKED

    @property
    def ends_by_close(self) -> bool:
        """Whether only the end of the connection tells the client where the body ends."""
        return self._framing == _UNTIL_CLOSE

    def head(self, size: int, *, more: bool, keep_alive: bool, date: DateCache) -> tuple[bytes, bool]:
        """Decide the framing and write the head.

        Args:
            size: Bytes of the first part of the body.
            more: Whether others follow.
            keep_alive: Whether the connection may take another request.
            date: For responses without a date of their own.

        Returns:
            The head with its blank line, and whether the connection stays.
        """
        parts = [self._status_line, *self.fields.lines]
        if not self.fields.flags & DATE:
            parts.append(date.line())
        parts.append(self._decide(size, more=more))
        if not keep_alive or self.fields.flags & CLOSE or self._framing == _UNTIL_CLOSE:
            keep_alive = False
            parts.append(b"connection: close\r\n")
        elif self._request.version == "1.0":
            parts.append(b"connection: keep-alive\r\n")
        parts.append(b"\r\n")
        return b"".join(parts), keep_alive

    def _decide(self, size: int, *, more: bool) -> bytes:
        """Decide how the body is framed; return the field line that says so, if one has to be added."""
        announced = self.fields.content_length
        if self._request.method == "HEAD" or self.status in (204, 205, 304):
            self._framing = _EMPTY
            if self.status == 205:
                return b"content-length: 0\r\n"
            return b"content-length: %d\r\n" % size if announced < 0 and size and not more else b""
        if announced >= 0:
            self._framing = _LENGTH
            self._left = announced
            return b""
        if not more:
            self._framing = _LENGTH
            self._left = size
            return b"content-length: %d\r\n" % size
        if self._request.version == "1.1":
            self._framing = _CHUNKED
            return b"transfer-encoding: chunked\r\n"
        self._framing = _UNTIL_CLOSE
        return b""

    def frame(self, body: bytes, *, more: bool) -> bytes:
        """Return what a part of the body is on the wire, the head aside.

        Raises:
            AppProtocolError: If the response would be longer or shorter than its head says.
        """
        if self.ended:
            raise AppProtocolError("the response has ended, nothing can follow")
        framing = self._framing
        if framing == _LENGTH:
            left = self._left - len(body)
            if left < 0:
                raise AppProtocolError(f"the body is {-left} bytes longer than its content-length")
            if left and not more:
                raise AppProtocolError(f"the body is {left} bytes shorter than its content-length")
            self._left = left
        elif framing == _CHUNKED:
            if more:
                body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            else:
                body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
        elif framing == _EMPTY:
            if body and self.status in (204, 205, 304):
                raise AppProtocolError(f"a response with status {self.status} has no body")
            body = b""
        self.wrote_head = True
        self.ended = not more
        return body

    @property
    def bytes_behind(self) -> int:
        """How much framing follows the bytes of the last part of the body that was framed, if it was not empty."""
        if self._framing != _CHUNKED:
            return 0
        return 7 if self.ended else 2
