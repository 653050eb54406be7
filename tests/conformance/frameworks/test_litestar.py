"""Litestar, beyond what all frameworks have in common: threads, streams that are cut, guards, mounts, WebSocket listeners."""

from __future__ import annotations

import threading
from typing import Annotated

import pytest
import trio
import trio_websocket
from litestar import Litestar, WebSocket, asgi, get, post, websocket, websocket_listener
from litestar.background_tasks import BackgroundTask
from litestar.exceptions import PermissionDeniedException, WebSocketDisconnect
from litestar.params import Body
from litestar.response import Response, ServerSentEvent, ServerSentEventMessage, Stream
from litestar.types import Receive, Scope, Send

from pagi_trio.metrics.endpoint import MetricsApp

from . import contract
from .observe import app_errors, one_connection, wait, watched

pytestmark = [
    pytest.mark.trio,
    # Litestar leaves the generator of a client that has left to the garbage collector.
    pytest.mark.filterwarnings("ignore:Async generator .* was garbage collected:ResourceWarning"),
]


def litestar(*handlers, **options):
    """Return an application that leaves the logging of the tests alone."""
    return Litestar([*handlers], logging_config=None, **options)


async def test_def_handlers_run_in_threads_beside_each_other(pagi_serve):
    both = threading.Barrier(2, timeout=5)

    @get("/", sync_to_thread=True)
    def wait_for_the_other() -> bool:
        both.wait()
        return threading.current_thread() is threading.main_thread()

    server = await pagi_serve(litestar(wait_for_the_other))
    answers = []

    async def ask():
        async with one_connection(server) as client:
            answers.append((await client.get("/")).json())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(ask)
    assert answers == [False, False]


async def test_a_background_task_in_a_thread_ends_beside_the_next_request(pagi_serve):
    started, go_on, done = trio.Event(), trio.Event(), trio.Event()

    def work():
        trio.from_thread.run_sync(started.set)
        trio.from_thread.run(go_on.wait)
        trio.from_thread.run_sync(done.set)

    @get("/")
    async def order() -> Response[str]:
        return Response("ordered", background=BackgroundTask(work))

    server = await pagi_serve(litestar(order))
    async with one_connection(server) as client:
        assert (await client.get("/")).text == "ordered"
        await wait(started)
        assert (await client.get("/nothing")).status_code == 404
        go_on.set()
        await wait(done)


async def test_a_stream_whose_client_leaves_is_no_error_of_the_app(pagi_serve, caplog):
    @get("/")
    async def stream() -> Stream:
        async def parts():
            while True:
                yield bytes(65536)

        return Stream(parts())

    app, ended = watched(litestar(stream))
    server = await pagi_serve(app)
    async with contract.left_after(server, "/", bytes(50_000)):
        pass
    await wait(ended)
    await trio.testing.wait_all_tasks_blocked()
    assert app_errors(server) == 0
    assert [record for record in caplog.records if record.exc_info] == []


async def test_a_stream_that_fails_is_cut_and_one_error_of_the_app(pagi_serve, raw, caplog):
    @get("/")
    async def stream() -> Stream:
        async def parts():
            yield b"half"
            raise ValueError("in the middle")

        return Stream(parts())

    server = await pagi_serve(litestar(stream))
    async with raw(server) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await client.read_head()
        assert await client.read_to_end() == b"4\r\nhalf\r\n"
    assert app_errors(server) == 1


async def test_an_upload_that_is_cut_is_no_error_of_the_app(pagi_serve, raw, caplog):
    called = trio.Event()

    @post("/")
    async def upload(data: Annotated[bytes, Body()]) -> None:
        raise AssertionError("it was not whole")

    def noting(app):
        async def middleware(scope, receive, send):
            called.set()
            await app(scope, receive, send)

        return middleware

    app, ended = watched(litestar(upload, middleware=[noting]))
    server = await pagi_serve(app)
    async with raw(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
        await wait(called)
    await wait(ended)
    await trio.testing.wait_all_tasks_blocked()
    assert app_errors(server) == 0


async def test_events_count_what_the_client_counts(pagi_serve):
    @get("/")
    async def events() -> ServerSentEvent:
        async def ticks():
            for number in range(10):
                yield ServerSentEventMessage(data=f"{number}\n{number}", id=number)
            yield ServerSentEventMessage(data=None, comment="no event")

        return ServerSentEvent(ticks())

    server = await pagi_serve(litestar(events))
    async with one_connection(server) as client:
        for turn in (1, 2):
            body = (await client.get("/")).content
            assert server.metrics.value("pagi_sse_events_sent_total") == 10 * turn
            assert server.metrics.value("pagi_sse_bytes_sent_total") == len(body) * turn
    assert server.metrics.value("pagi_server_connections_total") == 1


async def test_a_websocket_listener_counts_what_the_client_counts(pagi_serve):
    @websocket_listener("/")
    async def listen(data: dict[str, int]) -> dict[str, int]:
        return {"twice": data["once"] * 2}

    server = await pagi_serve(litestar(listen))
    async with trio_websocket.open_websocket_url(server.ws_url) as client:
        for number in range(20):
            await client.send_message(f'{{"once":{number}}}')
            assert await client.get_message() == f'{{"twice":{number * 2}}}'
    assert server.metrics.value("pagi_websocket_messages_received_total") == 20
    assert server.metrics.value("pagi_websocket_messages_sent_total") == 20
    assert app_errors(server) == 0


async def test_a_websocket_client_that_leaves_is_told_to_the_handler(pagi_serve):
    seen, ended = [], trio.Event()

    @websocket("/")
    async def iterate(socket: WebSocket) -> None:
        await socket.accept()
        try:
            while True:
                await socket.send_text(await socket.receive_text())
        except WebSocketDisconnect as left:
            seen.append(left.code)
            ended.set()

    server = await pagi_serve(litestar(iterate))
    async with trio_websocket.open_websocket_url(server.ws_url) as client:
        await client.send_message("x")
        assert await client.get_message() == "x"
        await client.aclose(4000, "enough")
    await wait(ended)
    assert seen == [4000]
    assert app_errors(server) == 0


async def test_a_guard_refuses_a_websocket(pagi_serve):
    def guard(connection, handler):
        raise PermissionDeniedException("who are you?")

    @websocket("/", guards=[guard])
    async def never(socket: WebSocket) -> None:
        await socket.accept()

    server = await pagi_serve(litestar(never))
    with pytest.raises(BaseExceptionGroup) as refused:
        async with contract.websocket(server, "/"):
            raise AssertionError("it was accepted")
    (error,) = refused.value.exceptions
    assert error.status_code == 403
    assert server.metrics.value("pagi_websocket_connections_total") == 0
    assert app_errors(server) == 0


async def test_the_metrics_page_is_mounted_like_any_app(pagi_serve):
    @asgi("/metrics", is_mount=True, copy_scope=True)
    async def metrics(scope: Scope, receive: Receive, send: Send) -> None:
        await MetricsApp()(scope, receive, send)

    pytest.importorskip("prometheus_client")
    server = await pagi_serve(litestar(metrics))
    async with one_connection(server) as client:
        page = await client.get("/metrics")
        assert page.status_code == 200
        assert "pagi_server_connections_total 1.0" in page.text
