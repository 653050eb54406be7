"""Make one attack on one server, and take down what can be seen while it goes on and after."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from .attacker import OPEN, Attacker
from .honest import Service, ask
from .scenario import Scenario
from .servers import GRACEFUL_S, Kind, Server, running

LOOK_S = 0.1

SETTLE_S = 1.0
"""How long a server that does not answer is given to have ended."""

STOP_S = GRACEFUL_S + 5.0
"""How long a server gets to end on SIGTERM; longer is for ever."""

STUBBORN = {"STUBBORN_S": "60"}
"""Applications that do not want to hear of their client's leaving go on for longer than anybody looks."""


@dataclass(frozen=True)
class Result:
    """What one attack did to one server.

    Attributes:
        service: How the honest client was served, at first and after a while.
        grown_bytes: By how much its memory was over the baseline at its peak.
        ends: How many of the hostile clients there were, by what became of them.
        alive: Whether it was still running.
        stop_s: Seconds it took to end on SIGTERM, with the attack going on; None if it had to be killed.
    """

    service: Service
    grown_bytes: int
    ends: Mapping[str, int]
    alive: bool
    stop_s: float | None


def attack(scenario: Scenario, kind: Kind, attacker: Attacker, core: int) -> Result:
    """Start a server of this kind, and make this attack on it.

    Raises:
        ServerFailedError: It does not even start.
        AttackFailedError: The attack could not be made.
    """
    with running(kind, core, tls=scenario.tls, environ=STUBBORN) as server:
        before = server.memory_bytes()
        attacker.attack(scenario.name, server.port)
        early = ask(server.port, tls=scenario.tls)
        ends = hold(scenario, attacker)
        late = ask(server.port, tls=scenario.tls)
        grown = peak_over(server, before)
        alive = not (late.is_frozen and server.has_ended_within(SETTLE_S))
        stop_s = server.terminate(STOP_S) if alive else None
        attacker.stop()
    both = Service(early.seconds + late.seconds, early.unanswered + late.unanswered)
    return Result(both, grown, ends, alive, stop_s)


def hold(scenario: Scenario, attacker: Attacker) -> dict[str, int]:
    """Let an attack go on until all of its clients have ended, or it has lasted long enough; return their ends."""
    deadline = time.monotonic() + scenario.hold_s
    while OPEN in (ends := attacker.report()) and time.monotonic() < deadline:
        time.sleep(LOOK_S)
    return ends


def peak_over(server: Server, before_bytes: int) -> int:
    """Return by how many bytes the memory of a server has been over what it was; 0 if it is gone."""
    try:
        return server.peak_bytes() - before_bytes
    except OSError:
        return 0
