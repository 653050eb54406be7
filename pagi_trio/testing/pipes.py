"""Two pipes in memory are a connection: each end has a socket that reads of one and writes into the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

CAPACITY_BYTES: Final = 65536
"""What a pipe holds before its sender has to wait: little beside a kernel's buffers, so that one who does not read is
felt soon."""


class Pipe:
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
        self.on_data: Callable[[], object] = do_nothing
        self.on_room: Callable[[], object] = do_nothing

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
        if not self.is_ended or (by_reset and not self.is_broken):
            self.is_ended = True
            self.is_broken = by_reset
            self.on_data()

    def abandon(self) -> None:
        """Let the writer know that nobody reads any more."""
        self.is_unread = True
        self.data.clear()
        self.on_room()


def do_nothing() -> None:
    """Call nobody."""


class MemorySocket:
    """One end of two pipes, as much of a non-blocking socket as servers and clients of this package use."""

    def __init__(self, incoming: Pipe, outgoing: Pipe) -> None:
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
