"""Counts on their way to the store: the cheapest thing that can count a message exactly.

A tally belongs to a protocol of the process, not to a connection. Tasks share a thread, so it takes no lock.
In the same synchronous step as the read or write that succeeded, its user does::

    tally.sent.append(len(payload))
    if not tally.dirty:
        tally.mark()

One append keeps a message and its bytes both, in 20 ns, where adding to two numbers took 45; the fold takes the
length and the sum of the list. A list holds what one flush interval brings, some thousand small numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import trio

    from pagi_trio.metrics.segment import Segment


class Tally(ABC):
    """What has been counted since the last fold.

    Without a channel it counts for nobody: it is dirty for ever, so that the hot path needs no test for
    metrics that are off.

    Args:
        channel: Where it puts itself when it becomes dirty. It has room for every tally, so sending never waits.
        series: The store's places, in the order of what `_take` returns.

    Attributes:
        dirty: Whether it waits to be folded already.
    """

    __slots__ = ("_channel", "_series", "dirty")

    def __init__(self, channel: trio.MemorySendChannel[Tally] | None = None, series: Sequence[int] = ()) -> None:
        self._channel = channel
        self._series = series
        self.dirty = channel is None

    def mark(self) -> None:
        """Put itself on the channel, on the first change since the last fold."""
        assert self._channel is not None, "a tally without a channel is always dirty"
        self.dirty = True
        self._channel.send_nowait(self)

    def fold(self, segment: Segment) -> None:
        """Move what it has counted into a segment, and begin again at zero."""
        self.dirty = False
        for index, count in zip(self._series, self._take(), strict=True):
            if count:
                segment.add(index, count)

    @abstractmethod
    def _take(self) -> tuple[int, ...]:
        """Return what has been counted, and forget it."""


class MessageTally(Tally):
    """Messages in both directions; its series are received, received bytes, sent, sent bytes.

    Attributes:
        received: The size of each message received since the last fold, bytes.
        sent: The same of each message sent.
    """

    __slots__ = ("received", "sent")

    def __init__(self, channel: trio.MemorySendChannel[Tally] | None = None, series: Sequence[int] = ()) -> None:
        super().__init__(channel, series)
        # Nobody folds a tally without a channel, so it must forget by itself.
        self.received: list[int] | deque[int] = [] if channel is not None else deque(maxlen=0)
        self.sent: list[int] | deque[int] = [] if channel is not None else deque(maxlen=0)

    def _take(self) -> tuple[int, ...]:
        received, sent = self.received, self.sent
        counts = len(received), sum(received), len(sent), sum(sent)
        received.clear()
        sent.clear()
        return counts


class EventTally(Tally):
    """Events of streams, of which one write may bring several or none; its series are sent, sent bytes, comments.

    Attributes:
        sent: Events since the last fold.
        sent_bytes: Bytes of their streams.
        comments: Comment lines of them.
    """

    __slots__ = ("comments", "sent", "sent_bytes")

    def __init__(self, channel: trio.MemorySendChannel[Tally] | None = None, series: Sequence[int] = ()) -> None:
        super().__init__(channel, series)
        self.sent = 0
        self.sent_bytes = 0
        self.comments = 0

    def count_comments(self, number: int) -> None:
        """Add comment lines; events and bytes are added, and the tally marked, by whoever sends."""
        self.comments += number

    def _take(self) -> tuple[int, ...]:
        counts = self.sent, self.sent_bytes, self.comments
        self.sent = self.sent_bytes = self.comments = 0
        return counts
