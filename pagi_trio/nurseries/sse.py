"""An event stream: a response that a browser reads as events, for as long as both sides like.

Any 200 response of type text/event-stream is one. From its start until its end it counts as active; its events and
bytes count when the kernel has taken them; and a client that leaves is noticed, and the application cancelled, even
while it neither sends nor receives.

Source: the WHATWG HTML standard, section 9.2 (server-sent events); what counts as an event is in the metrics
reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from pagi_trio.metrics import catalog
from pagi_trio.metrics.balance import STREAMS
from pagi_trio.nurseries.connection import READ_AHEAD_BYTES
from pagi_trio.nurseries.scope import TimedScope
from pagi_trio.wire.sse import EventCounter

if TYPE_CHECKING:
    from pagi_trio.nurseries.connection import Connection
    from pagi_trio.nurseries.transport import Observer

_CLOSES: Final = catalog.by_label("pagi_sse_closes_total")

CANCEL_AFTER_S: Final = 0.25
"""How long an application may take at least to act on its disconnect before it is cancelled: with a reaper that looks
four times a second, the client's leaving is then followed by everything within a second."""

DISCARD_READS: Final = 16
"""How often the reaper empties a stream's buffer in one go: 1 MiB in a quarter of a second, and no more."""


class EventStream(TimedScope):
    """One event stream, from the start of its response to its end.

    Args:
        connection: Where it goes.
        encoded: Whether its bytes are not those of the events, so that these cannot be counted.
    """

    __slots__ = ("_connection", "_counter", "_disconnected_at", "_tally")

    def __init__(self, connection: Connection, *, encoded: bool) -> None:
        meter = connection.service.meter
        super().__init__(meter, STREAMS)
        self._connection = connection
        self._tally = meter.sse
        self._counter = None if encoded else EventCounter(self._tally.count_comments)
        # By Trio's clock, seconds.
        self._disconnected_at = float("inf")

    def close(self, reason: str) -> None:
        """Count out the stream; once.

        Args:
            reason: Why it ended, as a token of the disconnect reasons, or done.
        """
        if self.is_entered:
            # Whatever else ends a connection, its client does, or the network.
            self._meter.add(_CLOSES.get(reason, _CLOSES["client_closed"]))
            self.leave()

    def sent(self, data: bytes | memoryview) -> None:
        """Count body bytes that the kernel has taken."""
        tally = self._tally
        if self._counter is not None:
            tally.sent += self._counter.feed(data)
        tally.sent_bytes += len(data)
        if not tally.dirty:
            tally.mark()

    def observer(self, start: int, end: int) -> Observer:
        """Return what counts the body in a write that the kernel takes piece by piece.

        Args:
            start: Where in the write the body begins, behind head and chunk size.
            end: Where it ends.
        """
        position = 0

        def took(piece: memoryview, _finished: bool) -> None:
            nonlocal position
            part = piece[max(start - position, 0) : max(end - position, 0)]
            position += len(piece)
            if part:
                self.sent(part)

        return took

    # Its end

    def disconnected(self) -> None:
        """Take note that its application is told now that the client has left, or that the server stops."""
        self._disconnected_at = trio.current_time()

    @property
    def is_overdue(self) -> bool:
        """Whether its application has had its time to act on the disconnect."""
        return trio.current_time() - self._disconnected_at >= CANCEL_AFTER_S

    def read_past(self) -> bool:
        """Drop what fills the connection's buffer, since the client's leaving may come behind it.

        That is requests which would wait for the stream to end, or a body that its application has begun to answer
        without reading any of it; the connection is then of no further use.

        Returns:
            Whether there was anything to drop.
        """
        connection = self._connection
        dropped = False
        for _ in range(DISCARD_READS):
            if len(connection.buffer) < READ_AHEAD_BYTES:
                break
            dropped = True
            connection.keep_alive = False
            connection.buffer = b""
            connection.read_ahead()
        return dropped
