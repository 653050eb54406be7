"""Measure the server beside its peers and print one Markdown table.

Usage: ``python -m tests.bench [--only hello,echo] [--servers NAME,NAME] [--rounds N] [--budget SECONDS]``
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

from . import table
from .measure import BUDGET_S, ROUNDS, counting_costs, cpu_costs, idle_costs
from .servers import KINDS, OURS, Kind, ServerFailedError, take_servers_along
from .works import MANY, WORKS, Work

IDLE = "idle"
METRICS = "metrics"


def main() -> int:
    """Run the works asked for; 1 if a server failed in one of them."""
    arguments = _arguments()
    take_servers_along()
    names = [kind.name for kind in arguments.servers]
    print(table.header(names), flush=True)
    failed = False
    for name in arguments.only:
        try:
            for row in _rows(name, arguments):
                print(row, flush=True)
        except ServerFailedError as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            failed = True
    return int(failed)


def _rows(name: str, arguments: argparse.Namespace) -> Iterator[str]:
    names = [kind.name for kind in arguments.servers]
    kinds = [kind for kind in arguments.servers if not kind.missing()]
    if name == METRICS:
        counted = (WORKS["echo"], WORKS["echo-many"]) if KINDS[OURS] in kinds else ()
        for echo in counted:
            part_ns, whole_ns = counting_costs(echo, arguments.rounds, arguments.budget)
            yield table.share_row(f"counting, of a {echo.title}", names, OURS, part_ns, whole_ns)
    elif name == IDLE:
        costs = idle_costs(kinds, arguments.rounds)
        yield table.row(f"idle WebSocket, of {MANY:,}", names, costs, table.kibibytes)
    else:
        work = WORKS[name]
        costs = cpu_costs(work, kinds, arguments.rounds, arguments.budget)
        title, show = (work.title, table.microseconds) if work.as_cost else _rate(work)
        yield table.row(title, names, costs, show)


def _rate(work: Work) -> tuple[str, table.Show]:
    return f"{work.title}, {work.unit}/s", table.per_second


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.splitlines()[0])
    works = [*WORKS, IDLE, METRICS]
    parser.add_argument("--only", type=_choice(works), default=works, help=f"any of {', '.join(works)}")
    parser.add_argument("--servers", type=_kinds, default=list(KINDS.values()), help=f"any of {', '.join(KINDS)}")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"rounds whose median is shown ({ROUNDS})")
    parser.add_argument(
        "--budget", type=float, default=BUDGET_S, help=f"CPU seconds of a server in a round ({BUDGET_S})"
    )
    return parser.parse_args()


def _choice(known: Sequence[str]):
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; choose from {', '.join(known)}")
        return names

    return parse


def _kinds(text: str) -> list[Kind]:
    return [KINDS[name] for name in _choice(list(KINDS))(text)]


if __name__ == "__main__":
    sys.exit(main())
