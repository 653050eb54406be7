"""Clients that count exactly what they send and get, over raw sockets, and know how each connection ended."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import NamedTuple

import trio

GRACE_S = 0.5
"""A worker that dies may take what it has counted in the last 50 ms along; a busy machine gets ten times that."""

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
MASK = b"\0\0\0\0"
"""A client's frames are masked; by this one they stay as they are."""

CLOSE = b"\x88\x82" + MASK + b"\x03\xe8"

EVENTS = 20


class CutError(Exception):
    """A connection ended where something was still to come."""


class Response(NamedTuple):
    status: int
    headers: dict
    body: bytes


class Connection:
    """A connection that reads what it expects, or says that it was cut."""

    def __init__(self, stream):
        self._stream = stream
        self._buffer = bytearray()

    @classmethod
    async def open(cls, port):
        sock = trio.socket.socket()
        try:
            await sock.connect(("127.0.0.1", port))
        except OSError as error:
            sock.close()
            raise CutError("it was refused") from error
        return cls(trio.SocketStream(sock))

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await trio.aclose_forcefully(self._stream)

    async def send(self, data):
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError:
            raise CutError("it was reset") from None

    async def _read(self):
        try:
            data = await self._stream.receive_some(65536)
        except trio.BrokenResourceError:
            raise CutError("it was reset") from None
        if not data:
            raise CutError("it was closed")
        self._buffer += data

    async def until(self, mark):
        while (end := self._buffer.find(mark)) < 0:
            await self._read()
        return self._take(end + len(mark))

    async def exactly(self, count):
        while len(self._buffer) < count:
            await self._read()
        return self._take(count)

    def _take(self, count):
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    async def wait_closed(self):
        """Read to the end, where nothing may come any more."""
        try:
            await self._read()
        except CutError:
            return
        raise AssertionError(f"something came after the end: {bytes(self._buffer)!r}")

    async def head(self):
        first, *lines = (await self.until(b"\r\n\r\n")).rstrip().split(b"\r\n")
        return Response(int(first.split(b" ")[1]), dict(line.split(b": ", 1) for line in lines), b"")

    async def response(self):
        head = await self.head()
        if head.headers.get(b"transfer-encoding") != b"chunked":
            return head._replace(body=await self.exactly(int(head.headers[b"content-length"])))
        chunks = []
        while size := int(await self.until(b"\r\n"), 16):
            chunks.append((await self.exactly(size + 2))[:-2])
        await self.exactly(2)
        return head._replace(body=b"".join(chunks))

    async def get(self, path):
        await self.send(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
        return await self.response()

    async def frame(self):
        """Return the next frame that is not a ping: its first byte and its payload, of which there is little."""
        while True:
            first, size = await self.exactly(2)
            payload = await self.exactly(size)
            if first != 0x89:
                return first, payload
            await self.send(bytes([0x8A, 0x80 | size]) + MASK + payload)


@dataclass
class Counts:
    """What a client has done.

    Attributes:
        used: Connections over which something came back.
        small: Requests for at most a quarter of four.
        proven: WebSocket sessions in which something came back, so that they were counted before.
    """

    connections: int = 0
    used: int = 0
    requests: int = 0
    answers: int = 0
    size: int = 0
    small: int = 0
    asked_streams: int = 0
    streams: int = 0
    events: int = 0
    stream_bytes: int = 0
    sessions: int = 0
    proven: int = 0
    sent: int = 0
    sent_bytes: int = 0
    received: int = 0
    received_bytes: int = 0

    def add(self, other):
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


class _Session:
    """One connection: what it has counted, and what of that was the last."""

    def __init__(self):
        self.counts = Counts(connections=1)
        self._recent = deque()

    @property
    def is_used(self):
        """Whether anything has come back."""
        return bool(self.counts.answers or self._recent)

    def count(self, **amounts):
        """Count something that is complete."""
        counts = Counts(**amounts)
        self.counts.add(counts)
        now = trio.current_time()
        self._recent.append((now, counts))
        while self._recent[0][0] < now - GRACE_S:
            self._recent.popleft()

    def late(self, within_s):
        """Return what was counted within the last moments before the last of it."""
        total = Counts()
        for at, counts in self._recent:
            if at >= self._recent[-1][0] - within_s:
                total.add(counts)
        return total


class Crowd:
    """Clients of one server, and what they have counted.

    Args:
        port: Where the server is.
        rest_s: How long each rests between two requests or messages.

    Attributes:
        done: By connections that ended as they should.
        cut: By those that did not.
        late: The part of that which came within the last moments.
        late_50: The same, within 50 ms.
        failed: Requests without an answer, and why.
        echoed: Messages that came back, on connections that are still open as well.
        workers: The workers that open WebSockets are on, with how many each has.
        units: How many requests, streams and messages there were.
    """

    def __init__(self, port, rest_s=0.0):
        self._port = port
        self._rest_s = rest_s
        self._stop = trio.Event()
        self._resumed = trio.Event()
        self._resumed.set()
        self._busy = 0
        self.done = Counts()
        self.cut = Counts()
        self.late = Counts()
        self.late_50 = Counts()
        self.echoed = 0
        self.failed = []
        self.workers = {}
        self.units = 0

    def stop(self):
        """Let every client end properly."""
        self._stop.set()
        self._resumed.set()

    async def pause(self):
        """Let all be silent, on connections that stay open."""
        self._resumed = trio.Event()
        # Whoever was let through a moment ago begins in its next turn.
        for _ in range(2):
            await trio.lowlevel.checkpoint()
        while self._busy:
            await trio.sleep(0.001)

    def resume(self):
        self._resumed.set()

    async def wait_units(self, count):
        """Wait until this much more has been done."""
        goal = self.units + count
        while self.units < goal:
            await trio.sleep(0.001)

    async def _rest(self):
        if self._rest_s:
            await trio.sleep(self._rest_s)
        await self._resumed.wait()

    @contextmanager
    def _unit(self):
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            self.units += 1

    async def _sessions(self, speak):
        """Have one connection after the other."""
        while not self._stop.is_set():
            session = _Session()
            try:
                async with await Connection.open(self._port) as connection:
                    await speak(connection, session)
            except CutError as error:
                session.counts.used = session.is_used
                self.cut.add(session.counts)
                self.late.add(session.late(GRACE_S))
                self.late_50.add(session.late(0.05))
                counts = session.counts
                if counts.requests > counts.answers or counts.asked_streams > counts.streams:
                    self.failed.append(f"{speak.__name__}: {error}")
            else:
                self.done.add(session.counts)

    # HTTP

    async def keep_alive(self):
        """Send requests over connections that are kept."""
        await self._sessions(self._requests)

    async def once(self):
        """Have a connection for each request."""
        await self._sessions(self._request_once)

    async def _requests(self, connection, session):
        while not self._stop.is_set():
            await self._rest()
            if await self._request(connection, session.counts, b"keep-alive"):
                return

    async def _request_once(self, connection, session):
        await self._rest()
        assert await self._request(connection, session.counts, b"close")
        await connection.wait_closed()

    async def _request(self, connection, counts, wish):
        """Send a request; return whether the server closes the connection."""
        with self._unit():
            size = counts.requests % 12
            counts.requests += 1
            await connection.send(b"GET /?%d HTTP/1.1\r\nHost: x\r\nConnection: %s\r\n\r\n" % (size, wish))
            response = await connection.response()
            assert response.status == 200
            assert response.body == b"x" * size
            counts.answers += 1
            counts.size += size
            counts.small += size <= 4
        return response.headers.get(b"connection") == b"close"

    # Server-sent events

    async def listen(self):
        """Read event streams, each to its end."""
        await self._sessions(self._streams)

    async def _streams(self, connection, session):
        expected = b"".join(b"data: %d\n\n" % number for number in range(EVENTS))
        while not self._stop.is_set():
            await self._rest()
            with self._unit():
                session.counts.asked_streams += 1
                response = await connection.get(f"/events?{EVENTS}")
                # A server that stops ends a stream early, and properly.
                assert expected.startswith(response.body)
                events = response.body.count(b"\n\n")
                session.count(streams=1, events=events, stream_bytes=len(response.body))
            if events < EVENTS:
                return
            if response.headers.get(b"connection") == b"close":
                return

    # WebSocket

    async def talk(self):
        """Send messages and get them back; whichever side closes does so by a handshake."""
        await self._sessions(self._conversation)

    async def _conversation(self, connection, session):
        with self._unit():
            await connection.send(HANDSHAKE)
            head = await connection.head()
            assert head.status == 101
            session.counts.sessions += 1
        worker = int(head.headers[b"x-worker"])
        self.workers[worker] = self.workers.get(worker, 0) + 1
        try:
            while not self._stop.is_set():
                await self._rest()
                if not await self._message(connection, session):
                    await connection.send(CLOSE)
                    await connection.wait_closed()
                    return
            await connection.send(CLOSE)
            while (await connection.frame())[0] != 0x88:
                pass
            await connection.wait_closed()
        finally:
            self.workers[worker] -= 1

    async def _message(self, connection, session):
        """Send a message, and get it back or a Close frame; return whether it came back."""
        counts = session.counts
        with self._unit():
            payload = b"m" * (counts.sent % 60 + 1)
            await connection.send(b"\x82" + bytes([0x80 | len(payload)]) + MASK + payload)
            counts.sent += 1
            counts.sent_bytes += len(payload)
            first, got = await connection.frame()
            if first == 0x88:
                return False
            assert got == payload
            self.echoed += 1
            session.count(received=1, received_bytes=len(payload), proven=not counts.received)
        return True
