"""What servers log, each in its own log, over real sockets."""

from __future__ import annotations

import pytest
import trio

from pagi_trio.testing.log import ServerLog
from tests.integration.embedded import start_server

from .conftest import hello

pytestmark = pytest.mark.trio

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def failing(message):
    async def app(scope, receive, send):
        raise ZeroDivisionError(message)

    return app


async def start(nursery, app, log, **config):
    with log.owned():
        return await start_server(nursery, app, config)


async def test_two_servers_log_what_their_own_applications_raise(nursery, raw):
    with ServerLog() as ours, ServerLog() as theirs:
        one = await start(nursery, failing("of one"), ours)
        two = await start(nursery, failing("of two"), theirs)
        for server in (one, two):
            async with raw(server) as client:
                await client.send(GET)
                await client.stream.receive_some()
        await ours.wait_for("ZeroDivisionError: of one")
        await theirs.wait_for("ZeroDivisionError: of two")
        assert "of two" not in ours
        assert "of one" not in theirs
        for server in (one, two):
            server.handle.shutdown()


async def test_a_server_logs_where_it_listens_and_how_its_application_starts_and_stops(nursery):
    async def app(scope, receive, send):
        if scope["type"] != "lifespan":
            await hello(scope, receive, send)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    with ServerLog() as log:
        async with trio.open_nursery() as own:
            server = await start(own, app, log)
            assert server.url in log
            server.handle.shutdown()
    assert log.lines[0].startswith("INFO ")
    assert "shutdown" in log.lines[-1]
