"""A stretch of a server's life that is timed: started, then complete or failed, with its seconds."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Self

import trio

if TYPE_CHECKING:
    from types import TracebackType

_log = logging.getLogger("pagi_trio")


class Phase:
    """Times what happens inside and logs one line about it.

    Attributes:
        outcome: ``complete`` unless somebody who knows better sets another word.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.outcome = "complete"
        self._started = 0.0
        self._seconds: float | None = None

    @property
    def seconds(self) -> float:
        """How long it took, on Trio's clock; so far, while it lasts."""
        return trio.current_time() - self._started if self._seconds is None else self._seconds

    def __enter__(self) -> Self:
        self._started = trio.current_time()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._seconds = trio.current_time() - self._started
        if exc_type is not None:
            is_stopped = issubclass(exc_type, trio.Cancelled | KeyboardInterrupt)
            self.outcome = "cancelled" if is_stopped else "failed"
        _log.info("%s %s in %.3f s", self.name, self.outcome, self._seconds)
