"""Connections without sockets: a pipe each way, with one end for the server and one for a client.

The server's end behaves as a socket of the kernel does, as far as `Transport` uses one, so that what is served over it
is served by the very code that serves the network. What is sent has arrived at once, and no time passes: with Trio's
autojump clock, whoever waits waits for nothing but time.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Final

import trio

from pagi_trio.nurseries.transport import Transport

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from pagi_trio.asgi import Address
    from pagi_trio.nurseries.readiness import EpollPoller, Readable
    from pagi_trio.server import Server

ADDRESS: Final = ("testserver", 80)
"""What the application sees as the server's address."""

FIRST_PORT: Final = 50000
"""The port of the first client; each has the next, so that applications can tell them apart."""

CAPACITY_BYTES: Final = 65536
"""What a pipe holds before its sender has to wait: little beside a kernel's buffers, so that one who does not read is
felt soon."""


class _Pipe:
    """Bytes in one direction.

    Attributes:
        is_ended: Whether nothing more comes.
        is_broken: Whether what has come was cut off: its reader gets an error behind it.
        is_unread: Whether nobody reads any more: its writer gets an error.
        on_data: Called when a reader should look again.
        on_room: Called when a writer should.
    """

    def __init__(self) -> None:
        self.data = bytearray()
        self.is_ended = False
        self.is_broken = False
        self.is_unread = False
        self.on_data: Callable[[], object] = _do_nothing
        self.on_room: Callable[[], object] = _do_nothing

    def put(self, data: bytes | memoryview) -> int:
        """Take as much as there is room for.

        Raises:
            BlockingIOError: If there is none.
            BrokenPipeError: If nobody will read it.
        """
        if self.is_unread:
            raise BrokenPipeError("the other end is closed")
        room = CAPACITY_BYTES - len(self.data)
        if room <= 0 and data:
            raise BlockingIOError
        part = data[:room]
        self.data += part
        self.on_data()
        return len(part)

    def take(self, most: int) -> bytes:
        """Return what has come, ``b""`` at the end.

        Raises:
            BlockingIOError: If nothing has.
            ConnectionResetError: If nothing more comes, and not because the writer was done.
        """
        if self.data:
            taken = bytes(self.data[:most])
            del self.data[:most]
            self.on_room()
            return taken
        if self.is_broken:
            raise ConnectionResetError("the other end has reset the connection")
        if self.is_ended:
            return b""
        raise BlockingIOError

    def end(self, *, by_reset: bool = False) -> None:
        """Let the reader know that nothing more comes."""
        if not self.is_ended:
            self.is_ended = True
            self.is_broken = by_reset
            self.on_data()

    def abandon(self) -> None:
        """Let the writer know that nobody reads any more."""
        self.is_unread = True
        self.data.clear()
        self.on_room()


def _do_nothing() -> None:
    pass


class MemorySocket:
    """One end of two pipes, as much of a non-blocking socket as servers and clients of this package use."""

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self.incoming = incoming
        self.outgoing = outgoing
        self.resets = False
        self.is_closed = False

    def recv(self, size: int) -> bytes:
        """As `socket.socket.recv`."""
        return self.incoming.take(size)

    def recv_into(self, buffer: memoryview) -> int:
        """As `socket.socket.recv_into`."""
        data = self.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def send(self, data: bytes | memoryview) -> int:
        """As `socket.socket.send`."""
        if self.outgoing.is_ended:
            raise BrokenPipeError("this end has been shut down")
        return self.outgoing.put(data)

    def shutdown(self, _how: int) -> None:
        """Send no more (a half-close)."""
        self.outgoing.end()

    def close(self) -> None:
        """End both directions; the peer gets a reset if that was asked for, or something it sent was not read."""
        if not self.is_closed:
            self.is_closed = True
            self.outgoing.end(by_reset=self.resets or bool(self.incoming.data))
            self.incoming.abandon()


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
        self._sock.incoming.on_data = _do_nothing


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
        return len(self._memory.outgoing.data)

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
        memory.incoming.on_data = self._data.unpark_all
        memory.outgoing.on_room = self._room.unpark_all

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As `trio.abc.SendStream.send_all`."""
        await trio.lowlevel.checkpoint()
        view = memoryview(data).cast("B")
        while view:
            self._check_open()
            try:
                view = view[self._memory.send(view) :]
            except BlockingIOError:
                await self._room.park()
            except ConnectionError as error:
                raise trio.BrokenResourceError(str(error)) from error

    async def wait_send_all_might_not_block(self) -> None:
        """As `trio.abc.SendStream.wait_send_all_might_not_block`."""
        await trio.lowlevel.checkpoint()
        outgoing = self._memory.outgoing
        while len(outgoing.data) >= CAPACITY_BYTES and not outgoing.is_unread:
            self._check_open()
            await self._room.park()

    async def send_eof(self) -> None:
        """As `trio.abc.HalfCloseableStream.send_eof`."""
        await trio.lowlevel.checkpoint()
        self._check_open()
        self._memory.shutdown(0)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As `trio.abc.ReceiveStream.receive_some`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            self._check_open()
            try:
                data = self._memory.incoming.take(max_bytes or CAPACITY_BYTES)
            except BlockingIOError:
                await self._data.park()
            except ConnectionError as error:
                await trio.lowlevel.cancel_shielded_checkpoint()
                raise trio.BrokenResourceError(str(error)) from error
            else:
                await trio.lowlevel.cancel_shielded_checkpoint()
                return data

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
        up, down = _Pipe(), _Pipe()
        client = "127.0.0.1", next(self._ports)
        transport = MemoryTransport(MemorySocket(up, down))
        # As if a listener had accepted it, and not from the context of whoever connects.
        self._server.service.context.run(self._server.public.admit, transport, client, ADDRESS)
        return MemoryStream(MemorySocket(down, up), client)
