"""The opening handshake of a WebSocket: accepted with a 101, or denied with an ordinary response.

Source: RFC 6455 section 4.2; the ASGI extension websocket.http.response.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from pagi_trio.errors import AppProtocolError
from pagi_trio.nurseries.exchange import CLIENT_LEFT, HTTPExchange
from pagi_trio.wire.deflate import negotiate
from pagi_trio.wire.handshake import accept_response, read_handshake
from pagi_trio.wire.response import body_bytes, error_response

if TYPE_CHECKING:
    from pagi_trio.asgi import HTTPResponseBody, HTTPResponseStart, SendMessage, WebSocketAccept
    from pagi_trio.nurseries.connection import Connection
    from pagi_trio.wire.deflate import DeflateParameters
    from pagi_trio.wire.head import Head


class Opening:
    """One handshake, until it has been answered."""

    __slots__ = ("_connection", "_denial", "_head", "_refused", "_request", "_started")

    def __init__(self, connection: Connection, head: Head) -> None:
        """Read the request.

        Raises:
            RequestError: If it is not one that RFC 6455 allows.
        """
        self._connection = connection
        self._head = head
        self._request = read_handshake(head.line.method, head.headers)
        self._denial: HTTPExchange | None = None
        self._refused = False
        self._started = perf_counter() if connection.service.is_timed else 0.0

    @property
    def subprotocols(self) -> list[str]:
        """What the client offers."""
        return self._request.subprotocols

    @property
    def is_being_denied(self) -> bool:
        """Whether an answer that is not a 101 has begun."""
        return self._denial is not None

    @property
    def is_answered(self) -> bool:
        """Whether the application has given all of an answer that is not a 101, though it may not have left yet."""
        return self._denial is not None and self._denial.has_ended

    @property
    def is_denied(self) -> bool:
        """Whether the client has got all of an answer that is not a 101."""
        return self._denial is not None and self._denial.complete

    def accept(self, message: WebSocketAccept) -> tuple[bytes, DeflateParameters | None]:
        """Return the 101 response, and what compression was agreed on.

        Raises:
            AppProtocolError: If the answer has begun already, or cannot be given as the application wants it.
        """
        if self._denial is not None:
            raise AppProtocolError("the handshake is being denied, it cannot be accepted any more")
        service = self._connection.service
        deflate = negotiate(self._request.extensions) if service.config.websocket.deflate else None
        response = accept_response(
            self._request,
            date=service.date.line(),
            subprotocol=message.get("subprotocol"),
            extensions=None if deflate is None else deflate.header,
            headers=message.get("headers", ()),
        )
        self._log_access(101)
        return response, deflate

    async def deny(self, message: SendMessage) -> None:
        """Take an event of a denial: ``websocket.close`` is a whole one, a 403.

        Raises:
            AppProtocolError: If the event has no place here.
            ClientDisconnected: If the client has left.
        """
        start: HTTPResponseStart
        body: HTTPResponseBody
        if message["type"] == "websocket.close" and self._denial is None:
            start = {"type": "http.response.start", "status": 403, "headers": []}
            body = {"type": "http.response.body", "body": b"", "more_body": False}
            await self._begin().send(start)
            await self._begin().send(body)
        elif message["type"] == "websocket.http.response.start":
            start = {"type": "http.response.start", "status": message["status"], "headers": message.get("headers", ())}
            await self._begin().send(start)
        elif message["type"] == "websocket.http.response.body" and self._denial is not None:
            more = message.get("more_body", False)
            body = {"type": "http.response.body", "body": message.get("body", b""), "more_body": more}
            await self._denial.send(body)
        else:
            where = "before websocket.accept"
            if self._denial is not None:
                where = "in a denial: after its start comes only websocket.http.response.body"
            raise AppProtocolError(f"{message['type']!r} has no place {where}")

    def _begin(self) -> HTTPExchange:
        if self._denial is None:
            self._connection.keep_alive = False
            self._denial = HTTPExchange(self._connection, self._head)
            self._denial.started = self._started
        return self._denial

    @property
    def outcome(self) -> str:
        """What became of it, if it was not accepted: refused, or abandoned by the client before any answer."""
        return "refused" if self._refused or self._denial is not None else "abandoned"

    async def abandon(self) -> None:
        """Answer for an application that has ended without doing so."""
        if self.is_denied or self._refused:
            return
        if self._denial is not None or not (self._connection.transport.eof or self._connection.transport.lost):
            await self._begin().fail(logged=True)

    def leave(self) -> None:
        """Take leave of one that was not accepted: count out a denial, and see that the access log has its line."""
        if self._denial is not None:
            self._denial.leave()
        elif not self._refused:
            self._log_access(CLIENT_LEFT)

    def refuse(self, status: int, reason: str) -> None:
        """Answer with an error of the server's own, if no answer has begun."""
        if self._denial is None:
            self._refused = True
            answer = error_response(status, reason, self._connection.service.date.line())
            self._connection.transport.post(answer)
            self._log_access(status, body_bytes(answer))

    def _log_access(self, status: int, size: int = 0) -> None:
        """Add a line to the access log, if there is one."""
        access = self._connection.service.access
        if access is not None:
            access.add(self._connection.client, self._head.line, status, size, self._started)
