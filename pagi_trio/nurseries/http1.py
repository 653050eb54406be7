"""HTTP/1.1 on one connection: the loop that takes one request after another from it.

Source: RFC 9112 sections 2.2, 9.3 and 9.6.
"""

from __future__ import annotations

import re
from time import perf_counter
from typing import TYPE_CHECKING, Final

from pagi_trio.errors import RequestError
from pagi_trio.nurseries.call import call
from pagi_trio.nurseries.connection import Connection
from pagi_trio.nurseries.exchange import REFUSALS, HTTPExchange
from pagi_trio.nurseries.service import APP, CLOSING, HEAD, IDLE, log
from pagi_trio.nurseries.websocket import WebSocketSession
from pagi_trio.wire.head import UPGRADE_WEBSOCKET, Head, check_unfinished, check_unfinished_fields, parse_head
from pagi_trio.wire.response import body_bytes, error_response

if TYPE_CHECKING:
    from pagi_trio.nurseries.call import Exchange

DRAIN_BYTES: Final = 65536
"""How much of a body that its application did not read is read and dropped to keep the connection; beyond that a
new connection costs less."""

REQUEST_COST: Final = 4
"""What a request takes of the budget of a connection, whose next one is here already. An application on a framework
computes for 200 microseconds without waiting for anything; at the price of a read or write, requests sent all at once
would keep the loop for 57 ms."""

_EMPTY_LINES = re.compile(rb"\A(?:\r\n)+")


class HTTP1Connection(Connection):
    """A connection that speaks HTTP/1.1 and 1.0, and WebSocket once it is upgraded."""

    __slots__ = ("_scanned",)

    async def _speak(self, previous: Exchange | None) -> bool:  # noqa: C901, PLR0912 - split, each request or idle session pays a coroutine
        service = self.service
        transport = self.transport
        # How much of the buffer has been searched for the end of a head: all of it, where more is needed.
        self._scanned = 0
        head: Head | None = None
        try:
            if previous is not None:
                assert isinstance(previous, HTTPExchange), "only HTTP moves on"
                if not await self._settle(previous):
                    return False
            while self.keep_alive and not (service.draining and self.state == IDLE):
                head = self._take_head()
                while head is None:
                    if transport.eof or transport.closed:
                        if self.state == HEAD:
                            self.reason = "client_closed"
                        return False
                    if service.draining and not self.buffer:
                        # What had come when the server stopped was empty lines.
                        self.turn_away()
                        return False
                    if self.state == HEAD and self.buffer and service.now - self.since > service.deadlines_s[HEAD]:
                        raise RequestError(408, f"the headers took longer than {service.deadlines_s[HEAD]:g} s")
                    await transport.wait_turn()
                    head = self._take_head()
                self.keep_alive = head.keep_alive and service.keep_alive
                self.state = APP
                if head.flags & UPGRADE_WEBSOCKET and head.is_websocket:
                    await self._websocket(head)
                    return False
                exchange = self.current = HTTPExchange(self, head)
                try:
                    failed = await call(service, exchange.scope(), exchange)
                    if not exchange.complete:
                        await exchange.fail(logged=failed)
                finally:
                    exchange.leave()
                if exchange.moved:
                    return True
                if exchange.body is None:
                    self._idle()
                elif not await self._settle(exchange):
                    return False
                transport.budget -= REQUEST_COST
                if transport.budget < 0:
                    await transport.breathe()
            if self.buffer or transport.read_nowait() or transport.is_undelivered:
                # Closing with unread bytes would reset the connection, and the response with it.
                await self._linger()
        except RequestError as error:
            await self._refuse(error, head if self.state == APP else None)
        return False

    async def _websocket(self, head: Head) -> None:
        session = self.current = WebSocketSession(self, head)
        if self.service.draining:
            # It was accepted right before, and nobody has told it since there was no session to tell.
            session.shut_down()
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
        self._idle()
        return True

    def _idle(self) -> None:
        """Be ready for the next request."""
        self.current = None
        self.state = IDLE
        self.since = self.service.now

    async def _skip_body(self, exchange: HTTPExchange) -> bool:
        """Read and drop what the application left of a body, if that is little and certain to come."""
        body = exchange.body
        if body is None or body.expects_continue:
            return False
        self.enter(HEAD)
        left = DRAIN_BYTES
        while not body.done:
            if not self.keep_alive:
                # The server stops meanwhile.
                return False
            try:
                data = body.take()
            except RequestError:
                # The response is out: a second one would be taken for the next request's.
                return False
            if data is None:
                if self.transport.eof or self.transport.closed:
                    return False
                await self.transport.wait_turn()
            elif (left := left - len(data)) < 0:
                return False
            elif self.transport.budget < 0:
                await self.transport.breathe()
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
        if buffer.startswith(b"\r\n"):
            # Empty lines are let pass (RFC 9112 section 2.2), however many: those that come one by one were as well.
            buffer = self.buffer = _EMPTY_LINES.sub(b"", buffer, 1)
            self._scanned = scanned = 0
            if not buffer:
                return None
        limits = self.service.config.limits
        end = buffer.find(b"\r\n\r\n", scanned - 3 if scanned > 3 else 0)
        if not 0 <= end <= self.service.short_head_bytes:
            self.buffer = buffer
            part = buffer if end < 0 else buffer[:end]
            check_unfinished(part, limits.request_line_bytes, limits.head_bytes, scanned)
            if end < 0:
                check_unfinished_fields(part, limits.headers, limits.header_bytes, scanned)
                self._scanned = len(buffer)
                if self.state == IDLE:
                    self.enter(HEAD)
                return None
        self.buffer = buffer
        head = parse_head(buffer[:end], limits.headers, limits.header_bytes)
        if head.line.scheme == "https" and self.scheme == "http" and self._forwarded is None:
            # RFC 9110 section 7.4; behind a proxy that is trusted, this is for the proxy to know.
            raise RequestError(421, "an https URL is not served over a connection that is not encrypted")
        self._scanned = 0
        self.buffer = buffer[end + 4 :]
        return head

    def _expire(self) -> None:
        if self.state == HEAD and self.buffer and self.current is None:
            # Part of a head has come, and an answer can be given; whoever waits for the rest will see that it is late.
            self.transport.wake_readers()
        else:
            super()._expire()

    async def _refuse(self, error: RequestError, head: Head | None) -> None:
        """Answer what is not HTTP, and close.

        Args:
            error: What is wrong.
            head: The request's, if it is not that which is wrong; the buffer begins with it otherwise.
        """
        to_head = self.buffer.startswith(b"HEAD ") if head is None else head.line.method == "HEAD"
        self.buffer = b""
        log.info("%s: answered %d: %s", self, error.status, error)
        self.reason = REFUSALS.get(error.status, "protocol_error")
        extra = b""
        if error.status == 426:
            extra = b"upgrade: websocket\r\nsec-websocket-version: 13\r\n"
        answer = error_response(error.status, str(error), self.service.date.line(), extra, to_head=to_head)
        self.transport.post(answer)
        if self.service.access is not None:
            client, line = self.peer, None
            if head is not None:
                self.find_origin(head)
                client, line = self.client, head.line
            self.service.access.add(client, line, error.status, body_bytes(answer), perf_counter())
        await self._linger()

    async def _linger(self) -> None:
        """Close so that the client gets to read the last response (RFC 9112 section 9.6)."""
        transport = self.transport
        # Nothing that comes now is for an application, whose request may have a body that has not ended.
        self.current = None
        self.enter(CLOSING)
        await transport.drain()
        transport.finish_writing(self.reason)
        while not transport.eof and not transport.closed:
            if transport.read_nowait() is None:
                await transport.wait_turn()
            else:
                transport.budget -= 16
                if transport.budget < 0:
                    await transport.breathe()
