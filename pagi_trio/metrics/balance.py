"""What begins, is open for a while, and ends: it is counted at both ends, and none gets lost in between.

A process that is killed cannot count the ends of what it had open. Whoever comes after it does: how many those were,
the counters say; for how long, a sum says that every process keeps beside its series, of when what is open has begun.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pagi_trio.metrics import catalog
from pagi_trio.metrics.catalog import SERIES
from pagi_trio.metrics.histogram import Histogram, histogram

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pagi_trio.metrics.writer import Writer


@dataclass(frozen=True, slots=True)
class Balance:
    """The series of what begins and ends, by their places in the store: what was begun and not ended is open.

    Attributes:
        begun: The counter of beginnings.
        active: The gauge of what is open.
        ended: All counters of ends.
        cut: The one of them that is for what was open when its process was killed.
        lasted: How long it was open, seconds; its count is that of the ends.
        opened: The sum of when what is open has begun, seconds since the clock of its process did; no page shows it.
    """

    begun: int
    active: int
    ended: tuple[int, ...]
    cut: int
    lasted: Histogram
    opened: int

    def cut_off(self, dead: Sequence[float], writer: Writer, now: float) -> None:
        """Count the ends of what a process had open when it was killed.

        Of how long each was open the mean is known, and stands for all.

        Args:
            dead: What the process leaves, by place.
            writer: Where to count.
            now: The time, seconds since the clock of the process began.
        """
        begun = dead[self.begun]
        # It may have been killed between two of its steps, so each has to be made up for by itself.
        writer.add(self.cut, max(0.0, begun - sum(dead[place] for place in self.ended)))
        left = begun - self.lasted.count(dead)
        if left > 0:
            self.lasted.observe(writer, max(0.0, now - dead[self.opened] / left), left)


def _balance(kind: str, ended: str, lasted: str, opened: int, **cut: str) -> Balance:
    return Balance(
        catalog.index(f"{kind}_connections_total"),
        catalog.index(f"{kind}_connections_active"),
        tuple(series.index for series in SERIES if series.metric.name == ended),
        catalog.index(ended, **cut),
        histogram(lasted),
        opened,
    )


CONNECTIONS: Final = _balance(
    "pagi_server",
    "pagi_server_connections_closed_total",
    "pagi_server_connection_seconds",
    catalog.PLACES,
    reason="server_error",
)

WEBSOCKETS: Final = _balance(
    "pagi_websocket",
    "pagi_websocket_closes_total",
    "pagi_websocket_session_seconds",
    catalog.PLACES + 1,
    code="1006",
    side="none",
)

STREAMS: Final = _balance(
    "pagi_sse",
    "pagi_sse_closes_total",
    "pagi_sse_stream_seconds",
    catalog.PLACES + 2,
    reason="server_error",
)

BALANCES: Final = (CONNECTIONS, WEBSOCKETS, STREAMS)

PLACES: Final = catalog.PLACES + len(BALANCES)
"""How many places a process has in the store: those of all series, and those that no page shows."""
