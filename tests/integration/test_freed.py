"""A connection is freed when it ends, and not with the garbage, which a flood of them could let grow."""

from __future__ import annotations

import gc

import pytest

from pagi_trio.nurseries.connection import Connection
from pagi_trio.nurseries.transport import Transport

from .conftest import read_body, respond, until
from .test_websocket import frame, open_websocket

pytestmark = pytest.mark.trio

COUNT = 10


async def app(scope, receive, send):
    if scope["type"] == "http":
        body, _complete = await read_body(receive)
        await respond(send, body)
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def idle(client):
    await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await client.read_response()


async def upload(client):
    await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc")
    await client.read_to_end()


async def garbage(client):
    await client.send(b"garbage\r\n\r\n")
    await client.read_to_end()


async def websocket(client):
    await open_websocket(client)
    await client.send(frame(0x81, b"message") + frame(0x88))
    await client.read_to_end()


async def leave_websocket(client):
    await open_websocket(client)
    await client.send(frame(0x81, b"message"))


def alive():
    return [thing for thing in gc.get_objects() if isinstance(thing, (Connection, Transport))]


@pytest.mark.parametrize("talk", [idle, upload, garbage, websocket, leave_websocket])
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
async def test_a_connection_is_freed_when_it_ends(pagi_serve, raw, tls, authority, encrypted, talk):
    server = await pagi_serve(app, lifespan="off", tls=authority.files if encrypted else {})
    gc.collect()
    # Of servers that other tests have left behind on purpose.
    others = len(alive())
    gc.disable()
    try:
        for _ in range(COUNT):
            # What is wrong with a handshake is said in plain bytes.
            async with (tls if encrypted and talk is not garbage else raw)(server) as client:
                await talk(client)
        await until(lambda: server.metrics.value("pagi_server_connections_active") == 0)
        # The poller may still know the last one it has woken.
        await until(lambda: len(alive()) <= others + 1)
    finally:
        gc.enable()
