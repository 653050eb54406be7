"""One hostile client: a connection, the bytes that it sends, and what it sees become of it.

What becomes of a client is a word or two: ``cut`` (the connection ended without a word), ``status 408`` (an answer, and
then the end), ``close 1009`` (a Close frame), or ``left`` where it ended the connection itself.
"""

from __future__ import annotations

import base64
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import cache

import trio

CUT = "cut"
LEFT = "left"

READ_BYTES = 65536
LOOK_S = 0.05
"""Between two looks at a connection that is not read: the kernel tells of its end, but wakes nobody for it."""

AT_ONCE = 32
"""Connections being opened at a time, fewer than the smallest backlog, so that what is measured is the attack."""

_TCP_ESTABLISHED = 1
_RESET = struct.pack("ii", 1, 0)

SEGMENT_BYTES = 1400

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

CONTINUATION, TEXT, BINARY, CLOSE, PING = 0, 1, 2, 8, 9


def request(target: str, *fields: str, method: str = "GET") -> bytes:
    """Make a request's head."""
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: x", *fields, "", ""]).encode()


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv1: bool = False, size: int | None = None) -> bytes:
    """Make a client's frame, masked with zeros, so that the payload stays as it is (RFC 6455 section 5.3).

    Args:
        size: The length it announces, if its payload is to come later.
    """
    size = len(payload) if size is None else size
    first = opcode | fin << 7 | rsv1 << 6
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + bytes(4) + payload


class RefusedError(Exception):
    """The server does not take the attack's first step; the message is what became of the client."""


class Client:
    """One connection of an attack, and everything that it may do.

    Args:
        port: Where the server listens, on the loopback.
        tls: Whether it speaks TLS.
        opening: Shared by all clients of an attack, so that not too many open connections at once.
        stand: Called once this client's part of the attack is in place.
    """

    def __init__(self, port: int, *, tls: bool, opening: trio.CapacityLimiter, stand: Callable[[], None]) -> None:
        self._port = port
        self._tls = tls
        self._opening = opening
        self._sock: trio.socket.SocketType | None = None
        self._stream: trio.abc.Stream | None = None
        self._buffer = b""
        self.stand = stand

    async def connect(self, *, window: int | None = None, encrypt: bool = True) -> None:
        """Open a connection, with TLS where the server speaks it.

        Args:
            window: Bytes the kernel takes for a client that does not read, about; unset is its default.
            encrypt: Whether to do the TLS handshake.
        """
        self._sock = trio.socket.socket()
        if window is not None:
            # And segments as on the internet: on the loopback they are so long that megabytes are under way.
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        async with self._opening:
            await self._sock.connect(("127.0.0.1", self._port))
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._stream = trio.SocketStream(self._sock)
            if self._tls and encrypt:
                self._stream = trio.SSLStream(self._stream, trusting())
                await self._stream.do_handshake()

    async def close(self) -> None:
        """Close without a word."""
        if self._sock is not None:
            self._sock.close()

    async def reset(self) -> str:
        """End the connection by a reset."""
        assert self._sock is not None
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._sock.close()
        return LEFT

    async def half_close(self) -> None:
        """Say that nothing more comes, and go on reading."""
        assert self._sock is not None
        self._sock.shutdown(socket.SHUT_WR)

    async def send(self, data: bytes) -> None:
        """Send all of it.

        Raises:
            trio.BrokenResourceError: The server has ended the connection.
        """
        assert self._stream is not None
        await self._stream.send_all(data)

    async def upgrade(self, path: str, *fields: str, extra: bytes = b"") -> None:
        """Open a WebSocket.

        Args:
            path: Where.
            fields: More header lines.
            extra: Bytes that leave together with the request.

        Raises:
            RefusedError: It is answered otherwise, or not at all.
        """
        key = base64.b64encode(bytes(16)).decode()
        upgrade = (
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
        )
        await self.send(request(path, *upgrade, *fields) + extra)
        status = await self.read_head()
        if status != 101:
            raise RefusedError(f"status {status}" if status else CUT)

    # Reading

    async def read_head(self) -> int:
        """Read the head of an answer and return its status; 0 where there is none."""
        while b"\r\n\r\n" not in self._buffer:
            if not await self._read_more():
                return 0
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1])

    async def read_answer(self, body: bytes) -> int:
        """Read a whole answer with a body that is known, and return its status; 0 where there is none."""
        status = await self.read_head()
        if status == 200:
            while len(self._buffer) < len(body):
                if not await self._read_more():
                    return 0
            self._buffer = self._buffer[len(body) :]
        return status

    async def must_answer(self, body: bytes = b"") -> None:
        """Read an answer of 200.

        Raises:
            RefusedError: It is another one, or none.
        """
        status = await self.read_answer(body)
        if status != 200:
            raise RefusedError(f"status {status}" if status else CUT)

    async def _read_more(self, most: int = READ_BYTES) -> bool:
        assert self._stream is not None
        data = await self._stream.receive_some(most)
        self._buffer += data
        return bool(data)

    # Seeing what becomes of it

    async def outcome(self) -> str:
        """Read to the end; tell whether there was an answer, and which."""
        with suppress(trio.BrokenResourceError):
            while await self._read_more():
                pass
        head = self._buffer.removeprefix(CONTINUE)
        return f"status {int(head.split(b' ', 2)[1])}" if head.startswith(b"HTTP/1.1 ") else CUT

    async def close_code(self) -> str:
        """Read a WebSocket to the server's Close frame, or its end; tell which."""
        try:
            while True:
                while (parsed := _take_frame(self._buffer)) is None:
                    if not await self._read_more():
                        return CUT
                opcode, payload, self._buffer = parsed
                if opcode == CLOSE:
                    return f"close {int.from_bytes(payload[:2], 'big') if payload else 1005}"
        except trio.BrokenResourceError:
            return CUT

    async def slowly(self, rest_s: float) -> str:
        """Read byte by byte, until the connection is no more."""
        while self._is_established:
            await self._read_more(1)
            self._buffer = b""
            await trio.sleep(rest_s)
        return CUT

    async def unread(self) -> str:
        """Read nothing, and wait until the connection is no more."""
        while self._is_established:
            await trio.sleep(LOOK_S)
        return CUT

    @property
    def _is_established(self) -> bool:
        """Whether the kernel knows of no end of the connection, be it behind bytes that are still to be read."""
        assert self._sock is not None
        return self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_ESTABLISHED

    async def while_sending(self, parts: AsyncIterator[bytes], ends: Callable[[], Awaitable[str]]) -> str:
        """Send for as long as the server goes on; stands once the first part has left.

        Args:
            parts: What to send.
            ends: What tells the end: `outcome`, `close_code` or `unread`.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_each, parts)
            ended = await ends()
            nursery.cancel_scope.cancel()
        return ended

    async def _send_each(self, parts: AsyncIterator[bytes]) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for part in parts:
                await self.send(part)
                self.stand()
        self.stand()


@cache
def trusting() -> ssl.SSLContext:
    """Make a TLS context that asks no questions."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _take_frame(data: bytes) -> tuple[int, bytes, bytes] | None:
    """Take a server's frame off: its opcode, its payload, and the bytes behind it."""
    if len(data) < 2:
        return None
    size, start = data[1], 2
    if size > 125:
        width = 2 if size == 126 else 8
        if len(data) < 2 + width:
            return None
        size, start = int.from_bytes(data[2 : 2 + width], "big"), 2 + width
    if len(data) < start + size:
        return None
    return data[0] & 0x0F, data[start : start + size], data[start + size :]


async def again(data: bytes, rest_s: float = 0.0) -> AsyncIterator[bytes]:
    """The same part, for ever."""
    while True:
        yield data
        await trio.sleep(rest_s)


async def bytewise(data: bytes, rest_s: float) -> AsyncIterator[bytes]:
    """Single bytes, with a rest after each."""
    for i in range(len(data)):
        yield data[i : i + 1]
        await trio.sleep(rest_s)
    await trio.sleep_forever()
