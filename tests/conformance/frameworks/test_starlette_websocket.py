"""Starlette's WebSockets: what the client counts is what is counted, and a client that leaves is no error."""

from __future__ import annotations

import pytest
import trio
import trio_websocket
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocketDisconnect

from .observe import app_errors, wait, watched

pytestmark = pytest.mark.trio


# By hand: trio-websocket leaves its socket open when it is refused.
HANDSHAKE = (
    b"GET %s HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


async def test_a_websocket_counts_what_the_client_counts(pagi_serve):
    async def echo(websocket):
        await websocket.accept(subprotocol="echo", headers=[(b"x-y", b"z")])
        try:
            while True:
                message = await websocket.receive()
                if message["type"] == "websocket.disconnect":
                    codes.append(message["code"])
                    return
                if message.get("text") is not None:
                    await websocket.send_text(message["text"])
                else:
                    await websocket.send_bytes(message["bytes"])
        finally:
            websockets_ended.set()

    codes, websockets_ended = [], trio.Event()
    server = await pagi_serve(Starlette(routes=[WebSocketRoute("/ws/{room}", echo)]))
    messages = ["häuser", b"\x00\xff", "", "x" * 70_000, b"y" * 70_000]
    async with trio_websocket.open_websocket_url(server.ws_url + "/ws/1", subprotocols=["echo"]) as client:
        assert client.subprotocol == "echo"
        assert (b"x-y", b"z") in client.handshake_headers
        for message in messages:
            await client.send_message(message)
            assert await client.get_message() == message
        assert server.metrics.value("pagi_websocket_connections_active") == 1
    await wait(websockets_ended)
    size = sum(len(m.encode() if isinstance(m, str) else m) for m in messages)
    for direction in ("received", "sent"):
        assert server.metrics.value(f"pagi_websocket_messages_{direction}_total") == len(messages)
        assert server.metrics.value(f"pagi_websocket_bytes_{direction}_total") == size
    assert codes == [1000]


async def test_a_websocket_endpoint_that_only_iterates_ends_with_its_client(pagi_serve):
    async def echo(websocket):
        await websocket.accept()
        try:
            while True:
                await websocket.send_json(await websocket.receive_json())
        except WebSocketDisconnect as left:
            seen.append((left.code, left.reason))
            ended.set()

    seen, ended = [], trio.Event()
    server = await pagi_serve(Starlette(routes=[WebSocketRoute("/", echo)]))
    async with trio_websocket.open_websocket_url(server.ws_url) as client:
        await client.send_message('{"a": 1}')
        assert await client.get_message() == '{"a":1}'
        await client.aclose(4000, "enough")
    await wait(ended)
    assert seen == [(4000, "enough")]
    assert app_errors(server) == 0


@pytest.mark.parametrize("way", ["receives", "sends"])
async def test_a_websocket_client_that_leaves_is_no_error_of_an_endpoint_that_does_not_expect_it(
    pagi_serve, way, caplog
):
    async def endpoint(websocket):
        await websocket.accept()
        await websocket.send_text("hello")
        while True:
            if way == "receives":
                await websocket.receive_text()
            else:
                await websocket.send_text("tick")
                await trio.sleep(0.001)

    app, ended = watched(Starlette(routes=[WebSocketRoute("/", endpoint)]))
    server = await pagi_serve(app)
    async with trio_websocket.open_websocket_url(server.ws_url) as client:
        assert await client.get_message() == "hello"
    await wait(ended)
    assert server.metrics.value("pagi_websocket_connections_active") == 0
    assert app_errors(server) == 0
    assert [record for record in caplog.records if record.exc_info] == []


async def test_a_websocket_is_refused_before_it_is_accepted(pagi_serve, raw):
    async def closes(websocket):
        await websocket.close(1008)

    async def denies(websocket):
        raise HTTPException(401, "who are you?")

    server = await pagi_serve(Starlette(routes=[WebSocketRoute("/closes", closes), WebSocketRoute("/denies", denies)]))
    for path, status, body in ((b"/closes", 403, b""), (b"/denies", 401, b"who are you?"), (b"/nowhere", 403, b"")):
        async with raw(server) as client:
            await client.send(HANDSHAKE % path)
            answer, _, text = await client.read_response()
            assert answer == status
            assert body in text
    assert server.metrics.value("pagi_websocket_connections_total") == 0
    assert app_errors(server) == 0
