"""Count with the clients, count with the page, while workers are killed, hang, and are replaced; print both.

Usage: ``python -m tests.bench.truth [--seconds 60] [--workers 4] [--seed N]``

Clients of every kind keep all workers busy, and two scrapers read the page as fast as they can, one through the
parent and one through the workers. Meanwhile, every few seconds, something happens to a worker; and each is recycled
after some thousand requests. At the end all clients that still have a connection close it properly.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import cycle

import trio

from tests.faults.clients import Connection, Counts, Crowd, CutError
from tests.faults.equality import differences, expected
from tests.faults.page import Page, Watch
from tests.faults.server import Server, serving

EVERY_S = 3.0
"""Between two events: a worker that is killed has been replaced by then, on most machines."""

HANG_S = 2
RECYCLE = 1500

CLIENTS = {"keep_alive": 3, "once": 3, "listen": 2, "talk": 8}

REASONS = ("clean", "recycled", "crashed", "killed", "hung", "startup_failed")


class Run:
    """One run: the server, its clients, its scrapers, and what has happened to it."""

    def __init__(self, server: Server, seed: int) -> None:
        self.server = server
        self.crowd = Crowd(server.port)
        self.watch = Watch(server)
        self.events: Counter[str] = Counter()
        self._chance = random.Random(seed)

    async def go_on(self, seconds: float) -> Page:
        """Run for a time, and return the page once everything has been closed and folded."""
        async with trio.open_nursery() as scrapers:
            scrapers.start_soon(self.watch.through_parent)
            scrapers.start_soon(self.watch.through_workers)
            async with trio.open_nursery() as clients:
                for name, count in CLIENTS.items():
                    for _ in range(count):
                        clients.start_soon(getattr(self.crowd, name))
                with trio.move_on_after(seconds):
                    await self._disturb(clients)
                self.crowd.stop()
            await self.watch.leave()
            await self.server.wait_page(lambda page: page["pagi_server_connections_active"] == 0)
            # Two flush intervals.
            await trio.sleep(0.1)
            scrapers.cancel_scope.cancel()
        return await self.server.page()

    async def _disturb(self, hanging: trio.Nursery) -> None:
        for event in cycle(("kill -9", "HUP", "kill -9", "hang")):
            await trio.sleep(EVERY_S)
            self.events[event] += 1
            if event == "HUP":
                self.server.send_signal(signal.SIGHUP)
            elif event == "hang":
                hanging.start_soon(self._hang)
            else:
                with suppress(ProcessLookupError):
                    os.kill(self._chance.choice(list(self.server.workers().values())), signal.SIGKILL)

    async def _hang(self) -> None:
        self.watch.connections += 1
        # It may be cut before it is accepted.
        self.watch.unanswered += 1
        with suppress(CutError):
            async with await Connection.open(self.server.port) as connection:
                await connection.get("/hang")


def report(run: Run, page: Page) -> Iterator[str]:
    """Yield the lines of the tables."""
    crowd, watch = run.crowd, run.watch
    got = expected(crowd, watch, late=Counts())
    folded = expected(crowd, watch, late=crowd.late_50)
    yield "| series | clients got | less a killed worker's last 50 ms | page | clients asked for | page - got |"
    yield "| --- | --: | --: | --: | --: | --: |"
    for series, (least, most) in got.items():
        value = page.values.get(series, 0.0)
        yield f"| `{series}` | {least:,} | {folded[series][0]:,} | {value:,.10g} | {most:,} | {value - least:+,.10g} |"
    exits = {reason: int(page[f'pagi_server_worker_exits_total{{reason="{reason}"}}']) for reason in REASONS}
    yield ""
    yield "| | |"
    yield "| --- | --: |"
    yield f"| scrapes through the parent | {watch.scrapes['parent']:,} |"
    yield f"| scrapes through workers | {watch.scrapes['worker']:,} |"
    yield f"| scrapes cut with the worker that answered | {watch.cut:,} |"
    yield f"| failed, torn or short scrapes | {len(watch.failed)} |"
    yield f"| series that a scrape before had, and one lacks | {len(watch.missing)} |"
    yield f"| totals that stepped back | {len(watch.decreases)} |"
    yield f"| series out of bounds | {len(differences(page, folded))} |"
    yield f"| page, bytes: first, last | {watch.sizes[0]:,}, {watch.sizes[-1]:,} |"
    yield f"| events | {', '.join(f'{count} {name}' for name, count in run.events.items())} |"
    yield f"| spawns | {page['pagi_server_worker_spawns_total']:.0f} |"
    yield f"| exits | {', '.join(f'{count} {reason}' for reason, count in exits.items() if count)} |"
    yield f"| connections: ended properly, cut | {crowd.done.connections:,}, {crowd.cut.connections:,} |"
    yield f"| requests without an answer | {len(crowd.failed)} |"


async def main(seconds: float, workers: int, seed: int) -> int:
    """Run, print, and return 1 if anything is not as it must be."""
    recycling = ("--max-requests", str(RECYCLE), "--max-requests-jitter", str(RECYCLE))
    options = ("--workers", str(workers), "--worker-timeout", str(HANG_S), *recycling)
    async with serving(*options, workers=workers, limit_s=seconds + 60) as server:
        run = Run(server, seed)
        page = await run.go_on(seconds)
        for line in report(run, page):
            print(line)
    wrong = differences(page, expected(run.crowd, run.watch, late=run.crowd.late_50))
    faults = [*run.watch.failed, *run.watch.missing, *run.watch.decreases, *wrong]
    for fault in faults:
        print(fault, file=sys.stderr)
    return int(bool(faults))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.bench.truth", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (60)")
    parser.add_argument("--workers", type=int, default=4, help="how many (4)")
    parser.add_argument("--seed", type=int, default=1, help="which workers are killed (1)")
    arguments = parser.parse_args()
    sys.exit(trio.run(main, arguments.seconds, arguments.workers, arguments.seed))
