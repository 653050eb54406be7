"""What a push to a StatsD daemon costs, in milliseconds of the processor: 300 series of the application that all changed.

The daemon's socket is there and takes every datagram; what a daemon does with them is not counted. Of every repetition
the cheapest counts, since disturbances only add.
"""

from __future__ import annotations

import socket
import time
from contextlib import closing

import trio

from pagi_trio.bind import Bind
from pagi_trio.metrics.application.aggregation import Sample
from pagi_trio.metrics.push.protocol import FamilySnapshot
from pagi_trio.metrics.push.statsd import StatsD
from pagi_trio.metrics.push.statsd_format import DogStatsDWriter, StatsDWriter, Writer

FAMILIES = 30
SERIES = 10
REPEATS = 50

WRITERS: dict[str, Writer] = {"statsd": StatsDWriter("web."), "dogstatsd": DogStatsDWriter("web.", ["env:prod"])}


def push_ms(flavor: str) -> float:
    """Measure one push of 300 counters that have all grown."""
    return trio.run(_push_ms, WRITERS[flavor])


def _families(value: float) -> list[FamilySnapshot]:
    labels = [{"method": f"method-{number}", "status": "200"} for number in range(SERIES)]
    samples = tuple(Sample("_total", one, value) for one in labels)
    return [FamilySnapshot(f"app_{number}", "counter", "", "", ("a", "b"), samples) for number in range(FAMILIES)]


async def _push_ms(writer: Writer) -> float:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        exporter = StatsD(Bind(kind="tcp", host="127.0.0.1", port=sock.getsockname()[1]), writer, 1.0)
        costs = [await _timed(exporter, sock, number / 2) for number in range(1, REPEATS + 1)]
        await exporter.push((), is_last=True)
    return min(costs) / 1e6


async def _timed(exporter: StatsD, sock: socket.socket, value: float) -> int:
    families = _families(value)
    before = time.thread_time_ns()
    await exporter.push(families, is_last=False)
    spent = time.thread_time_ns() - before
    _empty(sock)
    return spent


def _empty(sock: socket.socket) -> None:
    try:
        while True:
            sock.recv(65536)
    except BlockingIOError:
        return
