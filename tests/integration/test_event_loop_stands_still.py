"""No client is late because an application kept the event loop to itself: what came meanwhile counts as in time.

Each of these lets the loop stand still for longer than the deadline, so that they take that long.
"""

from __future__ import annotations

import time

import pytest
import trio

from .conftest import read_body, respond
from .test_websocket import frame, open_websocket, read_frame

pytestmark = pytest.mark.trio

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"

# Longer than the longest that counts of it, with what a tick of the reaper may add.
STANDSTILL_S = 1.2
DEADLINE_S = 0.9


class Standstill:
    """An application that echoes, and that at ``/still`` computes for a while, in which clients go on."""

    def __init__(self):
        self.meanwhile = []

    async def __call__(self, scope, receive, send):
        if scope["path"] == "/still":
            time.sleep(STANDSTILL_S)
            for sock, data in self.meanwhile:
                sock.send(data)
        body, _complete = await read_body(receive)
        await respond(send, body)


async def test_a_connection_that_has_just_become_idle_has_all_its_time(pagi_serve, raw):
    server = await pagi_serve(Standstill(), lifespan="off", timeouts={"keep_alive_s": DEADLINE_S})
    async with raw(server) as client:
        await client.send(GET.replace(b"/ ", b"/still "))
        assert (await client.read_response())[0] == 200
        # The reaper looks twice.
        await trio.sleep(0.6)
        await client.send(GET)
        assert (await client.read_response())[0] == 200


async def test_bodies_and_heads_that_came_meanwhile_are_in_time(pagi_serve, raw):
    app = Standstill()
    server = await pagi_serve(app, lifespan="off", timeouts={"body_grace_s": DEADLINE_S, "head_s": DEADLINE_S})
    # Whether the reaper or the connection is first to run after it is left to chance.
    for _ in range(3):
        async with raw(server) as upload, raw(server) as late, raw(server) as computing:
            await upload.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
            await late.send(GET[:-2])
            await trio.testing.wait_all_tasks_blocked()
            app.meanwhile = [(_plain(upload), b"hello"), (_plain(late), b"\r\n")]
            await computing.send(GET.replace(b"/ ", b"/still "))
            assert (await upload.read_response())[2] == b"hello"
            assert (await late.read_response())[0] == 200
            # And nothing is left of its having been late: the next request is awaited for as long as any.
            await trio.sleep(0.6)
            await late.send(GET)
            assert (await late.read_response())[0] == 200


async def test_a_pong_that_came_meanwhile_is_in_time(pagi_serve, raw):
    async def app(scope, receive, send):
        if scope["type"] == "http":
            await still(scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.accept"})
        assert (await receive())["type"] == "websocket.receive"
        await send({"type": "websocket.send", "text": "still there"})

    still = Standstill()
    settings = {"ping_interval_s": DEADLINE_S / 3, "ping_timeout_s": DEADLINE_S}
    server = await pagi_serve(app, lifespan="off", websocket=settings)
    async with raw(server) as client, raw(server) as computing:
        await open_websocket(client)
        assert (await read_frame(client))[0] == 0x89
        still.meanwhile = [(_plain(client), frame(0xA))]
        await computing.send(GET.replace(b"/ ", b"/still "))
        assert (await computing.read_response())[0] == 200
        await trio.sleep(0.6)
        await client.send(frame(1, b"there?"))
        while (answer := await read_frame(client)) == (0x89, b""):
            pass
        assert answer == (0x81, b"still there")


def _plain(client):
    """Return the client's socket for use without Trio; the descriptor stays the client's."""
    return client.stream.socket._sock
