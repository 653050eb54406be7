"""The flush task: dirty tallies come to it on a memory channel, and it folds them in batches."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Final, TypeVar

import trio
from trio.lowlevel import enable_ki_protection

from pagi_trio.metrics import catalog
from pagi_trio.metrics.tally import Tally

T = TypeVar("T", bound=Tally)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pagi_trio.metrics.segment import Segment

_FLUSHES: Final = catalog.index("pagi_metrics_flushes_total")
_ERRORS: Final = catalog.index("pagi_metrics_errors_total", part="flush")

_log = logging.getLogger("pagi_trio")


class Flush:
    """Tallies, and their way into one segment.

    At every moment, what the tallies have counted is what has been folded plus what waits in them; no
    cancellation comes between taking and adding.

    Args:
        segment: Where the counts go.
        interval_s: How long a first dirty tally waits for others, seconds.

    Attributes:
        samplers: Called before each fold, to write what is cheaper to look up than to count.
    """

    def __init__(self, segment: Segment, interval_s: float) -> None:
        self.samplers: list[Callable[[], None]] = []
        self._segment = segment
        self._interval_s = interval_s
        # Unbounded in name only: a tally is sent when it becomes dirty, so at most every tally is in it.
        self._send, self._receive = trio.open_memory_channel[Tally](math.inf)
        self._tallies: list[Tally] = []
        self._sampler_failed = False

    def tally(self, kind: type[T], *series: int) -> T:
        """Make a tally that is folded here; the arguments are its kind and its places in the store."""
        tally = kind(self._send, series)
        self._tallies.append(tally)
        return tally

    @enable_ki_protection
    def fold_all(self) -> None:
        """Fold every dirty tally and let the samplers write, in one step that nothing interrupts."""
        self._drain()
        # By their flag, not by what was in the channel: what has just been handed to the task, which has not
        # run since, is not there any more.
        dirty = [tally for tally in self._tallies if tally.dirty]
        for tally in dirty:
            tally.fold(self._segment)
        if dirty:
            self._segment.add(_FLUSHES, 1)
        for sampler in self.samplers:
            self._sample(sampler)

    def _drain(self) -> None:
        """Empty the channel, so that the task is not woken for what is folded already."""
        try:
            while True:
                self._receive.receive_nowait()
        except trio.WouldBlock:
            return

    def _sample(self, sampler: Callable[[], None]) -> None:
        """Run one sampler; its failure is counted, logged the first time, and stops nothing."""
        try:
            sampler()
        except Exception:  # noqa: BLE001 - whatever a sampler raises, the counts go on
            self._segment.add(_ERRORS, 1)
            if not self._sampler_failed:
                self._sampler_failed = True
                _log.exception("a metrics sampler failed; further failures are only counted")

    async def run(self) -> None:
        """Fold, one interval after the first tally became dirty, for ever.

        Cancellation: ends it, after a last fold.
        """
        try:
            while True:
                await self._receive.receive()
                await trio.sleep(self._interval_s)
                self.fold_all()
        finally:
            self.fold_all()
