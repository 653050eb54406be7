"""What is active now: the one thing that moves an active gauge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from pagi_trio.metrics.meter import Writer


class ActiveScope:
    """Counts something in when entered and out when left, however it ends.

    A connection enters it around its nursery; a WebSocket session or an event stream enters it at the moment it
    becomes one, inside the connection's nursery, and leaves it in a ``finally``. Leaving twice is leaving once.
    """

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
