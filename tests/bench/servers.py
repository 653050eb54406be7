"""Servers under measurement: starting, what they cost in CPU time and memory, stopping.

All run in one process, on one core where that is asked for, with access logs off and limits at their defaults, as
each one's own documentation starts it.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

START_S = 20.0
"""Importing and binding take under two seconds; a loaded machine gets ten times that."""

STOP_S = 5.0
"""What a server gets to end on SIGTERM before its process group is killed."""

LIFETIME_S = 1800
"""A server outlives no run, even where the harness itself is killed: ``timeout`` then ends it."""

LAST_WORDS = 2_000
"""Characters shown of what a failed server has printed: a traceback's end."""


@dataclass(frozen=True)
class Kind:
    """One server program: the modules it needs, and its arguments for the import string of an app and a port."""

    name: str
    modules: tuple[str, ...]
    arguments: Callable[[str, int], list[str]]

    def missing(self) -> list[str]:
        """Name the modules that are not installed."""
        return [module for module in self.modules if importlib.util.find_spec(module) is None]


def _ours(app: str, port: int) -> list[str]:
    return ["pagi_trio", app, "--bind", f"127.0.0.1:{port}"]


def _ours_uncounted(app: str, port: int) -> list[str]:
    return [*_ours(app, port), "--no-metrics"]


def _ours_twice(app: str, port: int) -> list[str]:
    return [*_ours(app, port), "--workers", "2"]


def _uvicorn(app: str, port: int) -> list[str]:
    # websockets-sansio is its fastest WebSocket, and what "auto" means since 0.50; said so for older ones.
    best = ["--loop", "uvloop", "--http", "httptools", "--ws", "websockets-sansio"]
    return ["uvicorn", app, "--port", str(port), "--no-access-log", "--log-level", "warning", *best]


def _hypercorn(app: str, port: int) -> list[str]:
    return ["hypercorn", app, "--worker-class", "trio", "--bind", f"127.0.0.1:{port}"]


OUR_MODULES = ("pagi_trio", "trio", "hypercorn", "websockets", "click")

OURS = "pagi-trio"
UNCOUNTED = "pagi-trio --no-metrics"
TWICE = "pagi-trio --workers 2"
UVICORN = "uvicorn[standard]"
HYPERCORN = "hypercorn -k trio"

KINDS = {
    kind.name: kind
    for kind in (
        Kind(OURS, OUR_MODULES, _ours),
        Kind(UVICORN, ("uvicorn", "uvloop", "httptools", "websockets"), _uvicorn),
        Kind(HYPERCORN, ("hypercorn", "trio"), _hypercorn),
        Kind(UNCOUNTED, OUR_MODULES, _ours_uncounted),
        Kind(TWICE, OUR_MODULES, _ours_twice),
    )
}


def check_installed(kinds: Iterable[Kind]) -> None:
    """Refuse servers that cannot be started here, of those asked for on a command line.

    Raises:
        argparse.ArgumentTypeError: It names what is missing.
    """
    if missing := sorted({module for kind in kinds for module in kind.missing()}):
        raise argparse.ArgumentTypeError(f"not installed: {', '.join(missing)}")


def take_servers_along() -> None:
    """Have SIGTERM end this program as Ctrl-C does, and the servers with it, in the background of a shell too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))


class ServerFailedError(Exception):
    """A server did not start, or ended while it was being measured; the message has its last words."""


@dataclass(frozen=True)
class Server:
    """A running server: where it listens and what it has cost so far."""

    kind: Kind
    port: int
    process: subprocess.Popen[bytes]
    log: IO[bytes]

    def failure(self, what: object) -> ServerFailedError:
        """Make the error that says what went wrong with this server, and what it said itself."""
        self.log.seek(0)
        said = self.log.read().decode(errors="replace").strip()[-LAST_WORDS:]
        return ServerFailedError(f"{self.kind.name}: {what}; it said: {said or 'nothing'}")

    def cpu_ns(self) -> int:
        """Sum the CPU time of all its processes, user and system, in nanoseconds."""
        return cpu_ns_of(self.process.pid)

    def resident_bytes(self) -> int:
        """Sum the proportional set size of all its processes: what they share counts once."""
        return sum(_pss_bytes(pid) for pid in tree_of(self.process.pid))


def cores() -> tuple[int, int]:
    """Choose the core of the servers and that of the clients; they are one where there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


@contextmanager
def running(kind: Kind, app: str, core: int | None = None, lifetime_s: int = LIFETIME_S) -> Iterator[Server]:
    """Start a server of this kind; stop it at the end.

    Args:
        app: The name of an application of `apps`, or the import string of any other, as seen from the checkout.
        core: The one it is pinned to; None leaves it to the system.
        lifetime_s: After this it ends, whatever becomes of the caller.

    Raises:
        ServerFailedError: It does not accept connections within `START_S`.
    """
    port = free_port()
    bounded = ["timeout", "--kill-after=5", str(lifetime_s)]
    pinned = [] if core is None else ["taskset", "--cpu-list", str(core)]
    target = app if ":" in app else f"apps:{app}"
    argv = [*bounded, *pinned, sys.executable, "-m", *kind.arguments(target, port)]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            argv,
            cwd=HERE,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            server = Server(kind, port, process, log)
            _wait_accepting(server)
            yield server
        finally:
            _stop(process)


def free_port() -> int:
    """Choose a port of the loopback that nobody listens on now."""
    # The port could be taken again before the server binds it; the server then ends, and the run with it.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_accepting(server: Server) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if (status := server.process.poll()) is not None:
            raise server.failure(f"it ended with status {status} instead of listening")
        try:
            socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise server.failure(f"it does not listen after {START_S:.0f} s")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()  # timeout passes it on
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its own group, by start_new_session
        process.wait(STOP_S)


def cpu_ns_of(pid: int) -> int:
    """Sum the CPU time of a process and all its children, user and system, in nanoseconds."""
    return sum(_cpu_ns(one) for one in tree_of(pid))


def tree_of(pid: int) -> list[int]:
    """Return the process ids of a process and all its children."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += tree_of(int(child))
    return found


def _cpu_ns(pid: int) -> int:
    # The process clock of the kernel: utime + stime of /proc/PID/stat, not rounded to ticks of 10 ms.
    # Source: clock_getcpuclockid(3); the id is made as in include/linux/posix-timers.h, CPUCLOCK_SCHED = 2.
    return time.clock_gettime_ns(~pid << 3 | 2)


def _pss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/{pid}/smaps_rollup has no Pss line; Linux 4.14 or later is needed")
