"""How one WebSocket ends: decided once, told to the application, counted.

Source: RFC 6455 sections 5.5.1 and 7.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pagi_trio.nurseries.closes import websocket_closed
from pagi_trio.nurseries.scope import TimedScope
from pagi_trio.nurseries.service import CLOSING
from pagi_trio.wire.close_frame import encode_close

if TYPE_CHECKING:
    from pagi_trio.asgi import WebSocketDisconnect
    from pagi_trio.nurseries.connection import Connection
    from pagi_trio.nurseries.keepalive import Keepalive
    from pagi_trio.nurseries.opening import Opening

ABNORMAL: Final = 1006
"""The code an application is told when the connection ended without a Close frame (RFC 6455 section 7.1.5)."""

_UNANSWERED: Final = "client_timeout"
"""What a connection ends by whose application has closed, until the client has answered or left."""


class Ending:
    """The end of one session, whichever side brings it about, from before its handshake is answered.

    Args:
        connection: Whose session it is.
        opening: The handshake, until `count_in` puts the session in its place.

    Attributes:
        event: What the application is told, once the session is over.
        by_app: Whether the application has ended it.
        peer_closed: Whether the client's Close frame has come: nothing may follow it.
    """

    __slots__ = ("_connection", "_counted", "_keepalive", "by_app", "event", "peer_closed")

    def __init__(self, connection: Connection, opening: Opening) -> None:
        self._connection = connection
        # What is left when all is over.
        self._counted: Opening | TimedScope | None = opening
        self._keepalive: Keepalive | None = None
        self.event: WebSocketDisconnect | None = None
        self.by_app = False
        self.peer_closed = False

    @property
    def is_over(self) -> bool:
        """Whether the session is over."""
        return self.event is not None

    def count_in(self, active: TimedScope, keepalive: Keepalive) -> None:
        """Count an accepted session as active until it ends, which ends its pongs as well."""
        active.__enter__()
        self._counted = active
        self._keepalive = keepalive

    def count_out(self, code: int = ABNORMAL, side: str = "none") -> None:
        """Count out the session, if it was accepted, and whatever its denial was; once.

        Args:
            code: What it ended with.
            side: Whose Close frame came first: client, server, or none.
        """
        counted, self._counted = self._counted, None
        if isinstance(counted, TimedScope):
            self._connection.service.meter.add(websocket_closed(code, side))
        if counted is not None:
            counted.leave()

    def close(self, code: int, reason: str, token: str = "") -> WebSocketDisconnect:
        """Start the closing handshake from this side; the application sees the code it closed with.

        Args:
            code: Of the Close frame.
            reason: Of the Close frame.
            token: Why, as a disconnect reason; empty where the application has closed.
        """
        self._connection.transport.post(encode_close(code, reason))
        self._connection.reason = token or _UNANSWERED
        return self.note(code, token or reason, side="server")

    def answer(self, code: int, reason: str) -> WebSocketDisconnect:
        """Answer the Close frame of the client, which came first."""
        self.peer_closed = True
        self._connection.transport.post(encode_close(code))
        return self.note(code, reason, side="client")

    def lose(self, reason: str) -> WebSocketDisconnect:
        """Take note that the connection ended without a closing handshake.

        Args:
            reason: Why, as a disconnect reason.
        """
        transport = self._connection.transport
        transport.lose(reason)
        self._connection.reason = transport.lost
        return self.note(ABNORMAL, transport.lost)

    def note(self, code: int, reason: str, *, side: str = "none") -> WebSocketDisconnect:
        """Take note that the session is over, once; tell whoever receives.

        Args:
            code: As the application is told.
            reason: The same.
            side: Whose Close frame came first.
        """
        if self.event is None:
            self.event = {"type": "websocket.disconnect", "code": code, "reason": reason}
            self.count_out(code, side)
            if self._keepalive is not None:
                self._keepalive.end()
            transport = self._connection.transport
            self._connection.enter(CLOSING)
            transport.wake_readers()
            if not transport.is_drained:
                transport.release_writers()
        return self.event

    def settle(self, reason: str) -> None:
        """Take note of what became of a closing handshake that the application began.

        Args:
            reason: How it ended: done, client_closed or protocol_error.
        """
        if self._connection.reason == _UNANSWERED:
            self._connection.reason = reason
