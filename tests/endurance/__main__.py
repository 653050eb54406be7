"""Run mixed load with random disconnects for a long time, and show that nothing is left over.

    python -m tests.endurance --minutes 60

Prints a Markdown table; exits with 1 if memory grew, or a task, file descriptor or gauge is left over at the end.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

from tests.bench.servers import take_servers_along
from tests.endurance.run import Outcome, Plan, endure
from tests.endurance.samples import Sample

ROWS = 13
COLUMNS = "| minute | CPU | own memory, MiB | PSS, MiB | objects | tasks | fds | threads | open |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.endurance", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0, help="how long clients come (60)")
    parser.add_argument("--seed", type=int, default=1, help="of what they choose by chance (1)")
    parser.add_argument("--clients", type=int, default=100, help="how many there are at a time (100)")
    parser.add_argument("--workers", type=int, default=1, help="processes of the server (1)")
    parser.add_argument("--tls", action="store_true", help="over TLS, with broken handshakes too")
    parser.add_argument("--samples", action="store_true", help="print every sample as it is taken")
    options = parser.parse_args()
    take_servers_along()
    plan = Plan(60 * options.minutes, options.seed, options.clients, options.workers, options.tls)
    outcome = endure(plan, _show if options.samples else lambda _: None)
    print(table(outcome))
    for fault in outcome.faults:
        print(f"- {fault}")
    return 1 if outcome.faults else 0


def _show(sample: Sample) -> None:
    own, pss, rss = (f"{size / 2**20:.2f} MiB" for size in (sample.own, sample.pss, sample.rss))
    sizes = f"own memory {own}, PSS {pss}, RSS {rss}, CPU {sample.cpu_s:.1f} s"
    counts = f"{sample.objects} objects, {sample.tasks} tasks, {sample.fds} fds, {sample.threads} threads"
    print(f"{sample.at_s:.1f} s: {sizes}, {counts}, {sample.gauges}", flush=True)


def table(outcome: Outcome) -> str:
    """Write what a run showed, a dozen of its samples in it."""
    step = max(1, len(outcome.during) // ROWS)
    samples = [outcome.first, *outcome.during[step - 1 :: step], outcome.last]
    lines = [COLUMNS, "| --: " * (COLUMNS.count("|") - 1) + "|"]
    for before, one in zip([samples[0], *samples], samples, strict=False):
        cpu = (one.cpu_s - before.cpu_s) / (one.at_s - before.at_s) if one.at_s > before.at_s > 0 else 0.0
        cells = (
            f"{one.at_s / 60:.1f}",
            f"{cpu:.0%}",
            f"{one.own / 2**20:.2f}",
            f"{one.pss / 2**20:.2f}",
            f"{one.objects:,}",
        )
        opened = one.gauges.get("pagi_server_connections_active", 0)
        lines.append(f"| {' | '.join((*cells, str(one.tasks), str(one.fds), str(one.threads), f'{opened:g}'))} |")
    lines.append("")
    done, left = outcome.done, outcome.left
    lines.append(f"{done.total():,} sessions came to their end, {left.total():,} left before it.")
    lines.append(", ".join(f"{name} {done[name]:,}+{left[name]:,}" for name in sorted({*done, *left})) + ".")
    more = Counter(outcome.last.types) - Counter(outcome.first.types)
    lines.append(f"More objects than before: {', '.join(f'{name} {count:+}' for name, count in more.most_common(8))}.")
    if outcome.growth is not None:
        growth = outcome.growth
        lines.append(
            f"Memory after settling: {growth.before / 2**20:.2f} MiB, at the end {growth.after / 2**20:.2f} MiB; "
            f"trend over that time {growth.slope / 2**20:+.2f} MiB."
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
