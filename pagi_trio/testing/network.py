"""The connections between a test's clients and its server, and what can go wrong with them."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol
from weakref import WeakKeyDictionary

import trio
import trio.testing

from pagi_trio.testing.open_streams import OpenStreams
from pagi_trio.testing.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterator
    from types import TracebackType

    from pagi_trio.asgi import Address
    from pagi_trio.testing.wire import Pipe

PATIENCE_S: Final = 30.0
"""How long a client waits for the server, seconds: far more than anything on one machine takes, and less than the time
after which people give up on a test run."""


class Errors(Protocol):
    """What the application has raised, until the test hears of it."""

    def check(self, client: Address | None, began_s: float = 0.0) -> None:
        """Raise, and forget, the first error that was raised on a client's connection, or since then on it."""
        ...


class Connecting:
    """A connection to be opened: await it, and close what it gives, or use it as ``async with``."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def __await__(self) -> Generator[object, object, Wire]:
        return self._network.connect().__await__()

    async def __aenter__(self) -> Wire:
        self._wire = await self._network.connect()
        return self._wire

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._wire.aclose()


class Network:
    """All connections of a server's clients in one test.

    Args:
        open_stream: Connects to the server, for TLS without it. May raise `OSError`.
        errors: Where clients ask what the application has raised.

    Attributes:
        errors: The same.
        wires: The open connections, oldest first.
        streams: The responses, WebSockets and event streams that are open, by name.
    """

    def __init__(self, open_stream: Callable[[], Awaitable[trio.SocketStream | Pipe]], errors: Errors) -> None:
        self.errors = errors
        self.wires: list[Wire] = []
        self.streams = OpenStreams()
        self._open_stream = open_stream
        self._refusals = 0
        self._is_reading = True
        self._delay_s = 0.0
        self._wires_of: WeakKeyDictionary[object, Wire] = WeakKeyDictionary()

    def wire_of(self, client: object) -> Wire:
        """Return the connection of a WebSocket, an event stream or a streamed response, to cut it for one.

        Args:
            client: What ``websocket()``, ``sse()`` or ``http.stream()`` has given.

        Raises:
            LookupError: If it is none of these, or not open.
        """
        wire = self._wires_of.get(client)
        if wire is None or wire not in self.wires:
            raise LookupError(f"{client!r} has no open connection here")
        return wire

    def note_client(self, client: object, wire: Wire) -> None:
        """Learn who uses a connection (`wire_of`)."""
        self._wires_of[client] = wire

    async def connect(self) -> Wire:
        """Open a connection; the caller closes it.

        Raises:
            ConnectionRefusedError: While `refuse` holds, or if the server no longer listens.
        """
        if self._refusals:
            await trio.lowlevel.checkpoint()
            raise ConnectionRefusedError("the test lets connections be refused")
        wire = Wire(await self._open_stream())
        self.wires.append(wire)
        wire.call_at_end(partial(self.wires.remove, wire))
        wire.delay(self._delay_s)
        if not self._is_reading:
            wire.stop_reading()
        return wire

    def cut(self) -> None:
        """Reset every open connection, now (`Wire.cut`)."""
        for wire in list(self.wires):
            wire.cut()

    def stop_reading(self) -> None:
        """Let the clients receive nothing, on open and on later connections (`Wire.stop_reading`)."""
        self._is_reading = False
        for wire in self.wires:
            wire.stop_reading()

    def go_on_reading(self) -> None:
        """Let the clients receive again, from where they were stopped."""
        self._is_reading = True
        for wire in self.wires:
            wire.go_on_reading()

    async def half_close(self) -> None:
        """On every open connection: the client sends no more, and goes on receiving (`Wire.half_close`)."""
        for wire in list(self.wires):
            await wire.half_close()

    def delay(self, seconds: float) -> None:
        """Let each send and each receive of open and later connections come this much later; 0 ends it."""
        self._delay_s = seconds
        for wire in self.wires:
            wire.delay(seconds)

    @contextmanager
    def refuse(self) -> Iterator[None]:
        """Refuse these clients' connections in a block, as a server does that is not there.

        Open ones stay, and an HTTP client has some from earlier requests: `cut` them first for a server that is gone.
        """
        self._refusals += 1
        try:
            yield
        finally:
            self._refusals -= 1


def patience_s() -> float:
    """Return how long a client waits for the server, seconds.

    In virtual time it is forever: a clock that jumps would expire any time that an application lets pass.
    """
    is_virtual = isinstance(trio.lowlevel.current_clock(), trio.testing.MockClock)
    return float("inf") if is_virtual else PATIENCE_S
