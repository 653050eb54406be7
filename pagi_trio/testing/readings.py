"""A server's numbers as tests read them: now, over a block, and once they are as wanted."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from pagi_trio.metrics.push.protocol import families_of
from pagi_trio.testing.steps import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pagi_trio.metrics.server_metrics import ServerMetrics
    from pagi_trio.metrics.snapshot import Snapshot

    Wanted: TypeAlias = float | Callable[[float], object]
    """A number to be equal to, or what returns whether a number will do."""


class Readings:
    """The numbers of one server.

    Reading folds first: what the server has counted is there, and no test has to wait for it.

    Args:
        metrics: Those of the server, of the run and the thread that the test is in.
    """

    __slots__ = ("_metrics",)

    def __init__(self, metrics: ServerMetrics) -> None:
        self._metrics = metrics

    def value(self, name: str, /, **labels: str | int) -> float:
        """Return one series' value, up to date.

        Args:
            name: The metric's name, as on the page; it may be one of the application's own, made with `Metrics`.
            labels: A value for each of its labels.

        Raises:
            KeyError: If there is no such series; the message names what fits.
        """
        return _read(self.snapshot(), name, labels)

    def snapshot(self) -> Snapshot:
        """Return all series as they are now."""
        return self._metrics.snapshot()

    @contextmanager
    def delta(self) -> Iterator[Delta]:
        """Measure what a block adds to every series.

        Yields:
            What it has added so far; once the block is left, what it added in all.
        """
        delta = Delta(self._metrics)
        try:
            yield delta
        finally:
            delta.end()

    async def wait_for(self, name: str, wanted: Wanted, /, *, within_s: float = 5.0, **labels: str | int) -> float:
        """Wait until a series is as wanted.

        It is read each time after other tasks have run, and not by the clock: nothing is polled, and a clock that
        jumps stays where it is as long as the server has something to do. A value that
        one round of the loop brings and takes away is not seen: where more may come, ``lambda value: value >= 3`` is
        what to wait for, not 3.

        Args:
            name: The metric's name, as on the page.
            wanted: The number that it shall be equal to, or a function that says of a number whether it will do.
            within_s: How long to wait at most, seconds of Trio's clock.
            labels: A value for each of its labels.

        Returns:
            The value that was as wanted.

        Raises:
            KeyError: If there is no such series; the message names what fits. At once.
            AssertionError: If it is not as wanted in time; the message says what it is.

        Cancellation: leaves nothing behind.
        """
        value = self.value(name, **labels)

        def is_wanted() -> bool:
            nonlocal value
            value = self.value(name, **labels)
            return bool(wanted(value)) if callable(wanted) else value == wanted

        if not await wait_until(is_wanted, within_s):
            series = name + _labels_of(labels)
            raise AssertionError(
                f"{series} is {_number(value)} after {_number(within_s)} s; wanted {_name(wanted)}"
                + self._siblings(name, labels)
            )
        return value

    def _siblings(self, name: str, labels: dict[str, str | int]) -> str:
        """Say which other series of the metric have counted something: the label waited for may be the wrong one."""
        asked = {label: str(value) for label, value in labels.items()}
        counted = [
            f"{_labels_of(others)} is {_number(value)}"
            for family in families_of(self.snapshot())
            for suffix, others, value in family.samples
            if family.name + suffix == name and others != asked and value
        ]
        return f"; of the same metric, {', '.join(counted)}" if counted else ""


class Delta:
    """What a block adds to every series; made by `Readings.delta`."""

    __slots__ = ("_after", "_before", "_metrics")

    def __init__(self, metrics: ServerMetrics) -> None:
        self._metrics = metrics
        self._before = metrics.snapshot()
        self._after: Snapshot | None = None

    def end(self) -> None:
        """Take the numbers as they are now for those at the end."""
        self._after = self._metrics.snapshot()

    def value(self, name: str, /, **labels: str | int) -> float:
        """Return by how much one series has changed: inside of the block so far, after it in all.

        Args:
            name: The metric's name, as on the page.
            labels: A value for each of its labels.

        Raises:
            KeyError: If there is no such series; the message names what fits.
        """
        after = self._metrics.snapshot() if self._after is None else self._after
        return _read(after, name, labels) - _read(self._before, name, labels)


def _read(snapshot: Snapshot, name: str, labels: dict[str, str | int]) -> float:
    # A close code is a number to whoever writes a test.
    return snapshot.value(name, **{label: str(value) for label, value in labels.items()})


def _labels_of(labels: dict[str, str] | dict[str, str | int]) -> str:
    """Write labels as the page does."""
    return "{" + ",".join(f'{label}="{value}"' for label, value in labels.items()) + "}" if labels else ""


def _number(value: float) -> str:
    """Write a number without the point that a count does not need."""
    return str(int(value)) if float(value).is_integer() else repr(value)


def _name(wanted: Wanted) -> str:
    """Say what was wanted; a function goes by its name, which is in the test that failed."""
    if not callable(wanted):
        return _number(wanted)
    return f"what {getattr(wanted, '__qualname__', repr(wanted))} accepts"
