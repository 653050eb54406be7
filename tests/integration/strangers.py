"""A stranger's project, in which a pytest of its own runs; what it imports of this package is what is tested here."""

from __future__ import annotations

import os
import re
import sys

import pytest

LIMIT_S = 60
"""For a run; twenty times as long as the slowest takes."""

APP = '''
import trio

async def app(scope, receive, send):
    """Answer with the path; a WebSocket echoes, /later answers after half a minute, /events tells one event."""
    if scope["type"] == "lifespan":
        await receive()
        scope["state"]["greeting"] = "hello"
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
    else:
        if scope["path"] == "/later":
            await trio.sleep(30)
        events = scope["path"] == "/events"
        headers = [(b"content-type", b"text/event-stream" if events else b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: one\\n\\n" if events else scope["path"].encode()})
'''

SUITE = """
import pytest
import trio
from app import app

async def test_over_sockets(pagi_serve):
    server = await pagi_serve(app)
    assert (await server.http.get("/here")).text == "/here"
    assert server.state["greeting"] == "hello"

async def test_in_memory(pagi_client):
    client = await pagi_client(app)
    assert (await client.get("/here")).text == "/here"

async def test_a_websocket_and_its_numbers(pagi_serve):
    server = await pagi_serve(app)
    with server.metrics.delta() as delta:
        async with server.websocket("/") as ws:
            await ws.send_message("hello")
            assert await ws.get_message() == "hello"
    assert delta.value("pagi_websocket_messages_sent_total") == 1
    await server.metrics.wait_for("pagi_server_connections_active", 0)
    assert server.url in server.log

async def test_events(pagi_client):
    client = await pagi_client(app)
    async with client.sse("/events") as events:
        assert [event.data async for event in events] == ["one"]

async def test_several(pagi_serve, pagi_client):
    servers = [await pagi_serve(app), await pagi_serve(app), await pagi_client(app)]
    assert len({server.url for server in servers}) == 3

async def test_time_flies(pagi_client, autojump_clock):
    client = await pagi_client(app)
    assert (await client.get("/later")).text == "/later"
    assert trio.current_time() >= 30

@pytest.fixture
async def served(pagi_serve):
    return await pagi_serve(app)

async def test_a_fixture_of_the_project(served):
    assert (await served.http.get("/")).status_code == 200

class TestTogether:
    @pytest.mark.parametrize("path", ["/one", "/two"])
    async def test_each(self, served, path):
        assert (await served.http.get(path)).text == path

def test_sync():
    pass
"""
COUNT = 10

MARKED = re.sub("^( *)async def test_", r"\1@pytest.mark.trio\n\1async def test_", SUITE, flags=re.MULTILINE)
"""The same for the strict mode of pytest-trio."""


@pytest.fixture
def project(pytester, monkeypatch):
    """A directory with the application; the module that uses it has ``pytest_plugins = ["pytester"]``."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    # No line of the summary is cut.
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makepyfile(app=APP)
    return pytester


@pytest.fixture
def run_project(project):
    """``run_project(*arguments, asyncio=mode)``: run its tests, with every warning an error."""

    def start(*arguments, asyncio=None):
        # Without the setting, pytest-asyncio warns.
        mode = f"--asyncio-mode={asyncio}", "-o", "asyncio_default_fixture_loop_scope=function"
        beside = ("-p", "no:asyncio") if asyncio is None else mode
        # Faker, which some development tool brings along, takes a second to import.
        common = "-W", "error", "-p", "no:cacheprovider", "-p", "no:faker", *beside
        return project.runpytest_subprocess(*common, *arguments, timeout=LIMIT_S)

    return start


def why(result):
    """Return, by test, the line that the summary says of those that failed."""
    lines = [line for line in result.outlines if line.startswith(("FAILED ", "ERROR ")) and "::" in line]
    return {re.split(r"::|\[| ", line)[2]: line.partition(" - ")[2] for line in lines}
