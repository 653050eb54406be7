"""What a server holds at a moment, read from outside and from its own pages; and what to think of many of them."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression, median

from tests.bench.servers import Server, tree_of

PAGE_S = 30.0

_GAUGES = ("pagi_server_connections_active", "pagi_server_connections_by_state", "pagi_websocket_connections_active")
_GAUGES += ("pagi_sse_connections_active",)


@dataclass(frozen=True)
class Sample:
    """One moment of a server.

    Attributes:
        at_s: Since the clients began.
        cpu_s: Used so far, by all its processes.
        pss: Bytes; what processes share counts once. Its part of files changes with what else runs on the machine.
        own: The part of it that is of no file: heap, stacks, shared memory.
        rss: Bytes.
        fds: Open file descriptors of all processes.
        threads: Of all processes.
        tasks: Trio's tasks; with several workers, those of whichever answered.
        objects: That the collector of the same process knows, after a collection.
        types: The most common of them.
        gauges: Series of the gauges that count what is open, those at 0 left out.
    """

    at_s: float
    cpu_s: float
    pss: int
    own: int
    rss: int
    fds: int
    threads: int
    tasks: int
    objects: int
    types: dict[str, int]
    gauges: dict[str, float]

    @classmethod
    def take(cls, server: Server, url: str, metrics_url: str, at_s: float, context) -> Sample:
        """Read everything; blocks for some milliseconds."""
        # The gauges first, since they would count the connection of the other page.
        page = _get(metrics_url, None).decode()
        report = json.loads(_get(f"{url}/alive", context))
        series = (line.rpartition(" ") for line in page.splitlines() if line.startswith(_GAUGES))
        gauges = {name: float(value) for name, _, value in series if float(value)}
        pids = tree_of(server.process.pid)
        return cls(
            at_s=at_s,
            cpu_s=server.cpu_ns() / 1e9,
            pss=server.resident_bytes(),
            own=sum(_own_bytes(pid) for pid in pids),
            rss=sum(_status(pid, "VmRSS") * 1024 for pid in pids),
            fds=sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids),
            threads=sum(_status(pid, "Threads") for pid in pids),
            tasks=report["tasks"],
            objects=report["objects"],
            types=report["types"],
            gauges=gauges,
        )


@dataclass(frozen=True)
class Growth:
    """How memory went after the server had settled.

    Attributes:
        before: Bytes of its own, the median of the first minute.
        after: The same, of the last minute.
        slope: Of a least-squares line through all samples, times their duration: bytes.
    """

    before: float
    after: float
    slope: float

    @classmethod
    def of(cls, samples: list[Sample]) -> Growth:
        """Judge at least two samples; a run that is too short for minutes is judged by its fifths."""
        times = [one.at_s for one in samples]
        sizes = [one.own for one in samples]
        duration_s = times[-1] - times[0]
        window_s = min(60.0, duration_s / 5)
        before = median(one.own for one in samples if one.at_s <= times[0] + window_s)
        after = median(one.own for one in samples if one.at_s >= times[-1] - window_s)
        return cls(before, after, linear_regression(times, sizes).slope * duration_s)

    @property
    def share(self) -> float:
        """The greater of both measures, of what there was before."""
        return max(self.after - self.before, self.slope) / self.before


def _get(url: str, context) -> bytes:
    with urllib.request.urlopen(url, timeout=PAGE_S, context=context) as response:
        return response.read()


def _own_bytes(pid: int) -> int:
    # These lines are in Linux 5.9 and later.
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))


def _status(pid: int, name: str) -> int:
    """Return a number of /proc/PID/status; sizes are KiB there."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 0  # a process that is ending has no memory any more
