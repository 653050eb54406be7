"""One WebSocket session, as an application sees it.

A session has no task of its own. While the application receives, it reads the socket itself; while it only sends or
sleeps, the reaper reads for it: it answers pings, sees the Close, and keeps at most a high-water mark of messages.

Source: the ASGI WebSocket message format 2.4; RFC 6455 sections 4.2, 5.5 and 7.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Literal, cast

from trio.lowlevel import checkpoint_if_cancelled

from pagi_trio.errors import AppProtocolError, ClientDisconnected, RequestError, WebSocketError
from pagi_trio.metrics import catalog
from pagi_trio.nurseries.closes import websocket_closed
from pagi_trio.nurseries.connection import READ_AHEAD_BYTES
from pagi_trio.nurseries.inbox import Inbox
from pagi_trio.nurseries.keepalive import Keepalive
from pagi_trio.nurseries.opening import Opening
from pagi_trio.nurseries.readiness import BUDGET
from pagi_trio.nurseries.scope import ActiveScope
from pagi_trio.nurseries.service import CLOSING, WEBSOCKET
from pagi_trio.wire.frames import (
    BINARY,
    CLOSE,
    PING,
    REASON_MAX_BYTES,
    TEXT,
    Decoder,
    Event,
    encode,
    encode_close,
    is_sendable_close_code,
)
from pagi_trio.wire.misuse import MALFORMED, as_bytes, explain

if TYPE_CHECKING:
    from pagi_trio.asgi import (
        SendMessage,
        WebSocketClose,
        WebSocketConnect,
        WebSocketDisconnect,
        WebSocketReceive,
        WebSocketScope,
        WebSocketSend,
    )
    from pagi_trio.nurseries.connection import Connection
    from pagi_trio.wire.deflate import Deflater
    from pagi_trio.wire.head import Head

    DataEvent = tuple[Literal[1], str] | tuple[Literal[2], bytes]

_TOTAL: Final = catalog.index("pagi_websocket_connections_total")
_ACTIVE: Final = catalog.index("pagi_websocket_connections_active")

_HANDSHAKES: Final = catalog.by_label("pagi_websocket_handshakes_total")

ABNORMAL: Final = 1006
"""The code an application is told when the connection ended without a Close frame (RFC 6455 section 7.1.5)."""

_UNANSWERED: Final = "client_timeout"
"""What a connection ends by whose application has closed, until the client has answered or left."""

# What a connection is said to have ended by when its client breaks the protocol or a limit with this close code.
_REASONS: Final = {1008: "queue_overflow", 1009: "body_too_large"}


class WebSocketSession:
    """One session, from its handshake request to the end of the connection.

    Attributes:
        complete: Never: nothing follows a session on its connection.
        suspended: Whether the application's coroutine waits for something.
        moved: Never.
    """

    __slots__ = (
        "_active",
        "_busy",
        "_connected",
        "_decoder",
        "_deflater",
        "_disconnect",
        "_ended_by_app",
        "_inbox",
        "_keepalive",
        "_opening",
        "_peer_closed",
        "_receiving",
        "_sizes",
        "_tally",
        "complete",
        "connection",
        "head",
        "moved",
        "suspended",
        "transport",
    )

    def __init__(self, connection: Connection, head: Head) -> None:
        """Read the handshake request.

        Raises:
            RequestError: If it is not one that RFC 6455 allows.
        """
        try:
            self._opening: Opening | None = Opening(connection, head)
        except RequestError:
            connection.service.meter.add(_HANDSHAKES["invalid"])
            raise
        self.connection = connection
        self.transport = connection.transport
        self.head = head
        self.complete = False
        self.suspended = False
        self.moved = False
        self._tally = connection.service.meter.websocket
        self._connected = False
        self._receiving = False
        self._active: ActiveScope | None = None
        self._decoder: Decoder | None = None
        self._deflater: Deflater | None = None
        self._disconnect: WebSocketDisconnect | None = None
        self._ended_by_app = False
        self._inbox: Inbox | None = None
        self._keepalive: Keepalive | None = None
        # Whether messages have gone in either direction since the reaper looked last.
        self._busy = False
        # Payload sizes of the messages that are queued in the transport, in order.
        self._sizes: deque[int] | None = None
        self._peer_closed = False

    @property
    def kind(self) -> str:
        """What an error is counted as."""
        return "websocket"

    @property
    def client_left(self) -> bool:
        """Whether the application has been, or could have been, told that the client has left."""
        return self._disconnect is not None or bool(self.transport.lost)

    def __str__(self) -> str:
        return f"websocket {self.head.line.raw_path.decode('ascii')}, {self.connection}"

    def scope(self) -> WebSocketScope:
        """Make the ASGI scope."""
        scope = cast("WebSocketScope", self.connection.scope(self.head))
        scope["type"] = "websocket"
        scope["scheme"] = "ws" if scope["scheme"] == "http" else "wss"
        scope["subprotocols"] = [] if self._opening is None else list(self._opening.subprotocols)
        return scope

    # Receiving

    async def receive(self) -> WebSocketConnect | WebSocketReceive | WebSocketDisconnect:
        """Return the next message, or the disconnect, again and again once it has come.

        What has arrived is returned before any cancellation point.
        """
        transport = self.transport
        if transport.budget < 0:
            await transport.breathe()
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        self._receiving = True
        while True:
            message = self._inbox.take() if self._inbox else self._next_message()
            if message is not None:
                return message
            if transport.budget < 0:
                await transport.breathe()
            else:
                await transport.wait_turn()

    def _next_message(self) -> WebSocketReceive | WebSocketDisconnect | None:  # noqa: C901 - split, each message pays a call
        """Return what can be returned now; reads the socket once at most, without waiting."""
        if self._disconnect is not None:
            # An application that asks again and again must not keep the others waiting.
            self.transport.budget -= 16
            return self._disconnect
        decoder = self._decoder
        if decoder is None:
            return self._watch_handshake()
        transport = self.transport
        try:
            event = decoder.next_event()
            if event is None and not decoder.paused:
                data = transport.read_nowait() if transport.ready or transport.closed else None
                if not data:
                    return None if data is None else self._lost("client_closed")
                event = decoder.decode(data)
            while event is not None:
                if event[0] == TEXT or event[0] == BINARY:
                    return self._received(event)
                ended = self._control(event)
                if ended is not None:
                    return ended
                # A client may send nothing but these, as fast as it can.
                transport.budget -= 1
                if transport.budget < 0:
                    return None
                event = decoder.next_event()
            if decoder.paused:
                # Very many fragments; others run first.
                transport.budget = -1
        except WebSocketError as error:
            return self._close(error.code, str(error), _REASONS.get(error.code, "protocol_error"))
        return None

    def _received(self, event: DataEvent) -> WebSocketReceive:
        """Count a message and make the application's event of it."""
        message: WebSocketReceive
        if event[0] == TEXT:
            text = event[1]
            size = len(text) if text.isascii() else len(text.encode("utf-8"))
            message = {"type": "websocket.receive", "text": text}
        else:
            size = len(event[1])
            message = {"type": "websocket.receive", "bytes": event[1]}
        self.transport.budget -= 1 + (size >> 12)
        self._busy = True
        tally = self._tally
        tally.received.append(size)
        if not tally.dirty:
            tally.mark()
        return message

    def _control(self, event: Event) -> WebSocketDisconnect | None:
        keepalive = self._keepalive
        assert keepalive is not None
        if event[0] == PING:
            keepalive.pinged(event[1])
        elif event[0] == CLOSE:
            code, reason = event[1]
            self._peer_closed = True
            self.transport.post(encode_close(code))
            return self._ended(code, reason, side="client")
        else:
            keepalive.ponged()
        return None

    def _watch_handshake(self) -> WebSocketDisconnect | None:
        """See whether the client leaves before it has been answered; what it sends too early is kept."""
        if self.connection.read_ahead():
            return self._lost("client_closed")
        if len(self.connection.buffer) >= READ_AHEAD_BYTES and self._opening is not None:
            # Nothing may come before the 101 (RFC 6455 section 4.1), and so much of it is no accident.
            self._opening.refuse(400, "the client sends before its handshake is answered")
            return self._lost("queue_overflow")
        return None

    # Sending

    async def send(self, message: SendMessage) -> None:
        """Take the next event of the application.

        Raises:
            AppProtocolError: If ASGI does not allow this event here; nothing of it is sent.
            ClientDisconnected: If the session is over.

        Cancellation: what the kernel did not take of a message stays queued, and leaves before anything else.
        """
        await checkpoint_if_cancelled()
        try:
            if self._disconnect is not None or self.transport.lost:
                await self._refuse_event(message)
            elif self._opening is not None:
                await self._answer(self._opening, message)
            elif message["type"] == "websocket.send":
                await self._send_message(message)
            elif message["type"] == "websocket.close":
                await self._send_close(message)
            else:
                raise AppProtocolError(
                    f"{message['type']!r} has no place in an open session, but websocket.send and websocket.close"
                )
        except MALFORMED as error:
            raise explain(message, error) from None

    async def _refuse_event(self, message: SendMessage) -> None:
        """Say that the session is over; to close it again does nothing."""
        # An application that tries for ever must not keep the others waiting.
        await self.transport.breathe()
        if message["type"] == "websocket.close":
            return
        if self._ended_by_app:
            raise AppProtocolError(f"the application has ended the session, {message['type']!r} cannot follow")
        told = "" if self._disconnect is None else self._disconnect["reason"]
        raise ClientDisconnected(told or self.transport.lost or "client_closed")

    async def _send_message(self, message: WebSocketSend) -> None:
        transport = self.transport
        payload = message.get("bytes")
        opcode = BINARY
        if payload is None:
            text = message.get("text")
            if text is None:
                raise AppProtocolError("websocket.send needs a 'text' or 'bytes' that is not None")
            payload = text.encode("utf-8")
            opcode = TEXT
        else:
            if type(payload) is not bytes:
                payload = as_bytes(payload, "the 'bytes' of websocket.send")
            if message.get("text") is not None:
                raise AppProtocolError("websocket.send takes a 'text' or 'bytes', not both")
        size = len(payload)
        self._busy = True
        if self._deflater is None:
            frame = encode(opcode, payload)
        else:
            frame = encode(opcode, self._deflater.compress(payload), True)
        taken = transport.write_nowait(frame)
        if taken == len(frame):
            tally = self._tally
            tally.sent.append(size)
            if not tally.dirty:
                tally.mark()
        else:
            if self._sizes is None:
                self._sizes = deque()
            self._sizes.append(size)
            transport.enqueue(memoryview(frame)[taken:], self._observe)
            await transport.drain()
        transport.budget -= 1 + (size >> 12)
        if transport.budget < 0:
            await transport.breathe()

    def _observe(self, _data: memoryview, finished: bool) -> None:
        """Count a queued message once the kernel has taken its last byte."""
        if finished and self._sizes:
            tally = self._tally
            tally.sent.append(self._sizes.popleft())
            if not tally.dirty:
                tally.mark()

    async def _send_close(self, message: WebSocketClose) -> None:
        code = message.get("code", 1000)
        if not isinstance(code, int) or not is_sendable_close_code(code):
            raise AppProtocolError(
                f"{code!r} is no close code to send: those are ints, 1000 to 1003, 1007 to 1014 or 3000 to 4999"
            )
        reason = message.get("reason") or ""
        if len(reason.encode("utf-8")) > REASON_MAX_BYTES:
            self.connection.service.say_once(f"the reason of a close was cut to the {REASON_MAX_BYTES} bytes that fit")
        self._ended_by_app = True
        self._close(code, reason, "")
        await self.transport.drain()

    async def _answer(self, opening: Opening, message: SendMessage) -> None:
        if message["type"] != "websocket.accept":
            await opening.deny(message)
            if opening.is_denied:
                self._ended_by_app = True
                self._ended(ABNORMAL, "", side="none")
            return
        connection = self.connection
        service = connection.service
        settings = service.config.websocket
        response, deflate = opening.accept(message)
        self.transport.post(response)
        self._opening = None
        inflater = None if deflate is None else deflate.inflater(settings.inflate_ratio)
        self._decoder = Decoder(settings.message_max_bytes, inflater, fragments_max=settings.fragments)
        self._deflater = None if deflate is None else deflate.deflater()
        self._active = ActiveScope(service.meter, _TOTAL, _ACTIVE)
        self._active.__enter__()
        service.meter.add(_HANDSHAKES["accepted"])
        connection.enter(WEBSOCKET)
        self._keepalive = Keepalive(settings, self.transport, service.now)
        if connection.buffer:
            # A client may send messages along with its request, before it has seen the answer.
            self._decoder.feed(connection.buffer)
            connection.buffer = b""
        await self.transport.drain()

    # The end

    def _close(self, code: int, reason: str, token: str) -> WebSocketDisconnect:
        """Start the closing handshake from this side; the application sees the code it closed with.

        Args:
            code: Of the Close frame.
            reason: Of the Close frame.
            token: Why, as a disconnect reason; empty where the application has closed.
        """
        self.transport.post(encode_close(code, reason))
        self.connection.reason = token or _UNANSWERED
        return self._ended(code, token or reason, side="server")

    def _lost(self, reason: str) -> WebSocketDisconnect:
        """Take note that the connection ended without a closing handshake."""
        self.transport.lose(reason)
        self.connection.reason = self.transport.lost
        return self._ended(ABNORMAL, self.transport.lost, side="none")

    def _ended(self, code: int, reason: str, *, side: str) -> WebSocketDisconnect:
        """Take note that the session is over, once; tell whoever receives.

        Args:
            code: As the application is told.
            reason: The same.
            side: Whose Close frame came first.
        """
        if self._disconnect is None:
            self._disconnect = {"type": "websocket.disconnect", "code": code, "reason": reason}
            self._count_out(code, side)
            if self._keepalive is not None:
                self._keepalive.end()
            self.connection.enter(CLOSING)
            self.transport.wake_readers()
            if not self.transport.is_drained:
                self.transport.release_writers()
        return self._disconnect

    async def finish(self, *, failed: bool) -> bool:
        """End what the application did not: answer the handshake, or close the session; then see the client off.

        Args:
            failed: Whether the application raised.

        Returns:
            Whether the client may still be sending, so that the connection has to linger.
        """
        if self._opening is not None:
            if not failed and self._disconnect is None:
                self.connection.service.app_failed(self.kind, f"{self}: it returned without answering the handshake")
            if self._disconnect is None:
                self.connection.reason = "server_error"
            self._ended(ABNORMAL, "", side="none")
            await self._opening.abandon()
            return True
        if self._disconnect is None:
            if self.transport.lost:
                # The application has heard of it by an error at its send, or has not.
                self._lost(self.transport.lost)
            else:
                self._close(1011 if failed else 1000, "", "server_error" if failed else "")
        return not await self._see_off()

    async def _see_off(self) -> bool:
        """Read up to the client's Close frame, so that the server closes first (RFC 6455 section 7.1.1).

        A client that broke the protocol is not waited for: a Close of its own would not be read either (section 7.1.7).

        Returns:
            Whether it came: nothing may follow it.
        """
        transport = self.transport
        while self._hear_out():
            if transport.budget < 0:
                await transport.breathe()
            else:
                await transport.wait_turn()
        await transport.drain()
        return self._peer_closed

    def _hear_out(self) -> bool:
        """Take what has come since the session ended, up to the client's Close frame.

        Returns:
            Whether that may still come.
        """
        transport = self.transport
        decoder = self._decoder
        try:
            while decoder is not None and not decoder.ended:
                event = decoder.next_event()
                if decoder.paused:
                    transport.budget = 0
                elif event is None:
                    data = transport.read_nowait()
                    if not data:
                        if data is not None:
                            self._answered("client_closed")
                        return data is None
                    decoder.feed(data)
                elif event[0] == CLOSE:
                    self._peer_closed = True
                    self._answered("done")
                elif event[0] == TEXT or event[0] == BINARY:
                    # Too late for the application, but received all the same.
                    self._received(event)
                # Pings, too, are no reason to keep the others waiting.
                transport.budget -= 1
                if transport.budget < 0:
                    return True
        except WebSocketError:
            self._answered("protocol_error")
        return False

    def _answered(self, reason: str) -> None:
        """Take note of what became of a closing handshake that the application began."""
        if self.connection.reason == _UNANSWERED:
            self.connection.reason = reason

    def move(self) -> None:
        """Do nothing: a session is never complete before its connection."""

    def leave(self) -> None:
        """Count the session out, and what became of it, once nothing can change that any more."""
        if self._opening is not None:
            self.connection.service.meter.add(_HANDSHAKES[self._opening.outcome])
        self._count_out()

    def _count_out(self, code: int = ABNORMAL, side: str = "none") -> None:
        """Count out the session, if it was accepted, and whatever its denial was; once.

        Args:
            code: What it ended with.
            side: Whose Close frame came first.
        """
        active, self._active = self._active, None
        if active is not None:
            self.connection.service.meter.add(websocket_closed(code, side))
            active.leave()
        if self._opening is not None:
            self._opening.leave()

    def shut_down(self) -> None:
        """Tell client and application that the server stops."""
        self.connection.keep_alive = False
        if self._opening is not None:
            if not self.connection.service.draining:
                # Another worker takes over; what has been asked for before may still be had, for a moment.
                return
            if self._opening.is_being_denied:
                # A response in flight like any other.
                return
            self._opening.refuse(503, "the server is stopping")
            self.connection.reason = "server_shutdown"
            self._ended(ABNORMAL, "server_shutdown", side="none")
        elif self._disconnect is None:
            self._close(1001, "", "server_shutdown")

    # Called by the reaper

    def tick(self, now: float) -> None:
        """Read for an application that does not, and keep up the pings."""
        # For what is read here; an application that neither sends nor receives would never get it back.
        self.transport.budget = BUDGET
        keepalive = self._keepalive
        is_overdue = keepalive is not None and keepalive.is_overdue(now)
        if (self._receiving or self.transport.task is not None) and not is_overdue:
            self._receiving = False
        elif self._disconnect is None:
            # A pong may be there, behind messages that the application takes slowly.
            self._read_ahead()
        else:
            self._hear_out()
        if self._disconnect is not None or keepalive is None:
            return
        is_full = self._inbox is not None and self._inbox.is_full
        if self.transport.hangup and is_full:
            # It has left; what it sent before is still the application's to receive.
            self.transport.lose("client_closed")
        if self.transport.lost:
            self._read_ahead()
            self.transport.wake_readers()
            # Behind a full inbox nobody knows yet what the client has said last.
            self._count_out()
            return
        reason = keepalive.tick(now, is_busy=self._busy, is_unread=is_full)
        self._busy = False
        if reason == "idle_timeout":
            self._close(1000, "idle", reason)
        elif reason:
            self._lost(reason)
            self.connection.abort(reason)

    def _read_ahead(self) -> None:
        """Read what has arrived into the inbox, up to its high-water mark."""
        while self._disconnect is None and (self._inbox is None or not self._inbox.is_full):
            message = self._next_message()
            if message is None or message["type"] == "websocket.disconnect":
                return
            if self._inbox is None:
                self._inbox = Inbox()
            self._inbox.put(message)
            # Perhaps from under a task that waits for the socket.
            self.transport.wake_readers()
