"""Attack the server and its peers, and print one Markdown table of what becomes of them.

Usage: ``python -m tests.abuse [--only silent,idle] [--servers NAME,NAME]``
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from tests.bench.load import allow_sockets
from tests.bench.servers import check_installed, cores, take_servers_along

from .attacker import AttackFailedError, attacking
from .measure import Result, attack
from .scenario import MEBIBYTE, Scenario
from .scenarios import SCENARIOS
from .servers import KINDS, Kind, ServerFailedError


def main() -> int:
    """Make the attacks asked for; 1 if one of them could not be made."""
    arguments = _arguments()
    take_servers_along()
    server_core, client_core = cores()
    allow_sockets()
    os.sched_setaffinity(0, {client_core})
    print(_row(["attack", *(kind.name for kind in arguments.servers)]))
    print(_row(["---"] * (1 + len(arguments.servers))), flush=True)
    failed = False
    for scenario in arguments.only:
        cells = [_cell(scenario, kind, server_core, client_core) for kind in arguments.servers]
        failed = failed or None in cells
        print(_row([scenario.label, *(cell or "not measured" for cell in cells)]), flush=True)
    return int(failed)


def _cell(scenario: Scenario, kind: Kind, server_core: int, client_core: int) -> str | None:
    try:
        with attacking(client_core) as attacker:
            return show(attack(scenario, kind, attacker, server_core))
    except (AttackFailedError, ServerFailedError) as error:
        print(f"{scenario.name}, {kind.name}: {error}", file=sys.stderr, flush=True)
        return None


def show(result: Result) -> str:
    """Write a result in one cell: the honest client, the memory, the hostile clients, the end."""
    service = result.service
    if not result.alive:
        return "**the server ended**"
    if service.is_frozen:
        served = "**frozen**"
    else:
        served = f"{service.median_s * 1e3:.1f} / {service.worst_s * 1e3:.0f} ms"
        served += f", {service.unanswered} unanswered" if service.unanswered else ""
    grown = f"+{max(0, result.grown_bytes) / MEBIBYTE:.1f} MiB"
    ends = ", ".join(f"{count:,} {end}" for end, count in result.ends.items())
    stops = "**does not stop**" if result.stop_s is None else f"stops in {result.stop_s:.1f} s"
    return f"{served}; {grown}; {ends}; {stops}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.abuse", description=__doc__.splitlines()[0])
    scenarios = list(SCENARIOS.values())
    kinds = [kind for kind in KINDS.values() if not kind.program.missing()]
    parser.add_argument("--only", type=_some_of(SCENARIOS), default=scenarios, help=f"any of {', '.join(SCENARIOS)}")
    parser.add_argument(
        "--servers", type=_servers, default=kinds, help=f"any of {', '.join(KINDS)}; those that are installed"
    )
    return parser.parse_args()


def _servers(text: str) -> list[Kind]:
    kinds = _some_of(KINDS)(text)
    check_installed(kind.program for kind in kinds)
    return kinds


def _some_of(known):
    def parse(text: str):
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; choose from {', '.join(known)}")
        return [known[name] for name in names]

    return parse


if __name__ == "__main__":
    sys.exit(main())
