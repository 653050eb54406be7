"""What is active now: the one thing that moves an active gauge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import trio

if TYPE_CHECKING:
    from types import TracebackType

    from pagi_trio.metrics.balance import Balance
    from pagi_trio.metrics.meter import Counting
    from pagi_trio.metrics.writer import Writer


class ActiveScope:
    """Counts something in when entered and out when left, however it ends. Leaving twice is leaving once."""

    __slots__ = ("_active", "_entered", "_meter", "_total")

    def __init__(self, meter: Writer, total: int, active: int) -> None:
        self._meter = meter
        self._total = total
        self._active = active
        self._entered = False

    def __enter__(self) -> Self:
        self._meter.add(self._total)
        self._meter.add(self._active)
        self._entered = True
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """Count out what was counted in."""
        if self._entered:
            self._entered = False
            self._meter.add(self._active, -1.0)


class TimedScope(ActiveScope):
    """Counts as well how long that was, by Trio's clock, in the same moment as its end.

    A connection enters it around its nursery; a WebSocket session or an event stream enters it at the moment it
    becomes one, inside the connection's nursery, and leaves it in a ``finally``. Whoever leaves it counts why.
    """

    __slots__ = ("_balance", "_since", "_timed")

    def __init__(self, meter: Counting, balance: Balance) -> None:
        super().__init__(meter, balance.begun, balance.active)
        self._timed = meter
        self._balance = balance
        self._since = 0.0

    def __enter__(self) -> Self:
        self._since = trio.current_time()
        # First in and last out: what remains of a process that is killed in between is then too young, not too old.
        self._timed.add(self._balance.opened, self._since - self._timed.epoch)
        return super().__enter__()

    def leave(self) -> None:
        """Count out what was counted in, and how long it was there."""
        if self._entered:
            self._balance.lasted.observe(self._timed, trio.current_time() - self._since)
            super().leave()
            self._timed.add(self._balance.opened, self._timed.epoch - self._since)
