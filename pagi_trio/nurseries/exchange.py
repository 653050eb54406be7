"""One HTTP/1.1 request and its response, as an application sees them.

Each request has its own exchange: what an application does with it late touches nothing of the next request.

Source: the ASGI HTTP message format 2.4; RFC 9110 sections 6.4, 9.3.2, 10.1.1 and 15; RFC 9112 sections 6 and 9.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Final

from trio.lowlevel import checkpoint_if_cancelled

from pagi_trio.errors import AppProtocolError, ClientDisconnected, RequestError
from pagi_trio.nurseries.connection import READ_AHEAD_BYTES
from pagi_trio.nurseries.response import Response
from pagi_trio.nurseries.service import log
from pagi_trio.nurseries.upload import Upload
from pagi_trio.wire.head import CHUNKED
from pagi_trio.wire.misuse import MALFORMED, explain
from pagi_trio.wire.response import CONTINUE, EVENT_STREAM, body_bytes, error_response

if TYPE_CHECKING:
    from pagi_trio.asgi import HTTPDisconnect, HTTPRequest, HTTPResponseStart, HTTPScope, SendMessage
    from pagi_trio.nurseries.connection import Connection
    from pagi_trio.nurseries.sse import EventStream
    from pagi_trio.wire.head import Head

CLIENT_LEFT: Final = 499
"""What the access log says of a request whose client left before any answer; nginx's number for it."""

REFUSALS: Final = {408: "client_timeout", 413: "body_too_large"}
"""What a connection ends by when a request is answered with this status; all others are a ``protocol_error``."""


class HTTPExchange:
    """One request and its response.

    Attributes:
        head: The request's head.
        body: The request's body; None without one.
        complete: Whether the last byte of the response has been written.
        suspended: Whether the application's coroutine waits for something.
        moved: Whether the connection loop has left the application behind.
        disconnected: Why the application was told that its client has left; empty while it was not.
        started: `perf_counter` when the head was read, where the service is timed.
    """

    __slots__ = (
        "_logged",
        "_request_done",
        "_response",
        "body",
        "complete",
        "connection",
        "disconnected",
        "head",
        "moved",
        "started",
        "suspended",
        "transport",
    )

    def __init__(self, connection: Connection, head: Head) -> None:
        self.connection = connection
        self.transport = connection.transport
        self.head = head
        self.complete = False
        self.suspended = False
        self.moved = False
        self.disconnected = ""
        # Not by has_body, which would be a call for each request.
        self.body = Upload(connection, head) if head.content_length or head.flags & CHUNKED else None
        self._logged = False
        self._request_done = False
        self._response: Response | None = None
        self.started = perf_counter() if connection.service.is_timed else 0.0

    @property
    def kind(self) -> str:
        """What an error is counted as."""
        return "http" if self._stream is None else "sse"

    @property
    def client_left(self) -> bool:
        """Whether the application has been, or could have been, told that the client has left."""
        return bool(self.disconnected or self.transport.eof or self.transport.lost)

    @property
    def has_ended(self) -> bool:
        """Whether the application has given all of its response, though it may not have left yet."""
        return self._response is not None and self._response.ended

    @property
    def _has_answered(self) -> bool:
        """Whether a byte of the response has gone out."""
        return self._response is not None and self._response.wrote_head

    @property
    def _stream(self) -> EventStream | None:
        """The response, if it is an event stream."""
        return None if self._response is None else self._response.stream

    def __str__(self) -> str:
        line = self.head.line
        return f"{self.kind} {line.method} {line.raw_path.decode('ascii')}, {self.connection}"

    def scope(self) -> HTTPScope:
        """Make the ASGI scope."""
        # A cast would be a call for each request.
        scope: HTTPScope = self.connection.scope(self.head)  # type: ignore[assignment]
        scope["type"] = "http"
        scope["method"] = self.head.line.method
        return scope

    # Receiving

    async def receive(self) -> HTTPRequest | HTTPDisconnect:
        """Return the next part of the body, or wait for the client to leave.

        What has arrived is returned before any cancellation point.
        """
        transport = self.transport
        transport.budget -= 1
        if transport.budget < 0:
            await transport.breathe()
        while True:
            message = self._next_message()
            if message is not None:
                return message
            if self.body is not None and self.body.expects_continue and not self._has_answered:
                self.body.expects_continue = False
                transport.post(CONTINUE)
            if self._request_done and len(self.connection.buffer) >= READ_AHEAD_BYTES:
                await transport.wait_woken()
            else:
                await transport.wait_turn()

    def _next_message(self) -> HTTPRequest | HTTPDisconnect | None:
        """Return what can be returned now; reads the socket without waiting."""
        if self.complete or self.disconnected:
            return self._disconnect_event()
        if self._request_done:
            return self._watch()
        if self.body is None:
            self._request_done = True
            return {"type": "http.request", "body": b"", "more_body": False}
        try:
            data = self.body.take()
        except RequestError as error:
            self._refuse(error)
            return self._disconnect_event()
        if data is None:
            return self._disconnect_event() if self.transport.eof else None
        self._request_done = self.body.done
        return {"type": "http.request", "body": data, "more_body": not self.body.done}

    def _watch(self) -> HTTPDisconnect | None:
        """See whether the client has left; what else it sends is kept for the next request."""
        if not self.connection.read_ahead():
            return None
        if self._stream is not None:
            self.disconnect(self.transport.lost or "client_closed")
        return self._disconnect_event()

    def _disconnect_event(self) -> HTTPDisconnect:
        if self.complete:
            return {"type": "http.disconnect"}
        return {"type": "http.disconnect", "reason": self.disconnected or self.transport.lost or "client_closed"}

    def _refuse(self, error: RequestError) -> None:
        """Answer a body that cannot be read, if no answer has begun; the application sees a disconnect."""
        self.connection.keep_alive = False
        if not self._has_answered:
            log.info("%s: answered %d: %s", self.connection, error.status, error)
            self._post_error(error.status, str(error))
        else:
            log.info("%s: cut off: %s", self.connection, error)
        self.disconnect(REFUSALS.get(error.status, "protocol_error"))

    # Sending

    async def send(self, message: SendMessage) -> None:
        """Take the next part of the response.

        Raises:
            AppProtocolError: If ASGI does not allow this event here; nothing of it is sent.
            ClientDisconnected: If the client has left.

        Cancellation: what the kernel did not take of a body stays queued. A send that waits for that is cancelled
        without a trace.
        """
        await checkpoint_if_cancelled()
        if self.disconnected or self.complete or self.transport.lost or self.transport.is_abandoned:
            await self._hold_back()
        try:
            response = self._response
            if message["type"] == "http.response.body" and response is not None:
                data, body = response.take(message)
                size = len(body)
                transport = self.transport
                taken = transport.write_nowait(data)
                # Before it is waited for: what a cancelled send leaves in the queue still leaves.
                response.sent += size
                if taken != len(data):
                    response.enqueue(data, taken, body)
                    await transport.drain()
                elif response.stream is not None:
                    response.stream.sent(body)
                if response.ended:
                    # Without yielding, if all is written: the connection would move on for every response.
                    if not data:
                        await transport.drain()
                    self._complete(response)
                else:
                    transport.budget -= 1 + (size >> 14)
                    if transport.budget < 0:
                        await transport.breathe()
            elif message["type"] == "http.response.start":
                self._start(message)
            else:
                raise _misplaced(message["type"])
        except MALFORMED as error:
            raise explain(message, error) from None

    async def _hold_back(self) -> None:
        """Wait for what a cancelled send has left, or say why nothing can be sent any more."""
        if not (self.disconnected or self.complete or self.transport.lost):
            await self.transport.drain()
            if not (self.disconnected or self.complete):
                return
        # An application that tries for ever must not keep others waiting.
        await self.transport.breathe()
        if self.complete:
            raise AppProtocolError("the response is complete, nothing can follow")
        raise ClientDisconnected(self.disconnected or self.transport.lost)

    def _start(self, message: HTTPResponseStart) -> None:
        if self._response is not None:
            raise AppProtocolError("the response has been started already, and a start comes once")
        line = self.head.line
        response = self._response = Response(self.connection, line, self.body, message)
        if response.fields.flags & EVENT_STREAM and response.status == 200 and line.method != "HEAD":
            response.become_stream()

    def _complete(self, response: Response) -> None:
        """Note that the client has it all, and let the connection go on; once, whoever of several sees it first."""
        if self.complete:
            return
        self.complete = True
        if response.stream is not None:
            response.stream.close("done")
        if self.connection.service.access is not None:
            self._log_access(response.status, response.body_bytes)
        self.transport.wake_readers()
        if self.suspended:
            self.move()

    def _log_access(self, status: int, size: int) -> None:
        """Add a line to the access log, if there is one."""
        access = self.connection.service.access
        if access is not None:
            self._logged = True
            access.add(self.connection.client, self.head.line, status, size, self.started)

    # The end

    def move(self) -> None:
        """Let the connection go on without this application."""
        self.moved = True
        self.connection.move(self)

    async def fail(self, *, logged: bool) -> None:
        """End a response that its application did not complete: with a 500, or visibly broken.

        Args:
            logged: Whether the application's error has been logged already.
        """
        response = self._response
        if response is not None and response.ended and not self.transport.lost:
            # Its last send was cancelled while the client was taking the rest.
            await self.transport.drain()
            self._complete(response)
            return
        self.connection.keep_alive = False
        if self.disconnected or self.transport.lost:
            return
        self.connection.reason = "client_closed" if self.transport.eof else "server_error"
        if not logged and not self.transport.eof:
            self.connection.service.app_failed(self.kind, self, "it returned before its response was complete")
        if not self._has_answered:
            self._post_error(500, "Internal Server Error")
            await self.transport.drain()

    def _post_error(self, status: int, reason: str) -> None:
        """Answer with an error of the server's own."""
        date = self.connection.service.date.line()
        answer = error_response(status, reason, date, to_head=self.head.line.method == "HEAD")
        self.transport.post(answer)
        self._log_access(status, body_bytes(answer))

    def leave(self) -> None:
        """See that a response which is not complete ends so for everybody, and that the access log has its line."""
        response = self._response
        if response is not None and not self.complete:
            response.abandon(self.disconnected)
        if self.connection.service.access is not None and not self._logged:
            if response is None:
                self._log_access(CLIENT_LEFT, 0)
            else:
                self._log_access(response.status, response.body_bytes)

    def disconnect(self, reason: str) -> None:
        """Tell the application that the client has left."""
        if not self.disconnected and not self.complete:
            self.disconnected = self.connection.reason = reason
            stream = self._stream
            if stream is not None:
                stream.disconnected()
            self.transport.wake_readers()

    def tick(self, now: float) -> None:
        """Hold a body to its least speed; watch over an event stream whose application neither sends nor receives."""
        if self.complete:
            return
        response = self._response
        if response is not None and response.ended and self.transport.is_drained and not self.transport.lost:
            # Its last send was cancelled, and nobody else sees that the client has taken the rest.
            self._complete(response)
            return
        if self.body is not None and not self._request_done:
            try:
                # Whoever waits for the socket now waits for the body.
                self.body.tick(now, awaited=self.transport.task is not None)
            except RequestError as error:
                self._refuse(error)
                return
        if response is None or response.stream is None:
            if self.transport.hangup:
                # Behind a full buffer nobody reads the end, and nobody else would wake who waits for it.
                self.transport.wake_readers()
            return
        if self.disconnected:
            if response.stream.is_overdue:
                self.connection.cancel_scope.cancel()
        elif self.connection.service.draining:
            # It began after all others had been told.
            self.shut_down()
        else:
            self._open_stream(response)
            self._watch_stream(response.stream)

    def _open_stream(self, response: Response) -> None:
        """Answer the client of an event stream that has had no event yet.

        Not at its start, and not where its application has ended: one that fails before its first event is answered
        with a 500.
        """
        if self.suspended:
            response.post_head()

    def _watch_stream(self, stream: EventStream) -> None:
        """See whether the client of an event stream has left."""
        self._watch()
        if self.connection.buffer:
            # Read from under a task that waits for the socket.
            self.transport.wake_readers()
        # What comes of a body that the application is taking is not in the way.
        if (self.body is None or not self.body.taken or self._request_done) and stream.read_past():
            self._request_done = True
            self._watch()
        if self.transport.lost:
            self.disconnect(self.transport.lost)

    def shut_down(self) -> None:
        """Take note that the server stops: the response in flight is the last, an event stream ends."""
        response = self._response
        if self.connection.service.draining or not self._has_answered:
            # A client that was told to go on, before another worker took over, may have sent its next request.
            self.connection.keep_alive = False
        if self.complete:
            # The rest of its body is not waited for any more.
            self.transport.wake_readers()
        if response is not None and response.stream is not None and not response.ended and not self.client_left:
            self._open_stream(response)
            self.disconnect("server_shutdown")
            if response.is_chunked:
                # Whole for the client, which then connects again instead of reporting an error.
                self.transport.post(b"0\r\n\r\n")


def _misplaced(kind: str) -> AppProtocolError:
    """Make the error of an event that is none of those which may come now."""
    if kind == "http.response.body":
        return AppProtocolError("http.response.body comes after http.response.start")
    return AppProtocolError(f"an http scope has no event {kind!r}, but http.response.start and http.response.body")
