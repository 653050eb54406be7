"""A suite of many tests holds on to none of what they served."""

from __future__ import annotations

import gc

import pytest
import trio

from pagi_trio import testing
from pagi_trio.metrics.server_metrics import ServerMetrics
from pagi_trio.nurseries.connection import Connection
from pagi_trio.nurseries.transport import Transport
from pagi_trio.server import Server
from pagi_trio.testing import Served, Wire
from tests.integration.conftest import hello

TESTS = 50
"""Half of them fail. A leak shows with few; this many take a second."""

KINDS = Server, ServerMetrics, Transport, Connection, Served, Wire


def count_alive():
    gc.collect()
    return sum(isinstance(thing, KINDS) for thing in gc.get_objects())


async def one_test(serving, *, fails):
    async with serving(hello, lifespan="off") as server:
        await server.http.get("/")
        async with await server.connect() as wire:
            await wire.send_all(b"GET / HTTP/1.1\r\n")
        if fails:
            await server.http.send(server.http.build_request("GET", "/"), stream=True)
            raise ZeroDivisionError


async def app(scope, receive, send):
    """Have a lifespan, and answer requests and WebSockets."""
    if scope["type"] == "http":
        await hello(scope, receive, send)
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
    else:
        for _ in ("startup", "shutdown"):
            await send({"type": f"{(await receive())['type']}.complete"})


async def one_test_that_succeeds(serving):
    async with serving(app, lifespan="on") as server:
        assert (await server.http.get("/")).text == "hello"
        async with server.websocket("/"):
            pass


@pytest.mark.parametrize("serving", [testing.serve, testing.client])
def test_what_a_test_has_served_does_not_wait_for_the_garbage_collector(serving):
    before = count_alive()
    gc.disable()
    try:
        trio.run(one_test_that_succeeds, serving)
        after = sum(isinstance(thing, KINDS) for thing in gc.get_objects())
    finally:
        gc.enable()
    assert after <= before


@pytest.mark.parametrize("serving", [testing.serve, testing.client])
def test_nothing_of_a_test_outlives_it(serving):
    before = count_alive()
    for number in range(TESTS):
        try:
            trio.run(lambda fails: one_test(serving, fails=fails), number % 2 == 1)
        except ZeroDivisionError:
            continue
    assert count_alive() <= before
