"""sse-starlette: events and pings that are counted as a browser sees them, and generators that end with their client."""

from __future__ import annotations

import pytest
import trio
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from pagi_trio import testing

from .observe import app_errors, one_connection, wait, watched

pytestmark = [
    pytest.mark.trio,
    # Starlette leaves the generator of a client that has left to the garbage collector.
    pytest.mark.filterwarnings("ignore:Async generator .* was garbage collected:ResourceWarning"),
]


GET = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"


async def plain(request):
    return PlainTextResponse("plain")


def events_in(body):
    """Count the blocks of an event stream, in sse-starlette's form of it, that a browser would dispatch."""
    return sum(any(line.startswith(b"data") for line in block.split(b"\r\n")) for block in body.split(b"\r\n\r\n"))


async def test_an_event_stream_counts_what_the_client_counts_pings_apart(pagi_serve):
    pinged = trio.Event()

    async def events():
        yield {"event": "first", "data": "one\ntwo", "id": "1"}
        await pinged.wait()
        yield {"comment": "no event"}
        yield {"data": "drei"}
        yield {"retry": 1000}
        yield {"data": ""}

    async def stream(request):
        return EventSourceResponse(events(), ping=0.01, ping_message_factory=lambda: ServerSentEvent(comment="ping"))

    server = await pagi_serve(Starlette(routes=[Route("/stream", stream), Route("/plain", plain)]))
    async with one_connection(server) as client:
        async with client.stream("GET", "/stream") as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            body = b""
            async for part in response.aiter_raw():
                body += part
                if b": ping" in body and not pinged.is_set():
                    assert server.metrics.value("pagi_sse_connections_active") == 1
                    assert server.metrics.value("pagi_sse_events_sent_total") == 1
                    pinged.set()
        assert (await client.get("/plain")).text == "plain"
    assert events_in(body) == 3
    assert server.metrics.value("pagi_sse_events_sent_total") == 3
    assert server.metrics.value("pagi_sse_bytes_sent_total") == len(body)
    assert server.metrics.value("pagi_sse_connections_total") == 1
    assert server.metrics.value("pagi_sse_connections_active") == 0
    assert server.metrics.value("pagi_server_connections_total") == 1


@pytest.mark.parametrize("way", ["asks is_disconnected", "sends", "sleeps"])
async def test_an_event_generator_is_closed_when_its_client_leaves(pagi_serve, raw, way):
    closed = trio.Event()

    async def events(request):
        try:
            yield {"data": "hello"}
            if way == "sleeps":
                await trio.sleep_forever()
            while way == "sends" or not await request.is_disconnected():
                yield {"data": "tick"}
                await trio.sleep(0.001)
        finally:
            closed.set()

    async def stream(request):
        return EventSourceResponse(events(request))

    app, ended = watched(Starlette(routes=[Route("/stream", stream), Route("/plain", plain)]))
    server = await pagi_serve(app)
    async with raw(server) as client:
        await client.send(GET % b"/stream")
        await client.read_until(b"data: hello")
        assert server.metrics.value("pagi_sse_connections_active") == 1
    await wait(closed)
    await wait(ended)
    async with one_connection(server) as client:
        assert (await client.get("/plain")).text == "plain"
    assert server.metrics.value("pagi_sse_connections_active") == 0
    assert server.metrics.value("pagi_sse_events_sent_total") >= 1
    assert app_errors(server) == 0


async def test_an_event_stream_goes_on_while_is_disconnected_is_asked_beside_it(pagi_serve):
    async def events(request: Request):
        for number in range(20):
            if await request.is_disconnected():
                return
            yield {"data": str(number)}

    async def stream(request):
        return EventSourceResponse(events(request))

    server = await pagi_serve(Starlette(routes=[Route("/stream", stream)]))
    async with one_connection(server) as client:
        for turn in (1, 2):
            body = (await client.get("/stream")).content
            assert events_in(body) == 20
            assert server.metrics.value("pagi_sse_events_sent_total") == 20 * turn
    assert server.metrics.value("pagi_server_connections_total") == 1


async def test_an_event_stream_ends_when_the_server_stops():
    closed = trio.Event()

    async def events():
        try:
            yield {"data": "hello"}
            await trio.sleep_forever()
        finally:
            closed.set()

    async def stream(request):
        return EventSourceResponse(events())

    app = Starlette(routes=[Route("/", stream)])
    with trio.fail_after(5):
        async with (
            testing.serve(app) as server,
            one_connection(server) as client,
            client.stream("GET", "/") as response,
        ):
            received = response.aiter_raw()
            assert b"data: hello" in await anext(received)
            server.handle.shutdown()
            assert b"".join([part async for part in received]) == b""
    assert closed.is_set()
