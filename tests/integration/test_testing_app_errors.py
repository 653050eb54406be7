"""What an application raises that is out of the ordinary, and which call of the test it is for."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import trio
import trio.testing

from pagi_trio import testing
from tests.integration.conftest import respond

pytestmark = pytest.mark.trio

GET = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


@pytest.fixture(params=["serve", "client"])
def serving(request):
    """Both ways to serve, as context managers."""
    return getattr(testing, request.param)


@dataclass(frozen=True)
class Frozen(Exception):
    """An error that takes no attribute, not even its context."""

    number: int


async def kept_cancellation():
    """Return a cancellation whose scope has ended."""
    with trio.CancelScope() as old:
        old.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as error:
            kept = error
            raise
    return kept


async def test_the_error_of_a_background_task_is_not_that_of_the_next_request_on_its_connection(serving):
    gone = trio.Event()

    calls = []

    async def app(scope, receive, send):
        calls.append(scope["path"])
        is_first = len(calls) == 1
        await respond(send, b"%d" % len(calls))
        if is_first:
            await gone.wait()
            raise KeyError("of the first")

    bodies = []
    with pytest.raises(KeyError, match="of the first"):
        async with serving(app, lifespan="off") as server:
            for _ in range(3):
                # The very same request, as tests that poll make it.
                bodies.append((await server.http.get("/")).text)
                gone.set()
                await trio.testing.wait_all_tasks_blocked()
            assert server.metrics.value("pagi_server_connections_total") == 1
    assert bodies == ["1", "2", "3"]


async def test_a_request_has_its_own_error_though_an_earlier_one_on_its_connection_has_failed_since(serving):
    gone = trio.Event()

    async def app(scope, receive, send):
        if scope["path"] == "/one":
            await respond(send)
            await gone.wait()
        raise KeyError(scope["path"])

    with pytest.raises(KeyError, match="/one"):
        async with serving(app, lifespan="off") as server:
            await server.http.get("/one")
            gone.set()
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(KeyError, match="/two"):
                await server.http.get("/two")


@pytest.mark.parametrize("begun", [False, True])
async def test_a_cancellation_of_old_does_not_end_the_test_as_if_it_had_passed(serving, begun):
    async def app(scope, receive, send):
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        raise await kept_cancellation()

    with pytest.raises(RuntimeError, match="the application raised Cancelled") as caught:
        async with serving(app, lifespan="off") as server:
            await server.http.get("/")
    assert isinstance(caught.value.__cause__, trio.Cancelled)


async def test_an_end_of_iteration_inside_a_body_is_not_the_end_of_the_body(serving):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        raise StopAsyncIteration

    async with serving(app, lifespan="off") as server:
        with pytest.raises(RuntimeError, match="the application raised StopAsyncIteration"):
            await server.http.get("/")


async def test_an_end_of_iteration_inside_an_event_stream_is_not_the_end_of_the_stream(serving):
    async def app(scope, receive, send):
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
        raise StopAsyncIteration

    async with serving(app, lifespan="off") as server, server.sse("/") as events:
        assert (await anext(events)).data == "x"
        with pytest.raises(RuntimeError, match="the application raised StopAsyncIteration"):
            await anext(events)


async def test_a_frozen_error_is_told_at_the_end_as_it_is(serving):
    async def app(scope, receive, send):
        raise Frozen(3)

    async def leave_it_to_the_end():
        async with serving(app, lifespan="off") as server, await server.connect() as wire:
            await wire.send_all(GET)
            await wire.receive_some()

    with pytest.raises(Frozen):
        await leave_it_to_the_end()


async def test_over_a_unix_socket_a_call_is_not_told_of_the_lifespan(tmp_path):
    started = trio.Event()
    bodies = []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await started.wait()
            raise KeyError("of the lifespan")
        await respond(send, b"fine")

    with pytest.raises(KeyError, match="of the lifespan"):
        async with testing.serve(app, bind=f"unix:{tmp_path}/app.sock") as server:
            started.set()
            await trio.testing.wait_all_tasks_blocked()
            bodies.append((await server.http.get("/")).text)
    assert bodies == ["fine"]


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit])
async def test_what_ends_programs_is_an_error_as_any_other(serving, error):
    async def app(scope, receive, send):
        raise error("x")

    async with serving(app, lifespan="off") as server:
        for _ in range(2):
            with pytest.raises(error):
                await server.http.get("/")
