"""What a test costs that uses a fixture, beside an empty one and beside Starlette's TestClient.

    python -m tests.bench.fixtures

Runs pytest on suites of the same test, many times over, and prints a Markdown table. What pytest and the imports take
is not in it: a test's cost is the difference of a long suite and a short one, divided by the difference of their lengths.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

SHORT, LONG = 50, 350
"""Tests in a suite."""

SUITES = {
    "empty": "async def test(number): pass",
    "pagi_serve": """
async def test(number, pagi_serve):
    await pagi_serve(app)
""",
    "pagi_serve, a request": """
async def test(number, pagi_serve):
    server = await pagi_serve(app)
    assert (await server.http.get("/")).text == "hello"
""",
    "pagi_client": """
async def test(number, pagi_client):
    await pagi_client(app)
""",
    "pagi_client, a request": """
async def test(number, pagi_client):
    client = await pagi_client(app)
    assert (await client.get("/")).text == "hello"
""",
    "pagi_client, a WebSocket": """
async def test(number, pagi_client):
    client = await pagi_client(app)
    async with client.websocket("/ws") as ws:
        assert await ws.get_message() == "hello"
""",
    "TestClient, a request": """
def test(number):
    with TestClient(app) as client:
        assert client.get("/").text == "hello"
""",
    "TestClient, a WebSocket": """
def test(number):
    with TestClient(app) as client, client.websocket_connect("/ws") as ws:
        assert ws.receive_text() == "hello"
""",
}
"""The test of each suite, over the application below. An empty test of pytest-trio is what all are compared with."""

HEAD = """
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient

async def hello(request):
    return PlainTextResponse("hello")

async def greet(websocket):
    await websocket.accept()
    await websocket.send_text("hello")
    await websocket.close()

app = Starlette(routes=[Route("/", hello), WebSocketRoute("/ws", greet)])

@pytest.mark.parametrize("number", range({count}))
"""


@dataclass(frozen=True)
class Cost:
    """What one run took, or what one test does.

    Attributes:
        cpu_s: Time of the processor, user and system, seconds.
        wall_s: Time that passed, seconds.
    """

    cpu_s: float
    wall_s: float


def run(body: str, count: int, directory: Path) -> Cost:
    """Run a suite of this many tests."""
    (directory / "test_suite.py").write_text(HEAD.format(count=count) + body.strip() + "\n")
    (directory / "pytest.ini").write_text("[pytest]\ntrio_mode = true\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(directory)]
    before, began = _cpu_s(), time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if f"{count} passed" not in done.stdout:
        raise SystemExit(done.stdout + done.stderr)
    return Cost(_cpu_s() - before, time.perf_counter() - began)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(body: str, directory: Path) -> Cost:
    """Return what one test of a suite costs."""
    short, long = run(body, SHORT, directory), run(body, LONG, directory)
    return Cost((long.cpu_s - short.cpu_s) / (LONG - SHORT), (long.wall_s - short.wall_s) / (LONG - SHORT))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.fixtures", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds whose median is shown (5)")
    rounds = parser.parse_args().rounds
    costs: dict[str, list[Cost]] = {name: [] for name in SUITES}
    with tempfile.TemporaryDirectory() as directory:
        for _ in range(rounds):
            for name, body in SUITES.items():
                costs[name].append(measure(body, Path(directory)))
    empty = Cost(median(one.cpu_s for one in costs["empty"]), median(one.wall_s for one in costs["empty"]))
    print("| a test with | CPU, ms | time, ms | CPU over an empty one, ms |")
    print("| --- | --: | --: | --: |")
    for name, found in costs.items():
        cpu_s, wall_s = median(one.cpu_s for one in found), median(one.wall_s for one in found)
        print(f"| {name} | {1e3 * cpu_s:.2f} | {1e3 * wall_s:.2f} | {1e3 * (cpu_s - empty.cpu_s):.2f} |")


if __name__ == "__main__":
    main()
