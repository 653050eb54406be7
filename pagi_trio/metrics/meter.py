"""What the server counts with: the tallies of the hot path, and direct writes for what is rare."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from pagi_trio.metrics import catalog
from pagi_trio.metrics.application.region import Region
from pagi_trio.metrics.application.turns import Turns
from pagi_trio.metrics.flush import Flush
from pagi_trio.metrics.store import Store
from pagi_trio.metrics.tally import EventTally, MessageTally

if TYPE_CHECKING:
    from collections.abc import Callable

    from pagi_trio.metrics.balance import Balance
    from pagi_trio.metrics.snapshot import Snapshot
    from pagi_trio.metrics.writer import Writer

FLUSH_INTERVAL_S: Final = 0.05
"""How long counts wait to be folded: no scrape sees it, and twenty folds a second cost nothing measurable."""

# The places of what the tallies count, in their order.
_MESSAGES: Final = tuple(
    catalog.index(f"pagi_websocket_{what}_total")
    for what in ("messages_received", "bytes_received", "messages_sent", "bytes_sent")
)
_EVENTS: Final = tuple(
    catalog.index(f"pagi_sse_{what}_total") for what in ("events_sent", "bytes_sent", "comments_sent")
)

_INFO: Final = next(series.index for series in catalog.SERIES if series.metric is catalog.INFO)
_START_TIME: Final = catalog.index("pagi_server_start_time_seconds")


class Meter:
    """One process's counters.

    Used from the Trio thread, in which it is made; `snapshot` from any.

    Args:
        store: The memory that it counts in, with all other processes.
        slot: Whose segment it counts in; None is that of the process that owns the store.
        is_owner: Whether this process owns the store, and so the series that the catalog gives to the parent.
        interval_s: How long counts wait to be folded, seconds.
        turns: The region of the application's metrics, where somebody else adds to it as well.

    Attributes:
        interval_s: How long counts wait to be folded, seconds.
        turns: Where the application's metrics have their places.
        owner: Takes the series that belong to the parent; in a worker, nobody.
        websocket: The tally of WebSocket messages.
        sse: The tally of event streams.
    """

    __slots__ = (
        *("_epoch", "_flush", "_segment", "_store", "_thread"),
        *("interval_s", "owner", "sse", "turns", "websocket"),
    )

    def __init__(
        self,
        store: Store,
        slot: int | None,
        *,
        is_owner: bool,
        interval_s: float = FLUSH_INTERVAL_S,
        turns: Turns | None = None,
    ) -> None:
        self.interval_s = interval_s
        self._store = store
        self._thread = threading.get_ident()
        self._segment = store.parent if slot is None else store.slot(slot)
        self.turns = Turns(Region(self._segment.area)) if turns is None else turns
        self.owner: Writer = store.parent if is_owner else NullMeter()
        self._flush = Flush(self._segment, interval_s)
        self._epoch = 0.0
        self.websocket = self._flush.tally(MessageTally, *_MESSAGES)
        self.sse = self._flush.tally(EventTally, *_EVENTS)

    @classmethod
    def create(cls, interval_s: float = FLUSH_INTERVAL_S) -> Meter:
        """Make the meter of a server of one process, with a store of its own."""
        store = Store()
        introduce(store)
        store.slot(1).occupy(1)
        return cls(store, 1, is_owner=True, interval_s=interval_s)

    def add(self, index: int, amount: float = 1.0) -> None:
        """Add to a series at once, by its place in the store."""
        self._segment.add(index, amount)

    def set(self, index: int, value: float) -> None:
        """Overwrite a series at once, by its place in the store."""
        self._segment.set(index, value)

    def start_clock(self, now: float) -> None:
        """Begin to tell the time, before anything is counted in that has to be counted out.

        Args:
            now: What Trio's clock shows.
        """
        self._epoch = now
        self._segment.start_clock()

    def begin(self, balance: Balance) -> float:
        """Count something in.

        Returns:
            When that was, by the meter's clock; for `end`.
        """
        since = trio.current_time() - self._epoch
        self._segment.begin(balance, since)
        return since

    def end(self, balance: Balance, since: float) -> None:
        """Count out what was counted in, and how long it was there."""
        self._segment.end(balance, since, trio.current_time() - self._epoch)

    def sample(self, callback: Callable[[], None]) -> None:
        """Call something before each fold, to `set` what is cheaper to look up than to count."""
        self._flush.samplers.append(callback)

    def stop_sampling(self) -> None:
        """Call nothing before a fold any more."""
        self._flush.samplers.clear()

    @property
    def is_here(self) -> bool:
        """Whether this is the meter's thread."""
        return threading.get_ident() == self._thread

    def fold_all(self) -> None:
        """Bring the store up to date."""
        self._flush.fold_all()

    def snapshot(self) -> Snapshot:
        """Bring the store up to date and read all of it.

        May be called from any thread; only in that of the meter does it bring it up to date.
        """
        if self.is_here:
            self._flush.fold_all()
        return self._store.snapshot()

    def begin_in_child(self) -> None:
        """Count for oneself alone in a process forked from the one that counts, which has its own copy of what waits.

        It may read the numbers, and so fold, or let go of what it was forked with, connections among it.
        """
        self._segment.begin_in_child()
        self._store.parent.begin_in_child()

    async def run(self) -> None:
        """Be the flush task.

        Cancellation: ends it, after a last fold.
        """
        await self._flush.run()


def introduce(store: Store) -> None:
    """Note the versions in use, and that the server starts now."""
    store.parent.set(_INFO, 1.0)
    store.parent.set(_START_TIME, time.time())


class NullMeter:
    """Counts nothing: no store, no channel, no task.

    Attributes:
        owner: Itself.
        websocket: A tally that nobody folds.
        sse: A tally that nobody folds.
    """

    __slots__ = ("owner", "sse", "websocket")

    def __init__(self) -> None:
        self.owner: Writer = self
        self.websocket = MessageTally()
        self.sse = EventTally()

    def add(self, index: int, amount: float = 1.0) -> None:
        """Do nothing."""

    def set(self, index: int, value: float) -> None:
        """Do nothing."""

    def start_clock(self, now: float) -> None:
        """Do nothing."""

    def begin(self, balance: Balance) -> float:  # noqa: ARG002 - as that of a meter
        """Do nothing; the time that it returns is none."""
        return 0.0

    def end(self, balance: Balance, since: float) -> None:
        """Do nothing."""

    def sample(self, callback: Callable[[], None]) -> None:
        """Do nothing: the callback is never called."""

    def stop_sampling(self) -> None:
        """Do nothing."""

    def fold_all(self) -> None:
        """Do nothing."""

    async def run(self) -> None:
        """Return at once."""


Counting: TypeAlias = Meter | NullMeter
"""What the server counts with, whether or not anybody reads it."""
