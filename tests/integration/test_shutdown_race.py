"""What has been accepted right before the server stops, and asks for what would last."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from pagi_trio import testing
from pagi_trio.testing.memory import MemoryListener
from tests.integration.conftest import respond

pytestmark = pytest.mark.trio

WEBSOCKET = (
    b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
STREAM = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def lasting(scope, receive, send):
    """Echo for ever, or send events for ever."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})
        return
    if scope["path"] == "/hold":
        await trio.sleep(1)
        await respond(send)
        return
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    while True:
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        await trio.sleep(0.01)


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("request_", [WEBSOCKET, STREAM], ids=["websocket", "stream"])
async def test_what_begins_while_the_server_stops_is_told_at_once(autojump_clock, request_, turns):
    async with testing.client(lasting, lifespan="off", timeouts={"graceful_s": 3600}) as client:
        public = client.handle.server.public
        late = MemoryListener(client.handle.server)
        # A listener goes on accepting for some turns after the stop: here the connection comes that many later.
        admit, kept = public.admit, []
        public.admit = lambda *connection: kept.append(connection)
        stream = await late.connect()
        public.admit = admit
        await stream.send_all(request_)
        # So that the server is not done before.
        hold = await late.connect()
        await hold.send_all(b"GET /hold HTTP/1.1\r\nhost: x\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        client.handle.shutdown()
        since = trio.current_time()
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        client.handle.server.service.context.run(admit, *kept[0])
        async with stream:
            while await stream.receive_some():
                pass
        await hold.aclose()
        await client.metrics.wait_for("pagi_server_connections_active", 0)
        assert trio.current_time() - since < 5
        assert client.metrics.value("pagi_server_app_errors_total", scope="websocket") == 0
