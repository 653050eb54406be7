"""A client that takes no response on trust: it says whether it got a valid one, or one that is visibly broken.

Source: RFC 9112 sections 4, 5, 6 and 9.3; RFC 9110 sections 6.4.1, 8.6 and 9.3.2.
"""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from typing import NamedTuple

import trio

STATUS_LINE = re.compile(rb"HTTP/1\.1 ([2-9][0-9]{2}) ([\t\x20-\x7e]*)")
FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
CHUNK_SIZE = re.compile(rb"[0-9a-f]{1,8}")

FINE = b"GET /fine HTTP/1.1\r\nHost: x\r\n\r\n"

LIMIT_S = 10
"""Ten times what the slowest answer of a loaded machine takes."""


class Cut(Exception):
    """The connection ended before the message did: nobody takes what came for the whole."""


class Reply(NamedTuple):
    """A valid response: its fields by their lower-case names, and whether another request may follow."""

    status: int
    fields: dict[bytes, bytes]
    body: bytes
    stays: bool


class StrictClient:
    """One connection, on which requests are made one at a time."""

    def __init__(self, stream):
        self._stream = stream
        self._buffer = b""

    async def send(self, data):
        await self._stream.send_all(data)

    async def request(self, data):
        """Send a request and read what it is answered.

        Raises:
            Cut: If the answer is visibly broken.
            AssertionError: If it is none that HTTP allows, or more follows it.
        """
        await self.send(data)
        return await self.read_reply(data)

    async def upgrade(self, handshake):
        """Open a WebSocket."""
        await self.send(handshake)
        head = await self._until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head

    async def read_frame(self):
        """Return the first byte and the payload of the next frame of a WebSocket."""
        first, size = await self._exactly(2)
        assert size < 126, f"{size} is more than a test's message has"
        return first, await self._exactly(size)

    async def close(self):
        """Answer a Close frame, behind which nothing may come (RFC 6455 section 5.5.1)."""
        await self.send(b"\x88\x80" + bytes(4))
        assert await self._rest() == b""

    async def read_reply(self, request):
        method, _, version = request.partition(b"\r\n")[0].split(b" ")
        line, *lines = (await self._until(b"\r\n\r\n")).split(b"\r\n")
        match = STATUS_LINE.fullmatch(line)
        assert match is not None, f"no status line: {line!r}"
        status = int(match[1])
        fields = {}
        for line in lines:
            match = FIELD.fullmatch(line)
            assert match is not None, f"no field line: {line!r}"
            name = match[1].lower()
            assert name not in fields, f"{name!r} is there twice"
            fields[name] = match[2].strip(b" \t")
        options = [option.strip() for option in fields.get(b"connection", b"").lower().split(b",")]
        stays = b"close" not in options and (version == b"HTTP/1.1" or b"keep-alive" in options)
        body = await self._read_body(method, version, status, fields, stays=stays)
        if not stays:
            assert await self._rest() == b"", "something follows the last response"
        return Reply(status, fields, body, stays)

    async def _read_body(self, method, version, status, fields, *, stays):
        length, coding = fields.get(b"content-length"), fields.get(b"transfer-encoding")
        assert length is None or coding is None, "both a length and a transfer coding"
        assert length is None or length.isdigit(), f"{length!r} is no length"
        assert coding is None or (coding == b"chunked" and version == b"HTTP/1.1"), f"{coding!r} to {version!r}"
        if method == b"HEAD" or status in (204, 304):
            assert status != 204 or (length is None and coding is None), "a 204 has no framing"
            return b""
        if length is not None:
            return await self._exactly(int(length))
        if coding is not None:
            return await self._chunked()
        assert not stays, "nothing tells where the body ends"
        return await self._rest()

    async def _chunked(self):
        body = b""
        while True:
            line = await self._until(b"\r\n")
            assert CHUNK_SIZE.fullmatch(line) is not None, f"{line!r} is no chunk size"
            part = await self._exactly(int(line, 16))
            assert await self._exactly(2) == b"\r\n", "a chunk is longer than its size"
            if not part:
                return body
            body += part

    async def _until(self, mark):
        while mark not in self._buffer:
            await self._more()
        data, _, self._buffer = self._buffer.partition(mark)
        return data

    async def _exactly(self, count):
        while len(self._buffer) < count:
            await self._more()
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    async def _more(self):
        data = await self._receive()
        if not data:
            raise Cut(f"the connection ended behind {self._buffer!r}")
        self._buffer += data

    async def _rest(self):
        while data := await self._receive():
            self._buffer += data
        data, self._buffer = self._buffer, b""
        return data

    async def _receive(self):
        try:
            return await self._stream.receive_some(65536)
        except trio.BrokenResourceError:
            raise Cut("the connection was reset") from None


@asynccontextmanager
async def connected(server):
    """Open a connection to a server; everything in it has a time limit."""
    with trio.fail_after(LIMIT_S):
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        async with stream:
            yield StrictClient(stream)
