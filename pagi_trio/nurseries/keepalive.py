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

    __slots__ = (
        *("_due", "_is_ping_queued", "_owed", "_quiet_since", "_sent", "_settings", "_transport", "_unanswered"),
    )

    def __init__(self, settings: WebSocketSettings, transport: Transport, now: float) -> None:
        self._settings = settings
        self._transport = transport
        self._due = now + settings.ping_interval_s
        self._sent = float("inf")
        self._is_ping_queued = False
        self._quiet_since = now
        # Pings since the last pong that has left. If there are any, one pong waits in the transport's queue, and no
        # more than one, so that a flood of pings cannot fill it; the latest ping it does not answer is owed the next.
        self._unanswered = 0
        self._owed: bytes | None = None

    def pinged(self, payload: bytes) -> None:
        """Answer a ping, or keep in mind to do so.

        Raises:
            WebSocketError: 1008 if the client sends pings without end and does not read the answers.
        """
        if not self._unanswered:
            self._answer(payload)
            return
        # Only the latest ping needs an answer (RFC 6455 section 5.5.3).
        self._owed = payload
        self._unanswered += 1
        most = self._settings.pings_outstanding
        if self._unanswered > most:
            raise WebSocketError(1008, f"more than {most} pings, and their pongs are not read")

    def _answer(self, payload: bytes) -> None:
        """Send a pong, behind what is queued already; it answers all pings before it as well."""
        self._owed = None
        self._unanswered = 0 if self._transport.post(encode(PONG, payload), self._observe) else 1

    def _observe(self, _data: memoryview, finished: bool) -> None:
        """Answer the ping that has come since, once the kernel has taken a pong."""
        if finished:
            self._unanswered = 0
            if self._owed is not None:
                self._answer(self._owed)

    def end(self) -> None:
        """Answer nothing any more: no frame may follow a Close (RFC 6455 section 5.5.1)."""
        self._owed = None

    def ponged(self) -> None:
        """Take note of a pong, whatever it answers."""
        self._sent = float("inf")

    def _ping_left(self, _data: memoryview, finished: bool) -> None:
        self._is_ping_queued = not finished

    def is_overdue(self, now: float) -> bool:
        """Whether a ping has waited for its answer too long."""
        return now - self._sent > self._settings.ping_timeout_s

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
        if is_busy or is_unread or not self._transport.is_drained:
            # A message that still leaves, or waits for the application, is one all the same.
            self._quiet_since = now
        elif settings.idle_s and now - self._quiet_since > settings.idle_s:
            return "idle_timeout"
        if self._is_ping_queued:
            # While the client takes what is before it, it cannot answer yet.
            self._sent = max(self._sent, now - self._transport.stalled_s)
        if self.is_overdue(now) and not is_unread:
            return "keepalive_timeout"
        if settings.ping_interval_s and now >= self._due:
            self._due = now + settings.ping_interval_s
            if self._sent == float("inf"):
                self._sent = now
                self._is_ping_queued = not self._transport.post(encode(PING, b""), self._ping_left)
        return ""
