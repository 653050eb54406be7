"""The attack, in a process of its own: hostile clients must not slow down the honest one that is timed.

Commands come in by lines of JSON, and each is answered by one: ``{"attack": NAME, "port": PORT}`` begins an attack and is
answered once it stands, or should, ``{"report": true}`` is answered by what has become of its clients so far, and
``{"stop": true}`` once the last of them is closed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import trio

from .client import AT_ONCE, CUT, Client, RefusedError
from .scenario import Scenario

ROOT = Path(__file__).resolve().parents[2]

OPEN = "open"
"""What is reported of a client whose connection the server has not ended."""

STANDING_S = 10.0
"""A server that is frozen by the first clients of an attack does not take the others."""

ANSWER_S = 60.0
"""Whatever the server does, the attack can be reported by then, or something is wrong with it."""


class Attack:
    """One attack that is going on: its clients, and what has become of those that ended.

    Attributes:
        ended: How many clients ended, by what became of them.
    """

    def __init__(self, scenario: Scenario, port: int) -> None:
        self._scenario = scenario
        self._port = port
        self._standing = 0
        self._stands = trio.Event()
        self._opening = trio.CapacityLimiter(AT_ONCE)
        self.ended: Counter[str] = Counter()

    async def run(self) -> None:
        """Let every client do what it does, to its end."""
        async with trio.open_nursery() as clients:
            for _ in range(self._scenario.clients):
                clients.start_soon(self._run_client)

    async def wait_standing(self) -> None:
        """Wait until every client has taken its place, or has ended."""
        await self._stands.wait()

    @property
    def report(self) -> dict[str, int]:
        """How many clients there are, by what became of them."""
        left = self._scenario.clients - self.ended.total()
        return {**self.ended, **({OPEN: left} if left else {})}

    async def _run_client(self) -> None:
        stood = False

        def stand() -> None:
            nonlocal stood
            if not stood:
                stood = True
                self._standing += 1
                if self._standing == self._scenario.clients:
                    self._stands.set()

        client = Client(self._port, tls=self._scenario.tls, opening=self._opening, stand=stand)
        try:
            end = await self._scenario.run(client)
        except RefusedError as error:
            end = str(error)
        except (trio.BrokenResourceError, OSError):
            end = CUT
        finally:
            await client.close()
            stand()
        self.ended[end] += 1


async def obey() -> None:
    """Do what standard input says, until it ends."""
    from .scenarios import SCENARIOS  # noqa: PLC0415 - only the process of the attack needs them

    commands = trio.wrap_file(sys.stdin)
    attack: Attack | None = None
    async with trio.open_nursery() as nursery:
        async for line in commands:
            command = json.loads(line)
            if "attack" in command:
                attack = Attack(SCENARIOS[command["attack"]], command["port"])
                stopped, scope = trio.Event(), trio.CancelScope()
                nursery.start_soon(run_until_stopped, attack, scope, stopped)
                with trio.move_on_after(STANDING_S):
                    await attack.wait_standing()
            assert attack is not None
            if "stop" in command:
                scope.cancel()
                await stopped.wait()
            print(json.dumps(attack.report), flush=True)
        nursery.cancel_scope.cancel()


async def run_until_stopped(attack: Attack, scope: trio.CancelScope, stopped: trio.Event) -> None:
    with scope:
        await attack.run()
    stopped.set()


class AttackFailedError(Exception):
    """The attack could not be made: what attacks has ended, or did not answer in time."""


class Attacker:
    """The process that attacks; one attack at a time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def attack(self, name: str, port: int) -> dict[str, int]:
        """Begin an attack; return once it stands, or should."""
        return self._ask({"attack": name, "port": port})

    def report(self) -> dict[str, int]:
        """Return how many clients there are, by what became of them."""
        return self._ask({"report": True})

    def stop(self) -> dict[str, int]:
        """Close the clients that are left, and return what had become of them."""
        return self._ask({"stop": True})

    def _ask(self, command: dict[str, object]) -> dict[str, int]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        timer = threading.Timer(ANSWER_S, self._process.kill)
        timer.start()
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            timer.cancel()
        if not answer:
            raise AttackFailedError(f"no answer to {command}")
        return json.loads(answer)


@contextmanager
def attacking(core: int):
    """Start the process that attacks, pinned to a core, and end it with the block; yields an `Attacker`."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.abuse.attacker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    os.sched_setaffinity(process.pid, {core})
    try:
        yield Attacker(process)
    finally:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    trio.run(obey)
