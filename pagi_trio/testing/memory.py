"""Connections without sockets: a pipe each way, with one end for the server and one for a client.

The server's end behaves as a socket of the kernel does, as far as `Transport` uses one, so that what is served over it
is served by the very code that serves the network. What is sent has arrived at once, and no time passes: with Trio's
autojump clock, whoever waits waits for nothing but time.
"""

from __future__ import annotations

from contextlib import contextmanager
from itertools import count
from operator import index
from typing import TYPE_CHECKING, Final

import trio

from pagi_trio.nurseries.transport import Transport
from pagi_trio.testing.pipes import CAPACITY_BYTES, MemorySocket, Pipe, do_nothing

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from pagi_trio.asgi import Address
    from pagi_trio.nurseries.readiness import EpollPoller, Readable
    from pagi_trio.server import Server

ADDRESS: Final = ("testserver", 80)
"""What the application sees as the server's address."""

FIRST_PORT: Final = 50000
"""The port of the first client; each has the next, so that applications can tell them apart."""


class _Told:
    """In the place of a poller: the pipes themselves tell the transport what happens to them."""

    def __init__(self, sock: MemorySocket) -> None:
        self._sock = sock

    def register(self, readable: Readable) -> None:
        """As `EpollPoller.register`."""

        def look_again() -> None:
            readable.ready = True
            readable.hangup = self._sock.incoming.is_ended
            readable.wake()

        self._sock.incoming.on_data = look_again

    def unregister(self, _readable: Readable) -> None:
        """As `EpollPoller.unregister`."""
        self._sock.incoming.on_data = do_nothing


class MemoryTransport(Transport):
    """The server's end of a connection in memory."""

    __slots__ = ("_memory", "_room")

    def __init__(self, memory: MemorySocket) -> None:
        self._memory = memory
        self._room = trio.lowlevel.ParkingLot()
        memory.outgoing.on_room = self._room.unpark_all
        sock: socket.socket = memory  # type: ignore[assignment]  # all of it that a transport uses
        poller: EpollPoller = _Told(memory)  # type: ignore[assignment]  # the same
        super().__init__(sock, poller)

    async def _until_writable(self) -> None:
        outgoing = self._memory.outgoing
        if len(outgoing.data) < CAPACITY_BYTES or outgoing.is_unread:
            await trio.lowlevel.checkpoint()
        else:
            await self._room.park()

    def _wake_writer(self) -> None:
        self._room.unpark_all()

    def _count_undelivered(self) -> int:
        # What is sent has arrived, as what a kernel has acknowledged, whether or not anybody has read it.
        return 0

    def _make_close_reset(self) -> None:
        self._memory.resets = True


class MemoryStream(trio.abc.HalfCloseableStream):
    """A client's end of a connection in memory.

    Attributes:
        client: Its address, as the server is told.
    """

    def __init__(self, memory: MemorySocket, client: Address) -> None:
        self.client = client
        self._memory = memory
        self._data = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        self._busy: set[str] = set()
        memory.incoming.on_data = self._data.unpark_all
        memory.outgoing.on_room = self._room.unpark_all

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As `trio.abc.SendStream.send_all`."""
        with self._alone("send"):
            await trio.lowlevel.checkpoint()
            self._check_open()
            if self._memory.outgoing.is_ended:
                raise trio.ClosedResourceError("this end has sent its end already")
            view = memoryview(data).cast("B")
            while view:
                try:
                    view = view[self._memory.send(view) :]
                except BlockingIOError:
                    await self._room.park()
                    self._check_open()
                except ConnectionError as error:
                    raise trio.BrokenResourceError(str(error)) from error

    async def wait_send_all_might_not_block(self) -> None:
        """As `trio.abc.SendStream.wait_send_all_might_not_block`."""
        with self._alone("send"):
            await trio.lowlevel.checkpoint()
            self._check_open()
            outgoing = self._memory.outgoing
            while len(outgoing.data) >= CAPACITY_BYTES and not outgoing.is_unread:
                await self._room.park()
                self._check_open()

    async def send_eof(self) -> None:
        """As `trio.abc.HalfCloseableStream.send_eof`."""
        with self._alone("send"):
            await trio.lowlevel.checkpoint()
            self._check_open()
            self._memory.shutdown(0)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As `trio.abc.ReceiveStream.receive_some`."""
        if max_bytes is not None and index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._alone("receive"):
            if self.is_readable:
                await trio.lowlevel.checkpoint()
            while True:
                self._check_open()
                try:
                    return self._memory.incoming.take(max_bytes or CAPACITY_BYTES)
                except BlockingIOError:
                    await self._data.park()
                except ConnectionError as error:
                    raise trio.BrokenResourceError(str(error)) from error

    @property
    def is_readable(self) -> bool:
        """Whether a receive would not wait: for data, or for the end of it."""
        return bool(self._memory.incoming.data) or self._memory.incoming.is_ended

    def reset(self) -> None:
        """Close so that the server sees an error, at once."""
        self._memory.resets = True
        self.close()

    def close(self) -> None:
        """Close both directions; whoever waits gets a `trio.ClosedResourceError`."""
        self._memory.close()
        self._data.unpark_all()
        self._room.unpark_all()

    async def aclose(self) -> None:
        """As `trio.abc.AsyncResource.aclose`."""
        self.close()
        await trio.lowlevel.checkpoint()

    @contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        """Refuse a second task meanwhile, as sockets do."""
        if what in self._busy:
            raise trio.BusyResourceError(f"another task is already about to {what} on this stream")
        self._busy.add(what)
        try:
            yield
        finally:
            self._busy.discard(what)

    def _check_open(self) -> None:
        if self._memory.is_closed:
            raise trio.ClosedResourceError("this stream is closed")


class MemoryListener:
    """Where clients connect to a server without sockets.

    Args:
        server: A server that accepts connections.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._ports = count(FIRST_PORT)

    async def connect(self) -> MemoryStream:
        """Open a connection.

        Raises:
            ConnectionRefusedError: If the server has stopped.
        """
        await trio.lowlevel.checkpoint()
        if self._server.public.stopping.is_set():
            raise ConnectionRefusedError("the server has stopped")
        up, down = Pipe(), Pipe()
        client = "127.0.0.1", next(self._ports)
        transport = MemoryTransport(MemorySocket(up, down))
        # As if a listener had accepted it, and not from the context of whoever connects.
        self._server.service.context.run(self._server.public.admit, transport, client, ADDRESS)
        return MemoryStream(MemorySocket(down, up), client)
