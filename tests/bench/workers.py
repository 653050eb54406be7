"""What several workers cost: to start, to share connections, to be scraped.

Usage: ``python -m tests.bench.workers [--rounds N]``
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import trio

from pagi_trio.metrics.application.region import Family, Region
from pagi_trio.metrics.exporters.prometheus import render
from pagi_trio.metrics.meter import Meter, introduce
from pagi_trio.metrics.server_metrics import ServerMetrics
from pagi_trio.metrics.store import Store

from .servers import HERE, ROOT, cpu_ns_of, free_port

WORKERS = 4
CONNECTIONS = 1_000
SCRAPED = 16
RECYCLES = 1_000
FILES = 5_000

READY_S = 60.0
"""What four workers get to start; they take a fraction of a second."""

_REQUEST = b"GET /worker HTTP/1.1\r\nHost: bench\r\n\r\n"


def main() -> None:
    """Print the figures, as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.workers", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="rounds whose median is shown (7)")
    rounds = parser.parse_args().rounds
    print(f"| start of {WORKERS} workers, until all are ready | ms | CPU ms |\n| --- | --: | --: |")
    for name, (wall_s, cpu_s) in start_costs(rounds).items():
        print(f"| {name} | {wall_s * 1e3:.0f} | {cpu_s * 1e3:.0f} |")
    print(f"\n| {CONNECTIONS:,} connections over 2 workers | least share of {rounds} runs |\n| --- | --: |")
    for name, share in least_shares(rounds).items():
        print(f"| {name} | {share:.0%} |")
    print(f"\n| a page over {SCRAPED} workers, 20 series of the application's | CPU ms |\n| --- | --: |")
    for name, cost_s in scrape_costs().items():
        print(f"| {name} | {cost_s * 1e3:.2f} |")


# Starting

_STARTS = {
    "pagi-trio": (["pagi_trio", "--bind", "127.0.0.1:{port}"], b" is ready"),
    "uvicorn[standard]": (["uvicorn", "--port", "{port}"], b"Application startup complete"),
}


def start_costs(rounds: int) -> dict[str, tuple[float, float]]:
    """Return the medians of the seconds, and of the CPU seconds, that each server takes to start its workers."""
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in _STARTS}
    for _ in range(rounds):
        for name, (arguments, mark) in _STARTS.items():
            runs[name].append(_start(arguments, mark))
    return {name: tuple(map(statistics.median, zip(*costs, strict=True))) for name, costs in runs.items()}


def _start(arguments: Sequence[str], mark: bytes) -> tuple[float, float]:
    module, *options = [part.format(port=free_port()) for part in arguments]
    argv = [sys.executable, "-m", module, "apps:hello", "--workers", str(WORKERS), *options]
    started = time.monotonic()
    with _process(argv, stderr=subprocess.PIPE) as process:
        ready = 0
        for line in process.stderr:
            ready += mark in line
            if ready == WORKERS:
                return time.monotonic() - started, cpu_ns_of(process.pid) / 1e9
    raise RuntimeError(f"{module} ended before its workers were ready")


@contextmanager
def _process(argv: Sequence[str], **streams: int) -> Iterator[subprocess.Popen[bytes]]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(argv, cwd=HERE, env=environ, stdout=subprocess.DEVNULL, **streams)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        # What it still says must not fill the pipe.
        process.communicate(timeout=READY_S)


# Sharing

_SPREADS = {"one after the other": 1, "50 at a time": 50, "all at once": CONNECTIONS}


def least_shares(rounds: int) -> dict[str, float]:
    """Return the least share of the connections that one of two workers ever got, by how they came."""
    port = free_port()
    argv = [sys.executable, "-m", "pagi_trio", "apps:worker", "--workers", "2", "--bind", f"127.0.0.1:{port}"]
    with tempfile.TemporaryFile() as log, _process(argv, stderr=log.fileno()) as _:
        return {name: min(trio.run(_spread, port, limit) for _ in range(rounds)) for name, limit in _SPREADS.items()}


async def _spread(port: int, at_a_time: int) -> float:
    taken: Counter[bytes] = Counter()
    streams: list[trio.SocketStream] = []
    limit = trio.CapacityLimiter(at_a_time)

    async def connect() -> None:
        async with limit:
            stream = await _connect(port)
            streams.append(stream)
            await stream.send_all(_REQUEST)
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += await stream.receive_some(65536)
            taken[answer.rpartition(b"x-worker: ")[2].split(b"\r\n")[0]] += 1

    async with trio.open_nursery() as nursery:
        for _ in range(CONNECTIONS):
            nursery.start_soon(connect)
    for stream in streams:
        await stream.aclose()
    return min(taken.values()) / CONNECTIONS if len(taken) == 2 else 0.0


async def _connect(port: int) -> trio.SocketStream:
    """Connect; a server that is about to start is waited for."""
    with trio.fail_after(READY_S):
        while True:
            try:
                return await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                await trio.sleep(0.05)


# Scraping


def scrape_costs() -> dict[str, float]:
    """Return the CPU seconds of a page over many workers: at first, after recycles, and with many open files."""
    store = Store(2 * SCRAPED, shared=True)
    introduce(store)
    metrics = ServerMetrics(Meter(store, None, is_owner=True))
    for slot in range(1, SCRAPED + 1):
        _occupy(store, slot, slot)
    costs = {"at first": _page_cost(metrics)}
    for number in range(RECYCLES):
        slot = 1 + number % SCRAPED
        store.retire(slot)
        _occupy(store, slot, SCRAPED + number + 1)
    costs[f"after {RECYCLES:,} recycles"] = _page_cost(metrics)
    null = Path(os.devnull)
    files = [null.open("rb", buffering=0) for _ in range(FILES)]
    costs[f"with {FILES:,} open files in each process"] = _page_cost(metrics)
    for file in files:
        file.close()
    store.close()
    return costs


def _occupy(store: Store, slot: int, instance: int) -> None:
    """Be a worker that has counted something; all of them are this process."""
    segment = store.slot(slot)
    segment.occupy(instance)
    segment.name_process(os.getpid())
    segment.beat()
    region = Region(segment.area)
    for number in range(20):
        cell = region.add_series(Family("app_hits", "counter", "Hits.", ("path",)), (f"/{number}",))
        assert cell is not None, "there is room for twenty"
        region.values[cell] = 3.0


def _page_cost(metrics: ServerMetrics, times: int = 50) -> float:
    costs = []
    for _ in range(times):
        began = time.process_time()
        for _ in render(metrics, openmetrics=False):
            pass
        costs.append(time.process_time() - began)
    return statistics.median(costs)


if __name__ == "__main__":
    main()
