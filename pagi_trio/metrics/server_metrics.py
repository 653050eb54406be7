"""What applications see of the metrics."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Self

import trio

from pagi_trio.metrics.application import callbacks
from pagi_trio.metrics.application.ledger import SERIES_PER_METRIC, Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pagi_trio.metrics.meter import Meter
    from pagi_trio.metrics.snapshot import Snapshot


UPDATE_LEAST_S: Final = 0.01
"""The least time between two calls of batch callbacks that no scrape waits for."""

LOOK_S: Final = 0.5
"""How often a worker looks whether there are batch callbacks, before there are any."""


class ServerMetrics:
    """The numbers of the server that called this application.

    It is ``scope["extensions"]["pagi.metrics"]``, and the value of `current_metrics`. Read from any thread, where
    another than Trio's may miss what has not been folded; all else is for the Trio thread only.

    Args:
        meter: What the server counts with.
        local: Collects what only this worker can tell.
        series_per_metric: How many label sets a metric of the application may have.

    Attributes:
        meter: What the server counts with; for the page, which counts its own scrapes.
        ledger: What the application has counted by metrics of its own.
        local: Collects what only this worker can tell, as families of prometheus_client; None in a process that
            serves by itself, and has all in its registry.
        rendering: Held while a page is written. One at a time: each takes turns of the loop of a millisecond, and of
            hundreds at once everybody else would wait for all between two turns of their own.
        unwritable: The families that a page had to do without; their failure has been logged.
    """

    __slots__ = ("_is_updating", "ledger", "local", "meter", "rendering", "unwritable")

    def __init__(
        self,
        meter: Meter,
        local: Callable[[], Iterable[object]] | None = None,
        *,
        series_per_metric: int = SERIES_PER_METRIC,
    ) -> None:
        self.meter = meter
        self.local = local
        self.rendering = trio.Lock()
        self.unwritable: set[str] = set()
        self.ledger = Ledger(meter.turns, series_per_metric)
        self._is_updating = False
        meter.sample(self._sample)

    def __deepcopy__(self, _memo: object) -> Self:
        # Some middlewares copy the scope deeply, hypercorn's for proxies among them; the numbers stay the server's.
        return self

    def value(self, name: str, /, **labels: str) -> float:
        """Return one series' value, up to date.

        Args:
            name: The metric's name, as on the page.
            labels: A value for each of its labels.

        Raises:
            KeyError: If there is no such series; the message names what fits.
            TypeError: If the value of a label is no text.
        """
        return self.snapshot().value(name, **labels)

    def snapshot(self) -> Snapshot:
        """Return all series as they are now.

        Batch callbacks of the application are called first, if this is Trio's thread.
        """
        if self.meter.is_here:
            self.update()
        return self.meter.snapshot()

    def update(self) -> None:
        """Call the batch callbacks, unless one of them asks for it."""
        if self._is_updating:
            return
        self._is_updating = True
        token = current_metrics.set(self)
        try:
            callbacks.call_all(self, self.meter)
        finally:
            current_metrics.reset(token)
            self._is_updating = False

    async def keep_updated(self) -> None:
        """Call the batch callbacks every flush interval: where another process answers, nobody else does.

        Cancellation: ends it.
        """
        while True:
            busy = callbacks.has_any(self)
            await trio.sleep(max(self.meter.interval_s, UPDATE_LEAST_S) if busy else LOOK_S)
            self.update()

    def _sample(self) -> None:
        self.ledger.look(self)
        self.ledger.write(self.meter)


current_metrics: ContextVar[ServerMetrics | None] = ContextVar("current_metrics", default=None)
"""The metrics of the server that runs this task; None outside a server, or where metrics are off."""
