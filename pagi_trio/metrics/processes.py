"""What a process costs: its processor time, memory and open files, as prometheus_client reports them of itself.

Read by pid, so that the parent reports its workers even while they hang, and cheaply, so that a page over many
workers stays quick: with 5,000 open files each, 17 processes take 0.25 ms of processor time, where counting the
files one by one takes 60 (Linux 6.18).
"""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from pagi_trio.metrics.catalog import Kind

# Counting 5,000 open files one by one takes 3.5 ms, and a number a few seconds old will do.
_COUNT_HOLDS_S: Final = 5

# The states of proc_pid_stat(5) in which a process has ended: not yet waited for, and dead.
_ENDED: Final = (b"Z", b"X")

# Longer than /proc/PID/stat gets: 52 fields of at most 20 digits, and a name.
_STAT_BYTES: Final = 2048


@dataclass(frozen=True, slots=True)
class Process:
    """What a process has used since it started, and holds now.

    Attributes:
        cpu_seconds: Processor time in user and kernel mode, of all its threads.
        resident_bytes: Memory that is in RAM.
        virtual_bytes: Memory that is mapped.
        start_time: When it started, in seconds since the Unix epoch.
        open_fds: Open files; None if this process may not know.
        max_fds: How many it may open; None if this process may not know.
    """

    cpu_seconds: float
    resident_bytes: int
    virtual_bytes: int
    start_time: float
    open_fds: int | None
    max_fds: int | None


class ProcessMetric(NamedTuple):
    """A family of series, one for each process.

    Attributes:
        name: As prometheus_client names it, so that dashboards made for it go on working.
        kind: What may happen to its value.
        help: One short sentence.
        attribute: Of `Process`, the value.
    """

    name: str
    kind: Kind
    help: str
    attribute: str


PROCESS_METRICS: Final = (
    ProcessMetric(
        "process_cpu_seconds_total", "counter", "Processor time used in user and kernel mode.", "cpu_seconds"
    ),
    ProcessMetric("process_resident_memory_bytes", "gauge", "Memory of the process that is in RAM.", "resident_bytes"),
    ProcessMetric("process_virtual_memory_bytes", "gauge", "Memory that the process has mapped.", "virtual_bytes"),
    ProcessMetric(
        "process_start_time_seconds",
        "gauge",
        "When the process started, in seconds since the Unix epoch.",
        "start_time",
    ),
    ProcessMetric("process_open_fds", "gauge", "Files that the process has open.", "open_fds"),
    ProcessMetric("process_max_fds", "gauge", "How many files the process may have open.", "max_fds"),
)


def read_process(pid: int) -> Process | None:
    """Read what a process costs.

    Returns:
        None if it has ended, waited for or not, or cannot be read; always so where there is no Linux ``/proc``.

    Source: proc_pid_stat(5).
    """
    try:
        # The name of the program comes second, in parentheses, and may itself hold blanks and parentheses.
        fields = _read_stat(pid).rpartition(b")")[2].split()
        if fields[0] in _ENDED:
            return None
        started = int(fields[19])
        return Process(
            cpu_seconds=(int(fields[11]) + int(fields[12])) / _ticks_per_second(),
            resident_bytes=int(fields[21]) * resource.getpagesize(),
            virtual_bytes=int(fields[20]),
            start_time=_boot_time() + started / _ticks_per_second(),
            open_fds=_open_fds(pid, started),
            max_fds=_max_fds(pid),
        )
    except OSError:
        return None


def _read_stat(pid: int) -> bytes:
    # An unbuffered read takes half the time of a file object.
    file = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    try:
        return os.read(file, _STAT_BYTES)
    finally:
        os.close(file)


def _open_fds(pid: int, started: int) -> int | None:
    # Since Linux 6.2 the size of the directory is the number of its entries, before that it is 0.
    count = os.stat(f"/proc/{pid}/fd").st_size  # noqa: PTH116 - a Path costs as much as the call
    try:
        return count or _count_fds(pid, started, int(time.monotonic() / _COUNT_HOLDS_S))
    except PermissionError:
        return None


@lru_cache(maxsize=256)
def _count_fds(pid: int, started: int, period: int) -> int:  # noqa: ARG001 - a key of the cache: another process, or later
    count = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - only counted
    # A process that counts its own has the directory open meanwhile.
    return count - 1 if pid == os.getpid() else count


def _max_fds(pid: int) -> int | None:
    try:
        return resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]
    except PermissionError:
        return None


@cache
def _ticks_per_second() -> int:
    return os.sysconf("SC_CLK_TCK")


@cache
def _boot_time() -> int:
    """Return when the machine started, in seconds since the Unix epoch."""
    for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
        if line.startswith("btime "):
            return int(line.split()[1])
    raise OSError("/proc/stat does not say when the machine started")
