"""Pings of one WebSocket: those the server sends, and those it owes an answer.

Source: RFC 6455 sections 5.5.2 and 5.5.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pagi_trio.errors import WebSocketError
from pagi_trio.wire.frames import PING, PONG, encode

if TYPE_CHECKING:
    from pagi_trio.config import WebSocketSettings
    from pagi_trio.nurseries.transport import Transport


class Keepalive:
    """Asks a client whether it is there, answers when it asks, and notices when nothing is said at all.

    Args:
        settings: How often, how long, how many.
        transport: Where pings and pongs go.
        now: The reaper's clock, seconds.
    """

    __slots__ = ("_due", "_owed", "_owed_count", "_quiet_since", "_sent", "_settings", "_transport")

    def __init__(self, settings: WebSocketSettings, transport: Transport, now: float) -> None:
        self._settings = settings
        self._transport = transport
        self._due = now + settings.ping_interval_s
        self._sent = float("inf")
        self._quiet_since = now
        self._owed: bytes | None = None
        self._owed_count = 0

    def pinged(self, payload: bytes) -> None:
        """Answer a ping, or keep in mind to do so.

        Raises:
            WebSocketError: 1008 if the client sends pings without end and does not read the answers.
        """
        if self._transport.is_drained:
            self._answer(payload)
            return
        # Only the latest ping needs an answer (RFC 6455 section 5.5.3), so a flood of them cannot fill the queue of a
        # client that does not read.
        self._owed = payload
        self._owed_count += 1
        most = self._settings.pings_outstanding
        if self._owed_count > most:
            raise WebSocketError(1008, f"more than {most} pings, and their pongs are not read")

    def _answer(self, payload: bytes) -> None:
        """Send a pong, which answers all pings before it as well."""
        self._owed = None
        self._owed_count = 0
        self._transport.post(encode(PONG, payload))

    def ponged(self) -> None:
        """Take note of a pong, whatever it answers."""
        self._sent = float("inf")

    def tick(self, now: float, *, is_busy: bool, is_unread: bool) -> str:
        """Send what is due.

        Args:
            now: The reaper's clock, seconds.
            is_busy: Whether messages have gone in either direction since the last tick.
            is_unread: Whether what the client sends is left unread, so that its pongs cannot be seen.

        Returns:
            Why the session should end, as a token of the disconnect reasons; empty while it should not.
        """
        settings = self._settings
        if self._owed is not None and self._transport.is_drained:
            self._answer(self._owed)
        if is_busy or is_unread or not self._transport.is_drained:
            # A message that still leaves, or waits for the application, is one all the same.
            self._quiet_since = now
        elif settings.idle_s and now - self._quiet_since > settings.idle_s:
            return "idle_timeout"
        if now - self._sent > settings.ping_timeout_s and not is_unread:
            return "keepalive_timeout"
        if settings.ping_interval_s and now >= self._due:
            self._due = now + settings.ping_interval_s
            if self._sent == float("inf"):
                self._sent = now
                self._transport.post(encode(PING, b""))
        return ""
