"""What one server has of the application's metrics: a number for each label set, with its place in the region.

Counting starts with the first call through a handle. The number is found here once and kept in the handle, by server,
so that the next call finds it without looking. A server that stops takes its numbers out of all handles.
"""

from __future__ import annotations

import logging
import weakref
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

from trio.lowlevel import enable_ki_protection

from pagi_trio.metrics import catalog
from pagi_trio.metrics.application.histogram_value import HistogramValue
from pagi_trio.metrics.application.naming import full_name
from pagi_trio.metrics.application.registry import REGISTRY
from pagi_trio.metrics.application.value import AppValue, GaugeValue

if TYPE_CHECKING:
    from pagi_trio.metrics.application.bound import Bound, Value
    from pagi_trio.metrics.application.region import Family, Region
    from pagi_trio.metrics.application.turns import Turns
    from pagi_trio.metrics.meter import Meter

Meaning: TypeAlias = "tuple[str, str, tuple[str, ...], str, tuple[str, ...]]"
"""All of a definition that makes its numbers different ones."""

SERIES_PER_METRIC: Final = 1000
"""How many label sets a metric may have; more is a mistake in its labels, such as the id of a user."""

OTHER: Final = "other"
"""What every label says beyond that."""

REMEMBERED: Final = 10_000
"""How many label sets beyond it are remembered, so that each counts once, in 100 bytes each."""

_DROPPED: Final = catalog.index("pagi_metrics_dropped_series_total")
_LOST: Final = catalog.index("pagi_metrics_errors_total", part="context")

_log = logging.getLogger("pagi_trio")


class Book:
    """The numbers of one metric.

    Attributes:
        family: What it is.
        values: By label values.
        turned_away: The hashes of the label sets that were too many.
    """

    __slots__ = ("family", "turned_away", "values")

    def __init__(self, family: Family) -> None:
        self.family = family
        self.values: dict[tuple[str, ...], Value] = {}
        self.turned_away: set[int] = set()


class Ledger:
    """The application's metrics in one server.

    Used from any thread, without a lock: what is changed here is changed by single steps of dictionaries. Threads
    that bring new label sets at the same moment may so exceed the limit by one each.

    Args:
        turns: Those of the region where the numbers have their places.
        limit: How many label sets a metric may have.

    Attributes:
        is_open: Whether the server runs; before and after, nothing is counted.
        lost: How many calls did not say which of several servers they are for, this one being among those.
    """

    def __init__(self, turns: Turns, limit: int = SERIES_PER_METRIC) -> None:
        self.is_open = False
        self.lost = 0
        self._turns = turns
        self._limit = limit
        self._books: dict[Meaning, Book] = {}
        self._handles: dict[weakref.ref[Bound], None] = {}
        self._seen = -1
        self._noted: set[str] = set()
        self._unlogged: deque[str] = deque()
        # Of definitions that others have replaced.
        self._turned_away = 0

    def open(self) -> None:
        """Count from now on."""
        self.is_open = True

    def close(self, server: object) -> None:
        """Count no more, and leave nothing behind in the handles. What was counted can still be read.

        Args:
            server: What the handles know it by.
        """
        self.is_open = False
        for ref in list(self._handles):
            handle = ref()
            if handle is not None:
                handle.free(server)
        self._handles.clear()
        self._books.clear()
        self._log_noted()

    def close_in_child(self) -> None:
        """Let all handles count for nobody in a process that was forked, whose memory the parent shares."""
        self.is_open = False
        self._turns.begin_in_child()
        for book in self._books.values():
            for value in book.values.values():
                value.detach_in_child()

    @enable_ki_protection
    def enter(self, handle: Bound, server: object) -> Value | None:
        """Give a handle what it counts into; None if nothing is counted here."""
        if not self.is_open:
            return None
        value = self._find(self._book_of(handle.family), handle.label_values)
        self._handles[weakref.ref(handle, self._forget)] = None
        handle.keep(server, value)
        self._free_if_closed(handle, server)
        return value

    def _free_if_closed(self, handle: Bound, server: object) -> None:
        """Look again: it may have been closed meanwhile, and not have seen this handle."""
        if not self.is_open:
            handle.free(server)

    def _forget(self, handle: weakref.ref[Bound]) -> None:
        self._handles.pop(handle, None)

    def _book_of(self, family: Family) -> Book:
        meaning = family.name, family.kind, family.labels, family.mode, family.bounds
        book = self._books.get(meaning)
        if book is None:
            self._close_older(meaning)
            book = self._books.setdefault(meaning, Book(family))
        return book

    def _close_older(self, meaning: Meaning) -> None:
        """Forget what the name meant before: that loses its places, and should it come again, it begins anew."""
        for older in list(self._books):
            if older[0] == meaning[0] and older != meaning:
                book = self._books.pop(older, None)
                self._turned_away += 0 if book is None else len(book.turned_away)

    def _find(self, book: Book, labels: tuple[str, ...]) -> Value:
        """Return the number of a label set, which is made if there is room for it."""
        value = book.values.get(labels)
        if value is not None:
            return value
        if labels and len(book.values) >= self._limit:
            other = (OTHER,) * len(labels)
            if labels != other:
                self._turn_away(book, labels)
                return self._find(book, other)
        fresh = self._make(book.family, labels)
        value = book.values.setdefault(labels, fresh)
        if value is fresh:
            self._turns.take(partial(self._place, self._turns.region, book.family, labels, fresh))
        return value

    def _make(self, family: Family, labels: tuple[str, ...]) -> Value:
        if family.kind == "histogram":
            return HistogramValue(self, tuple(map(float, family.bounds)))
        return (GaugeValue if family.kind == "gauge" else AppValue)(self, family.name, labels)

    def _turn_away(self, book: Book, labels: tuple[str, ...]) -> None:
        if len(book.turned_away) < REMEMBERED:
            book.turned_away.add(hash(labels))
        self._note(
            f"{full_name(book.family)} has more than {self._limit} label sets, see metrics.series_per_metric; "
            f"the others are counted together, with {OTHER!r} for each label"
        )

    # What is done in turn

    def _place(self, region: Region, family: Family, labels: tuple[str, ...], value: Value) -> None:
        try:
            if not self._owns(family):
                return
            cell = region.add_series(family, labels)
            if cell is None:
                self._turns.dropped += 1
                self._note(f"the application has more series than there is room for; one of {family.name} is missing")
            elif isinstance(value, HistogramValue):
                value.take(region, cell)
            else:
                value.take(region, cell, 0.0)
        except Exception as error:  # noqa: BLE001 - another thread may be at it, which has nothing to do with it
            self.note_failure(error)

    def _add_family(self, region: Region, family: Family) -> None:
        try:
            if self._owns(family):
                region.add_family(family)
        except Exception as error:  # noqa: BLE001 - as above
            self.note_failure(error)

    def _owns(self, family: Family) -> bool:
        if self._turns.claim(family.name, self):
            return True
        self._note(f"{family.name} is a metric of prometheus_client already, and not counted for the other definition")
        return False

    # What is done in the Trio thread, every now and then

    def look(self, server: object) -> None:
        """Bring what was defined meanwhile to the page, with 0, and log what is to be told."""
        version = REGISTRY.version
        if self.is_open and version != self._seen:
            self._seen = version
            for metric in REGISTRY.metrics():
                self._turns.take(partial(self._add_family, self._turns.region, metric.family))
                for handle in metric.early():
                    self.enter(handle, server)
        self._log_noted()

    def write(self, meter: Meter) -> None:
        """Tell how many label sets had no place of their own, and how many calls no server."""
        turned_away = self._turned_away + sum(len(book.turned_away) for book in self._books.copy().values())
        if self.is_open:
            meter.set(_DROPPED, float(turned_away + self._turns.dropped))
            meter.set(_LOST, float(self.lost))

    def note(self, message: str) -> None:
        """Have something logged, the first time it is given."""
        self._note(message)

    def _note(self, message: str) -> None:
        if message not in self._noted:
            self._noted.add(message)
            self._unlogged.append(message)

    def _log_noted(self) -> None:
        while self._unlogged:
            _log.warning("%s", self._unlogged.popleft())

    # What values need of whoever gives them places

    def place(self, value: AppValue) -> None:
        """Do nothing: a value has its place, or will not get one."""

    def note_exemplar(self, value: AppValue) -> None:
        """Do nothing: handles have no exemplars."""

    def note_failure(self, error: Exception) -> None:
        """Have it logged that something counts in its own process only."""
        self._note(f"a metric of the application counts in its own process only: {error!r}")
