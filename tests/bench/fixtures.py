"""What a test costs that uses a fixture, beside an empty one and beside Starlette's TestClient.

    python -m tests.bench.fixtures

Runs pytest on one suite that has each kind of test many times over, in turns, and prints a Markdown table of medians:
the processor's time from a test's set-up to its tear-down, what pytest itself does included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

KINDS = {
    "empty": """
async def test_empty(number):
    pass
""",
    "`pagi_serve`": """
async def test_serve(number, pagi_serve):
    await pagi_serve(app)
""",
    "`pagi_serve` and a request": """
async def test_serve_request(number, pagi_serve):
    server = await pagi_serve(app)
    assert (await server.http.get("/")).text == "hello"
""",
    "`pagi_client`": """
async def test_client(number, pagi_client):
    await pagi_client(app)
""",
    "`pagi_client` and a request": """
async def test_client_request(number, pagi_client):
    client = await pagi_client(app)
    assert (await client.get("/")).text == "hello"
""",
    "`pagi_client` and a WebSocket": """
async def test_client_websocket(number, pagi_client):
    client = await pagi_client(app)
    async with client.websocket("/ws") as ws:
        assert await ws.get_message() == "hello"
""",
    "`TestClient` and a request": """
def test_starlette_request(number):
    with TestClient(app) as client:
        assert client.get("/").text == "hello"
""",
    "`TestClient` and a WebSocket": """
def test_starlette_websocket(number):
    with TestClient(app) as client, client.websocket_connect("/ws") as ws:
        assert ws.receive_text() == "hello"
""",
}
"""A test of each kind, over the application below."""

APP = """
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
"""

CONFTEST = """
import collections, json, pathlib, time
import pytest

times = collections.defaultdict(list)

def pytest_generate_tests(metafunc):
    metafunc.parametrize("number", range({rounds}))

def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.callspec.params["number"])

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    began = time.process_time()
    try:
        return (yield)
    finally:
        times[item.originalname].append(time.process_time() - began)

def pytest_sessionfinish():
    pathlib.Path(__file__).with_name("times.json").write_text(json.dumps(times))
"""


def measure(rounds: int) -> list[list[float]]:
    """Return the processor's time of each test, seconds, by kind in the order of `KINDS`."""
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        (directory / "test_suite.py").write_text(APP + "".join(KINDS.values()))
        (directory / "conftest.py").write_text(CONFTEST.format(rounds=rounds))
        (directory / "pytest.ini").write_text("[pytest]\ntrio_mode = true\n")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", place]
        environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
        if f"{rounds * len(KINDS)} passed" not in done.stdout:
            raise SystemExit(done.stdout + done.stderr)
        return list(json.loads((directory / "times.json").read_text()).values())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.fixtures", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=300, help="tests of each kind (300)")
    times = [median(one) for one in measure(parser.parse_args().rounds)]
    print("| a test with | ms | over an empty one |")
    print("| --- | --: | --: |")
    for kind, seconds in zip(KINDS, times, strict=True):
        print(f"| {kind} | {1e3 * seconds:.2f} | {1e3 * (seconds - times[0]):+.2f} |")


if __name__ == "__main__":
    main()
