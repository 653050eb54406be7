"""A response on its way out: what the application's events become, and who is told of its bytes and its end.

Source: the ASGI HTTP message format 2.4; RFC 9110 section 10.1.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pagi_trio.nurseries.service import SSE
from pagi_trio.nurseries.sse import EventStream
from pagi_trio.wire.framing import ResponseFraming
from pagi_trio.wire.misuse import as_bytes
from pagi_trio.wire.response import ENCODED

if TYPE_CHECKING:
    from pagi_trio.asgi import HTTPResponseBody, HTTPResponseStart
    from pagi_trio.nurseries.connection import Connection
    from pagi_trio.nurseries.upload import Upload
    from pagi_trio.wire.head import RequestLine

COPY_BYTES: Final = 131072
"""Up to this, a body is copied behind its head to leave in one write; a larger one is not held twice."""


class Response(ResponseFraming):
    """One response of an application, from its start.

    Args:
        connection: Where it goes.
        request: What it answers.
        upload: The request's body, if it has one.
        message: Its start.

    Attributes:
        sent: Bytes that the application has sent as body.
        stream: Set when it is an event stream.

    Raises:
        AppProtocolError: If its start is none; nothing of it is sent.
    """

    __slots__ = ("_connection", "_upload", "sent", "stream")

    def __init__(
        self, connection: Connection, request: RequestLine, upload: Upload | None, message: HTTPResponseStart
    ) -> None:
        super().__init__(request, message["status"], message.get("headers", ()))
        self._connection = connection
        self._upload = upload
        self.sent = 0
        self.stream: EventStream | None = None

    @property
    def body_bytes(self) -> int:
        """Bytes of body so far, framing aside."""
        return self.sent if self.has_body else 0

    def become_stream(self) -> None:
        """Count it in as an event stream; `abandon` counts it out, or whoever sees its end."""
        connection = self._connection
        encoded = self.fields.flags & ENCODED != 0
        if encoded:
            connection.service.say_once("an event stream with a Content-Encoding: its events are not counted")
        self.stream = EventStream(connection, encoded=encoded)
        self.stream.__enter__()
        connection.enter(SSE)

    def take(self, message: HTTPResponseBody) -> tuple[bytes, bytes]:
        """Return what a part of the body is on the wire, the head included if it is the first, and the part itself.

        Raises:
            AppProtocolError: If it is none, or the response would not be what its head says.
        """
        body = message.get("body", b"")
        if type(body) is not bytes:
            body = as_bytes(body, "a body")
        more = message.get("more_body", False)
        if self.wrote_head:
            return self.frame(body, more=more), body
        connection = self._connection
        upload = self._upload
        head, connection.keep_alive = self.head(
            len(body),
            more=more,
            # Nobody knows whether a client that still waits for its 100 will send the body.
            keep_alive=connection.keep_alive and (upload is None or not upload.expects_continue),
            date=connection.service.date,
        )
        part = self.frame(body, more=more)
        if len(part) > COPY_BYTES:
            connection.transport.post(head)
            return part, body
        return head + part, body

    def post_head(self) -> None:
        """Send the head of a stream that has no event yet: its client waits for it, maybe to make one."""
        if not self.wrote_head:
            head, _ = self.take({"type": "http.response.body", "body": b"", "more_body": True})
            self._connection.transport.post(head)

    def enqueue(self, data: bytes, taken: int, body: bytes) -> None:
        """Queue what the kernel left of a write; on an event stream, count what it takes of the body.

        Args:
            data: What `take` has returned.
            taken: Bytes of it that the kernel took.
            body: The part of the body in it.
        """
        view = memoryview(data)
        observer = None
        if self.stream is not None and body:
            end = len(data) - self.bytes_behind
            observer = self.stream.observer(end - len(body), end)
            observer(view[:taken], False)
        self._connection.transport.enqueue(view[taken:], observer)

    def abandon(self, disconnected: str) -> None:
        """Leave it incomplete: its client shall not take a part for the whole, and a stream is counted out.

        Args:
            disconnected: What the application was told that its client has left by, if it was.
        """
        connection = self._connection
        transport = connection.transport
        # Not decided yet is cancelled, with the whole server.
        reason = "server_shutdown" if connection.reason == "done" else connection.reason
        if self.ends_by_close and not transport.closed and (self.stream is None or not disconnected):
            transport.reset(reason)
        if self.stream is not None:
            self.stream.close(disconnected or transport.lost or reason)
