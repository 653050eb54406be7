"""The same essentials where there is no epoll, and a connection waits in Trio itself."""

from __future__ import annotations

import select
import socket

import pytest
import trio
import trio_websocket
from pytest_trio import trio_fixture

from pagi_trio import testing
from pagi_trio.nurseries.readiness import make_poller

from .conftest import hello, read_body, respond, until
from .test_websocket import frame, open_websocket, read_frame

pytestmark = pytest.mark.trio

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@trio_fixture
async def without_epoll(monkeypatch):
    """Hide epoll, once Trio has taken its own."""
    monkeypatch.delattr(select, "epoll")
    assert make_poller() is None


@trio_fixture
async def pagi_serve(pagi_serve, without_epoll):
    return pagi_serve


async def echo(scope, receive, send):
    body, _complete = await read_body(receive)
    await respond(send, body)


async def test_requests_one_after_another_and_pipelined_rfc9112_9_3(pagi_serve, raw):
    async def app(scope, receive, send):
        await respond(send, scope["raw_path"])

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        for _ in range(3):
            await client.send(GET)
            assert (await client.read_response())[2] == b"/"
        await client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(50)))
        for n in range(50):
            assert (await client.read_response())[2] == b"/%d" % n


@pytest.mark.parametrize("size", [65_536, 1_000_000])
async def test_a_body_goes_both_ways_whole(pagi_serve, raw, size):
    server = await pagi_serve(echo, lifespan="off")
    body = bytes(range(256)) * (size // 256)
    async with raw(server) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.send, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert (await client.read_response())[2] == body


async def test_a_connection_that_waits_costs_nothing(pagi_serve, raw):
    server = await pagi_serve(hello, lifespan="off")
    async with raw(server) as client:
        await client.send(GET)
        await client.read_response()
        # Never comes where a task goes round and round.
        with trio.fail_after(2):
            await trio.testing.wait_all_tasks_blocked()
    assert server.metrics.value("pagi_server_connections_total") == 1


async def test_several_tasks_may_receive_and_all_are_told(pagi_serve, raw):
    told = []

    async def app(scope, receive, send):
        await receive()

        async def watch():
            told.append((await receive())["type"])

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(watch)

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(GET)
        await trio.testing.wait_all_tasks_blocked()
        assert told == []
    await until(lambda: told == ["http.disconnect"] * 3)
    await until(lambda: server.metrics.value("pagi_server_connections_active") == 0)


async def test_a_receiver_that_is_cancelled_loses_nothing(pagi_serve, raw):
    async def app(scope, receive, send):
        with trio.move_on_after(0.01) as first:
            await receive()
        assert first.cancelled_caught
        waiting.set()
        await echo(scope, receive, send)

    waiting = trio.Event()
    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
        await waiting.wait()
        await client.send(b"hello")
        assert (await client.read_response())[2] == b"hello"


async def test_the_end_of_a_response_wakes_a_child_task_that_still_receives(pagi_serve, raw):
    told = trio.Event()

    async def app(scope, receive, send):
        async def watch():
            assert (await receive())["type"] == "http.disconnect"
            told.set()

        await receive()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await trio.testing.wait_all_tasks_blocked()
            await respond(send, b"hello")

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        for _ in range(2):
            await client.send(GET)
            assert (await client.read_response())[2] == b"hello"
            await until(told.is_set)


async def test_a_websocket_echo(pagi_serve):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})

    server = await pagi_serve(app, lifespan="off")
    async with trio_websocket.open_websocket_url(server.ws_url) as ws:
        for message in ("text", b"\x00" * 70_000):
            await ws.send_message(message)
            assert await ws.get_message() == message
        await ws.ping()
    assert server.metrics.value("pagi_websocket_messages_received_total") == 2
    await until(lambda: server.metrics.value("pagi_websocket_connections_active") == 0)


async def test_a_ping_is_answered_and_a_close_noticed_while_the_app_sleeps(pagi_serve, raw):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await trio.sleep_forever()

    server = await pagi_serve(app, lifespan="off", timeouts={"graceful_s": 0})
    async with raw(server) as client:
        await open_websocket(client)
        await client.send(frame(9, b"there?"))
        assert await read_frame(client) == (0x8A, b"there?")
        await client.send(frame(8))
        assert (await read_frame(client))[0] == 0x88
        await until(lambda: server.metrics.value("pagi_websocket_connections_active") == 0)


async def test_a_websocket_that_breaks_is_told_to_a_receiver(pagi_serve, raw):
    codes = []

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        codes.append((await receive())["code"])

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await open_websocket(client)
    await until(lambda: codes == [1006])


@pytest.mark.parametrize("how", [socket.SHUT_WR, None], ids=["half-close", "close"])
async def test_a_client_that_leaves_an_event_stream_is_noticed_though_the_app_sleeps(pagi_serve, raw, how):
    cancelled = trio.Event()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(GET)
        await client.read_head()
        if how is None:
            client.stream.socket.close()
        else:
            client.stream.socket.shutdown(how)
        with trio.fail_after(10):
            await cancelled.wait()
    await until(lambda: server.metrics.value("pagi_sse_connections_active") == 0)
    assert server.metrics.value("pagi_sse_events_sent_total") == 1


async def test_a_background_task_does_not_hold_up_the_connection(pagi_serve, raw):
    release = trio.Event()
    finished = []

    async def app(scope, receive, send):
        await respond(send, b"hello")
        await release.wait()
        finished.append(scope["path"])

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        for n in range(3):
            await client.send(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % n)
            assert (await client.read_response())[2] == b"hello"
        assert finished == []
        release.set()
        await until(lambda: sorted(finished) == ["/0", "/1", "/2"])
        await client.send(GET)
        assert (await client.read_response())[2] == b"hello"


async def test_a_slow_reader_holds_back_the_app(pagi_serve, raw):
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(300):
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
            sent.append(1)
        await send({"type": "http.response.body"})

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        await client.read_head()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(sent) < 300
        assert await client.read_to_end() == bytes(300 * 65536)


async def test_deadlines_end_a_wait(pagi_serve, raw):
    server = await pagi_serve(hello, lifespan="off", timeouts={"keep_alive_s": 0.3, "head_s": 0.3})
    async with raw(server) as idle, raw(server) as silent:
        await idle.send(GET)
        await idle.read_response()
        assert await idle.read_to_end() == b""
        assert await silent.read_to_end() == b""
    await until(lambda: server.metrics.value("pagi_server_connections_active") == 0)


async def test_idle_connections_end_with_the_server(raw, without_epoll):
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            clients = []

            async def hold(server, task_status):
                async with raw(server) as client:
                    task_status.started(client)
                    await trio.sleep_forever()

            async with testing.serve(hello, lifespan="off") as server:
                for _ in range(3):
                    clients.append(await nursery.start(hold, server))
                    await clients[-1].send(GET)
                    await clients[-1].read_response()
            for client in clients:
                assert await client.read_to_end() == b""
            assert server.metrics.value("pagi_server_connections_active") == 0
            nursery.cancel_scope.cancel()
