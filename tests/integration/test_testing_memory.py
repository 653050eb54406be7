"""Connections without sockets, as the server and as clients see them."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from pagi_trio import ClientDisconnected, Config
from pagi_trio.server import serve_at
from pagi_trio.testing.memory import CAPACITY_BYTES, MemoryListener
from tests.integration.clock import assert_within_a_tick
from tests.integration.conftest import hello, read_body, respond

MUCH = 20 * CAPACITY_BYTES
GET = b"GET / HTTP/1.1\r\nhost: testserver\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nhost: testserver\r\nconnection: close\r\n\r\n"


@asynccontextmanager
async def listening(app, **changes):
    async with trio.open_nursery() as nursery:
        config = Config().replace(lifespan="off", **changes)
        handle = await nursery.start(serve_at, (), app, config, None, None)
        yield MemoryListener(handle.server), handle
        handle.shutdown()


async def read_all(stream):
    """Read to the end, and close; until then the server would linger."""
    async with stream:
        return b"".join([data async for data in stream])


@pytest.mark.trio
async def test_a_request_is_answered_and_counted_as_over_the_network():
    async with listening(hello) as (listener, handle):
        stream = await listener.connect()
        await stream.send_all(LAST)
        answer = await read_all(stream)
        await trio.testing.wait_all_tasks_blocked()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"hello")
        assert handle.metrics.value("pagi_server_connections_total") == 1
        assert handle.metrics.value("pagi_server_connections_closed_total", reason="done") == 1


@pytest.mark.trio
async def test_applications_see_the_addresses_of_both_ends():
    seen = []

    async def app(scope, receive, send):
        seen.append((scope["client"], scope["server"], scope["scheme"]))
        await respond(send)

    async with listening(app) as (listener, _):
        streams = [await listener.connect() for _ in range(2)]
        for stream in streams:
            await stream.send_all(LAST)
            await read_all(stream)
    assert seen == [(stream.client, ("testserver", 80), "http") for stream in streams]
    assert streams[0].client != streams[1].client


@pytest.mark.trio
async def test_a_body_longer_than_a_pipe_arrives_whole_in_both_directions():
    async def app(scope, receive, send):
        body, whole = await read_body(receive)
        assert whole
        await respond(send, body)

    body = bytes(range(256)) * (MUCH // 256)
    async with listening(app) as (listener, _):
        stream = await listener.connect()
        head = b"POST / HTTP/1.1\r\nhost: testserver\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % MUCH
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, head + body)
            answer = await read_all(stream)
        assert answer.partition(b"\r\n\r\n")[2] == body


@pytest.mark.trio
async def test_a_sender_waits_for_a_client_that_does_not_read():
    sent = 0

    async def app(scope, receive, send):
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while sent < MUCH:
            await send({"type": "http.response.body", "body": bytes(1024), "more_body": True})
            sent += 1024
        await send({"type": "http.response.body", "body": b""})

    async with listening(app) as (listener, _):
        stream = await listener.connect()
        await stream.send_all(LAST)
        await trio.testing.wait_all_tasks_blocked()
        assert 0 < sent <= CAPACITY_BYTES
        await read_all(stream)
        assert sent == MUCH


@pytest.mark.trio
async def test_a_client_may_shut_down_its_direction_and_read_on():
    async with listening(hello) as (listener, _):
        stream = await listener.connect()
        await stream.send_all(GET)
        await stream.send_eof()
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"more")
        assert (await read_all(stream)).endswith(b"hello")


@pytest.mark.trio
@pytest.mark.parametrize("leave", ["close", "reset"])
async def test_an_application_hears_of_a_client_that_leaves(leave):
    heard = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        heard.append(await receive())
        heard.append(await receive())
        with pytest.raises(ClientDisconnected):
            await send({"type": "http.response.body", "body": bytes(MUCH)})
        heard.append("lost")

    async with listening(app) as (listener, handle):
        stream = await listener.connect()
        await stream.send_all(GET)
        await stream.receive_some()
        getattr(stream, leave)()
        with trio.fail_after(5):
            while "lost" not in heard:
                await trio.testing.wait_all_tasks_blocked()
        assert heard[1]["type"] == "http.disconnect"
        assert handle.metrics.value("pagi_server_connections_active") == 0


@pytest.mark.trio
async def test_a_response_that_is_cut_off_is_an_error_behind_what_came():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half ", "more_body": True})

    async with listening(app) as (listener, _):
        stream = await listener.connect()
        await stream.send_all(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(trio.BrokenResourceError):
            while True:
                assert await stream.receive_some()


@pytest.mark.trio
async def test_closing_wakes_whoever_waits_for_the_stream():
    async with listening(hello) as (listener, _):
        stream = await listener.connect()
        async with trio.open_nursery() as nursery:

            async def expect(wait, *arguments):
                with pytest.raises(trio.ClosedResourceError):
                    await wait(*arguments)

            nursery.start_soon(expect, stream.receive_some)
            await trio.testing.wait_all_tasks_blocked()
            await stream.aclose()
        await expect(stream.send_all, b"x")
        await expect(stream.send_eof)


@pytest.mark.trio
async def test_a_connection_beyond_the_limit_is_turned_away():
    async with listening(hello, limits={"connections": 1}) as (listener, handle):
        await listener.connect()
        assert (await read_all(await listener.connect())).startswith(b"HTTP/1.1 503 ")
        assert handle.metrics.value("pagi_server_connections_rejected_total", reason="limit") == 1


@pytest.mark.trio
async def test_a_server_that_has_stopped_refuses():
    async with listening(hello) as (listener, handle):
        handle.shutdown()
        with pytest.raises(ConnectionRefusedError):
            await listener.connect()


@pytest.mark.trio
async def test_deadlines_pass_in_no_time_where_the_clock_jumps(autojump_clock):
    async with listening(hello, timeouts={"keep_alive_s": 30}) as (listener, handle):
        stream = await listener.connect()
        await stream.send_all(GET)
        began = trio.current_time()
        await read_all(stream)
        assert_within_a_tick(trio.current_time() - began, 30)
        await trio.testing.wait_all_tasks_blocked()
        assert handle.metrics.value("pagi_server_connections_closed_total", reason="keepalive_timeout") == 1
