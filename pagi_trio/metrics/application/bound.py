"""A handle, as the server that it counts in sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

from pagi_trio.metrics.application.histogram_value import HistogramValue
from pagi_trio.metrics.application.value import AppValue

if TYPE_CHECKING:
    from pagi_trio.metrics.application.region import Family

Value: TypeAlias = AppValue | HistogramValue
"""What counts; a gauge's is a GaugeValue."""


class Bound(Protocol):
    """A handle: what the application counts with, for one label set.

    Attributes:
        family: Its metric.
        label_values: A value for each of the metric's labels.
    """

    family: Family
    label_values: tuple[str, ...]

    def keep(self, server: object, value: Value) -> None:
        """Take what it counts into in a server."""

    def free(self, server: object) -> None:
        """Forget it again."""
