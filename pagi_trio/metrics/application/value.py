"""One number of the application's own metrics: this process's part of it, with a copy in the region.

It has the interface of prometheus_client's ``ValueClass``, and counts in the process whether it has a place or not.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Protocol

from trio.lowlevel import enable_ki_protection

from pagi_trio.metrics.application.aggregation import REMOVED, WRITTEN

if TYPE_CHECKING:
    from pagi_trio.metrics.application.region import Region


class Places(Protocol):
    """What gives values their places."""

    def place(self, value: AppValue) -> None:
        """Give a value its place, if its metric is known to have it."""

    def note_exemplar(self, value: AppValue) -> None:
        """Learn that a value has an example, which other processes do not see."""

    def note_failure(self, error: Exception) -> None:
        """Learn that something went on without a place that should have one."""


class AppValue:
    """A number that is added up over processes.

    Args:
        places: What gives it a place.
        name: The name of its metric.
        labels: Label values of its metric, without a bucket's bound.

    Attributes:
        cell: Its place in the region, if it has one.
        is_fresh: Whether it still asks for a place at every write.
    """

    __slots__ = (
        "_base",
        "_cells",
        "_exemplar",
        "_lock",
        "_places",
        "_value",
        "cell",
        "is_fresh",
        "labels",
        "name",
    )
    _multiprocess = False

    def __init__(self, places: Places, name: str, labels: tuple[str, ...]) -> None:
        self.name = name
        self.labels = labels
        self.is_fresh = True
        self._places = places
        # Its own, as prometheus_client's have: whoever counts waits for nothing that allocates memory and so may run
        # a finalizer. Reentrant, since a signal handler may count as well.
        self._lock = threading.RLock()
        self._value = 0.0
        self._exemplar: object = None
        self._cells: memoryview[float] | None = None
        self.cell = 0
        # What others have counted in its cell; without a cell, less what it has left itself in the last one.
        self._base = 0.0

    @property
    def has_place(self) -> bool:
        """Whether the region has a copy."""
        return self._cells is not None

    @enable_ki_protection
    def inc(self, amount: float) -> None:
        """Add to the number."""
        # A with statement would take as long as all the rest; what it is for, Ctrl-C in between, is kept away.
        lock = self._lock
        lock.acquire()
        try:
            self._value = value = self._value + amount
            cells = self._cells
            if cells is not None:
                try:
                    cells[self.cell] = self._base + value
                except Exception as error:  # noqa: BLE001 - the application goes on without a place
                    self.detach()
                    self._places.note_failure(error)
                return
        finally:
            lock.release()
        if self.is_fresh:
            self._places.place(self)

    def set(self, value: float, timestamp: float | None = None) -> None:  # noqa: ARG002 - a gauge has a use for it
        """Overwrite the number, as ``Counter.reset`` does; what was counted before stays counted."""
        with self._lock:
            if value < self._value:
                self._base += self._value
            self._value = value
        self.inc(0.0)

    def get(self) -> float:
        """Return this process's own number."""
        return self._value

    def set_exemplar(self, exemplar: object) -> None:
        """Keep an example of what was counted, for a page of this process alone."""
        self._exemplar = exemplar
        self._places.note_exemplar(self)

    def get_exemplar(self) -> object:
        """Return the last example."""
        return self._exemplar

    def initial(self) -> tuple[float, float]:
        """Return what a new cell begins with: a value and a time stamp."""
        return self._base + self._value, 0.0

    def take(self, region: Region, cell: int, before: float) -> None:
        """Get a place.

        Args:
            region: Where it is.
            cell: Which it is.
            before: What others have counted there.
        """
        with self._lock:
            self.is_fresh = False
            self._base += before
            self.cell = cell
            region.values[cell] = self._base + self._value
            self._cells = region.values

    def detach(self) -> None:
        """Count for oneself alone from now on. The region keeps what it has."""
        with self._lock:
            self.is_fresh = False
            if self._cells is not None:
                self._cells = None
                self._base = -self._value

    def detach_in_child(self) -> None:
        """Count for oneself alone in a process forked from the one that counts."""
        # A thread that is not in this process may have it.
        self._lock = threading.RLock()
        self.detach()

    def leave(self) -> None:
        """Give up the place because the metric is no longer there. What was counted stays counted."""
        self.detach()


class GaugeValue(AppValue):
    """A gauge's number, which is nobody else's, and when it was written."""

    __slots__ = ("_stamp", "_stamps")

    def __init__(self, places: Places, name: str, labels: tuple[str, ...]) -> None:
        super().__init__(places, name, labels)
        self._stamp = 0.0
        self._stamps: memoryview[float] | None = None

    @enable_ki_protection
    def inc(self, amount: float, timestamp: float | None = None) -> None:
        """Add to the number, or take from it."""
        lock = self._lock
        lock.acquire()
        try:
            # With no call in between, where a signal handler or a finalizer that counts could begin.
            self._value += amount
            self._stamp = timestamp or WRITTEN
            self._write()
        finally:
            lock.release()
        if self.is_fresh:
            self._places.place(self)

    @enable_ki_protection
    def set(self, value: float, timestamp: float | None = None) -> None:
        """Overwrite the number."""
        lock = self._lock
        lock.acquire()
        try:
            self._value = value
            self._stamp = timestamp or WRITTEN
            self._write()
        finally:
            lock.release()
        if self.is_fresh:
            self._places.place(self)

    def _write(self) -> None:
        cells, stamps = self._cells, self._stamps
        if cells is not None and stamps is not None:
            try:
                cells[self.cell] = self._value
                stamps[self.cell] = self._stamp
            except Exception as error:  # noqa: BLE001 - the application goes on without a place
                self.detach()
                self._places.note_failure(error)

    def initial(self) -> tuple[float, float]:
        """Return what a new cell begins with: a value and a time stamp."""
        return self._value, self._stamp

    def take(self, region: Region, cell: int, before: float) -> None:  # noqa: ARG002 - nothing is added to a gauge
        """Get a place, whatever was there before."""
        with self._lock:
            self.is_fresh = False
            self.cell = cell
            region.values[cell] = self._value
            region.stamps[cell] = self._stamp
            self._cells, self._stamps = region.values, region.stamps

    def detach(self) -> None:
        """Be for oneself alone from now on. The region keeps what it has."""
        with self._lock:
            self.is_fresh = False
            self._cells = self._stamps = None

    def leave(self) -> None:
        """Give up the place because the metric is no longer there, and take the series off the page."""
        with self._lock:
            stamps = self._stamps
            self.detach()
            if stamps is not None:
                # The memory may be gone at the end of a process.
                with contextlib.suppress(ValueError):
                    stamps[self.cell] = REMOVED
