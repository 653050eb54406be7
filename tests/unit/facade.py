"""What the tests of applications' own metrics share: servers that only count, and what their pages say."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import Context
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import pytest

from pagi_trio.metrics import Metrics
from pagi_trio.metrics.application.registry import REGISTRY
from pagi_trio.metrics.application.resolution import serving
from pagi_trio.metrics.meter import Meter
from pagi_trio.metrics.server_metrics import ServerMetrics, current_metrics
from pagi_trio.metrics.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Metrics:
    """Define metrics where nobody else has any, though a traceback or a module of another test may hold some."""
    monkeypatch.setattr(REGISTRY, "_names", WeakValueDictionary())
    return Metrics(prefix="shop")


@contextmanager
def counting(**settings: int) -> Iterator[ServerMetrics]:
    """Be in the context of a server that counts, without its sockets."""
    metrics = ServerMetrics(Meter.create(), **settings)
    with serving(metrics):
        yield metrics


@contextmanager
def counting_beside() -> Iterator[ServerMetrics]:
    """Have another server count, of whose context this is not."""
    context = Context()
    manager = counting()
    other = context.run(manager.__enter__)
    try:
        yield other
    finally:
        context.run(manager.__exit__, None, None, None)


@contextmanager
def counting_workers() -> Iterator[tuple[ServerMetrics, ServerMetrics]]:
    """Have two workers count into one store, as two processes do; each of their pages has what both have counted."""
    store = Store(2)
    for slot in (1, 2):
        store.slot(slot).occupy(slot)
    one, other = (ServerMetrics(Meter(store, slot, is_owner=False)) for slot in (1, 2))
    with serving(one), serving(other):
        yield one, other


def context_of(metrics: ServerMetrics) -> Context:
    """Return a context of a server."""
    context = Context()
    context.run(current_metrics.set, metrics)
    return context


def lines(metrics: ServerMetrics) -> dict[str, float]:
    """Return the application's samples, as they stand on a page."""
    return {
        f"{one.family.name}{sample.suffix}{_labels(sample.labels)}": sample.value
        for one in metrics.snapshot().application()
        for sample in one.samples
    }


def _labels(labels: dict[str, str]) -> str:
    inner = ",".join(f'{name}="{value}"' for name, value in labels.items())
    return f"{{{inner}}}" if inner else ""
