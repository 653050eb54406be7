"""Whatever a crowd of clients does: what has begun has ended or is open, and every attempt is counted once."""

from __future__ import annotations

import random
import struct
from collections import Counter

import pytest
import trio

from tests.integration.embedded import serving

from .conftest import respond
from .ledger import Ledger, ended
from .test_closes import GET, POST, events, reset, settle
from .test_websocket import HANDSHAKE, echo, frame, open_websocket, read_frame

pytestmark = pytest.mark.trio

CLIENTS = 150
AT_A_TIME = 20

TIMEOUTS = {"head_s": 1, "keep_alive_s": 1, "body_grace_s": 1, "write_stall_s": 1, "graceful_s": 1}


async def app(scope, receive, send):
    path = scope["path"]
    if scope["type"] == "websocket":
        await (echo if path == "/ws" else wait)(scope, receive, send)
    elif path == "/events":
        await events(scope, receive, send)
    elif path == "/fail":
        raise ValueError("broken")
    else:
        while (message := await receive()).get("more_body", False):
            pass
        if message["type"] == "http.request":
            await respond(send, b"hello")


async def wait(scope, receive, send):
    await receive()
    await receive()


# What a client may do; each returns how many WebSockets it has asked for.


async def ask(client):
    for _ in range(3):
        await client.send(GET)
        await client.read_response()
    return 0


async def say_nothing(client):
    await client.read_to_end()
    return 0


async def leave_at_once(client):
    return 0


async def leave_in_a_head(client):
    await client.send(GET[:-2])
    return 0


async def break_the_protocol(client):
    await client.send(b"BROKEN\r\n\r\n")
    await client.read_to_end()
    return 0


async def send_half_a_body(client):
    await client.send(POST % 10 + b"12345")
    await client.read_to_end()
    return 0


async def get_an_error(client):
    await client.send(b"GET /fail HTTP/1.1\r\nHost: x\r\n\r\n")
    await client.read_to_end()
    return 0


async def reset_after_an_answer(client):
    await client.send(GET)
    await client.read_response()
    reset(client)
    return 0


async def listen_and_leave(client):
    await client.send(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
    await client.read_until(b"data: x\n\n")
    return 0


async def talk(client):
    await open_websocket(client)
    for _ in range(3):
        await client.send(frame(1, b"hello"))
        await read_frame(client)
    await client.send(frame(8, struct.pack("!H", 4000)))
    await client.read_to_end()
    return 1


async def talk_and_leave(client):
    await open_websocket(client)
    await client.send(frame(1, b"hello"))
    return 1


async def talk_and_reset(client):
    await open_websocket(client)
    reset(client)
    return 1


async def talk_nonsense(client):
    await open_websocket(client)
    await client.send(frame(3))
    await client.read_to_end()
    return 1


async def ask_for_a_wrong_websocket(client):
    await client.send((HANDSHAKE % b"").replace(b"Version: 13", b"Version: 99"))
    await client.read_to_end()
    return 1


async def get_no_answer(client):
    await client.send((HANDSHAKE % b"").replace(b"/ws", b"/wait"))
    return 1


async def wait_for_an_answer(client):
    """Until the server stops, or the five seconds that a client has are over."""
    await client.send((HANDSHAKE % b"").replace(b"/ws", b"/wait"))
    with trio.move_on_after(4):
        await client.read_to_end()
    return 1


DEEDS = [
    *(ask, say_nothing, leave_at_once, leave_in_a_head, break_the_protocol, send_half_a_body, get_an_error),
    *(reset_after_an_answer, listen_and_leave, talk, talk_and_leave, talk_and_reset, talk_nonsense),
    *(ask_for_a_wrong_websocket, get_no_answer, wait_for_an_answer),
]


class Crowd:
    """Clients that each do one thing, some at a time.

    Attributes:
        connections: How many the server has accepted.
        attempts: How many WebSockets they have asked for.
        done: How often each deed was done.
    """

    def __init__(self, connect, server, dice):
        self._connect = connect
        self._server = server
        self._dice = dice
        self._places = trio.CapacityLimiter(AT_A_TIME)
        self.connections = 0
        self.attempts = 0
        self.done = Counter()

    async def run(self):
        async with trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                nursery.start_soon(self._come, self._dice.choice(DEEDS))

    async def _come(self, deed):
        async with self._places:
            await trio.sleep(self._dice.random())
            async with self._connect(self._server) as client:
                self.connections += 1
                asked = await deed(client)
                self.attempts += asked
                self.done[deed] += 1
        Ledger(self._server.metrics).check()


@pytest.mark.parametrize(("over_tls", "seed"), [(False, 0), (False, 1), (False, 2), (True, 3)])
async def test_what_has_begun_has_ended_or_is_open(raw, tls, authority, autojump_clock, over_tls, seed):
    config = {"tls": authority.files} if over_tls else {}
    async with serving(app, lifespan="off", timeouts=TIMEOUTS, **config) as server:
        crowd = Crowd(tls if over_tls else raw, server, random.Random(seed))
        await crowd.run()
        ledger = await ended(server)
    assert crowd.done.total() == CLIENTS
    assert len(crowd.done) == len(DEEDS)
    assert sum(ledger.closed.values()) == ledger.value("pagi_server_connections_total") == crowd.connections
    assert sum(ledger.handshakes.values()) == crowd.attempts
    assert sum(ledger.closes.values()) == ledger.handshakes["accepted"]
    assert ledger.tls == ({"ok": crowd.connections} if over_tls else {})
    # None of it is the server's doing.
    assert "server_shutdown" not in ledger.closed
    assert ledger.closed["server_error"] == crowd.done[get_an_error]


@pytest.mark.parametrize("how", ["gracefully", "at once"])
async def test_the_same_holds_for_a_server_that_stops_in_the_middle(raw, autojump_clock, how):
    async with trio.open_nursery() as nursery:
        async with serving(app, lifespan="off", timeouts=TIMEOUTS) as server:
            for deed in DEEDS:
                nursery.start_soon(_come_and_stay, raw, server, deed)
            await trio.sleep(0.5)
            await settle()
            assert Ledger(server.metrics).value("pagi_server_connections_active") > 5
            server.handle.shutdown() if how == "gracefully" else server.handle.abort()
        nursery.cancel_scope.cancel()
    ledger = Ledger(server.metrics)
    ledger.check()
    assert ledger.value("pagi_server_connections_active") == 0
    assert sum(ledger.closed.values()) == ledger.value("pagi_server_connections_total") == len(DEEDS)
    assert ledger.closed["server_shutdown"] > 5


async def _come_and_stay(connect, server, deed):
    async with connect(server) as client:
        await deed(client)
        await trio.sleep_forever()
