"""Measuring: rounds that go from server to server, and what a unit of work cost each of them.

The cost is CPU time of the server's processes, not time on the wall, which says little on a shared machine. Each
round visits every server, so that a slow minute of the machine falls on all of them alike, and makes its connections
anew, so that none of them meets a timeout while the others are visited.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPException

from .load import Handshakes, WrongAnswerError, allow_sockets
from .servers import KINDS, OURS, Kind, Server, cores, running
from .works import MANY, Work

WARM_UP = 64
"""Units before those measured: two or more on every connection, so that buffers and memos are in place."""

ROUNDS = 9
BUDGET_S = 0.3
"""CPU time of a server in one round, about. Many short rounds spread what disturbs them evenly over the servers."""

Costs = dict[str, list[float]]
"""Of each server, by name, what one of a work's units cost it in each round: nanoseconds of CPU time, or bytes."""


@contextmanager
def on_client_core() -> Iterator[int]:
    """Keep this process, which is the client, off the servers' core; yields the servers' core."""
    before = os.sched_getaffinity(0)
    server_core, client_core = cores()
    allow_sockets()
    os.sched_setaffinity(0, {client_core})
    try:
        yield server_core
    finally:
        os.sched_setaffinity(0, before)


def cpu_costs(work: Work, kinds: Sequence[Kind], rounds: int, budget_s: float) -> Costs:
    """Measure the CPU time of one of what the work counts, in nanoseconds, on each server and in each round.

    Args:
        budget_s: How much CPU time a server spends in one round, about; what work that makes is settled first.
    """
    costs: Costs = {kind.name: [] for kind in kinds}
    with on_client_core() as core, ExitStack() as stack:
        servers = [stack.enter_context(running(kind, work.app, core)) for kind in kinds]
        units = [_units(work, server, budget_s) for server in servers]
        for _ in range(rounds):
            for server, amount in zip(servers, units, strict=True):
                costs[server.kind.name].append(_cpu_ns(work, server, amount) / (amount * work.each))
    return costs


def idle_costs(kinds: Sequence[Kind], rounds: int) -> Costs:
    """Measure the resident bytes of one idle WebSocket on each server and in each round.

    Every round starts the servers anew: one that has had these connections before would not grow again.
    """
    costs: Costs = {kind.name: [] for kind in kinds}
    with on_client_core() as core:
        for _ in range(rounds):
            for kind in kinds:
                with running(kind, "echo", core) as server:
                    costs[kind.name].append(_grown_bytes(server) / MANY)
    return costs


def counting_costs(echo: Work, rounds: int, budget_s: float) -> tuple[float, float]:
    """Measure what counting adds to an echo on our server, and what the whole echo costs it: nanoseconds."""
    # Imported here, since the peers can be measured where our package is not installed.
    from .counting import added_ns  # noqa: PLC0415

    echo_ns = min(cpu_costs(echo, [KINDS[OURS]], rounds, budget_s)[OURS])
    with on_client_core():
        return added_ns(echo_ns), echo_ns


def _units(work: Work, server: Server, budget_s: float) -> int:
    units = WARM_UP
    # A tenth of the budget tells the cost well enough to fill the whole of it.
    while (spent_ns := _cpu_ns(work, server, units)) < budget_s * 1e8 and units < work.most:
        units *= 4
    return min(work.most, max(1, int(units * budget_s * 1e9 / spent_ns)))


def _cpu_ns(work: Work, server: Server, units: int) -> int:
    with _blamed(server), closing(work.load(server.port)) as load:
        load.run(WARM_UP)
        before = server.cpu_ns()
        load.run(units)
        return server.cpu_ns() - before


def _grown_bytes(server: Server) -> int:
    with _blamed(server), closing(Handshakes(server.port)) as load:
        load.run(WARM_UP)  # and keep them, so that the next ones find nothing freed to use again
        before = server.resident_bytes()
        load.run(MANY)
        return server.resident_bytes() - before


@contextmanager
def _blamed(server: Server) -> Iterator[None]:
    try:
        yield
    except (WrongAnswerError, OSError, HTTPException) as error:
        raise server.failure(error) from error
