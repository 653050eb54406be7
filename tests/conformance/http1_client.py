"""A client that sends bytes as they are, and reads responses more strictly than any browser does."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2}) [\t\x20-\x7e\x80-\xff]*")
FIELD_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*")
CHUNK_LINE = re.compile(rb"[0-9A-Fa-f]{1,15}")
DIGITS = re.compile(rb"[0-9]{1,15}")


class MalformedError(Exception):
    """The server sent what is no response."""


class SilentError(Exception):
    """The server sent nothing, nor did it close, within the time limit."""


class ClosedError(Exception):
    """The server has closed the connection in front of the bytes that were wanted."""


@dataclass(frozen=True)
class Response:
    """A response, taken out of its framing.

    Attributes:
        status: Its code.
        fields: Names in lower case with their values.
        body: Without framing.
        whole: Whether the body came to its end before the connection did.
        until_close: Whether only the end of the connection ends the body.
    """

    status: int
    fields: Sequence[tuple[str, str]]
    body: bytes = b""
    whole: bool = True
    until_close: bool = False

    def values(self, name: str) -> list[str]:
        return [value for other, value in self.fields if other == name]

    @property
    def is_interim(self) -> bool:
        return self.status < 200 and self.status != 101

    @property
    def says_close(self) -> bool:
        return "close" in [one.strip().lower() for value in self.values("connection") for one in value.split(",")]


class Client:
    """One connection; a context manager. Every wait in it has the time limit."""

    def __init__(self, port: int, limit_s: float) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=limit_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self.port: int = self._socket.getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, pieces: Sequence[bytes]) -> None:
        """Send pieces, each on its own; what a server does not want any more is not sent."""
        try:
            for number, piece in enumerate(pieces):
                if number:
                    # So that a server reads most pieces alone; without it, the kernel hands over dozens at a time.
                    os.sched_yield()
                self._socket.sendall(piece)
        except TimeoutError:
            raise SilentError("it does not take what is sent") from None
        except OSError:
            pass  # What it said before it closed can still be read.

    def finish(self) -> None:
        """Close the writing side."""
        with suppress(OSError):  # It may be closed.
            self._socket.shutdown(socket.SHUT_WR)

    def read_response(self, *, to_head: bool = False) -> Response | None:
        """Read the next response; None if the server has closed instead.

        Raises:
            MalformedError: If it is none.
            SilentError: If it does not come.
        """
        try:
            head = self._take_until(b"\r\n\r\n")
        except ClosedError:
            if self._buffer:
                raise MalformedError(f"it closed behind {self._buffer[:100]!r}") from None
            return None
        status, fields = read_head(head)
        response = Response(status, fields)
        if to_head or status < 200 or status in (204, 304):
            return response
        try:
            return Response(status, fields, self._take_body(response))
        except ClosedError:
            by_close = not response.values("content-length") and not response.values("transfer-encoding")
            body, self._buffer = self._buffer, b""
            return Response(status, fields, body, whole=by_close, until_close=by_close)

    def read_bytes(self, count: int) -> bytes:
        """Read so many bytes, or fewer if the server closes before."""
        try:
            return self._take(count)
        except ClosedError:
            return self._buffer

    def _take_body(self, response: Response) -> bytes:
        lengths, codings = response.values("content-length"), response.values("transfer-encoding")
        if lengths and codings:
            raise MalformedError("a response has Content-Length and Transfer-Encoding")
        if codings:
            if [one.lower() for one in codings] != ["chunked"]:
                raise MalformedError(f"a response has the transfer coding {codings}")
            return self._take_chunks()
        if lengths:
            if len(lengths) > 1 or DIGITS.fullmatch(lengths[0].encode("latin-1")) is None:
                raise MalformedError(f"a response has the length {lengths}")
            return self._take(int(lengths[0]))
        while True:
            self._read_more()

    def _take_chunks(self) -> bytes:
        body = b""
        while True:
            line = self._take_until(b"\r\n")
            if CHUNK_LINE.fullmatch(line) is None:
                raise MalformedError(f"a chunk begins with {line[:100]!r}")
            size = int(line, 16)
            body += self._take(size)
            if self._take(2) != b"\r\n":
                raise MalformedError("a chunk does not end with CR LF")
            if not size:
                return body

    def _take_until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            self._read_more()
        data, _, self._buffer = self._buffer.partition(mark)
        return data

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._read_more()
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def _read_more(self) -> None:
        try:
            data = self._socket.recv(65536)
        except TimeoutError:
            raise SilentError(f"it neither answers nor closes, behind {self._buffer[:100]!r}") from None
        except OSError:
            data = b""
        if not data:
            raise ClosedError
        self._buffer += data


def read_head(head: bytes) -> tuple[int, list[tuple[str, str]]]:
    """Return the status and the fields of a response.

    Raises:
        MalformedError: If it is no head.
    """
    first, *lines = head.split(b"\r\n")
    match = STATUS_LINE.fullmatch(first)
    if match is None:
        raise MalformedError(f"a response begins with {first[:100]!r}")
    fields = []
    for line in lines:
        field = FIELD_LINE.fullmatch(line)
        if field is None:
            raise MalformedError(f"a response has the field line {line[:100]!r}")
        fields.append((field[1].decode().lower(), field[2].decode("latin-1")))
    return int(match[1]), fields


def calls_from(server_port: int, client_port: int, limit_s: float) -> list[dict]:
    """Ask which calls of the application were for the connection that a client had from this port."""
    with Client(server_port, limit_s) as client:
        client.send([b"GET /-/calls?%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % client_port])
        response = client.read_response()
    if response is None or response.status != 200 or not response.whole:
        raise MalformedError("it does not say which calls there were")
    calls: list[dict] = json.loads(response.body)
    return calls
