"""What applications count with: a handle for each label set of a metric.

A handle finds its number in whatever server it is called in, and does nothing where there is none. It may be used in
Trio's tasks, in synchronous functions and in threads; no count is lost.
"""

from __future__ import annotations

import functools
import inspect
from math import inf
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Final, Generic, NoReturn, ParamSpec, Self, TypeVar, cast

from trio.lowlevel import enable_ki_protection

from pagi_trio.metrics.application.histogram_value import HistogramValue
from pagi_trio.metrics.application.naming import MODES, full_name
from pagi_trio.metrics.application.resolution import NOWHERE, RUNNING
from pagi_trio.metrics.application.value import AppValue, GaugeValue
from pagi_trio.metrics.server_metrics import current_metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from pagi_trio.metrics.application.bound import Value
    from pagi_trio.metrics.application.region import Family

P = ParamSpec("P")
R = TypeVar("R")
V = TypeVar("V", AppValue, GaugeValue, HistogramValue)

_ONE: Final = 1.0
"""What a counter mostly goes up by: the default itself need not be checked, which would take a tenth of a count."""

# In a module's global: the attribute would take as long as the call.
_current: Final = current_metrics.get


class Handle(Generic[V]):
    """One label set of one metric.

    Args:
        family: The metric.
        label_values: A value for each of its labels.
        metric: What has handed it out, if it has labels.

    Attributes:
        family: The metric.
        label_values: A value for each of its labels.
        values: What it counts into, by server.
    """

    __slots__ = ("__weakref__", "_metric", "family", "label_values", "values")

    def __init__(self, family: Family, label_values: tuple[str, ...] = (), metric: object = None) -> None:
        self.family = family
        self.label_values = label_values
        # Kept for as long as somebody has this.
        self._metric = metric
        self.values: dict[object, V] = {}

    def keep(self, server: object, value: Value) -> None:
        """Take what it counts into in a server, which has made it for this metric."""
        self.values[server] = cast("V", value)

    def free(self, server: object) -> None:
        """Forget it again."""
        self.values.pop(server, None)

    @property
    def kind(self) -> type:
        """Its class, whatever its labels."""
        return type(self)

    def early(self) -> Iterable[Self]:
        """Return itself, if it is on the page with 0 before anybody has counted.

        Of several workers' gauges, one that was never set must not be the smallest, nor the last.
        """
        return (self,) if self.family.mode in ("", MODES["sum"]) else ()

    def _seek(self) -> V | None:
        """Return what it counts into, where that is not at hand; None if nobody counts here."""
        if not RUNNING.servers:
            return None
        server = _current(NOWHERE)
        if server is NOWHERE:
            server = RUNNING.only
            if server is None:
                RUNNING.count_lost()
        return None if server is None else cast("V | None", server.ledger.enter(self, server))

    def _read(self, amount: float, rule: str) -> float:
        """Return a number as a float: sums of other types are of theirs, and numpy's float32 stops at 16,777,216.

        Who calls it for anything but a float saves a call for those.

        Raises:
            TypeError: If it is no number, or too large.
        """
        try:
            # Added to, as float() would read text as well.
            return float(amount + 0.0)
        except (TypeError, ValueError, OverflowError):
            raise TypeError(self._misuse(rule, amount)) from None

    def _misuse(self, rule: str, amount: object) -> str:
        return f"{full_name(self.family)}: {rule}, not {amount!r}"

    def __deepcopy__(self, _memo: object) -> Self:
        # Some middlewares copy the scope deeply, and what an application keeps in its state with it.
        return self

    def __repr__(self) -> str:
        labels = ", ".join(
            f"{name}={value!r}" for name, value in zip(self.family.labels, self.label_values, strict=True)
        )
        return f"<{type(self).__name__} {full_name(self.family)}{f'({labels})' if labels else ''}>"

    if not TYPE_CHECKING:
        # To a type checker, there is none.
        def labels(self, /, *values: object, **labels: object) -> NoReturn:
            """Refuse: labels are given once."""
            given = ", ".join([*map(repr, values), *labels]) or "none"
            raise TypeError(f"{full_name(self.family)}: has no labels here; got {given}")


class Counter(Handle[AppValue]):
    """Counts up."""

    __slots__ = ()

    @enable_ki_protection
    def inc(self, amount: float = _ONE) -> None:
        """Add to it.

        Args:
            amount: How much, at least 0 and finite.

        Raises:
            ValueError: If the amount is negative, infinite or no number.
            TypeError: If the amount is of another type.
        """
        if amount is not _ONE:
            number = amount if type(amount) is float else self._read(amount, "a counter goes up by a number")
            if not 0.0 <= number < inf:
                raise ValueError(self._misuse("a counter goes up by a finite number, at least 0", amount))
            amount = number
        server = _current(NOWHERE)
        if server is NOWHERE:
            server = RUNNING.only
        if server is None:
            # Nobody counts here, or nobody knows who; a KeyError would be slow.
            self._seek()
            return
        try:
            # Where nothing fails, this is faster than get().
            value = self.values[server]
        except KeyError:
            found = self._seek()
            if found is None:
                return
            value = found
        value.inc(amount)


class Gauge(Handle[GaugeValue]):
    """A number that goes up and down."""

    __slots__ = ("_is_timed",)

    def __init__(self, family: Family, label_values: tuple[str, ...] = (), metric: object = None) -> None:
        super().__init__(family, label_values, metric)
        # By the clock that all processes of the machine share, and nobody sets back.
        self._is_timed = family.mode == MODES["latest"]

    def set(self, value: float) -> None:
        """Overwrite it.

        Raises:
            TypeError: If the value is no number.
        """
        if type(value) is not float:
            value = self._read(value, "a gauge is set to a number")
        number = self._find()
        if number is not None:
            number.set(value, monotonic() if self._is_timed else None)

    def inc(self, amount: float = 1.0) -> None:
        """Add to it.

        Raises:
            TypeError: If the amount is no number.
        """
        if type(amount) is not float:
            amount = self._read(amount, "a gauge goes up by a number")
        number = self._find()
        if number is not None:
            number.inc(amount, monotonic() if self._is_timed else None)

    def dec(self, amount: float = 1.0) -> None:
        """Take from it.

        Raises:
            TypeError: If the amount is no number.
        """
        self.inc(-self._read(amount, "a gauge goes down by a number"))

    def _find(self) -> GaugeValue | None:
        server = _current(NOWHERE)
        if server is NOWHERE:
            server = RUNNING.only
        value = self.values.get(server)
        return value if value is not None else self._seek()


class Histogram(Handle[HistogramValue]):
    """Counts observations in buckets, and adds them up."""

    __slots__ = ()

    def observe(self, amount: float) -> None:
        """Count an observation.

        Raises:
            ValueError: If the amount is infinite or no number.
            TypeError: If the amount is of another type.
        """
        number = amount if type(amount) is float else self._read(amount, "an observation is a number")
        if not -inf < number < inf:
            raise ValueError(self._misuse("an observation is a finite number", amount))
        server = _current(NOWHERE)
        if server is NOWHERE:
            server = RUNNING.only
        if server is None:
            # Nobody counts here, or nobody knows who; a KeyError would be slow.
            self._seek()
            return
        try:
            # Where nothing fails, this is faster than get().
            value = self.values[server]
        except KeyError:
            found = self._seek()
            if found is None:
                return
            value = found
        value.observe(number)


class Timer(Histogram):
    """A histogram of seconds that measures them itself."""

    __slots__ = ()

    def time(self) -> Timing:
        """Measure a block, as a context manager, or each call of a function, sync or async, as a decorator.

        What ends by an exception or by cancellation is measured as well. Each block takes a call of its own: what is
        kept, and entered by several tasks at a time, knows only when the last of them began.
        """
        return Timing(self)


class Timing:
    """One block that is measured."""

    __slots__ = ("_started", "_timer")

    def __init__(self, timer: Timer) -> None:
        self._timer = timer
        self._started = 0.0

    def __enter__(self) -> None:
        self._started = perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.observe(perf_counter() - self._started)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Measure each call of a function.

        Raises:
            TypeError: If it is a generator, whose call ends before anything has been done.
        """
        timer = self._timer
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{full_name(timer.family)}: cannot measure a generator by decorating it; use with inside")
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def measured_async(*args: P.args, **kwargs: P.kwargs) -> object:
                with timer.time():
                    return await function(*args, **kwargs)

            return cast("Callable[P, R]", measured_async)

        @functools.wraps(function)
        def measured(*args: P.args, **kwargs: P.kwargs) -> R:
            with timer.time():
                return function(*args, **kwargs)

        return measured
