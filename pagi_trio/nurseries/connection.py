"""One connection: a nursery scope whose enter and exit move the gauge, whatever protocol is spoken in it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

import trio
from trio.lowlevel import enable_ki_protection

from pagi_trio.asgi import HTTP_VERSIONS
from pagi_trio.errors import ClientDisconnected
from pagi_trio.metrics import catalog
from pagi_trio.metrics.balance import CONNECTIONS
from pagi_trio.nurseries.closes import CONNECTION_CLOSED
from pagi_trio.nurseries.scope import TimedScope
from pagi_trio.nurseries.service import CLOSING, HEAD, IDLE, SSE, TLS, log
from pagi_trio.nurseries.tls_extension import describe_tls
from pagi_trio.nurseries.tls_transport import TLSTransport

if TYPE_CHECKING:
    from pagi_trio.asgi import Address, ConnectionScope
    from pagi_trio.nurseries.call import Exchange
    from pagi_trio.nurseries.service import Service
    from pagi_trio.nurseries.transport import Transport
    from pagi_trio.wire.head import Head

_REJECTED: Final = catalog.by_label("pagi_server_connections_rejected_total")
_HANDSHAKES: Final = catalog.by_label("pagi_server_tls_handshakes_total")

_TIMEOUTS: Final = {TLS: "client_timeout", HEAD: "client_timeout", IDLE: "keepalive_timeout"}

READ_AHEAD_BYTES: Final = 65536
"""How much of what is for later is read while an application waits for its disconnect."""


class Connection(ABC):
    """One accepted connection, from its TLS handshake to its close.

    The connection loop runs in the connection's own task, and the application in the loop. Where an application
    goes on after its response is complete, the loop moves on to a new task in the connection's nursery.

    Attributes:
        transport: Its bytes.
        buffer: What has been read and belongs to nobody yet: the next request, or the start of it.
        state: What it is busy with.
        since: When it entered the state, by the reaper's clock.
        keep_alive: Whether another request may follow.
        peer: Whoever has connected; None for the client of a unix socket.
        client: Where the current request came from: the peer, or whom a proxy named that is trusted.
        scheme: The current request's, http or https.
        reason: What it ends by, as a token of the disconnect reasons, unless the transport is lost before.
        current: What the application is being called for.
        cancel_scope: Around the connection loop and the application of the current request, and nothing older.
    """

    __slots__ = (
        "_forwarded",
        "_is_encrypted",
        "_nursery",
        "buffer",
        "cancel_scope",
        "client",
        "current",
        "extensions",
        "keep_alive",
        "peer",
        "reason",
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
        transport: Transport,
        peer: Address | None,
        server: Address | None,
    ) -> None:
        self.service = service
        self.peer = self.client = peer
        self.server = server
        self.transport = transport
        self._is_encrypted = isinstance(transport, TLSTransport)
        self.scheme = "https" if self._is_encrypted else "http"
        forwarded = service.forwarded
        self._forwarded = forwarded if forwarded is not None and forwarded.trust.covers_peer(peer) else None
        self.extensions = service.extensions
        self.buffer = b""
        self.state = TLS if self._is_encrypted else HEAD
        self.since = service.now
        self.keep_alive = True
        self.reason = "done"
        self.current: Exchange | None = None

    def __str__(self) -> str:
        peer = f"{self.peer[0]}:{self.peer[1]}" if self.peer is not None else "unix"
        return f"connection from {peer}"

    @enable_ki_protection
    async def run(self) -> None:
        """Serve the connection to its end.

        Cancellation: closes it at once; applications see it wherever they wait.
        """
        with TimedScope(self.service.meter, CONNECTIONS) as active:
            self.service.connections.add(self)
            self.service.changed.set()
            if self.service.draining:
                # Accepted right before.
                self.drain()
            try:
                async with trio.open_nursery() as self._nursery:
                    self.cancel_scope = self._nursery.cancel_scope
                    await self._serve(None)
                    if trio.lowlevel.current_task().child_nurseries[-1] is not self._nursery:
                        await self._strand(active)
            except Exception:  # noqa: BLE001 - an application's mistake, which must not reach other connections
                log.exception("the application left a cancel scope open in %s", self)
            finally:
                self._end()

    async def _strand(self, active: TimedScope) -> None:
        """Keep a task whose application has left a nursery open, as generators that are not exhausted do.

        If it ended, Trio would take that for an error of the parent nursery, and all other connections with it.
        """
        log.error("the application left a nursery open in %s; its task is kept until the server stops", self)
        active.leave()
        # Where the connection has moved on, it is still being served.
        self.transport.close("server_error")
        self._end()
        await trio.sleep_forever()

    def _end(self) -> None:
        """Close, and leave the others' company."""
        self.transport.close("server_shutdown")
        # Which refers to this: without a circle, all is freed at once.
        self.current = None
        if self in self.service.connections:
            self.service.meter.add(CONNECTION_CLOSED[self.transport.lost])
            self.service.connections.discard(self)
            self.service.admitted -= 1
            if not self.service.admitted:
                self.service.emptied.set()

    def scope(self, head: Head) -> ConnectionScope:
        """Make what the scopes of HTTP and WebSocket have in common.

        The dicts in it are the application's own; what is in these is not.
        """
        service = self.service
        line = head.line
        if self._forwarded is not None:
            self.find_origin(head)
        return {
            "asgi": HTTP_VERSIONS.copy(),
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

    def find_origin(self, head: Head) -> None:
        """Find out where a request came from, by what a proxy says that is trusted."""
        if self._forwarded is not None:
            own_scheme = "https" if self._is_encrypted else "http"
            self.client, self.scheme = self._forwarded.origin(head.headers, self.peer, own_scheme)

    def read_ahead(self) -> bool:
        """Read what has come for later into the buffer, up to a mark.

        Returns:
            Whether nothing more will come; behind a full buffer, only where the poller has seen the end.
        """
        transport = self.transport
        while transport.ready and not transport.eof and len(self.buffer) < READ_AHEAD_BYTES:
            data = transport.read_nowait()
            if data is None:
                break
            self.buffer += data
        return transport.eof or (transport.hangup and len(self.buffer) >= READ_AHEAD_BYTES)

    def enter(self, state: int) -> None:
        """Enter a state; its deadline starts now."""
        self.state = state
        self.since = self.service.now

    async def _serve(self, previous: Exchange | None) -> None:
        """Serve the connection until it ends or moves on; whoever ends it closes it."""
        moved = False
        try:
            if self.state == TLS:
                await self._handshake()
            moved = await self._speak(previous)
        except ClientDisconnected:
            pass
        except trio.Cancelled:
            if self.reason == "done":
                self.reason = "server_shutdown"
            raise
        except Exception:  # noqa: BLE001 - an error of our own ends one connection, not the server
            self.reason = "server_error"
            log.exception("internal error in %s", self)
        finally:
            if not moved:
                self.transport.close(self.reason)

    @abstractmethod
    async def _speak(self, previous: Exchange | None) -> bool:
        """Speak the protocol: take one request after another and call the application for each.

        Args:
            previous: The exchange that the connection has just moved on from.

        Returns:
            Whether the connection moved on to another task, and this one is done with it.

        Raises:
            ClientDisconnected: If the client has left.
        """

    async def _handshake(self) -> None:
        transport = self.transport
        assert isinstance(transport, TLSTransport)
        outcome = "failed"
        try:
            await transport.handshake(self.service.handshakes)
            outcome = "ok"
        except ClientDisconnected:
            if transport.lost == "client_timeout":
                outcome = "timeout"
            log.info("%s: the TLS handshake failed: %s", self, transport.failure or transport.lost)
            raise
        finally:
            self.service.meter.add(_HANDSHAKES[outcome])
            if outcome != "ok":
                # Not lost at all is cancelled, with the whole server.
                stopped = transport.lost in ("", "server_shutdown")
                self.service.meter.add(_REJECTED["shutdown" if stopped else "handshake"])
        self.extensions = {**self.service.extensions, "tls": describe_tls(transport.tls, self.service.certificate)}
        self.enter(HEAD)

    # Called by the reaper and by whoever stops the server

    def tick(self, now: float) -> None:
        """Look whether anything is past its time."""
        transport = self.transport
        if not transport.is_drained and not transport.lost:
            transport.flush_for_nobody()
            timeouts = self.service.config.timeouts
            longest_s = timeouts.sse_write_stall_s if self.state == SSE else timeouts.write_stall_s
            if transport.is_stuck(longest_s):
                self.abort("write_timeout")
                return
            if self.state == CLOSING:
                # The deadline is for what comes after the last byte.
                self.since = now
        if now - self.since > self.service.deadlines_s[self.state]:
            self._expire()
        elif self.current is not None:
            self.current.tick(now)

    def _expire(self) -> None:
        """Deal with a state that has lasted too long."""
        # The end that a client does not answer has its reason already.
        self.abort(self.reason if self.state == CLOSING else _TIMEOUTS[self.state])

    def abort(self, reason: str) -> None:
        """Close at once; whoever sends gets an error, whoever receives the disconnect.

        Args:
            reason: Why, where it is not decided yet what the connection ends by.
        """
        self.transport.close(reason if self.reason == "done" else self.reason)

    def drain(self) -> None:
        """Let what is in flight end, and take nothing new."""
        if self.current is not None:
            self.current.shut_down()
        elif self.state == CLOSING:
            # Its client still gets to read the last response, for a moment.
            return
        elif not self.buffer:
            # Whatever the poller has seen: a request may have come since it looked last.
            data = self.transport.read_nowait() if self.state != TLS else None
            if data:
                self.buffer = data
                self.transport.wake_readers()
            else:
                self.turn_away()

    def turn_away(self) -> None:
        """Close without a request, since the server stops."""
        if self.state == HEAD:
            self.service.meter.add(_REJECTED["shutdown"])
        self.abort("server_shutdown")

    def move(self, exchange: Exchange) -> None:
        """Go on in a new task; the present one stays with the application of this exchange."""
        # From a clean context: what the application has set in its own is not for the requests that follow.
        self.service.context.copy().run(self._nursery.start_soon, self._serve_moved, exchange)

    @enable_ki_protection
    async def _serve_moved(self, previous: Exchange) -> None:
        with trio.CancelScope() as self.cancel_scope:
            await self._serve(previous)
