"""Metrics with labels: they hand out what counts."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Final, Generic, Never, NoReturn, Self, TypeVar

from pagi_trio.metrics.application.naming import full_name
from pagi_trio.metrics.application.registry import REGISTRY
from pagi_trio.metrics.application.resolution import find_server, is_before_servers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pagi_trio.metrics.application.handles import Handle
    from pagi_trio.metrics.application.histogram_value import HistogramValue
    from pagi_trio.metrics.application.region import Family
    from pagi_trio.metrics.application.value import AppValue, GaugeValue

H = TypeVar("H", bound="Handle[AppValue] | Handle[GaugeValue] | Handle[HistogramValue]")

HANDLES_MOST: Final = 10_000
"""How many handles a metric keeps for whoever asks for them again; more than that are made again each time."""


class Labelled(Generic[H]):
    """A metric with labels: it has a handle for each set of their values.

    Attributes:
        family: What it is.
        kind: The class of its handles.
    """

    __slots__ = ("__weakref__", "_early", "_handles", "_only", "_pick", "_size", "family", "kind")

    def __init__(self, kind: type[H], family: Family) -> None:
        self.family = family
        self.kind = kind
        self._size = len(family.labels)
        # What handles are found by: a tuple of values, or where there is one label, its value, which is faster.
        self._only = family.labels[0] if self._size == 1 else None
        self._pick = itemgetter(*family.labels)
        self._handles: dict[object, H] = {}
        self._early: list[H] = []

    def labels(self, /, *unnamed: Never, **labels: str) -> H:
        """Return the handle of one label set; keep it where it is used often.

        Args:
            unnamed: Refused: the order of labels is easily mistaken.
            labels: A value for each label. Each set is a series for good: few values, and none that clients choose.

        Raises:
            ValueError: If these are not the metric's labels.
            TypeError: If a value is no text, or without the name of its label.
        """
        if len(labels) == self._size and not unnamed:
            try:
                return self._handles[self._pick(labels) if self._only is None else labels[self._only]]
            except (KeyError, TypeError):
                pass
        if unnamed:
            raise TypeError(f"{full_name(self.family)}: takes labels by name, {self._usage()}; got {unnamed[0]!r}")
        return self._bind(labels)

    def _bind(self, labels: dict[str, str]) -> H:
        name = full_name(self.family)
        if labels.keys() != set(self.family.labels):
            given = ", ".join(labels) or "none"
            raise ValueError(f"{name}: its labels are {', '.join(self.family.labels)}; got {given}")
        for label, value in labels.items():
            if not isinstance(value, str):
                raise TypeError(f"{name}: the label {label} is text, not {value!r}")
        # Of a subclass, such as an enumeration's, the text alone.
        values = tuple(str.__str__(labels[label]) for label in self.family.labels)
        handle = self.kind(self.family, values, self)
        if len(self._handles) < HANDLES_MOST:
            handle = self._handles.setdefault(values if self._only is None else values[0], handle)
        self._show(handle)
        return handle

    def _show(self, handle: H) -> None:
        """Have a new label set on the page with 0: in the server that it was made in, or else in all that start."""
        if not handle.early():
            return
        server = find_server()
        if server is not None:
            server.ledger.enter(handle, server)
        elif is_before_servers() and len(self._early) < HANDLES_MOST:
            self._early.append(handle)
            REGISTRY.note_early()

    def early(self) -> Iterable[H]:
        """Return the handles that were made before a server ran."""
        return self._early.copy()

    def _usage(self) -> str:
        return f".labels({', '.join(f'{label}=...' for label in self.family.labels)})"

    def __deepcopy__(self, _memo: object) -> Self:
        # Some middlewares copy the scope deeply, and what an application keeps in its state with it.
        return self

    def __repr__(self) -> str:
        return f"<Labelled {full_name(self.family)}({', '.join(self.family.labels)})>"

    if not TYPE_CHECKING:
        # To a type checker, there are none. No __getattr__, which would make every other attribute slower.
        def _refuse(self, *_: object) -> NoReturn:
            raise TypeError(f"{full_name(self.family)}: has labels, so count with {self._usage()}")

        inc = dec = set = observe = time = _refuse
