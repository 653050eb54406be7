"""Clients cheap enough to keep a server busy from one core: raw sockets, epoll, requests made beforehand.

Every load does a given number of units and checks each answer. The first answer of a server is parsed in full; the
later ones must have its length, its status and its last bytes.
"""

from __future__ import annotations

import base64
import io
import resource
import select
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPResponse
from itertools import cycle, repeat

ANSWER_S = 20.0
"""No unit takes a second, even from the slowest server; without an answer for this long the run has failed."""

READ_BYTES = 64 * 1024
"""More would be slower: Python makes a new buffer for every read."""

AT_ONCE = 32
"""New connections under way at a time: fewer than the smallest backlog, hypercorn's 100, so none is refused."""

MASK = b"\x5a\xc3\x0f\x99"
"""Masked by a client as RFC 6455, section 5.3, asks; servers take no short cut for a mask that is reused."""


class WrongAnswerError(Exception):
    """A server answered otherwise than the application says, so that its speed means nothing."""


@dataclass(frozen=True)
class Answer:
    """What every answer on the wire looks like: how long it is and how it begins and ends."""

    length: int
    first: bytes
    last: bytes


class KeepAlive:
    """Connections that send a request each, again as soon as it is answered."""

    def __init__(self, port: int, connections: int, requests: Sequence[bytes], body: bytes) -> None:
        self._requests = _endless(requests)
        self._socks = [_connect(port) for _ in range(connections)]
        self._answer = _learn(self._socks[0], requests[0], body)
        for sock in self._socks:
            sock.setblocking(False)

    def run(self, units: int) -> None:
        """Make this many requests and check their answers."""
        _ping_pong(self._socks, self._requests, self._answer, units)

    def close(self) -> None:
        """Close all connections."""
        _close(self._socks)


class Echo:
    """WebSockets that send a message each, again as soon as it has come back."""

    def __init__(self, port: int, connections: int, payload: bytes, *, text: bool = False) -> None:
        self._socks = _upgraded(port, connections)
        opcode = 0x81 if text else 0x82
        masked = bytes(byte ^ MASK[i % 4] for i, byte in enumerate(payload))
        self._frame = bytes([opcode, 0x80 | len(payload)]) + MASK + masked
        back = bytes([opcode, len(payload)]) + payload
        self._answer = Answer(len(back), back, back)

    def run(self, units: int) -> None:
        """Send this many messages and check their echoes."""
        _ping_pong(self._socks, repeat(self._frame), self._answer, units)

    def close(self) -> None:
        """Close all connections, without a closing handshake."""
        _close(self._socks)


class Reconnect:
    """A new connection for every request, closed by the server when it is answered."""

    def __init__(self, port: int, request: bytes, body: bytes) -> None:
        self._port = port
        self._request = request
        with _connect(port) as sock:
            self._answer = _learn(sock, request, body)

    def run(self, units: int) -> None:
        """Make this many connections, `AT_ONCE` of them at a time."""
        for first in range(0, units, AT_ONCE):
            socks = [_connect(self._port) for _ in range(min(AT_ONCE, units - first))]
            for sock in socks:
                sock.sendall(self._request)
            for sock in socks:
                with sock:
                    _check(_until_closed(sock), self._answer)

    def close(self) -> None:
        """Do nothing: no connection is left."""


class Handshakes:
    """WebSockets that are opened and then kept, silent, until they are dropped."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socks: list[socket.socket] = []

    def run(self, units: int) -> None:
        """Open this many WebSockets more."""
        self._socks += _upgraded(self._port, units)

    def close(self) -> None:
        """Close all connections, without a closing handshake."""
        _close(self._socks)
        self._socks = []


Load = KeepAlive | Echo | Reconnect | Handshakes


def allow_sockets() -> None:
    """Raise the limit of open files to what the system allows; servers inherit it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def request(method: str, target: str, *fields: str, body: bytes = b"") -> bytes:
    """Make an HTTP/1.1 request as it goes over the wire."""
    framing = [f"Content-Length: {len(body)}"] if body else []
    lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", *fields, *framing, "", ""]
    return "\r\n".join(lines).encode() + body


def _endless(requests: Sequence[bytes]) -> Iterator[bytes]:
    return cycle(requests) if len(requests) > 1 else repeat(requests[0])


def _connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _close(socks: Sequence[socket.socket]) -> None:
    for sock in socks:
        sock.close()


class _Recorder(io.RawIOBase):
    """Read a socket and keep what was read; it has the one method of a socket that HTTPResponse calls."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.seen = bytearray()

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self, READ_BYTES)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        count = self._sock.recv_into(buffer)
        self.seen += buffer[:count]
        return count


def _learn(sock: socket.socket, first_request: bytes, body: bytes) -> Answer:
    recorder = _Recorder(sock)
    sock.sendall(first_request)
    response = HTTPResponse(recorder)
    response.begin()
    got = response.read()
    if response.status != 200 or got != body:
        raise WrongAnswerError(f"status {response.status}, {len(got)} bytes: not what the application sends")
    raw = bytes(recorder.seen)
    return Answer(len(raw), raw[:12], raw[-min(len(body), 64) :])


def _check(got: bytes, answer: Answer) -> None:
    if len(got) != answer.length or not (got.startswith(answer.first) and got.endswith(answer.last)):
        raise WrongAnswerError(f"{len(got)} bytes instead of {answer.length}: {got[:80]!r} ... {got[-80:]!r}")


def _ping_pong(socks: Sequence[socket.socket], requests: Iterator[bytes], answer: Answer, units: int) -> None:
    """Keep one request under way on every socket until ``units`` are answered."""
    length, first, last = answer.length, answer.first, answer.last
    read_bytes = min(READ_BYTES, 2 * length)
    by_fd = {sock.fileno(): sock for sock in socks}
    begun = min(units, len(socks))
    done = 0
    partial = _Partial(answer)
    with select.epoll() as epoll:
        sender = _Sender(epoll)
        for sock in socks[:begun]:
            epoll.register(sock, select.EPOLLIN)
            sender.send(sock, next(requests))
        while done < units:
            events = epoll.poll(ANSWER_S)
            if not events:
                raise WrongAnswerError(f"no answer for {ANSWER_S:.0f} s, {units - done} of {units} missing")
            for fd, event in events:
                sock = by_fd[fd]
                if event & select.EPOLLOUT:
                    sender.resume(sock)
                if not event & ~select.EPOLLOUT:
                    continue
                data = sock.recv(read_bytes)
                whole = len(data) == length and data.startswith(first) and data.endswith(last)
                if whole or partial.completed_by(fd, data):
                    done += 1
                    if begun < units:
                        begun += 1
                        sender.send(sock, next(requests))


class _Partial:
    """Answers that come in pieces: how much of each is here, and whether its two ends are right."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._lengths: dict[int, int] = {}
        self._tails: dict[int, bytes] = {}

    def completed_by(self, fd: int, data: bytes) -> bool:
        answer = self._answer
        before = self._lengths.get(fd, 0)
        length = before + len(data)
        tail = (self._tails.get(fd, b"") + data)[-len(answer.last) :]
        begins = before >= len(answer.first) or data.startswith(answer.first[: len(data)])
        if not data or not begins or length > answer.length:
            raise WrongAnswerError(f"{length} bytes instead of {answer.length}, {data[:80]!r}")
        if length < answer.length:
            self._lengths[fd], self._tails[fd] = length, tail
            return False
        if tail != answer.last:
            raise WrongAnswerError(f"ends in {tail!r} instead of {answer.last!r}")
        self._lengths[fd], self._tails[fd] = 0, b""
        return True


class _Sender:
    """Requests larger than a socket takes at once: the rest goes when there is room."""

    def __init__(self, epoll: select.epoll) -> None:
        self._epoll = epoll
        self._rest: dict[int, memoryview] = {}

    def send(self, sock: socket.socket, data: bytes) -> None:
        sent = sock.send(data)
        if sent < len(data):
            self._rest[sock.fileno()] = memoryview(data)[sent:]
            self._epoll.modify(sock, select.EPOLLIN | select.EPOLLOUT)

    def resume(self, sock: socket.socket) -> None:
        rest = self._rest[sock.fileno()]
        with suppress(BlockingIOError):
            rest = rest[sock.send(rest) :]
        self._rest[sock.fileno()] = rest
        if not rest:
            self._epoll.modify(sock, select.EPOLLIN)


def _until_closed(sock: socket.socket) -> bytes:
    parts = []
    while data := sock.recv(READ_BYTES):
        parts.append(data)
    return b"".join(parts)


def _upgraded(port: int, connections: int) -> list[socket.socket]:
    """Open WebSockets, `AT_ONCE` at a time: none of them offers an extension."""
    key = base64.b64encode(bytes(16)).decode()
    fields = (
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
    )
    handshake = request("GET", "/", *fields)
    opened: list[socket.socket] = []
    while len(opened) < connections:
        socks = [_connect(port) for _ in range(min(AT_ONCE, connections - len(opened)))]
        opened += socks
        for sock in socks:
            sock.sendall(handshake)
        for sock in socks:
            _expect_upgrade(sock)
            sock.setblocking(False)
    return opened


def _expect_upgrade(sock: socket.socket) -> None:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        data = sock.recv(READ_BYTES)
        if not data:
            break
        head += data
    if not head.startswith(b"HTTP/1.1 101 "):
        raise WrongAnswerError(f"the WebSocket handshake was answered by {head[:80]!r}")
