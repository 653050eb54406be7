"""The run: a server and its clients, samples on the way, and what must be so at the end."""

from __future__ import annotations

import os
import ssl
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio
import trustme

from tests.bench.servers import OUR_MODULES, Kind, Server, cores, free_port, running
from tests.endurance.load import Load
from tests.endurance.samples import Growth, Sample

SETTLING_S = 300.0
"""What caches and the allocator get to fill; of a shorter run, half."""

GROWTH_MOST = 0.02
END_S = 40.0
"""Everything is closed by then: the longest deadline of what clients leave behind is the server's ping, 20 s, and its
answer's, as long again."""

SETTLED_SAMPLES = 5
"""How many samples tell a trend of memory."""


@dataclass
class Outcome:
    """A run: its samples and what was wrong, in words.

    Attributes:
        first: Before the clients, after one of each request.
        during: While clients came.
        last: After all had left.
        faults: What must not be; empty for a good run.
    """

    first: Sample
    during: list[Sample]
    last: Sample
    done: Counter[str]
    left: Counter[str]
    growth: Growth | None
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """What to run."""

    seconds: float
    seed: int
    clients: int
    workers: int = 1
    tls: bool = False
    sample_every_s: float = 5.0
    idle_most_s: float = 30.0
    check_growth: bool = True


def endure(plan: Plan, show=lambda _: None) -> Outcome:
    """Run the plan; `show` is called with each sample."""
    server_core, client_core = cores()
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {client_core})
    try:
        with _certificate(plan.tls) as (arguments, context):
            metrics_port = free_port()
            kind = Kind("pagi-trio", OUR_MODULES, partial(_arguments, plan, metrics_port, arguments))
            lifetime_s = int(plan.seconds + 10 * END_S)
            with running(kind, "tests.endurance.app:app", server_core, lifetime_s=lifetime_s) as server:
                scheme = "https" if plan.tls else "http"
                urls = f"{scheme}://localhost:{server.port}", f"http://127.0.0.1:{metrics_port}/metrics"
                return trio.run(_endure, plan, server, urls, context, show)
    finally:
        os.sched_setaffinity(0, before)


def _arguments(plan: Plan, metrics_port: int, tls: list[str], app: str, port: int) -> list[str]:
    binds = ["--bind", f"127.0.0.1:{port}", "--metrics-bind", f"127.0.0.1:{metrics_port}"]
    return ["pagi_trio", app, *binds, "--workers", str(plan.workers), *tls]


@contextmanager
def _certificate(wanted: bool):
    """Make what server and clients need for TLS: the one's arguments, the others' context."""
    if not wanted:
        yield [], None
        return
    authority = trustme.CA()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with tempfile.TemporaryDirectory() as directory:
        files = Path(directory) / "key.pem", Path(directory) / "chain.pem"
        issued = authority.issue_cert("localhost")
        issued.private_key_pem.write_to_path(str(files[0]))
        for blob in issued.cert_chain_pems:
            blob.write_to_path(str(files[1]), append=True)
        yield ["--keyfile", str(files[0]), "--certfile", str(files[1])], context


async def _endure(plan: Plan, server: Server, urls: tuple[str, str], context, show) -> Outcome:
    began = time.monotonic()

    async def sample() -> Sample:
        at_s = time.monotonic() - began
        taken = await trio.to_thread.run_sync(Sample.take, server, *urls, at_s, context)
        show(taken)
        return taken

    # Some sessions first, so that what is made at its first use is no leftover.
    await Load(server.port, plan.clients, plan.seed + 1, context, idle_most_s=1.0).run(min(5.0, plan.seconds / 4))
    await _until_quiet(sample)
    first = await sample()
    began = time.monotonic()
    load = Load(server.port, plan.clients, plan.seed, context, idle_most_s=plan.idle_most_s)
    during: list[Sample] = []
    async with trio.open_nursery() as nursery:

        async def watch():
            while True:
                await trio.sleep(plan.sample_every_s)
                during.append(await sample())

        nursery.start_soon(watch)
        await load.run(plan.seconds)
        nursery.cancel_scope.cancel()
    last = await _until_quiet(sample, first)
    settling_s = min(SETTLING_S, plan.seconds / 2)
    settled = [one for one in during if settling_s <= one.at_s <= plan.seconds]
    growth = Growth.of(settled) if len(settled) >= SETTLED_SAMPLES else None
    outcome = Outcome(first, during, last, load.done, load.left, growth)
    outcome.faults += [f"{what} ({count} times)" for what, count in load.faults.items()]
    outcome.faults += _leftovers(first, last, one_process=plan.workers == 1)
    outcome.faults += _said(server)
    if plan.check_growth:
        outcome.faults += _growth_faults(growth)
    return outcome


async def _until_quiet(sample, first: Sample | None = None) -> Sample:
    """Return the sample in which nothing is open any more, or the last that was waited for."""
    ends = trio.current_time() + END_S
    while True:
        taken = await sample()
        quiet = not taken.gauges and (first is None or (taken.tasks, taken.fds) == (first.tasks, first.fds))
        if quiet or trio.current_time() > ends:
            return taken
        await trio.sleep(0.25)


def _leftovers(first: Sample, last: Sample, *, one_process: bool) -> list[str]:
    faults = [f"{name} is {value:g} at the end" for name, value in last.gauges.items()]
    if last.fds > first.fds:
        faults.append(f"{last.fds} file descriptors are open at the end, {first.fds} were at the start")
    if one_process and last.tasks > first.tasks:
        faults.append(f"{last.tasks} tasks are alive at the end, {first.tasks} were at the start")
    return faults


def _said(server: Server) -> list[str]:
    """Return what the server's log has of errors of its own."""
    server.log.seek(0)
    lines = server.log.read().decode(errors="replace").splitlines()
    return sorted({line for line in lines if "internal error" in line or "was never awaited" in line})[:5]


def _growth_faults(growth: Growth | None) -> list[str]:
    if growth is None:
        return ["too few samples to judge memory by"]
    if growth.share > GROWTH_MOST:
        return [f"memory grew by {growth.share:.1%} after settling, from {growth.before / 2**20:.1f} MiB"]
    return []
