"""A server sees the same of a client in memory as of one over sockets: the same scenes, once over each."""

from __future__ import annotations

import pytest
import trio

from pagi_trio import testing
from pagi_trio.nurseries.service import LINGER_S
from tests.integration.conftest import hello, read_body

pytestmark = pytest.mark.trio

LAST = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
CLOSED = "pagi_server_connections_closed_total"
MUCH = 32 << 20
"""More than kernels take of a connection whose other end does not read."""


@pytest.fixture(params=["serve", "client"])
async def start(request):
    """``server = await start(app, **config)``."""
    with trio.fail_after(10):
        async with testing.open_servers() as servers:

            async def start(app, **config):
                return await getattr(servers, request.param)(app, lifespan="off", **config)

            yield start


async def stream_on(scope, receive, send):
    """Send until the client has left."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": bytes(1024), "more_body": True})


async def listen_on(scope, receive, send):
    """Begin a response, and wait for the client to leave."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x", "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass


async def receive_whole(wire):
    return b"".join([part async for part in wire])


async def test_a_response_that_nobody_has_read_yet_does_not_keep_its_connection(start):
    server = await start(hello)
    async with await server.connect() as wire:
        await wire.send_all(LAST)
        # Sooner than it would leave off waiting for its client.
        await server.metrics.wait_for(CLOSED, 1, reason="done", within_s=LINGER_S / 2)
        assert (await receive_whole(wire)).endswith(b"hello")


async def test_an_idle_connection_ends_in_order_though_its_last_response_was_not_read(start):
    server = await start(hello, timeouts={"keep_alive_s": 0.01})
    async with await server.connect() as wire:
        await wire.send_all(GET)
        await server.metrics.wait_for(CLOSED, 1, reason="keepalive_timeout")
        assert (await receive_whole(wire)).endswith(b"hello")


@pytest.mark.parametrize("app", [stream_on, listen_on])
@pytest.mark.parametrize("leave", ["aclose", "cut"])
async def test_an_application_is_told_of_a_client_that_leaves(start, app, leave):
    server = await start(app)
    wire = await server.connect()
    await wire.send_all(GET)
    await wire.receive_some(1)
    if leave == "cut":
        wire.cut()
    else:
        await wire.aclose()
    await server.metrics.wait_for(CLOSED, 1, reason="client_closed")


@pytest.mark.parametrize("app", [stream_on])
async def test_an_application_is_told_of_a_client_that_leaves_after_a_half_close(start, app):
    server = await start(app)
    wire = await server.connect()
    await wire.send_all(GET)
    await wire.half_close()
    await wire.receive_some(1)
    wire.cut()
    await server.metrics.wait_for(CLOSED, 1, reason="client_closed")


async def test_a_client_that_takes_nothing_is_cut_off(start):
    server = await start(stream_on, timeouts={"write_stall_s": 0.1})
    async with await server.connect() as wire:
        await wire.send_all(GET)
        await server.metrics.wait_for(CLOSED, 1, reason="write_timeout")
        with pytest.raises(trio.BrokenResourceError):
            await receive_whole(wire)


async def test_a_sender_of_much_waits_and_goes_on(start):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(MUCH)})

    server = await start(app)
    async with await server.connect() as wire:
        await wire.send_all(LAST)
        assert len((await receive_whole(wire)).partition(b"\r\n\r\n")[2]) == MUCH


async def test_an_upload_that_is_cut_off_is_no_whole_body(start):
    wholes = []

    async def app(scope, receive, send):
        wholes.append((await read_body(receive))[1])

    server = await start(app)
    wire = await server.connect()
    await wire.send_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf")
    await wire.half_close()
    await server.metrics.wait_for("pagi_server_connections_active", 0)
    assert wholes == [False]
    await wire.aclose()


async def test_a_stop_cuts_off_who_does_not_end_in_time(start):
    server = await start(listen_on, timeouts={"graceful_s": 0.05})
    async with await server.connect() as wire:
        await wire.send_all(GET)
        await wire.receive_some(1)
        server.handle.shutdown()
        await server.metrics.wait_for("pagi_server_connections_active", 0)
        with pytest.raises(trio.BrokenResourceError):
            await wire.send_all(GET)
            await wire.send_all(GET)
            await receive_whole(wire)


async def test_a_server_that_has_stopped_refuses(start):
    server = await start(hello)
    server.handle.shutdown()
    await server.handle.server.public.closed.wait()
    with pytest.raises(ConnectionRefusedError):
        await server.connect()


async def test_two_tasks_cannot_receive_from_one_connection(start):
    server = await start(hello)
    async with await server.connect() as wire:

        async def receive():
            await wire.receive_some()

        with pytest.raises(ExceptionGroup) as caught:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                nursery.start_soon(receive)
        assert [type(error) for error in caught.value.exceptions] == [trio.BusyResourceError]
