"""A test that talks to an application and reads what the server counted; run it with ``pytest``."""

from __future__ import annotations

import pytest


async def echo(scope, receive, send):
    """Send every message back."""
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


@pytest.mark.trio
async def test_every_message_is_answered(pagi_client):
    client = await pagi_client(echo)
    async with client.websocket() as websocket:
        await websocket.send_message("hello")
        assert await websocket.get_message() == "hello"
    assert client.metrics.value("pagi_websocket_messages_sent_total") == 1
