"""Servers under attack: starting, what they hold of memory and files, stopping.

All serve `apps` in one process on one core, with the limits and deadlines that they have by default; only the time that
what is in flight gets at shutdown is the same for all.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

import trustme

from tests.bench.servers import HYPERCORN, LAST_WORDS, OURS, ROOT, START_S, UVICORN, free_port
from tests.bench.servers import KINDS as PROGRAMS
from tests.bench.servers import Kind as Program

from .honest import warm_up

APP = "tests.abuse.apps:app"

GRACEFUL_S = 1
"""What is in flight gets this long at shutdown, in whole seconds, as uvicorn wants them."""

LIFETIME_S = 600
"""A server outlives no attack, even where the harness itself is killed: ``timeout`` then ends it."""


class ServerFailedError(Exception):
    """A server did not start; the message has its last words."""


@dataclass(frozen=True)
class Kind:
    """One server program, as the bench starts it, and the names of a few of its flags."""

    program: Program
    graceful: str
    certfile: str
    keyfile: str

    @property
    def name(self) -> str:
        return self.program.name

    def arguments(self, port: int, *, tls: bool) -> list[str]:
        """Return what starts it on a port, with a certificate if it is to speak TLS."""
        bounded = [self.graceful, str(GRACEFUL_S)]
        certificate, key = certificate_files() if tls else ("", "")
        encrypted = [self.certfile, certificate, self.keyfile, key] if tls else []
        return [*self.program.arguments(APP, port), *bounded, *encrypted]


KINDS = {
    kind.name: kind
    for kind in (
        Kind(PROGRAMS[OURS], "--graceful-timeout", "--certfile", "--keyfile"),
        Kind(PROGRAMS[UVICORN], "--timeout-graceful-shutdown", "--ssl-certfile", "--ssl-keyfile"),
        Kind(PROGRAMS[HYPERCORN], "--graceful-timeout", "--certfile", "--keyfile"),
    )
}


@dataclass(frozen=True)
class Server:
    """A running server, and what it holds."""

    kind: Kind
    port: int
    process: subprocess.Popen[bytes]
    log: IO[bytes]

    @property
    def words(self) -> str:
        """What it has printed, or the end of that."""
        self.log.seek(0)
        return self.log.read().decode(errors="replace").strip()[-LAST_WORDS:]

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def memory_bytes(self) -> int:
        """Sum the resident memory of its processes."""
        return sum(_status_bytes(pid, "VmRSS:") for pid in self._pids())

    def peak_bytes(self) -> int:
        """Sum the most resident memory that its processes had since `forget_peak`, or had at all."""
        return sum(_status_bytes(pid, "VmHWM:") for pid in self._pids())

    def forget_peak(self) -> None:
        """Let the peak be what is resident now (proc(5), clear_refs)."""
        for pid in self._pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def files(self) -> int:
        """Count its open file descriptors."""
        return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in self._pids())

    def terminate(self, patience_s: float) -> float | None:
        """Send SIGTERM, and wait for its end.

        Returns:
            The seconds until it ended; None if it did not within the patience.
        """
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)  # timeout passes it on
        return time.monotonic() - begun if self.has_ended_within(patience_s) else None

    def has_ended_within(self, patience_s: float) -> bool:
        """Wait for its end, but not for long."""
        try:
            self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _pids(self) -> list[int]:
        """Return the processes of the server itself, without the ``timeout`` around them."""
        found = _children(self.process.pid)
        for pid in found:
            found += _children(pid)
        return found


@contextmanager
def running(
    kind: Kind, core: int, *, tls: bool, flags: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Start a server pinned to a core, warm it up, and leave nothing of it at the end.

    Args:
        flags: More arguments.
        environ: More environment, for the application.

    Raises:
        ServerFailedError: It does not serve within `START_S`.
    """
    port = free_port()
    bounded = ["timeout", "--foreground", "--kill-after=5", str(LIFETIME_S), "taskset", "--cpu-list", str(core)]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*bounded, sys.executable, "-m", *kind.arguments(port, tls=tls), *flags],
            env={**os.environ, **(environ or {}), "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        server = Server(kind, port, process, log)
        try:
            _warm_up(server, tls=tls)
            server.forget_peak()
            yield server
        finally:
            if server.is_alive:
                os.killpg(process.pid, signal.SIGKILL)  # its own group, by start_new_session
                process.wait()


def _warm_up(server: Server, *, tls: bool) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.is_alive:
        try:
            return warm_up(server.port, tls=tls)
        except (OSError, ValueError):
            time.sleep(0.02)
    raise ServerFailedError(f"{server.kind.name} does not serve; it said: {server.words or 'nothing'}")


@cache
def _directory() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="abuse-")


@cache
def certificate_files() -> tuple[str, str]:
    """Make a certificate for the loopback; return its file and that of its key."""
    directory = Path(_directory().name)
    certificate = trustme.CA().issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(directory / "certificate.pem")
    certificate.private_key_pem.write_to_path(directory / "key.pem")
    return str(directory / "certificate.pem"), str(directory / "key.pem")


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):  # it has ended
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def _status_bytes(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/{pid}/status has no {name}")
