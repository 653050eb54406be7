"""An exporter that keeps what it gets, for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pagi_trio.metrics.push.protocol import FamilySnapshot


class Recorder:
    """Keeps every push.

    Args:
        interval_s: Between two pushes, seconds.

    Attributes:
        pushes: The families of each, the oldest first.
        is_ended: Whether the last push has come.
    """

    name: Final = "recorder"

    def __init__(self, interval_s: float = 1.0) -> None:
        self.interval_s = interval_s
        self.pushes: list[tuple[FamilySnapshot, ...]] = []
        self.is_ended = False

    async def push(self, families: Sequence[FamilySnapshot], *, is_last: bool) -> None:
        """Keep what there is."""
        await trio.lowlevel.checkpoint()
        self.pushes.append(tuple(families))
        self.is_ended = is_last

    def value(self, name: str, /, **labels: str) -> float:
        """Return one sample of the newest push.

        Args:
            name: The sample's name, as on the Prometheus page.
            labels: A value for each of its labels.

        Raises:
            LookupError: If there is no such sample, or no push yet.
        """
        for family in self.pushes[-1]:
            for suffix, found, value in family.samples:
                if family.name + suffix == name and found == labels:
                    return value
        raise LookupError(f"no sample {name} {labels or ''}")
