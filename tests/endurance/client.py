"""A connection whose owner may leave at any byte, in any of the ways that clients leave."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from random import Random

import trio

from tests.faults.clients import Connection, CutError

SENT_MOST = 3000
READS_MOST = 12
READ_SLOWLY_S = 0.02
"""Between two reads of a few KiB each, which is all that the client's socket takes."""

_RESET = struct.pack("ii", 1, 0)


class LeftError(Exception):
    """The client has come to the point where it meant to leave."""


@dataclass
class Leaving:
    """When a client leaves: after this many bytes sent or reads made, whichever comes first; and how.

    Attributes:
        how: By a FIN, by a reset, by half (it reads what still comes), or by one of the first two once it was idle.
        idle_s: How long it is.
    """

    sent: int
    reads: int
    how: str
    idle_s: float

    @classmethod
    def choose(cls, random: Random, idle_most_s: float) -> Leaving | None:
        """Choose one, or None for a client that stays to the end."""
        if random.random() < 0.4:
            return None
        sent = random.randint(0, random.choice((20, 200, SENT_MOST)))
        how = random.choice(("fin", "reset", "half", "idle, fin", "idle, reset"))
        limits = random.choice(((sent, READS_MOST), (10**9, random.randint(0, READS_MOST))))
        return cls(*limits, how, random.uniform(0, idle_most_s * random.choice((0.1, 0.1, 1))))


class Client(Connection):
    """A connection to the server under test; with `leaving`, it sends and reads no further than that."""

    def __init__(self, stream, leaving: Leaving | None = None, *, slow: bool = False) -> None:
        super().__init__(stream)
        self._leaving = leaving
        self._slow = slow

    @classmethod
    async def connect(cls, port, leaving: Leaving | None, *, tls=None, slow: bool = False) -> Client:
        sock = trio.socket.socket()
        if slow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            await sock.connect(("127.0.0.1", port))
        except OSError as error:
            sock.close()
            raise CutError("it was refused") from error
        stream = trio.SocketStream(sock)
        if tls is not None:
            stream = trio.SSLStream(stream, tls, server_hostname="localhost", https_compatible=True)
        return cls(stream, leaving, slow=slow)

    async def send(self, data):
        leaving = self._leaving
        if leaving is None:
            await super().send(data)
            return
        await super().send(data[: leaving.sent])
        leaving.sent -= len(data)
        if leaving.sent < 0:
            raise LeftError

    async def _read(self):
        if self._leaving is not None:
            self._leaving.reads -= 1
            if self._leaving.reads < 0:
                raise LeftError
        if self._slow:
            await trio.sleep(READ_SLOWLY_S)
        await super()._read()

    async def read_some(self):
        """Return what has come, at least one byte."""
        if not self._buffer:
            await self._read()
        return self._take(len(self._buffer))

    async def leave(self) -> None:
        """Leave as was chosen."""
        leaving = self._leaving
        if leaving is not None:
            if leaving.how == "half":
                with trio.move_on_after(leaving.idle_s):
                    await self._end_of_sending()
            elif leaving.how.startswith("idle"):
                await trio.sleep(leaving.idle_s)
            if leaving.how.endswith("reset"):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        await trio.aclose_forcefully(self._stream)

    async def _end_of_sending(self):
        """Send FIN and read what still comes."""
        self._leaving = None
        try:
            self._socket.shutdown(socket.SHUT_WR)
            while True:
                await self.read_some()
        except (CutError, OSError):
            return

    @property
    def _socket(self):
        stream = self._stream
        return stream.transport_stream.socket if isinstance(stream, trio.SSLStream) else stream.socket
