"""Quart-Trio, beyond what all frameworks have in common: an application that answers from child tasks and always listens beside it."""

from __future__ import annotations

import pytest
import trio
import trio_websocket
from quart import abort, request, websocket
from quart_trio import QuartTrio

from pagi_trio import testing

from .observe import app_errors, one_connection, wait

pytestmark = pytest.mark.trio


@pytest.fixture
def app():
    app = QuartTrio(__name__)

    @app.get("/plain")
    async def plain():
        return "plain"

    return app


async def test_pipelined_requests_survive_the_listening_task(pagi_serve, app, raw):
    server = await pagi_serve(app)
    async with raw(server) as client:
        await client.send(b"GET /plain HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
        for _ in range(20):
            assert (await client.read_response())[2] == b"plain"


async def test_a_body_is_read_whole_or_as_it_comes(pagi_serve, app, raw):
    first = trio.Event()

    @app.post("/whole")
    async def whole():
        return str(len(await request.get_data()))

    @app.post("/parts")
    async def parts():
        total = 0
        async for part in request.body:
            total += len(part)
            first.set()
        return str(total)

    server = await pagi_serve(app)
    async with one_connection(server) as client:
        for size in (0, 10, 500_000):
            assert (await client.post("/whole", content=bytes(size))).text == str(size)
    async with raw(server) as client:
        await client.send(b"POST /parts HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello")
        await wait(first)
        await client.send(b"world")
        assert (await client.read_response())[2] == b"10"


async def test_a_stream_arrives_part_by_part(pagi_serve, app):
    go_on = trio.Event()

    @app.get("/stream")
    async def stream():
        async def parts():
            yield b"first"
            await go_on.wait()
            yield bytes(200_000)

        return parts()

    server = await pagi_serve(app)
    async with one_connection(server) as client:
        for _ in range(2):
            async with client.stream("GET", "/stream") as response:
                received = response.aiter_raw()
                assert await anext(received) == b"first"
                go_on.set()
                assert b"".join([part async for part in received]) == bytes(200_000)
            assert (await client.get("/plain")).text == "plain"
    assert server.metrics.value("pagi_server_connections_total") == 1


async def test_an_error_is_a_500_and_the_connection_goes_on(pagi_serve, app, caplog):
    @app.get("/broken")
    async def broken():
        raise ValueError("broken")

    @app.get("/refused")
    async def refused():
        abort(418)

    server = await pagi_serve(app)
    async with one_connection(server) as client:
        for path, status in (("/broken", 500), ("/refused", 418), ("/plain", 200)):
            assert (await client.get(path)).status_code == status
    assert server.metrics.value("pagi_server_connections_total") == 1


async def test_errors_are_raised_in_the_test_where_the_application_propagates_them(pagi_client, app):
    app.config["PROPAGATE_EXCEPTIONS"] = True

    @app.get("/error")
    async def error():
        raise ValueError("of the request")

    @app.websocket("/error")
    async def websocket_error():
        await websocket.accept()
        raise ValueError("of the WebSocket")

    client = await pagi_client(app)
    with pytest.raises(ValueError, match="of the request"):
        await client.get("/error")
    with pytest.raises(ValueError, match="of the WebSocket"):
        async with client.websocket("/error"):
            pass


async def test_a_client_that_leaves_cancels_the_handler(pagi_serve, app, raw):
    handling, cancelled = trio.Event(), trio.Event()

    @app.get("/slow")
    async def slow():
        handling.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    server = await pagi_serve(app)
    async with raw(server) as client:
        await client.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        await wait(handling)
        assert not cancelled.is_set()
    await wait(cancelled)
    async with one_connection(server) as client:
        assert (await client.get("/plain")).text == "plain"
    assert app_errors(server) == 0


async def test_an_event_stream_counts_what_the_client_counts(pagi_serve, app):
    @app.get("/events")
    async def events():
        async def blocks():
            for number in range(10):
                yield f"event: tick\ndata: {number}\n\n".encode()
                yield b": heartbeat\n\n"

        return blocks(), {"Content-Type": "text/event-stream"}

    server = await pagi_serve(app)
    size = 0
    async with one_connection(server) as client:
        for turn in (1, 2):
            body = (await client.get("/events")).content
            assert body.count(b"data: ") == 10
            size += len(body)
            assert server.metrics.value("pagi_sse_events_sent_total") == 10 * turn
            assert (await client.get("/plain")).text == "plain"
    assert server.metrics.value("pagi_sse_bytes_sent_total") == size
    assert server.metrics.value("pagi_sse_connections_total") == 2
    assert server.metrics.value("pagi_sse_connections_active") == 0
    assert server.metrics.value("pagi_server_connections_total") == 1


async def test_an_event_stream_that_only_sleeps_ends_with_its_client(pagi_serve, app, raw):
    ended = trio.Event()

    @app.get("/events")
    async def events():
        async def blocks():
            try:
                yield b"data: hello\n\n"
                await trio.sleep_forever()
            finally:
                ended.set()

        return blocks(), {"Content-Type": "text/event-stream"}

    server = await pagi_serve(app)
    async with raw(server) as client:
        await client.send(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        await client.read_until(b"data: hello")
        assert server.metrics.value("pagi_sse_connections_active") == 1
    await wait(ended)
    assert server.metrics.value("pagi_sse_events_sent_total") == 1
    assert app_errors(server) == 0


async def test_a_websocket_counts_what_the_client_counts(pagi_serve, app):
    ended = trio.Event()

    @app.websocket("/ws")
    async def echo():
        try:
            while True:
                await websocket.send(await websocket.receive())
        finally:
            ended.set()

    server = await pagi_serve(app)
    messages = ["häuser", b"\x00\xff", "x" * 70_000]
    async with trio_websocket.open_websocket_url(server.ws_url + "/ws") as client:
        for message in messages:
            await client.send_message(message)
            assert await client.get_message() == message
    await wait(ended)
    size = sum(len(m.encode() if isinstance(m, str) else m) for m in messages)
    for direction in ("received", "sent"):
        assert server.metrics.value(f"pagi_websocket_messages_{direction}_total") == len(messages)
        assert server.metrics.value(f"pagi_websocket_bytes_{direction}_total") == size
    assert app_errors(server) == 0


async def test_before_and_after_serving_run_once_around_everything(app):
    phases = []

    @app.before_serving
    async def before():
        phases.append("before")

    @app.after_serving
    async def after():
        phases.append("after")

    @app.while_serving
    async def around():
        phases.append("enter")
        yield
        phases.append("leave")

    async with testing.serve(app) as server:
        async with one_connection(server) as client:
            assert (await client.get("/plain")).text == "plain"
        assert sorted(phases) == ["before", "enter"]
    assert sorted(phases[2:]) == ["after", "leave"]
