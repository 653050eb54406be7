"""Run the Autobahn cases against the server and its peers and print one Markdown table.

Usage: ``python -m tests.conformance.websocket [--cases 1.*,12.1.*] [--tls] [--servers NAME,NAME] [--at-once N]``
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.bench.servers import (
    HYPERCORN,
    KINDS,
    LIFETIME_S,
    OURS,
    ROOT,
    UVICORN,
    Kind,
    Server,
    check_installed,
    running,
    take_servers_along,
)

GROUPS = {"1": 16, "2": 11, "3": 7, "4": 10, "5": 20, "6": 145, "7": 37, "9": 54, "10": 1, "12": 90, "13": 126}
"""How many cases each group has; a run that is not of as many has not run."""

# The suite takes any event of the server for the one that ends a case of group 12 or 13, a ping of its own as well.
_NO_PINGS = {
    OURS: ("--websocket-ping-interval", "0"),
    UVICORN: ("--ws-ping-interval", "0"),
    HYPERCORN: (),
}
_CERTIFICATE_FLAGS = {
    OURS: ("--certfile", "--keyfile"),
    UVICORN: ("--ssl-certfile", "--ssl-keyfile"),
    HYPERCORN: ("--certfile", "--keyfile"),
}

OK = "OK"
INFORMATIONAL = "informational"
NON_STRICT = "non-strict"
UNIMPLEMENTED = "unimplemented"
FAILED = "failed"
VERDICTS = (OK, INFORMATIONAL, NON_STRICT, UNIMPLEMENTED, FAILED)

WITHOUT_VERDICT = frozenset(("7.1.6", "7.13.1", "7.13.2"))
"""The cases that the suite defines no other outcome for than INFORMATIONAL: RFC 6455 leaves open what a server does."""


@dataclass(frozen=True)
class Outcome:
    """What came of one case: how the messages were handled, and how the connection was closed."""

    case: str
    behavior: str
    close: str
    why: str

    @property
    def verdict(self) -> str:
        """One word for both; the worse of them."""
        both = {self.behavior, self.close}
        if both == {"OK"}:
            return OK
        if both <= {"OK", "INFORMATIONAL"}:
            return INFORMATIONAL if self.case in WITHOUT_VERDICT else FAILED
        if both <= {"OK", "NON-STRICT"}:
            return NON_STRICT
        return UNIMPLEMENTED if both <= {"OK", "UNIMPLEMENTED"} else FAILED

    @property
    def group(self) -> str:
        """The group that the case belongs to."""
        return self.case.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.case}: {self.verdict}: {self.why}"


@dataclass(frozen=True)
class Report:
    """What came of some cases.

    Attributes:
        outcomes: In the order of the cases.
        truncated: Connections that were ended without TLS's close_notify.
        seconds: How long all of them took.
    """

    outcomes: tuple[Outcome, ...]
    truncated: int
    seconds: float

    @property
    def per_group(self) -> Mapping[str, int]:
        """How many cases of each group were run."""
        return Counter(outcome.group for outcome in self.outcomes)

    @property
    def verdicts(self) -> Mapping[str, int]:
        """How many cases ended in each way."""
        return Counter(outcome.verdict for outcome in self.outcomes)

    @property
    def faults(self) -> list[str]:
        """Everything that is not as it should be, a line for each."""
        lines = [str(outcome) for outcome in self.outcomes if outcome.verdict not in (OK, INFORMATIONAL)]
        return lines + ([f"{self.truncated} connections ended without a close_notify"] if self.truncated else [])


class Certificates:
    """An authority and the certificate of a server, as files in a directory.

    Attributes:
        authority: What the suite trusts.
    """

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1")
        self.authority, self._chain, self._key = (str(directory / f"{name}.pem") for name in ("ca", "chain", "key"))
        authority.cert_pem.write_to_path(self.authority)
        certificate.cert_chain_pems[0].write_to_path(self._chain)
        certificate.private_key_pem.write_to_path(self._key)

    def flags(self, name: str) -> list[str]:
        """Say them to a server."""
        certificate, key = _CERTIFICATE_FLAGS[name]
        return [certificate, self._chain, key, self._key]


@contextmanager
def serving(kind: Kind, certificates: Certificates | None = None, flags: Iterable[str] = ()) -> Iterator[Server]:
    """Start a server of this kind, as its command line does, that echoes every message."""
    more = [*_NO_PINGS[kind.name], *flags, *(() if certificates is None else certificates.flags(kind.name))]
    told = dataclasses.replace(kind, arguments=lambda app, port: [*kind.arguments(app, port), *more])
    with running(told, "echo") as server:
        yield server


def run(
    server: Server, patterns: Sequence[str], certificates: Certificates | None = None, *, at_once: int = 1
) -> Report:
    """Run the cases that match; over wss, if the server has certificates.

    Raises:
        ServerFailedError: The suite could not be run to its end against this server.
    """
    argv = [sys.executable, "-m", "tests.conformance.autobahn", str(server.port), *patterns, f"--at-once={at_once}"]
    if certificates is not None:
        argv.append(f"--authority={certificates.authority}")
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    began = time.monotonic()
    try:
        done = subprocess.run(argv, cwd=ROOT, env=environ, stdout=subprocess.PIPE, timeout=LIFETIME_S, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise server.failure(error) from error
    found = json.loads(done.stdout)
    outcomes = tuple(Outcome(**outcome) for outcome in found["outcomes"])
    return Report(outcomes, found["truncated"], time.monotonic() - began)


# The table


def main() -> int:
    """Print a row for each server and group; 1 if any case of any of them is not as it should be."""
    arguments = _arguments()
    take_servers_along()
    groups = {group: [one for one in arguments.cases if _group(one) == group] for group in GROUPS}
    print(_row(["server", "group", "cases", *VERDICTS, "seconds"]))
    print(_row(["---", "---", *["--:"] * (len(VERDICTS) + 2)]), flush=True)
    faults = []
    with tempfile.TemporaryDirectory() as directory:
        certificates = Certificates(Path(directory)) if arguments.tls else None
        for kind in arguments.servers:
            for group, patterns in groups.items():
                if patterns:
                    with serving(kind, certificates) as server:
                        report = run(server, patterns, certificates, at_once=arguments.at_once)
                    figures = [
                        len(report.outcomes),
                        *(report.verdicts[one] for one in VERDICTS),
                        f"{report.seconds:.0f}",
                    ]
                    print(_row([kind.name, group, *map(str, figures)]), flush=True)
                    faults += [f"{kind.name}: {line}" for line in report.faults]
    print("", *faults, sep="\n")
    return int(bool(faults))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.websocket", description=__doc__.splitlines()[0])
    every = [f"{group}.*" for group in GROUPS]
    parser.add_argument("--cases", type=_patterns, default=every, help="cases, or patterns with *; all of them")
    parser.add_argument("--tls", action="store_true", help="over wss")
    known = ", ".join(_NO_PINGS)
    parser.add_argument("--servers", type=_kinds, default=[KINDS[OURS]], help=f"any of {known}; the first alone")
    parser.add_argument("--at-once", type=int, default=1, help="how many cases run at once (1)")
    return parser.parse_args()


def _patterns(text: str) -> list[str]:
    patterns = text.split(",")
    if unknown := [one for one in patterns if _group(one) not in GROUPS]:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; the groups are {', '.join(GROUPS)}")
    return patterns


def _kinds(text: str) -> list[Kind]:
    names = text.split(",")
    if unknown := [name for name in names if name not in _NO_PINGS]:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; choose from {', '.join(_NO_PINGS)}")
    kinds = [KINDS[name] for name in names]
    check_installed(kinds)
    return kinds


def _group(pattern: str) -> str:
    return pattern.partition(".")[0]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
