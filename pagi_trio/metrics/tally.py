"""Counts on their way to the store: the cheapest thing that can count a message exactly.

A tally belongs to a protocol of the process, not to a connection. Tasks share a thread, so it takes no lock.
In the same synchronous step as the read or write that succeeded, its user does::

    tally.sent += 1
    tally.sent_bytes += len(payload)
    if not tally.dirty:
        tally.mark()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import trio

    from pagi_trio.metrics.store import Segment


class Tally:
    """Messages and bytes since the last fold.

    Without a channel it counts for nobody: it is dirty for ever, so that the hot path needs no test for
    metrics that are off.

    Args:
        channel: Where it puts itself when it becomes dirty; has room for every tally, so that it never waits.
        received: The store's place for received messages; None where the protocol receives none.
        received_bytes: The same for their bytes.
        sent: The same for sent messages.
        sent_bytes: The same for their bytes.

    Attributes:
        received: Messages received since the last fold.
        received_bytes: Their bytes.
        sent: Messages sent since the last fold.
        sent_bytes: Their bytes.
        dirty: Whether it waits to be folded already.
    """

    __slots__ = ("_channel", "_series", "dirty", "received", "received_bytes", "sent", "sent_bytes")

    def __init__(
        self,
        channel: trio.MemorySendChannel[Tally] | None = None,
        *,
        received: int | None = None,
        received_bytes: int | None = None,
        sent: int | None = None,
        sent_bytes: int | None = None,
    ) -> None:
        self._channel = channel
        self._series = (received, received_bytes, sent, sent_bytes)
        self.dirty = channel is None
        self.received = 0
        self.received_bytes = 0
        self.sent = 0
        self.sent_bytes = 0

    def mark(self) -> None:
        """Put itself on the channel, on the first change since the last fold."""
        assert self._channel is not None, "a tally without a channel is always dirty"
        self.dirty = True
        self._channel.send_nowait(self)

    def fold(self, segment: Segment) -> None:
        """Move what it has counted into a segment, and begin again at zero."""
        counts = (self.received, self.received_bytes, self.sent, self.sent_bytes)
        self.received = self.received_bytes = self.sent = self.sent_bytes = 0
        self.dirty = False
        for index, count in zip(self._series, counts, strict=True):
            if index is not None and count:
                segment.add(index, count)
