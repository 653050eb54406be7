"""One WebSocket session, as an application sees it.

It has three parts, in a file each: the `Opening` until the handshake is answered, the `Dialogue` from then on, and the
`Ending` of either.

Source: the ASGI WebSocket message format 2.4; RFC 6455.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from trio.lowlevel import checkpoint_if_cancelled

from pagi_trio.errors import AppProtocolError, ClientDisconnected, RequestError
from pagi_trio.metrics import catalog
from pagi_trio.nurseries.connection import READ_AHEAD_BYTES
from pagi_trio.nurseries.dialogue import Dialogue
from pagi_trio.nurseries.ending import ABNORMAL, Ending
from pagi_trio.nurseries.opening import Opening
from pagi_trio.nurseries.readiness import BUDGET
from pagi_trio.nurseries.service import WEBSOCKET
from pagi_trio.wire.close_frame import REASON_MAX_BYTES, is_sendable_close_code
from pagi_trio.wire.misuse import MALFORMED, explain

if TYPE_CHECKING:
    from pagi_trio.asgi import (
        SendMessage,
        WebSocketClose,
        WebSocketConnect,
        WebSocketDisconnect,
        WebSocketReceive,
        WebSocketScope,
    )
    from pagi_trio.nurseries.connection import Connection
    from pagi_trio.wire.head import Head

_HANDSHAKES: Final = catalog.by_label("pagi_websocket_handshakes_total")


class WebSocketSession:
    """One session, from its handshake request to the end of the connection.

    Attributes:
        complete: Never: nothing follows a session on its connection.
        suspended: Whether the application's coroutine waits for something.
        moved: Never.
    """

    __slots__ = (
        "_connected",
        "_dialogue",
        "_ending",
        "_opening",
        "_receiving",
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
            opening = Opening(connection, head)
        except RequestError:
            connection.service.meter.add(_HANDSHAKES["invalid"])
            raise
        self.connection = connection
        self.transport = connection.transport
        self.head = head
        self.complete = False
        self.suspended = False
        self.moved = False
        self._connected = False
        self._receiving = False
        # One of these two at a time.
        self._opening: Opening | None = opening
        self._dialogue: Dialogue | None = None
        self._ending = Ending(connection, opening)

    @property
    def kind(self) -> str:
        """What an error is counted as."""
        return "websocket"

    @property
    def client_left(self) -> bool:
        """Whether the application has been, or could have been, told that the client has left."""
        return self._ending.is_over or bool(self.transport.lost)

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
            dialogue = self._dialogue
            message: WebSocketReceive | WebSocketDisconnect | None
            if dialogue is None:
                message = self._watch_handshake()
            else:
                message = dialogue.inbox.take() if dialogue.inbox else dialogue.next_message()
            if message is not None:
                return message
            if transport.budget < 0:
                await transport.breathe()
            else:
                await transport.wait_turn()

    def _watch_handshake(self) -> WebSocketDisconnect | None:
        """See whether the client leaves before it has been answered; what it sends too early is kept."""
        if self._ending.event is not None:
            # An application that asks again and again must not keep the others waiting.
            self.transport.budget -= 16
            return self._ending.event
        if self.connection.read_ahead():
            return self._ending.lose("client_closed")
        if len(self.connection.buffer) >= READ_AHEAD_BYTES and self._opening is not None:
            # Nothing may come before the 101 (RFC 6455 section 4.1), and so much of it is no accident.
            self._opening.refuse(400, "the client sends before its handshake is answered")
            return self._ending.lose("queue_overflow")
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
            if self._ending.event is not None or self.transport.lost:
                await self._refuse_event(message)
            elif self._opening is not None:
                await self._answer(self._opening, message)
            elif message["type"] == "websocket.send":
                await self._dialogue.send(message)  # type: ignore[union-attr]  # there is one where there is no opening
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
        if self._ending.by_app:
            raise AppProtocolError(f"the application has ended the session, {message['type']!r} cannot follow")
        told = "" if self._ending.event is None else self._ending.event["reason"]
        raise ClientDisconnected(told or self.transport.lost or "client_closed")

    async def _send_close(self, message: WebSocketClose) -> None:
        code = message.get("code", 1000)
        if not isinstance(code, int) or not is_sendable_close_code(code):
            raise AppProtocolError(
                f"{code!r} is no close code to send: those are ints, 1000 to 1003, 1007 to 1014 or 3000 to 4999"
            )
        reason = message.get("reason") or ""
        if len(reason.encode("utf-8")) > REASON_MAX_BYTES:
            self.connection.service.say_once(f"the reason of a close was cut to the {REASON_MAX_BYTES} bytes that fit")
        self._ending.by_app = True
        self._ending.close(code, reason)
        await self.transport.drain()

    async def _answer(self, opening: Opening, message: SendMessage) -> None:
        if message["type"] != "websocket.accept":
            await opening.deny(message)
            if opening.is_denied:
                self._ending.by_app = True
                self._ending.note(ABNORMAL, "")
            return
        connection = self.connection
        response, deflate = opening.accept(message)
        self.transport.post(response)
        connection.enter(WEBSOCKET)
        connection.service.meter.add(_HANDSHAKES["accepted"])
        self._opening = None
        self._dialogue = Dialogue(connection, self._ending, deflate)
        await self.transport.drain()

    # The end

    async def finish(self, *, failed: bool) -> bool:
        """End what the application did not: answer the handshake, or close the session; then see the client off.

        Args:
            failed: Whether the application raised.

        Returns:
            Whether the client may still be sending, so that the connection has to linger.
        """
        ending = self._ending
        if self._opening is not None:
            if ending.event is None and not self._opening.is_answered:
                self.connection.reason = "server_error"
                if not failed:
                    self.connection.service.app_failed(self.kind, self, "it returned without answering the handshake")
            # Before it is counted out, and has its line in the access log.
            await self._opening.abandon()
            ending.note(ABNORMAL, "")
            return True
        if ending.event is None:
            if self.transport.lost:
                # The application has heard of it by an error at its send, or has not.
                ending.lose(self.transport.lost)
            elif failed:
                ending.close(1011, "", "server_error")
            else:
                ending.close(1000, "")
        return self._dialogue is None or not await self._dialogue.see_off()

    def move(self) -> None:
        """Do nothing: a session is never complete before its connection."""

    def leave(self) -> None:
        """Count the session out, and what became of it, once nothing can change that any more."""
        if self._opening is not None:
            self.connection.service.meter.add(_HANDSHAKES[self._opening.outcome])
        self._ending.count_out()

    def shut_down(self) -> None:
        """Tell client and application that the server stops."""
        self.connection.keep_alive = False
        if self._ending.is_over:
            # Its client has left or has been refused, and that is what it ended by.
            return
        if self._opening is not None:
            if not self.connection.service.draining:
                # Another worker takes over; what has been asked for before may still be had, for a moment.
                return
            if self._opening.is_being_denied:
                # A response in flight like any other.
                return
            self._opening.refuse(503, "the server is stopping")
            self.connection.reason = "server_shutdown"
            self._ending.note(ABNORMAL, "server_shutdown")
        else:
            self._ending.close(1001, "", "server_shutdown")

    def tick(self, now: float) -> None:
        """Look after a session whose application may neither send nor receive."""
        # For what is read here; such an application would never get it back.
        self.transport.budget = BUDGET
        is_read = self._receiving or self.transport.task is not None
        self._receiving = False
        if self._dialogue is not None:
            self._dialogue.tick(now, is_read=is_read)
        elif not is_read:
            self._watch_handshake()
