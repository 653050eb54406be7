"""What applications define metrics of their own with.

A definition makes nothing but a name: what is counted is kept by the server that the application runs in, see
`pagi_trio.metrics.application.ledger`, and goes wherever that server's own numbers go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, overload

from pagi_trio.metrics.application import callbacks
from pagi_trio.metrics.application.handles import Counter, Gauge, Histogram, Timer
from pagi_trio.metrics.application.labelled import Labelled
from pagi_trio.metrics.application.naming import DEFAULT_BUCKETS, Workers, check_prefix, describe
from pagi_trio.metrics.application.registry import REGISTRY
from pagi_trio.metrics.application.resolution import find_server, is_untold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pagi_trio.metrics.application.region import Family

H = TypeVar("H", Counter, Gauge, Histogram, Timer)


class Metrics:
    """Metrics of an application.

    ::

        metrics = Metrics(prefix="shop")
        orders = metrics.counter("orders_total", "Orders taken.", labels=["country"])

        orders.labels(country="at").inc()

    It is true where somebody counts, so that an expensive value need not be computed: ``if metrics: ...``. Elsewhere,
    without a server or with metrics off, all that is counted is nothing.

    Args:
        prefix: What all names begin with, a ``_`` in between. Metrics of the same prefix are the same ones.

    Raises:
        ValueError: If no name can begin with the prefix.
        TypeError: If it is no text.
    """

    def __init__(self, prefix: str = "") -> None:
        check_prefix(prefix)
        self.prefix = prefix

    @overload
    def counter(self, name: str, description: str, *, unit: str = ...) -> Counter: ...
    @overload
    def counter(self, name: str, description: str, *, labels: Iterable[str], unit: str = ...) -> Labelled[Counter]: ...

    def counter(
        self, name: str, description: str, *, labels: Iterable[str] | None = None, unit: str = ""
    ) -> Counter | Labelled[Counter]:
        """Define what counts up.

        The same definition again returns the same metric.

        Args:
            name: Its name, without the prefix; it ends with ``_total``.
            description: What it counts, in a sentence.
            labels: Names of its labels; then ``labels()`` returns what counts.
            unit: What one is, such as bytes; then the name has it in front of ``_total``.

        Raises:
            ValueError: If something is not allowed, or the name has another meaning already.
            TypeError: If something is of a wrong type.
        """
        return _define(Counter, describe("counter", self._full(name), description, labels=labels, unit=unit))

    @overload
    def gauge(self, name: str, description: str, *, unit: str = ..., workers: Workers = ...) -> Gauge: ...
    @overload
    def gauge(
        self, name: str, description: str, *, labels: Iterable[str], unit: str = ..., workers: Workers = ...
    ) -> Labelled[Gauge]: ...

    def gauge(
        self,
        name: str,
        description: str,
        *,
        labels: Iterable[str] | None = None,
        unit: str = "",
        workers: Workers = "sum",
    ) -> Gauge | Labelled[Gauge]:
        """Define what goes up and down.

        Args:
            name: As of a counter, but it does not end with ``_total``.
            description: As of a counter.
            labels: As of a counter.
            unit: As of a counter; the name ends with it.
            workers: How those of several workers become one: their ``sum``, ``max`` or ``min``, the ``latest`` that
                was set, or ``each`` by itself, with the label ``worker``. With a worker, its part ends.

        Raises:
            ValueError: If something is not allowed, or the name has another meaning already.
            TypeError: If something is of a wrong type.
        """
        name = self._full(name)
        return _define(Gauge, describe("gauge", name, description, labels=labels, unit=unit, workers=workers))

    @overload
    def histogram(
        self, name: str, description: str, *, unit: str = ..., buckets: Iterable[float] = ...
    ) -> Histogram: ...
    @overload
    def histogram(
        self, name: str, description: str, *, labels: Iterable[str], unit: str = ..., buckets: Iterable[float] = ...
    ) -> Labelled[Histogram]: ...

    def histogram(
        self,
        name: str,
        description: str,
        *,
        labels: Iterable[str] | None = None,
        unit: str = "",
        buckets: Iterable[float] = DEFAULT_BUCKETS,
    ) -> Histogram | Labelled[Histogram]:
        """Define what counts observations by their size.

        Args:
            name: As of a gauge.
            description: As of a counter.
            labels: As of a counter.
            unit: As of a gauge.
            buckets: Upper bounds, rising; what is larger than all has a bucket as well. The default is for seconds.

        Raises:
            ValueError: If something is not allowed, or the name has another meaning already.
            TypeError: If something is of a wrong type.
        """
        name = self._full(name)
        return _define(Histogram, describe("histogram", name, description, labels=labels, unit=unit, buckets=buckets))

    @overload
    def timer(self, name: str, description: str, *, buckets: Iterable[float] = ...) -> Timer: ...
    @overload
    def timer(
        self, name: str, description: str, *, labels: Iterable[str], buckets: Iterable[float] = ...
    ) -> Labelled[Timer]: ...

    def timer(
        self,
        name: str,
        description: str,
        *,
        labels: Iterable[str] | None = None,
        buckets: Iterable[float] = DEFAULT_BUCKETS,
    ) -> Timer | Labelled[Timer]:
        """Define a histogram that measures how long something takes.

        Args:
            name: As of a histogram; it ends with ``_seconds``.
            description: As of a counter.
            labels: As of a counter.
            buckets: As of a histogram, seconds.

        Raises:
            ValueError: If something is not allowed, or the name has another meaning already.
            TypeError: If something is of a wrong type.
        """
        name = self._full(name)
        family = describe("histogram", name, description, labels=labels, unit="seconds", buckets=buckets)
        return _define(Timer, family)

    def add_batch_callback(self, function: Callable[[], object]) -> Callable[[], None]:
        """Have something called before every scrape or push, in the order of registration, to bring numbers up to date.

        It is called in Trio's thread, and must not block. With workers, the one that answers a scrape calls its own
        before it answers; the others call theirs every flush interval, as nobody can wait for them. Each calls its
        own once more at its end. If it raises, that is logged once and counted in
        ``pagi_metrics_errors_total{part="callback"}``.

        Args:
            function: What is called, without arguments. Registered while the application runs, it is called for its
                server, until that stops; registered before, for every server of the process.

        Returns:
            A function that removes it.

        Raises:
            TypeError: If it cannot be called, is an async function or a generator.
        """
        callbacks.check(function)
        server = find_server()
        if server is None and not is_untold():
            # Nobody looks at the metrics of a server that has none, or has stopped.
            return lambda: None
        return callbacks.add(function, server)

    def _full(self, name: str) -> str:
        if not isinstance(name, str):
            raise TypeError(f"the name of a metric is text, not {name!r}")
        return f"{self.prefix}_{name}" if self.prefix else name

    def __bool__(self) -> bool:
        return find_server() is not None

    def __repr__(self) -> str:
        return f"Metrics(prefix={self.prefix!r})"


def _define(kind: type[H], family: Family) -> H | Labelled[H]:
    if family.labels:
        return REGISTRY.define(kind, family, lambda: Labelled(kind, family))
    return REGISTRY.define(kind, family, lambda: kind(family))
