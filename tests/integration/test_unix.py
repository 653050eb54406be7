"""Serving on a unix socket: HTTP and WebSocket, and what the scope says of both ends (ASGI 3.0, connection scope)."""

from __future__ import annotations

import pytest
import trio
import trio_websocket

from pagi_trio import testing

from .conftest import RawClient, hello, respond

pytestmark = pytest.mark.trio

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_http_over_a_unix_socket_with_its_scope(pagi_serve, tmp_path):
    path = str(tmp_path / "app.sock")
    scopes = []

    async def app(scope, receive, send):
        scopes.append(scope)
        await respond(send, scope["raw_path"])

    server = await pagi_serve(app, lifespan="off", bind=(f"unix:{path}",))
    assert server.handle[0] == f"unix:{path}"
    with trio.fail_after(5):
        async with await trio.open_unix_socket(path) as stream:
            client = RawClient(stream)
            await client.send(GET * 2)
            for _ in range(2):
                assert (await client.read_response())[2] == b"/"
            assert server.metrics.value("pagi_server_connections_active") == 1
            await client.send(b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert (await client.read_response())[2] == b"/x"
            assert await client.read_to_end() == b""
    assert server.metrics.value("pagi_server_connections_total") == 1
    for scope in scopes:
        assert (scope["client"], scope["server"], scope["scheme"]) == (None, (path, None), "http")


async def test_a_websocket_over_a_unix_socket(pagi_serve, tmp_path):
    path = str(tmp_path / "app.sock")
    scopes = []

    async def app(scope, receive, send):
        scopes.append(scope)
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})

    server = await pagi_serve(app, lifespan="off", bind=(f"unix:{path}",))
    with trio.fail_after(5):
        async with await trio.open_unix_socket(path) as stream, trio.open_nursery() as nursery:
            ws = await trio_websocket.wrap_client_stream(nursery, stream, "localhost", "/ws")
            for message in ("text", b"\x00" * 70_000):
                await ws.send_message(message)
                assert await ws.get_message() == message
            await ws.aclose()
    assert (scopes[0]["client"], scopes[0]["server"], scopes[0]["scheme"]) == (None, (path, None), "ws")
    assert server.metrics.value("pagi_websocket_messages_received_total") == 2
    assert server.metrics.value("pagi_websocket_connections_active") == 0


async def test_a_large_body_and_a_slow_reader_over_a_unix_socket(pagi_serve, tmp_path):
    path = str(tmp_path / "app.sock")
    body = bytes(range(256)) * 20_000

    async def app(scope, receive, send):
        await respond(send, body)
        sent.set()

    sent = trio.Event()
    await pagi_serve(app, lifespan="off", bind=(f"unix:{path}",))
    with trio.fail_after(5):
        async with await trio.open_unix_socket(path) as stream:
            client = RawClient(stream)
            await client.send(GET)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert not sent.is_set()
            assert (await client.read_response())[2] == body
            await sent.wait()


async def test_its_file_goes_with_the_server(tmp_path):
    path = tmp_path / "app.sock"
    with trio.fail_after(5):
        async with testing.serve(hello, lifespan="off", bind=(f"unix:{path}",)):
            assert path.is_socket()
        assert not path.exists()
        async with trio.open_nursery() as nursery:
            async with testing.serve(hello, lifespan="off", bind=(f"unix:{path}",)):
                assert path.is_socket()
            nursery.cancel_scope.cancel()
        assert not path.exists()


async def test_its_file_goes_with_a_server_that_is_cancelled(tmp_path):
    path = tmp_path / "app.sock"
    async with trio.open_nursery() as nursery, testing.serve(hello, lifespan="off", bind=(f"unix:{path}",)):
        nursery.cancel_scope.cancel()
        await trio.lowlevel.checkpoint()
    assert not path.exists()


async def test_unix_and_tcp_are_served_side_by_side(pagi_serve, raw, tmp_path):
    path = str(tmp_path / "app.sock")
    server = await pagi_serve(hello, lifespan="off", bind=("127.0.0.1:0", f"unix:{path}"))
    assert list(server.handle)[1] == f"unix:{path}"
    async with raw(server) as tcp, await trio.open_unix_socket(path) as stream:
        for client in (tcp, RawClient(stream)):
            await client.send(GET)
            assert (await client.read_response())[2] == b"hello"
    assert server.metrics.value("pagi_server_connections_total") == 2
