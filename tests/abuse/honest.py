"""The honest client: it makes ordinary requests while an attack goes on, and takes the time of each."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from time import perf_counter
from typing import NamedTuple

from .apps import GREETING
from .client import frame, request, trusting

REQUESTS = 20
"""Half of them on a connection each, half on one that is kept."""

PATIENCE_S = 2.0
"""A server that does not answer for this long is taken for frozen."""

FROZEN_AFTER = 2
"""So many requests without an answer are enough to know."""

GET = request("/")


class Service(NamedTuple):
    """How an honest client was served: seconds of each request, and how many were not answered."""

    seconds: list[float]
    unanswered: int

    @property
    def median_s(self) -> float:
        return median(self.seconds) if self.seconds else PATIENCE_S

    @property
    def worst_s(self) -> float:
        return max(self.seconds, default=PATIENCE_S) if not self.unanswered else PATIENCE_S

    @property
    def is_frozen(self) -> bool:
        return self.unanswered >= FROZEN_AFTER


def ask(port: int, *, tls: bool) -> Service:
    """Make `REQUESTS` ordinary requests, one after the other."""
    seconds: list[float] = []
    unanswered = 0
    for requests in [1] * (REQUESTS // 2) + [REQUESTS // 2]:
        # Connecting belongs to the first request.
        begun = perf_counter()
        try:
            with _connected(port, tls=tls) as sock:
                for _ in range(requests):
                    _get(sock)
                    ended = perf_counter()
                    seconds.append(ended - begun)
                    begun = ended
        except (OSError, ValueError):
            unanswered += 1
            if unanswered >= FROZEN_AFTER:
                break
    return Service(seconds, unanswered)


def warm_up(port: int, *, tls: bool) -> None:
    """Make a server do what it will have to do, so that no buffer and no import is an attack's doing.

    Raises:
        OSError, ValueError: It does not.
    """
    for _ in range(5):
        ask(port, tls=tls)
    with _connected(port, tls=tls) as sock:
        body = bytes(65536)
        sock.sendall(request("/upload", f"Content-Length: {len(body)}", method="POST") + body)
        _read(sock, b"%d" % len(body))
    deflate = "Sec-WebSocket-Extensions: permessage-deflate"
    upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: " + "A" * 22 + "==")
    with _connected(port, tls=tls) as sock:
        sock.sendall(request("/echo", *upgrade, "Sec-WebSocket-Version: 13", deflate))
        _read(sock, b"\r\n\r\n")
        # Deflated: an empty block, and a stored one (RFC 7692 section 7.2.3).
        for payload, rsv1 in ((b"hello", False), (b"\x00\x05\x00\xfa\xffhello\x00", True)):
            sock.sendall(frame(1, payload, rsv1=rsv1))
            _read(sock, b"", least=7)
        sock.sendall(frame(8, b"\x03\xe8"))
        while sock.recv(65536):
            pass


@contextmanager
def _connected(port: int, *, tls: bool) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not tls:
            yield sock
            return
        with _TLS.wrap_socket(sock) as encrypted:
            yield encrypted


_TLS = trusting()


def _get(sock: socket.socket) -> None:
    sock.sendall(GET)
    _read(sock, GREETING)


def _read(sock: socket.socket, last: bytes, *, least: int = 1) -> None:
    data = b""
    while len(data) < least or not data.endswith(last):
        more = sock.recv(65536)
        if not more:
            raise ValueError(f"the connection ended after {data!r}")
        data += more
