"""One connection: a nursery scope, and the loop that takes one request after another from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio
from trio.lowlevel import enable_ki_protection

from pagi_trio.asgi import HTTP_VERSIONS
from pagi_trio.errors import ClientDisconnected, RequestError
from pagi_trio.metrics import catalog
from pagi_trio.nurseries.call import call
from pagi_trio.nurseries.http1 import HTTPExchange
from pagi_trio.nurseries.scope import ActiveScope
from pagi_trio.nurseries.service import APP, CLOSING, HEAD, IDLE, TLS, log
from pagi_trio.nurseries.tls_extension import describe_tls
from pagi_trio.nurseries.transport import TLSTransport, Transport
from pagi_trio.nurseries.websocket import WebSocketSession
from pagi_trio.wire.head import Head, check_unfinished, parse_head
from pagi_trio.wire.response import error_response

if TYPE_CHECKING:
    import socket
    import ssl

    from pagi_trio.asgi import Address, ConnectionScope
    from pagi_trio.nurseries.service import Service

_TOTAL: Final = catalog.index("pagi_server_connections_total")
_ACTIVE: Final = catalog.index("pagi_server_connections_active")

_TIMEOUTS: Final = {
    TLS: "client_timeout",
    HEAD: "client_timeout",
    IDLE: "keepalive_timeout",
    CLOSING: "done",
}

DRAIN_BYTES: Final = 65536
"""How much of a body that its application did not read is read and dropped to keep the connection; beyond that a
new connection costs less."""


class Connection:
    """One accepted connection, from its TLS handshake to its close.

    Attributes:
        transport: Its bytes.
        buffer: What has been read and belongs to nobody yet: the next request, or the start of it.
        state: What it is busy with.
        since: When it entered the state, by the reaper's clock.
        keep_alive: Whether another request may follow.
        current: What the application is being called for.
        cancel_scope: Around the connection loop and the application of the current request, and nothing older.
    """

    __slots__ = (
        "_nursery",
        "_scanned",
        "buffer",
        "cancel_scope",
        "client",
        "current",
        "extensions",
        "keep_alive",
        "scheme",
        "server",
        "service",
        "since",
        "state",
        "transport",
    )

    def __init__(
        self,
        service: Service,
        sock: socket.socket,
        client: Address | None,
        server: Address | None,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.service = service
        self.client = client
        self.server = server
        self.transport = (
            Transport(sock, service.poller) if tls is None else TLSTransport(sock, service.poller, tls)
        )
        self.scheme = "http" if tls is None else "https"
        self.extensions = service.extensions
        self.buffer = b""
        self._scanned = 0
        self.state = HEAD if tls is None else TLS
        self.since = service.now
        self.keep_alive = True
        self.current: HTTPExchange | WebSocketSession | None = None

    def __str__(self) -> str:
        peer = f"{self.client[0]}:{self.client[1]}" if self.client is not None else "unix"
        return f"connection from {peer}"

    @enable_ki_protection
    async def run(self) -> None:
        """Serve the connection to its end.

        Cancellation: closes it at once; applications see it wherever they wait.
        """
        service = self.service
        with ActiveScope(service.meter, _TOTAL, _ACTIVE):
            service.connections.add(self)
            service.changed.set()
            try:
                async with trio.open_nursery() as self._nursery:
                    self.cancel_scope = self._nursery.cancel_scope
                    await self._serve(None)
            finally:
                self.transport.close("server_shutdown")
                service.connections.discard(self)

    def scope(self, head: Head) -> ConnectionScope:
        """Make what the scopes of HTTP and WebSocket have in common; the dicts in it are the application's own."""
        service = self.service
        line = head.line
        return {
            "asgi": HTTP_VERSIONS,
            "http_version": line.version,
            "scheme": self.scheme,
            "path": line.path,
            "raw_path": line.raw_path,
            "query_string": line.query,
            "root_path": service.config.root_path,
            "headers": head.headers,
            "client": self.client,
            "server": self.server,
            "state": service.state.copy(),
            "extensions": self.extensions.copy(),
        }

    def enter(self, state: int) -> None:
        """Enter a state; its deadline starts now."""
        self.state = state
        self.since = self.service.now

    async def _serve(self, previous: HTTPExchange | None) -> None:
        """Take requests until the connection ends or moves on; whoever ends it closes it."""
        moved = False
        try:
            try:
                if self.state == TLS:
                    await self._handshake()
                if previous is None or await self._settle(previous):
                    moved = await self._requests()
            except RequestError as error:
                await self._refuse(error)
        except ClientDisconnected:
            pass
        except Exception:  # noqa: BLE001 - an error of our own ends one connection, not the server
            log.exception("internal error in %s", self)
        finally:
            if not moved:
                self.transport.close("done")

    async def _handshake(self) -> None:
        assert isinstance(self.transport, TLSTransport)
        await self.transport.handshake()
        self.extensions = {**self.service.extensions, "tls": describe_tls(self.transport.tls, self.service.certificate)}
        self.enter(HEAD)

    async def _requests(self) -> bool:
        """Call the application for one request after another.

        Returns:
            Whether the connection moved on to another task, and this one is done with it.
        """
        service = self.service
        transport = self.transport
        while self.keep_alive and service.keep_alive:
            head = self._take_head()
            while head is None:
                if transport.eof or transport.closed:
                    return False
                await transport.wait_turn()
                head = self._take_head()
            self.keep_alive = head.keep_alive and service.keep_alive
            self.state = APP
            if head.is_websocket:
                await self._websocket(head)
                return False
            exchange = self.current = HTTPExchange(self, head)
            try:
                failed = await call(service, exchange.scope(), exchange)
            finally:
                exchange.leave()
            if exchange.moved:
                return True
            if not exchange.complete:
                await exchange.fail(logged=failed)
            if not await self._settle(exchange):
                return False
            transport.budget -= 1
            if transport.budget < 0:
                await transport.breathe()
        return False

    async def _websocket(self, head: Head) -> None:
        session = self.current = WebSocketSession(self, head)
        try:
            failed = await call(self.service, session.scope(), session)
            linger = await session.finish(failed=failed)
        finally:
            session.leave()
        if linger:
            await self._linger()

    async def _settle(self, exchange: HTTPExchange) -> bool:
        """Bring a request to its end once its application has returned or been left behind.

        Returns:
            Whether another request may follow.
        """
        if exchange.body is not None and not exchange.body.done and not await self._skip_body(exchange):
            await self._linger()
            return False
        self.current = None
        self.state = IDLE
        self.since = self.service.now
        return True

    async def _skip_body(self, exchange: HTTPExchange) -> bool:
        """Read and drop what the application left of a body, if that is little and certain to come."""
        if not self.keep_alive or exchange.expects_continue:
            return False
        self.enter(HEAD)
        left = DRAIN_BYTES
        while exchange.body is not None and not exchange.body.done:
            data = exchange.take_body()
            if data is None:
                if self.transport.eof or self.transport.closed:
                    return False
                await self.transport.wait_turn()
            elif (left := left - len(data)) < 0:
                return False
        return True

    def _take_head(self) -> Head | None:
        """Return the next request's head if all of it is here; reads at most once.

        Raises:
            RequestError: If what is here cannot become one.
        """
        buffer = self.buffer
        scanned = self._scanned
        if scanned == len(buffer):
            transport = self.transport
            data = transport.read_nowait() if transport.ready else None
            if not data:
                return None
            buffer = buffer + data if buffer else data
        end = buffer.find(b"\r\n\r\n", scanned - 3 if scanned > 3 else 0)
        limits = self.service.config.limits
        if not 0 < end <= limits.request_line_bytes:
            # Unfinished, starting with an empty line, or long enough to need its limits checked.
            if buffer.startswith(b"\r\n"):
                self.buffer = buffer[2:]  # RFC 9112 section 2.2
                self._scanned = 0
                return None if len(buffer) == 2 else self._take_head()
            check_unfinished(buffer if end < 0 else buffer[:end], limits.request_line_bytes, limits.head_bytes)
            if end < 0:
                self.buffer = buffer
                self._scanned = len(buffer)
                if self.state == IDLE:
                    self.enter(HEAD)
                return None
        self._scanned = 0
        self.buffer = buffer[end + 4 :]
        return parse_head(buffer[:end], limits.headers)

    async def _refuse(self, error: RequestError) -> None:
        """Answer what is not HTTP, and close."""
        log.info("%s: answered %d: %s", self, error.status, error)
        extra = b"upgrade: websocket\r\nsec-websocket-version: 13\r\n" if error.status == 426 else b""
        self.transport.post(error_response(error.status, str(error), self.service.date.line(), extra))
        await self._linger()

    async def _linger(self) -> None:
        """Close so that the client gets to read the last response (RFC 9112 section 9.6)."""
        transport = self.transport
        self.enter(CLOSING)
        await transport.drain()
        transport.finish_writing()
        while not transport.eof and not transport.closed:
            if transport.read_nowait() is None:
                await transport.wait_turn()
            else:
                transport.budget -= 16
                if transport.budget < 0:
                    await transport.breathe()

    # Called by the reaper and by whoever stops the server

    def tick(self, now: float) -> None:
        """Look whether anything is past its time."""
        transport = self.transport
        if not transport.is_drained:
            transport.flush_nowait()
            if now - transport.stalled_since > self.service.config.timeouts.write_stall_s:
                self.abort("write_timeout")
                return
        if now - self.since > self.service.deadlines_s[self.state]:
            self.abort(_TIMEOUTS[self.state])
        elif self.current is not None:
            self.current.tick(now)

    def abort(self, reason: str) -> None:
        """Close at once; whoever sends gets an error, whoever receives the disconnect."""
        self.transport.close(reason)

    def drain(self) -> None:
        """Let what is in flight end, and take nothing new."""
        if self.current is not None:
            self.current.shut_down()
        elif not self.buffer:
            data = self.transport.read_nowait() if self.state == IDLE and self.transport.ready else None
            if data:
                # This request came before the connection could be told that none may.
                self.buffer = data
                self.transport.wake_readers()
            else:
                self.abort("server_shutdown")

    def move(self, exchange: HTTPExchange) -> None:
        """Go on in a new task; the present one stays with the application of this exchange."""
        # From a clean context: what the application has set in its own is not for the requests that follow.
        self.service.context.copy().run(self._nursery.start_soon, self._serve_moved, exchange)

    @enable_ki_protection
    async def _serve_moved(self, previous: HTTPExchange) -> None:
        with trio.CancelScope() as self.cancel_scope:
            await self._serve(previous)
