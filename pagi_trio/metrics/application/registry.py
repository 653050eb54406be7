"""Every metric that the process has defined and still has; what they have counted is in the ledgers of servers."""

from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, cast
from weakref import WeakValueDictionary

from pagi_trio.metrics.application.naming import full_name, sample_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pagi_trio.metrics.application.bound import Bound
    from pagi_trio.metrics.application.region import Family


class Defined(Protocol):
    """A metric: one with labels, or one without, which has its number itself."""

    family: Family

    @property
    def kind(self) -> type:
        """The class of what counts."""
        ...

    def early(self) -> Iterable[Bound]:
        """Return what has a number in every server that starts, though nobody has counted anything yet."""
        ...


D = TypeVar("D", bound=Defined)


class Registry:
    """Names, and the metrics that have them.

    A metric has its names for as long as somebody holds it, so that those of one test are not in another's way.

    Attributes:
        version: Rises with everything that servers should look at.
    """

    def __init__(self) -> None:
        self.version = 0
        self._lock = threading.RLock()
        self._names: WeakValueDictionary[str, Defined] = WeakValueDictionary()

    def define(self, kind: type, family: Family, make: Callable[[], D]) -> D:
        """Return the metric that a definition stands for: the same one for the same definition.

        Modules are imported twice, as by a reload. Only what describes a metric to people may differ then.

        Args:
            kind: The class of what counts.
            family: The definition.
            make: Makes the metric.

        Raises:
            ValueError: If another metric has one of its names.
        """
        with self._lock:
            other = self._find(family)
            if other is not None and not _is_same(other, kind, family):
                message = _difference(other, kind, family)
                del other
                # Nobody may hold it but garbage, such as the traceback of a test that expects an error.
                gc.collect()
                other = self._find(family)
                if other is not None:
                    raise ValueError(message)
            if other is not None:
                # Its class follows from the kind and from whether there are labels.
                return cast("D", other)
            metric = make()
            self._names.update(dict.fromkeys(sample_names(family), metric))
            self.version += 1
            return metric

    def _find(self, family: Family) -> Defined | None:
        found = (self._names.get(name) for name in sample_names(family))
        return next((other for other in found if other is not None), None)

    def metrics(self) -> list[Defined]:
        """Return all metrics."""
        with self._lock:
            return [metric for name, metric in self._names.items() if name == metric.family.name]

    def note_early(self) -> None:
        """Learn that a metric has more in `Defined.early`."""
        with self._lock:
            self.version += 1

    def begin_in_child(self) -> None:
        """Begin anew in a process that was forked, where a thread that is gone may have the lock."""
        self._lock = threading.RLock()


def _is_same(other: Defined, kind: type, family: Family) -> bool:
    before = other.family
    return other.kind is kind and before.name == family.name and before.unit == family.unit and before.fits(family)


def _difference(other: Defined, kind: type, family: Family) -> str:
    """Say what is not the same, in one line."""
    name, before = full_name(family), other.family
    if before.name != family.name:
        return f"{name}: its samples would have names that {full_name(before)} has already"
    if other.kind is not kind:
        return f"{name}: is a {other.kind.__name__.lower()} already, not a {kind.__name__.lower()}"
    if before.labels != family.labels:
        return f"{name}: has been defined with {_list(before.labels)}, not with {_list(family.labels)}"
    if before.bounds != family.bounds:
        return f"{name}: has been defined with the buckets {_list(before.bounds)}, not {_list(family.bounds)}"
    if before.unit != family.unit:
        return f"{name}: has been defined with the unit {before.unit!r}, not {family.unit!r}"
    return f"{name}: has been defined with another way for several workers to become one"


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "no labels"


REGISTRY: Final = Registry()
"""That of the process. It has definitions only: no number of a server is in it."""
