"""One connection of a test, and what can go wrong with it.

A wire is what carries the bytes: over TLS it is below the encryption. So a fault is the same for every protocol, and
the server sees it as it would see that of a stranger's network.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pagi_trio.asgi import Address

_RESET: Final = struct.pack("ii", 1, 0)
"""Of SO_LINGER: to close is to reset at once, whatever has not been delivered (socket(7))."""


class Pipe(Protocol):
    """A client's end of a connection that is no socket."""

    @property
    def client(self) -> Address | None:
        """Its own address, as the application is told it."""
        ...

    @property
    def is_readable(self) -> bool:
        """Whether a receive would not wait: for data, or for the end of it."""
        ...

    def reset(self) -> None:
        """Close so that the server sees an error, at once; whoever waits here gets a `trio.ClosedResourceError`."""
        ...

    def close(self) -> None:
        """Close both directions, at once; whoever waits here gets a `trio.ClosedResourceError`."""
        ...

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As `trio.abc.SendStream.send_all`."""
        ...

    async def wait_send_all_might_not_block(self) -> None:
        """As `trio.abc.SendStream.wait_send_all_might_not_block`."""
        ...

    async def send_eof(self) -> None:
        """As `trio.abc.HalfCloseableStream.send_eof`."""
        ...

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As `trio.abc.ReceiveStream.receive_some`."""
        ...

    async def aclose(self) -> None:
        """As `trio.abc.AsyncResource.aclose`."""
        ...


class Wire(trio.abc.HalfCloseableStream):
    """One connection to the server.

    Ownership: whoever has connected closes it; after `cut` that does nothing.

    Args:
        stream: What carries the bytes; the wire closes it.

    Attributes:
        client: Its own address, as the application's ``scope["client"]`` says it; None over a unix socket.
        is_reading: Whether it receives, and was not told to stop.
    """

    def __init__(self, stream: trio.SocketStream | Pipe) -> None:
        self.client = _address_of(stream)
        self.is_reading = True
        self._stream = stream
        self._at_end: list[Callable[[], object]] = []
        # A half-close comes behind what is being sent.
        self._sending = trio.Lock()
        self._delay_s = 0.0
        self._is_cut = False
        self._is_half_closed = False
        self._go_on = trio.Event()
        self._ended = trio.Event()
        # What has been received and is not for the client yet; it outlasts the cancellation of whoever waits for it.
        self._held: bytes | None = None
        self._due_s = 0.0

    @property
    def is_readable(self) -> bool:
        """Whether a receive would not wait: for data, the end of it, or an error."""
        if self._ended.is_set() or self._held is not None:
            return True
        stream = self._stream
        return stream.socket.is_readable() if isinstance(stream, trio.SocketStream) else stream.is_readable

    def call_at_end(self, call: Callable[[], object]) -> None:
        """Have something called once this is closed or cut, the last one first."""
        self._at_end.append(call)

    def cut(self) -> None:
        """Reset the connection, now: the server sees an error, and so does the client, even one that waits already.

        What has arrived and was not received is lost. Between unix sockets there is no reset: the server sees an end.
        """
        if not self._ended.is_set():
            self._is_cut = True
            if isinstance(self._stream, trio.SocketStream):
                with contextlib.suppress(OSError):
                    self._stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                # Trio wakes whoever waits for it.
                self._stream.socket.close()
            else:
                self._stream.reset()
            self._end()

    def stop_reading(self) -> None:
        """Receive nothing from now on, in a receive that waits already as well, so that the server's sends fill up.

        Kernels take some megabytes by themselves before they let a sender wait; a connection in memory 64 KiB.
        """
        if self.is_reading:
            self.is_reading = False
            self._go_on = trio.Event()

    def go_on_reading(self) -> None:
        """Receive again, from where it was stopped."""
        self.is_reading = True
        self._go_on.set()

    async def half_close(self) -> None:
        """Let the server know that the client sends no more, while it goes on receiving.

        It waits for what is being sent already. What the client sends later fails as on a broken connection. Nothing
        happens if the server has left already.
        """
        self._is_half_closed = True
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self.send_eof()

    def delay(self, seconds: float) -> None:
        """Let each send leave, and each receive arrive, this much later.

        Args:
            seconds: How much; 0 ends it. A delay that has begun stays as long as it was.
        """
        self._delay_s = seconds

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As `trio.abc.SendStream.send_all`, but a second sender waits for the first."""
        # The sending itself is a checkpoint, so there need not be another where nobody else sends.
        if self._sending.locked():
            await self._sending.acquire()
        else:
            self._sending.acquire_nowait()
        try:
            await self._pause(trio.current_time() + self._delay_s)
            with self._faults_seen():
                await self._stream.send_all(data)
        finally:
            self._sending.release()

    async def wait_send_all_might_not_block(self) -> None:
        """As `trio.abc.SendStream.wait_send_all_might_not_block`."""
        async with self._sending:
            with self._faults_seen():
                await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """As `trio.abc.HalfCloseableStream.send_eof`."""
        async with self._sending:
            with self._faults_seen():
                await self._stream.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As `trio.abc.ReceiveStream.receive_some`."""
        await self._wait_to_read()
        if self._held is not None:
            await trio.lowlevel.checkpoint()
        else:
            with self._faults_seen():
                self._held = await self._stream.receive_some(max_bytes)
            self._due_s = trio.current_time() + self._delay_s
        await self._pause(self._due_s)
        await self._wait_to_read()
        self._check_open()
        most = len(self._held) if max_bytes is None else max_bytes
        data, rest = self._held[:most], self._held[most:]
        self._held = rest or None
        return data

    def close(self) -> None:
        """Close this end, now: what `aclose` does, without a wait."""
        self._end()
        if isinstance(self._stream, trio.SocketStream):
            # Trio wakes whoever waits for it.
            self._stream.socket.close()
        else:
            self._stream.close()

    async def aclose(self) -> None:
        """As `trio.abc.AsyncResource.aclose`."""
        self._end()
        await self._stream.aclose()

    def _end(self) -> None:
        self._ended.set()
        self._go_on.set()
        while self._at_end:
            self._at_end.pop()()

    async def _pause(self, until_s: float) -> None:
        """Wait until a time of Trio's clock, or the end of the connection."""
        if until_s > trio.current_time():
            with trio.move_on_at(until_s):
                await self._ended.wait()

    async def _wait_to_read(self) -> None:
        while not (self.is_reading or self._ended.is_set()):
            await self._go_on.wait()

    def _check_open(self) -> None:
        if self._is_cut:
            raise trio.BrokenResourceError("the test has cut this connection")
        if self._ended.is_set():
            raise trio.ClosedResourceError("this connection is closed")

    @contextmanager
    def _faults_seen(self) -> Iterator[None]:
        """Let a client see a fault as it would see it in the world: the other end is gone, and not this one closed."""
        self._check_open()
        try:
            yield
        except trio.ClosedResourceError as error:
            if self._is_cut:
                raise trio.BrokenResourceError("the test has cut this connection") from None
            if self._is_half_closed:
                raise trio.BrokenResourceError(str(error)) from None
            raise


def _address_of(stream: trio.SocketStream | Pipe) -> Address | None:
    if not isinstance(stream, trio.SocketStream):
        return stream.client
    if stream.socket.family == socket.AF_UNIX:
        return None
    host, port, *_ = stream.socket.getsockname()
    return host, port
