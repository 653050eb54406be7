"""Put the HTTP/1.1 cases to the server and its peers, and print one Markdown table.

Usage: ``python -m tests.conformance.http1 [--servers NAME,NAME] [--areas NAME,NAME] [--limit SECONDS]``
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.metadata import version

from tests.bench.servers import (
    HYPERCORN,
    KINDS,
    OURS,
    UVICORN,
    Kind,
    Server,
    check_installed,
    running,
    take_servers_along,
)

from .http1_cases import AREAS
from .http1_cases.case import MUST, Case
from .http1_judge import VARIANTS, answers, hold

APP = "tests.conformance.http1_app:app"

SERVERS = {OURS: ("pagi-trio",), UVICORN: ("uvicorn", "httptools"), HYPERCORN: ("hypercorn", "h11")}
"""Those that are compared, and what parses the requests in them."""

LIMIT_S = 2.0
"""How long a server may be silent in the middle of a case; some milliseconds are usual."""

AT_ONCE = 8
"""So many cases run together, since a server that leaves one unanswered takes the whole limit for it."""

Complaints = dict[str, list[str]]
"""By area, what is wrong with each of its cases; nothing where it holds."""


def complaints_of(kind: Kind, areas: Sequence[str], limit_s: float) -> Complaints:
    """Put cases to a server, which is started again whenever one of them ends it."""
    found: Complaints = {}
    with ExitStack() as stack:
        server = stack.enter_context(running(kind, APP))
        for area in areas:
            cases = AREAS[area]
            with ThreadPoolExecutor(AT_ONCE) as pool:
                found[area] = list(pool.map(lambda case, at=server: _complaint(at, case, limit_s), cases))
            if answers(server.port, limit_s):
                continue
            # One of them has ended it: once more, each alone, to find which.
            server = stack.enter_context(running(kind, APP))
            for number, case in enumerate(cases):
                found[area][number] = _complaint(server, case, limit_s)
                if not answers(server.port, limit_s):
                    found[area][number] = "it ends the server"
                    server = stack.enter_context(running(kind, APP))
    return found


def _complaint(server: Server, case: Case, limit_s: float) -> str:
    for variant in VARIANTS:
        try:
            complaint = hold(case, variant, server.port, limit_s)
        except OSError as error:
            complaint = str(error)
        if complaint:
            return complaint
    return ""


# The table


def table(complaints: Mapping[str, Complaints], areas: Sequence[str]) -> str:
    """Show how many cases each server held, by area and by strength."""
    rows = [["area", *complaints], ["---", *["--:"] * len(complaints)]]
    rows += [[area, *(_held(found, [area]) for found in complaints.values())] for area in areas]
    rows.append(["all", *(_held(found, areas) for found in complaints.values())])
    rows.append(
        ["MUST alone", *(_held(found, areas, lambda case: case.strength == MUST) for found in complaints.values())]
    )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _held(found: Complaints, areas: Sequence[str], counts: Callable[[Case], bool] = lambda _: True) -> str:
    complaints = [one for area in areas for case, one in zip(AREAS[area], found[area], strict=True) if counts(case)]
    return f"{complaints.count('')} of {len(complaints)}"


def failures(name: str, found: Complaints) -> list[str]:
    """Name the cases that a server does not hold, those of a MUST first."""
    lines = [
        f"- {case.strength}, {case.clause}, {area}: {case.name}: {complaint}"
        for area, complaints in found.items()
        for case, complaint in zip(AREAS[area], complaints, strict=True)
        if complaint
    ]
    return [f"\n{name}:\n", *sorted(lines, key=lambda line: not line.startswith(f"- {MUST}"))] if lines else []


def main() -> int:
    """Print the table and what fails; 1 if anything does."""
    arguments = _arguments()
    take_servers_along()
    complaints = {name: complaints_of(KINDS[name], arguments.areas, arguments.limit) for name in arguments.servers}
    print(table(complaints, arguments.areas))
    versions = [f"{package} {version(package)}" for name in complaints for package in SERVERS[name]]
    print(f"\n{', '.join(versions)}, Python {platform.python_version()}")
    lines = [line for name, found in complaints.items() for line in failures(name, found)]
    print(*lines, sep="\n")
    return int(bool(lines))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.http1", description=__doc__.splitlines()[0])
    installed = [name for name in SERVERS if not KINDS[name].missing()]
    parser.add_argument(
        "--servers", type=_servers, default=installed, help=f"any of {', '.join(SERVERS)}; those that are installed"
    )
    parser.add_argument("--areas", type=_choice(AREAS), default=list(AREAS), help=f"any of {', '.join(AREAS)}")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help=f"seconds to wait for a server ({LIMIT_S})")
    return parser.parse_args()


def _servers(text: str) -> list[str]:
    names = _choice(SERVERS)(text)
    check_installed(KINDS[name] for name in names)
    return names


def _choice(known: Mapping[str, object]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",")]
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; choose from {', '.join(known)}")
        return names

    return parse


if __name__ == "__main__":
    sys.exit(main())
