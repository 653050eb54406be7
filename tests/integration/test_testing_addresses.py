"""Where a test reaches what it serves."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.trio


async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["server"][0].encode()})


async def test_over_sockets_it_is_a_free_port(pagi_serve):
    server = await pagi_serve(app, lifespan="off")
    assert server.port > 1023
    assert (server.url, server.ws_url) == (f"http://127.0.0.1:{server.port}", f"ws://127.0.0.1:{server.port}")


async def test_in_memory_it_is_the_port_that_the_application_sees(pagi_client):
    client = await pagi_client(app, lifespan="off")
    assert (client.url, client.ws_url, client.port) == ("http://testserver", "ws://testserver", 80)


async def test_over_a_unix_socket_it_is_a_url_that_clients_understand(pagi_serve, tmp_path):
    server = await pagi_serve(app, lifespan="off", bind=f"unix:{tmp_path}/it")
    assert (server.url, server.port) == ("http://localhost", 80)
    assert (await server.http.get("/")).status_code == 200
