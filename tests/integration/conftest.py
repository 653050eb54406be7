"""What the tests over real sockets share: a raw client, and applications of a few lines."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.integration.authority import authority, connect, tls
from tests.integration.command import TCP, running
from tests.integration.embedded import start_server
from tests.integration.raw_client import RawClient
from tests.integration.strangers import project, run_project

__all__ = ["RawClient", "authority", "connect", "project", "run_project", "tls"]


@pytest.fixture
def raw():
    """``async with raw(server) as client``: a raw connection; everything in it has five seconds."""

    @asynccontextmanager
    async def connect(server):
        with trio.fail_after(5):
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            async with stream:
                yield RawClient(stream)

    return connect


@pytest.fixture
async def embed():
    """``server = await embed(app, **config)``: served over sockets whatever the clock; loopback keeps up with jumps."""
    servers = []
    async with trio.open_nursery() as nursery:

        async def start(app, **config):
            servers.append(await start_server(nursery, app, config))
            return servers[-1]

        yield start
        for server in servers:
            server.handle.shutdown()


async def hello(scope, receive, send):
    """Answer everything with five bytes."""
    if scope["type"] != "http":
        raise RuntimeError("only http")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"hello"})


async def read_body(receive):
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return body, False
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return body, True


async def respond(send, body=b"", status=200, headers=()):
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


async def until(condition):
    """Wait until something is so; ten times as long as the second that anything here may take."""
    with trio.fail_after(10):
        while not condition():
            await trio.sleep(0.01)


@pytest.fixture
def supervised(tmp_path):
    """``with supervised(*arguments) as program``: the command serves worker_app, of which it has a copy."""
    shutil.copy(Path(__file__).with_name("worker_app.py"), tmp_path / "app.py")
    os.mkfifo(tmp_path / "gate")

    def start(*arguments, app="app", bind=TCP, **options):
        return running(sys.executable, "-m", "pagi_trio", app, *bind, *arguments, cwd=tmp_path, **options)

    return start


@pytest.fixture
def open_gate(tmp_path):
    """``open_gate()``: let one request to ``/gated`` go on; waits for it."""

    def let_in():
        (tmp_path / "gate").write_bytes(b"")

    return let_in
