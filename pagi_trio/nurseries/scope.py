"""What is active now: the one thing that moves an active gauge."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from pagi_trio.metrics.balance import Balance
    from pagi_trio.metrics.meter import Counting
    from pagi_trio.metrics.writer import Writer


class _Scope(ABC):
    """Counts something in when entered and out when left, however it ends. Leaving twice is leaving once."""

    __slots__ = ()

    @abstractmethod
    def __enter__(self) -> Self:
        """Count it in."""

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave()

    @abstractmethod
    def leave(self) -> None:
        """Count out what was counted in."""


class ActiveScope(_Scope):
    """Counts something in and out."""

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

    def leave(self) -> None:
        """Count out what was counted in."""
        if self._entered:
            self._entered = False
            self._meter.add(self._active, -1.0)


class TimedScope(_Scope):
    """Counts something in when entered and out when left, and how long that was, in the same moment as its end.

    A connection enters it around its nursery; a WebSocket session or an event stream enters it at the moment it
    becomes one, inside the connection's nursery, and leaves it in a ``finally``. Whoever leaves it counts why.
    """

    __slots__ = ("_balance", "_meter", "_since")

    def __init__(self, meter: Counting, balance: Balance) -> None:
        self._meter = meter
        self._balance = balance
        self._since: float | None = None

    @property
    def is_entered(self) -> bool:
        """Whether it has been entered, and not left."""
        return self._since is not None

    def __enter__(self) -> Self:
        self._since = self._meter.begin(self._balance)
        return self

    def leave(self) -> None:
        """Count out what was counted in."""
        if self._since is not None:
            self._meter.end(self._balance, self._since)
            self._since = None
