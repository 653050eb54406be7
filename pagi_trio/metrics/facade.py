"""What applications see of the metrics."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pagi_trio.metrics.meter import Meter
    from pagi_trio.metrics.store import Snapshot


class Metrics:
    """The numbers of the server that called this application.

    It is ``scope["extensions"]["pagi.metrics"]``, and the value of `current_metrics`. Used from the Trio
    thread only.

    Attributes:
        meter: What the server counts with; for the page, which counts its own scrapes.
    """

    __slots__ = ("meter",)

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def value(self, name: str, **labels: str) -> float:
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


current_metrics: ContextVar[Metrics | None] = ContextVar("current_metrics", default=None)
"""The metrics of the server that runs this task; None outside a server, or where metrics are off."""
