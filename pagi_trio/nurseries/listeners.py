"""The listeners nursery: accept loops, the reaper, and every connection.

Stopping is the tree read upwards: stop accepting, tell every connection, wait for what the applications are doing,
cancel what is left.
"""

from __future__ import annotations

import errno
import resource
from contextlib import contextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING, Final

import trio
from trio.lowlevel import enable_ki_protection

from pagi_trio.metrics import catalog
from pagi_trio.nurseries.http1 import HTTP1Connection
from pagi_trio.nurseries.readiness import make_poller
from pagi_trio.nurseries.reaper import reap
from pagi_trio.nurseries.service import HEAD, IDLE, TLS, log
from pagi_trio.nurseries.tls_transport import TLSTransport
from pagi_trio.nurseries.transport import Transport
from pagi_trio.wire.response import error_response

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from pagi_trio.asgi import Address
    from pagi_trio.nurseries.service import Service
    from pagi_trio.nurseries.sockets import Listener

ACCEPTS: Final = 64
"""Connections taken per wake-up: a burst costs one wait, and the others still get their turn."""

ACCEPT_PAUSE_S: Final = 0.1
"""How long accepting pauses when the process has no file descriptors left."""

YIELD_S: Final = 0.001
YIELDING_ACCEPTS: Final = 8
"""A worker with more than its share lets the others accept first, for as long as it takes to wake one, and takes few at
a time. Without it, whose system call is first gets all: one of two had 280 of 1,000 connections now and then. Alone
among workers that hang, it still takes 8,000 a second."""

RESERVED_FILES: Final = 64
"""Files kept free for the application when connections are limited by what the process may open."""

# What a connection is busy with that may get its next request at any moment.
_WITHOUT_REQUEST: Final = frozenset({TLS, HEAD, IDLE})

# accept(2) passes on what happened to a connection before it was accepted; the next one may be well.
_GONE_BEFORE: Final = frozenset(
    {
        *(errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.ENOPROTOOPT, errno.EHOSTDOWN),
        *(errno.ENONET, errno.EHOSTUNREACH, errno.EOPNOTSUPP, errno.ENETUNREACH, errno.ETIMEDOUT, errno.ECONNRESET),
    }
)


_LIMIT: Final = catalog.index("pagi_server_connections_limit")
_REJECTED: Final = catalog.by_label("pagi_server_connections_rejected_total")
_ERRORS: Final = catalog.by_label("pagi_server_accept_errors_total")
_ERROR_KINDS: Final = {errno.EMFILE: "emfile", errno.ENFILE: "enfile", errno.ECONNABORTED: "econnaborted"}


class Listeners:
    """All connections of one service, from the first accept to the last close.

    Args:
        service: Whose they are.
        listeners: Where they are accepted.
        tls: What they are encrypted with, if they are.
        is_crowded: Whether other processes, which accept from the same sockets, should have the next ones.

    Attributes:
        accepting: Set once connections are accepted.
        stopping: Set once no more are.
        closed: Set once the last has ended.
    """

    def __init__(
        self,
        service: Service,
        listeners: list[Listener],
        tls: ssl.SSLContext | None,
        is_crowded: Callable[[], bool] | None = None,
    ) -> None:
        self._service = service
        self._is_crowded = is_crowded
        self._listeners = listeners
        self._tls = tls
        self._connections_max = service.config.limits.connections or _default_limit()
        self.stopping = trio.Event()
        self.closed = trio.Event()
        self._abort = trio.CancelScope()
        self._idle_grace_s = 0.0
        self._cannot_accept = False
        self.accepting = trio.Event()

    def stop(self, idle_grace_s: float = 0.0) -> None:
        """Stop gracefully.

        Args:
            idle_grace_s: How long idle connections stay open for a request that may be on its way already.
        """
        if not self.stopping.is_set():
            self._idle_grace_s = idle_grace_s
        self.stopping.set()

    def abort(self) -> None:
        """Stop at once."""
        self.stopping.set()
        self._abort.cancel()

    @enable_ki_protection
    async def run(self) -> None:
        """Serve until told to stop.

        Cancellation: closes every connection at once.
        """
        service = self._service
        service.context = copy_context()
        # Without a socket there is nothing to poll.
        service.poller = make_poller() if self._listeners else None
        service.meter.set(_LIMIT, float(self._connections_max))
        async with trio.open_nursery() as watchers:
            if service.poller is not None:
                watchers.start_soon(service.poller.run)
            watchers.start_soon(reap, service)
            with self._abort, _ignore_stranded():
                async with trio.open_nursery() as connections:
                    self._connections = connections
                    await self._accept_until_stopped()
                    connections.cancel_scope.deadline = trio.current_time() + service.config.timeouts.graceful_s
                    await self._drain()
                    # Nobody is left but tasks that could not end by themselves.
                    connections.cancel_scope.cancel()
            watchers.cancel_scope.cancel()
        self.closed.set()

    async def _drain(self) -> None:
        """Tell every connection to end, and wait until all have."""
        service = self._service
        service.keep_alive = False
        service.emptied = trio.Event()
        if service.admitted:
            seconds = service.config.timeouts.graceful_s
            log.info("stopping: open connections (%d) have %g s to finish", service.admitted, seconds)
        if self._idle_grace_s and service.admitted:
            for connection in tuple(service.connections):
                if connection.state not in _WITHOUT_REQUEST:
                    connection.drain()
            with trio.move_on_after(self._idle_grace_s):
                await service.emptied.wait()
        service.draining = True
        for connection in tuple(service.connections):
            connection.drain()
        if service.admitted:
            await service.emptied.wait()

    async def _accept_until_stopped(self) -> None:
        if not self._listeners:
            # Connections come by `admit` alone.
            self.accepting.set()
            await self.stopping.wait()
            return
        async with trio.open_nursery() as loops:
            for listener in self._listeners:
                loops.start_soon(self._accept, listener)
            self.accepting.set()
            await self.stopping.wait()
            loops.cancel_scope.cancel()
        for listener in self._listeners:
            listener.close()

    async def _accept(self, listener: Listener) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener.sock)
            most = ACCEPTS
            if self._is_crowded is not None and self._is_crowded():
                await trio.sleep(YIELD_S)
                most = YIELDING_ACCEPTS
            if self._tls is not None and not self._service.handshakes.value:
                # Behind the handshakes that wait for their turn: with a flood of them, these would be ever more.
                async with self._service.handshakes:
                    pass
            self._service.look_at_clock()
            try:
                self._take(listener, most)
            except OSError as error:
                await self._rest(listener, error)

    def _take(self, listener: Listener, most: int) -> None:
        """Accept what waits, and start a connection for each."""
        service = self._service
        for _ in range(most):
            try:
                sock, peer = listener.sock.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            tls = self._tls
            transport = Transport(sock, service.poller) if tls is None else TLSTransport(sock, service.poller, tls)
            client: Address | None = None if listener.is_unix else (peer[0], peer[1])
            self.admit(transport, client, listener.server)

    def admit(self, transport: Transport, client: Address | None, server: Address) -> None:
        """Serve a connection, or turn it away if it is one too many.

        Args:
            transport: Its bytes; closed here, at its end.
            client: Who has connected; None where that has no address.
            server: What it has connected to.
        """
        service = self._service
        if service.admitted >= self._connections_max:
            self._reject(transport)
            return
        connection = HTTP1Connection(service, transport, client, server)
        # Here and not when it first runs, so that a burst is held to the limit as well.
        service.admitted += 1
        self._connections.start_soon(connection.run)

    def _reject(self, transport: Transport) -> None:
        """Answer a connection beyond the limit at once; over TLS there is no way to say anything."""
        self._service.meter.add(_REJECTED["limit"])
        self._service.say_once(f"more than {self._connections_max} connections: those beyond are turned away")
        if self._tls is None:
            date = self._service.date.line()
            transport.post(error_response(503, "too many connections, try again", date, b"retry-after: 1\r\n"))
            transport.finish_writing("limit")
        transport.close("limit")

    async def _rest(self, listener: Listener, error: OSError) -> None:
        """Pause after an accept that failed; the connection stays in the backlog or is gone."""
        self._service.meter.add(_ERRORS[_ERROR_KINDS.get(error.errno or 0, "other")])
        if error.errno not in _GONE_BEFORE:
            # No files or no memory left, or the socket is no more what it was.
            if not self._cannot_accept:
                self._cannot_accept = True
                log.error("cannot accept on %s: %s; trying again", listener.url, error.strerror)
            await trio.sleep(ACCEPT_PAUSE_S)
        else:
            log.info("a connection to %s was gone before it was accepted: %s", listener.url, error.strerror)


@contextmanager
def _ignore_stranded() -> Iterator[None]:
    """Take what Trio says of tasks whose applications left nurseries open; it has been logged when they did."""
    try:
        yield
    except* RuntimeError as errors:
        log.debug("tasks were left with open nurseries", exc_info=errors)


def _default_limit() -> int:
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 1_000_000
    return max(1, soft - RESERVED_FILES)
