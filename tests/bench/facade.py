"""What counting by an application's own metrics costs, and a page of them.

    python -m tests.bench.facade

Prints a Markdown table: processor time of this thread, the best of many rounds, so that a busy machine disturbs little.
prometheus_client's own counter is measured beside, which tells how fast the machine is.
"""

from __future__ import annotations

import contextvars
import gc
import time
import timeit
from collections.abc import Iterator
from contextlib import ExitStack

import trio
from prometheus_client import CollectorRegistry
from prometheus_client import Counter as PlainCounter

from pagi_trio.metrics import Metrics
from pagi_trio.metrics.application.resolution import serving
from pagi_trio.metrics.exporters.prometheus import render
from pagi_trio.metrics.meter import Meter
from pagi_trio.metrics.server_metrics import ServerMetrics

TIMES = 5_000
ROUNDS = 60
PAGES = 40
SERIES = 300

metrics = Metrics(prefix="bench")
bare = metrics.counter("bare_total", "Without labels.")
one = metrics.counter("one_total", "With a label.", labels=["method"])
two = metrics.counter("two_total", "With two.", labels=["method", "kind"])
level = metrics.gauge("level", "A gauge.")
size = metrics.histogram("size", "A histogram.")
work = metrics.timer("work_seconds", "A timer.")
cached = one.labels(method="oauth")

plain = PlainCounter("plain", "prometheus_client's.", ["method"], registry=CollectorRegistry())
plain_cached = plain.labels(method="oauth")


CALLS = {
    "bare `inc()`": "bare.inc()",
    "`inc()` of a handle that is kept": "cached.inc()",
    "`labels(method=...).inc()`": "one.labels(method='oauth').inc()",
    "`labels(method=..., kind=...).inc()`": "two.labels(method='oauth', kind='x').inc()",
    "`set()` of a gauge": "level.set(3.0)",
    "`observe()` of a histogram": "size.observe(0.3)",
    "`with timer.time():`": "with work.time(): pass",
    "prometheus_client, `inc()` of a child that is kept": "plain_cached.inc()",
    "prometheus_client, `labels(method=...).inc()`": "plain.labels(method='oauth').inc()",
}


def cost_ns(statement: str) -> float:
    """Return the nanoseconds that a statement costs, in the best round."""
    timer = timeit.Timer(statement, globals=globals(), timer=time.thread_time)
    return min(timer.repeat(ROUNDS, TIMES)) / TIMES * 1e9


def page_ms(server: ServerMetrics) -> tuple[float, int]:
    """Return the milliseconds of writing a page, in the best round, and its lines that are samples."""
    best = float("inf")
    for _ in range(PAGES):
        before = time.thread_time_ns()
        page = b"".join(render(server, openmetrics=False))
        best = min(best, (time.thread_time_ns() - before) / 1e6)
    return best, sum(not line.startswith(b"#") for line in page.splitlines())


def rows() -> Iterator[str]:
    """Yield the lines of the table."""
    yield "| call | in a server | in a plain thread | without a server |"
    yield "| --- | --- | --- | --- |"
    for name, statement in CALLS.items():
        without = cost_ns(statement)
        with serving(ServerMetrics(Meter.create())):
            inside = cost_ns(statement)
            outside = contextvars.Context().run(cost_ns, statement)
        yield f"| {name} | {inside:.0f} ns | {outside:.0f} ns | {without:.0f} ns |"
    with ExitStack() as resources:
        server = ServerMetrics(Meter.create())
        resources.enter_context(serving(server))
        before_ms, before = page_ms(server)
        counters = [metrics.counter(f"page_{number}_total", "One.", labels=["kind"]) for number in range(SERIES // 10)]
        for counter in counters:
            for kind in range(10):
                counter.labels(kind=str(kind)).inc()
        after_ms, after = page_ms(server)
        yield ""
        yield f"The page: {before} series in {before_ms:.2f} ms; with {after - before} more, {after_ms:.2f} ms."


async def main() -> None:
    """Print the table."""
    gc.disable()
    for row in rows():
        print(row, flush=True)


if __name__ == "__main__":
    trio.run(main)
