"""What applications see of the metrics."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Self

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pagi_trio.metrics.meter import Meter
    from pagi_trio.metrics.snapshot import Snapshot


class ServerMetrics:
    """The numbers of the server that called this application.

    It is ``scope["extensions"]["pagi.metrics"]``, and the value of `current_metrics`. Used from the Trio
    thread only.

    Attributes:
        meter: What the server counts with; for the page, which counts its own scrapes.
        local: Collects what only this worker can tell, as families of prometheus_client; None in a process that
            serves by itself, and has all in its registry.
        rendering: Held while a page is written. One at a time: each takes turns of the loop of a millisecond, and of
            hundreds at once everybody else would wait for all between two turns of their own.
    """

    __slots__ = ("local", "meter", "rendering")

    def __init__(self, meter: Meter, local: Callable[[], Iterable[object]] | None = None) -> None:
        self.meter = meter
        self.local = local
        self.rendering = trio.Lock()

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
        """
        return self.snapshot().value(name, **labels)

    def snapshot(self) -> Snapshot:
        """Return all series as they are now."""
        return self.meter.snapshot()


current_metrics: ContextVar[ServerMetrics | None] = ContextVar("current_metrics", default=None)
"""The metrics of the server that runs this task; None outside a server, or where metrics are off."""
