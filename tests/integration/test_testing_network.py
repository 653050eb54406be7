"""Faults of a test's connections, as a server and its application see them over real sockets."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial

import pytest
import trio
import trio.testing

from pagi_trio.testing.network import Network

from .conftest import RawClient, hello, read_body, respond, until

pytestmark = pytest.mark.trio

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
MUCH = 64 << 20


class NoErrors:
    def check(self, client, began_s=0.0):
        pass


@contextmanager
def network_of(server):
    """Connections to a server; everything with them has ten seconds."""
    with trio.fail_after(10):
        yield Network(partial(trio.open_tcp_stream, "127.0.0.1", server.port), NoErrors())


async def test_the_address_of_a_wire_is_the_one_that_the_application_is_told(pagi_serve):
    async def app(scope, receive, send):
        await respond(send, repr(scope["client"]).encode())

    with network_of(await pagi_serve(app, lifespan="off")) as network:
        wire = await network.connect()
        await wire.send_all(GET)
        assert (await RawClient(wire).read_response())[2].decode() == repr(wire.client)
        await wire.aclose()


async def test_a_cut_resets_the_connection():
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    network = Network(partial(trio.open_tcp_stream, "127.0.0.1", port), NoErrors())
    await network.connect()
    async with listener, await listener.accept() as server_end:
        network.cut()
        with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
            await server_end.receive_some()


async def test_a_cut_is_told_to_an_application_that_receives(pagi_serve):
    told = []

    async def app(scope, receive, send):
        await read_body(receive)
        told.append(await receive())

    with network_of(await pagi_serve(app, lifespan="off")) as network:
        wire = await network.connect()
        await wire.send_all(GET)
        await trio.testing.wait_all_tasks_blocked()
        network.cut()
        await until(lambda: told)
        assert told == [{"type": "http.disconnect", "reason": "client_closed"}]


async def test_a_cut_is_told_to_an_application_that_sends(pagi_serve):
    told = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(1 << 16), "more_body": True})
        except OSError as error:
            told.append(error)
            raise

    with network_of(await pagi_serve(app, lifespan="off")) as network:
        wire = await network.connect()
        await wire.send_all(GET)
        await wire.receive_some()
        network.cut()
        await until(lambda: told)


async def test_a_cut_is_1006_to_a_websocket_application(pagi_serve):
    told = []

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        told.append(await receive())

    with network_of(await pagi_serve(app, lifespan="off")) as network:
        wire = await network.connect()
        await wire.send_all(UPGRADE)
        assert (await wire.receive_some()).startswith(b"HTTP/1.1 101 ")
        network.cut()
        await until(lambda: told)
        assert told[0]["type"] == "websocket.disconnect"
        assert told[0]["code"] == 1006


async def test_an_application_waits_while_reading_is_stopped_and_then_all_bytes_arrive(pagi_serve):
    sent = 0

    async def app(scope, receive, send):
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % MUCH)]})
        while sent < MUCH:
            sent += 1 << 20
            await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": sent < MUCH})

    with network_of(await pagi_serve(app, lifespan="off")) as network:
        network.stop_reading()
        wire = await network.connect()
        await wire.send_all(GET)
        before = -1
        while before != sent or not sent:
            before = sent
            await trio.testing.wait_all_tasks_blocked(0.05)
        assert sent < MUCH
        network.go_on_reading()
        assert (await RawClient(wire).read_response())[2] == bytes(MUCH)
        await wire.aclose()


async def test_the_whole_response_comes_after_a_half_close(pagi_serve):
    asked = trio.Event()
    go_on = trio.Event()

    async def app(scope, receive, send):
        await read_body(receive)
        asked.set()
        await go_on.wait()
        await respond(send, b"x" * 1_000_000)

    with network_of(await pagi_serve(app, lifespan="off")) as network:
        wire = await network.connect()
        await wire.send_all(GET)
        await asked.wait()
        await network.half_close()
        go_on.set()
        assert (await RawClient(wire).read_response())[2] == b"x" * 1_000_000
        assert await wire.receive_some() == b""
        await wire.aclose()


async def test_with_a_delay_bytes_come_late_and_whole(pagi_serve):
    server = await pagi_serve(hello, lifespan="off")
    with network_of(server) as network:
        network.delay(0.05)
        start = trio.current_time()
        wire = await network.connect()
        await wire.send_all(GET)
        assert (await RawClient(wire).read_response())[2] == b"hello"
        assert trio.current_time() - start >= 0.1
        await wire.aclose()


async def test_refused_connections_never_reach_the_server_and_other_clients_do(pagi_serve, raw):
    server = await pagi_serve(hello, lifespan="off")
    with network_of(server) as network:
        with network.refuse():
            with pytest.raises(ConnectionRefusedError):
                await network.connect()
            async with raw(server) as client:
                await client.send(GET)
                assert (await client.read_response())[2] == b"hello"
        assert server.metrics.value("pagi_server_connections_total") == 1
