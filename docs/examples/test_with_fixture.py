"""A test that serves an application and reads what the server counted; run it with ``pytest``."""

from __future__ import annotations

import pytest
from trio_websocket import open_websocket_url


async def echo(scope, receive, send):
    """Send every message back."""
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


@pytest.mark.trio
async def test_every_message_is_answered(pagi_serve):
    server = await pagi_serve(echo)
    async with open_websocket_url(server.ws_url) as client:
        await client.send_message("hello")
        assert await client.get_message() == "hello"
    assert server.metrics.value("pagi_websocket_messages_sent_total") == 1
