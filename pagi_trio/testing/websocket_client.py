"""The WebSocket client of a test: that of trio-websocket, over the test's own connections."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionTimeout,
    DisconnectionTimeout,
    HandshakeError,
    wrap_client_stream,
)
from wsproto.utilities import LocalProtocolError

from pagi_trio.testing.app_errors import unwrap
from pagi_trio.testing.network import patience_s
from pagi_trio.testing.request_parts import encode_headers, encode_target
from pagi_trio.testing.tls import encrypt, make_context

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from types import TracebackType

    from trio_websocket import WebSocketConnection

    from pagi_trio.testing.network import Network
    from pagi_trio.testing.request_parts import GivenHeaders
    from pagi_trio.testing.wire import Wire


UNLIMITED: Final = sys.maxsize
"""Messages, and bytes of one, that are taken before the test asks for them: all that come, as a browser does.

So pings are answered and a close is seen whatever the test waits for. A client that does not read has stopped reading.
"""


class WebSocketClient:
    """A WebSocket of a test: await it, and close what it gives, or use it as ``async with``.

    It opens at most once. Whatever way the connection ends, its socket is closed.

    Args:
        network: Where its connection comes from.
        url: The server's address; ``https`` means TLS.
        nursery: Where it reads.
        path: What is asked for, with its query.
        subprotocols: What the client offers, the best first.
        headers: Further headers of the request.
    """

    def __init__(  # noqa: PLR0913 - three are the handle's, three the test's
        self,
        network: Network,
        url: str,
        nursery: trio.Nursery,
        path: str = "/",
        *,
        subprotocols: Iterable[str] = (),
        headers: GivenHeaders = (),
    ) -> None:
        self._network = network
        self._url = urlsplit(url)
        self._nursery = nursery
        self._path = encode_target(path)
        self._subprotocols = tuple(subprotocols)
        self._headers = encode_headers(headers)
        self._wire: Wire | None = None
        self._connection: WebSocketConnection | None = None
        self._rejection: HandshakeError | None = None
        self._opening = trio.CancelScope()
        self._closing = trio.CancelScope()
        self._is_started = trio.Event()
        self._has_ended = trio.Event()

    def __await__(self) -> Generator[object, object, WebSocketConnection]:
        return self._open().__await__()

    async def __aenter__(self) -> WebSocketConnection:
        return await self._open()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._wire is not None
        try:
            await self._close(self._wire)
        finally:
            # What the test itself found wrong goes before what the application raised.
            if exc is None or isinstance(exc, (ConnectionClosed, HandshakeError)):
                self._network.errors.check(self._wire.client)

    if not TYPE_CHECKING:
        # To a type checker it has none of what it gives, and says so sooner.
        def __getattr__(self, name):
            raise AttributeError(
                f"a WebSocket has no {name!r} before it is open: async with server.websocket(...) as ws, "
                "or ws = await server.websocket(...)"
            )

    async def _open(self) -> WebSocketConnection:
        """Connect, and do the handshake.

        Raises:
            ConnectionRejected: If the application denied it.
            ConnectionTimeout: If there was no answer for half a minute.
            HandshakeError: If there was none because no connection could be made, or it ended.
            BaseException: Instead of each of these, what the application raised.
        """
        try:
            self._wire = await self._network.connect()
        except OSError as error:
            raise HandshakeError(str(error)) from error
        over_tls = self._url.scheme in ("https", "wss")
        stream = encrypt(self._wire, make_context()) if over_tls else self._wire
        readers: trio.Nursery = await self._nursery.start(self._read, self._wire)
        self._opening.deadline = trio.current_time() + patience_s()
        try:
            with self._opening:
                # It starts its reader before it waits for anything.
                self._is_started.set()
                self._connection = await wrap_client_stream(
                    readers,
                    stream,  # type: ignore[arg-type]  # any stream, as its documentation says
                    self._url.netloc,
                    self._path,
                    subprotocols=self._subprotocols,
                    extra_headers=self._headers,
                    message_queue_size=UNLIMITED,
                    max_message_size=UNLIMITED,
                )
        finally:
            if self._connection is None:
                readers.cancel_scope.cancel()
                self._wire.close()
        if self._connection is None:
            self._network.errors.check(self._wire.client)
            raise self._rejection or self._missing_answer()
        entry = self._network.streams.add(f"websocket {self._path.partition('?')[0]}")
        self._wire.call_at_end(entry.close)
        self._network.note_client(self._connection, self._wire)
        return self._connection

    async def _read(self, wire: Wire, *, task_status: trio.TaskStatus[trio.Nursery]) -> None:
        """Have a nursery for the reader, and close the connection behind it."""
        try:
            async with trio.open_nursery() as readers:
                task_status.started(readers)
                await self._is_started.wait()
        except BaseExceptionGroup as group:
            error = unwrap(group)
            if isinstance(error, HandshakeError):
                self._rejection = error
            # It answers a ping even when it has sent its Close frame, and fails.
            elif not isinstance(error, LocalProtocolError):
                raise
        finally:
            self._has_ended.set()
            # trio-websocket would wait for a handshake forever.
            self._opening.cancel()
            self._closing.cancel()
            # And it leaves this open if the server was the first to close.
            wire.close()

    def _missing_answer(self) -> HandshakeError:
        if self._has_ended.is_set():
            return HandshakeError("the connection ended before the server had answered the handshake")
        return ConnectionTimeout(f"the server did not answer the handshake for {patience_s():g} seconds")

    async def _close(self, wire: Wire) -> None:
        """Do the closing handshake, unless it is done, and close the connection.

        A client whose reading is stopped would never see the answer, and just leaves.

        Raises:
            DisconnectionTimeout: If it was not answered for half a minute.
        """
        assert self._connection is not None
        try:
            if wire.is_reading:
                self._closing.deadline = trio.current_time() + patience_s()
                with self._closing:
                    await self._connection.aclose()
                    # If the server was first, it may not have got the answer yet.
                    await self._has_ended.wait()
                if not self._has_ended.is_set():
                    message = f"the server did not answer the closing handshake for {patience_s():g} seconds"
                    raise DisconnectionTimeout(message)
        finally:
            wire.close()
