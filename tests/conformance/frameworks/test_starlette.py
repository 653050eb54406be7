"""Starlette, beyond what all frameworks have in common: middlewares, threads, uploads that are cut, mounts."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route

from pagi_trio import testing
from pagi_trio.metrics.endpoint import MetricsApp

from .observe import app_errors, one_connection, wait, watched

pytestmark = [
    pytest.mark.trio,
    # Starlette leaves the generator of a client that has left to the garbage collector.
    pytest.mark.filterwarnings("ignore:Async generator .* was garbage collected:ResourceWarning"),
]


GET = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"


async def plain(request):
    return PlainTextResponse("plain")


async def test_an_exception_is_a_500_and_the_connection_goes_on(pagi_serve, caplog):
    async def broken(request):
        raise ValueError("the reason")

    server = await pagi_serve(Starlette(routes=[Route("/broken", broken), Route("/plain", plain)]))
    async with one_connection(server) as client:
        assert (await client.get("/broken")).status_code == 500
        assert (await client.get("/plain")).text == "plain"
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError]
    assert app_errors(server) == 1


@pytest.fixture(params=["bare", "behind BaseHTTPMiddleware"])
def middleware(request):
    async def dispatch(request, call_next):
        response = await call_next(request)
        response.headers["x-passed"] = "yes"
        return response

    return [] if request.param == "bare" else [Middleware(BaseHTTPMiddleware, dispatch=dispatch)]


async def test_a_stream_arrives_part_by_part(pagi_serve, middleware):
    go_on = trio.Event()

    async def parts():
        yield b"first"
        await go_on.wait()
        yield "zweiter"
        yield bytes(200_000)

    async def stream(request):
        return StreamingResponse(parts())

    server = await pagi_serve(
        Starlette(routes=[Route("/stream", stream), Route("/plain", plain)], middleware=middleware)
    )
    async with one_connection(server) as client:
        async with client.stream("GET", "/stream") as response:
            assert response.headers.get("x-passed") == ("yes" if middleware else None)
            received = response.aiter_raw()
            assert await anext(received) == b"first"
            go_on.set()
            rest = b"".join([part async for part in received])
            assert rest == b"zweiter" + bytes(200_000)
        assert (await client.get("/plain")).text == "plain"
    assert server.metrics.value("pagi_server_connections_total") == 1


async def test_a_client_that_leaves_a_stream_ends_it_and_is_no_error_of_the_app(pagi_serve, middleware, caplog, raw):
    async def endless():
        while True:
            yield bytes(65536)

    async def stream(request):
        return StreamingResponse(endless())

    app, ended = watched(Starlette(routes=[Route("/stream", stream), Route("/plain", plain)], middleware=middleware))
    server = await pagi_serve(app)
    async with raw(server) as client:
        await client.send(GET % b"/stream")
        await client.read_exactly(100_000)
    await wait(ended)
    async with one_connection(server) as client:
        assert (await client.get("/plain")).text == "plain"
    assert app_errors(server) == 0
    assert [record for record in caplog.records if record.exc_info] == []


async def test_a_middleware_and_the_endpoint_both_read_the_body(pagi_serve):
    async def dispatch(request, call_next):
        size = len(await request.body())
        response = await call_next(request)
        response.headers["x-size"] = str(size)
        return response

    async def echo(request):
        return PlainTextResponse(await request.body())

    app = Starlette(
        routes=[Route("/", echo, methods=["POST"])], middleware=[Middleware(BaseHTTPMiddleware, dispatch=dispatch)]
    )
    server = await pagi_serve(app)
    async with one_connection(server) as client:
        for size in (0, 5, 300_000):
            response = await client.post("/", content=b"x" * size)
            assert (response.headers["x-size"], len(response.content)) == (str(size), size)
    assert server.metrics.value("pagi_server_connections_total") == 1


async def test_the_next_request_is_answered_while_a_background_task_runs(pagi_serve, middleware):
    started, go_on, done = trio.Event(), trio.Event(), trio.Event()

    async def work(word):
        started.set()
        await go_on.wait()
        assert word == "argument"
        done.set()

    async def order(request):
        return PlainTextResponse("ordered", background=BackgroundTask(work, "argument"))

    server = await pagi_serve(Starlette(routes=[Route("/order", order), Route("/plain", plain)], middleware=middleware))
    async with one_connection(server) as client:
        assert (await client.get("/order")).text == "ordered"
        await wait(started)
        for _ in range(3):
            assert (await client.get("/plain")).text == "plain"
        assert not done.is_set()
        go_on.set()
        await wait(done)
        assert (await client.get("/plain")).text == "plain"
    assert server.metrics.value("pagi_server_connections_total") == 1


async def test_a_background_task_in_a_thread_ends_though_the_client_has_left(pagi_serve, raw):
    started, left, done = trio.Event(), trio.Event(), trio.Event()

    def work():
        trio.from_thread.run_sync(started.set)
        trio.from_thread.run(left.wait)
        trio.from_thread.run_sync(done.set)

    async def order(request):
        return PlainTextResponse("ordered", background=BackgroundTask(work))

    server = await pagi_serve(Starlette(routes=[Route("/", order)]))
    async with raw(server) as client:
        await client.send(GET % b"/")
        assert (await client.read_response())[2] == b"ordered"
        await wait(started)
    left.set()
    await wait(done)
    assert app_errors(server) == 0


async def test_an_upload_that_is_cut_is_a_disconnect_in_the_endpoint(pagi_serve, raw):
    reading, outcome = trio.Event(), []

    async def upload(request):
        try:
            async for _ in request.stream():
                reading.set()
        except Exception as error:
            outcome.append(type(error).__name__)
        return PlainTextResponse("too late")

    app, ended = watched(Starlette(routes=[Route("/", upload, methods=["POST"])]))
    server = await pagi_serve(app)
    async with raw(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
        await wait(reading)
    await wait(ended)
    assert outcome == ["ClientDisconnect"]


async def test_an_upload_that_is_cut_is_no_error_of_the_app_that_waits_for_all_of_it(pagi_serve, raw, caplog):
    called = trio.Event()

    async def upload(request):
        called.set()
        return JSONResponse(await request.json())

    app, ended = watched(Starlette(routes=[Route("/", upload, methods=["POST"])]))
    server = await pagi_serve(app)
    async with raw(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
        await wait(called)
    await wait(ended)
    await trio.testing.wait_all_tasks_blocked()
    assert app_errors(server) == 0
    assert [record for record in caplog.records if record.exc_info] == []


async def test_is_disconnected_leaves_the_next_request_alone(pagi_serve, raw):
    async def poll(request):
        answers = [await request.is_disconnected() for _ in range(3)]
        return JSONResponse(answers)

    server = await pagi_serve(Starlette(routes=[Route("/", poll), Route("/plain", plain)]))
    async with raw(server) as client:
        await client.send(GET % b"/" + GET % b"/plain" + (GET % b"/plain")[:9])
        assert (await client.read_response())[2] == b"[false,false,false]"
        assert (await client.read_response())[2] == b"plain"
        await client.send((GET % b"/plain")[9:])
        assert (await client.read_response())[2] == b"plain"


async def test_the_state_of_the_lifespan_is_the_state_of_every_request():
    phases = []

    @asynccontextmanager
    async def lifespan(app):
        phases.append("startup")
        yield {"numbers": [1], "word": "shared"}
        phases.append("shutdown")

    async def show(request):
        request.state.numbers.append(2)
        before, request.state.word = request.state.word, "of this request"
        return JSONResponse([request.state.numbers, before])

    async with testing.serve(Starlette(routes=[Route("/", show)], lifespan=lifespan)) as server:
        async with one_connection(server) as client:
            assert (await client.get("/")).json() == [[1, 2], "shared"]
            assert (await client.get("/")).json() == [[1, 2, 2], "shared"]
        assert phases == ["startup"]
    assert phases == ["startup", "shutdown"]


async def test_what_is_mounted_knows_its_root_path(pagi_serve):
    async def show(request):
        return JSONResponse([request.scope["root_path"], request.scope["path"], str(request.url_for("show"))])

    inner = Starlette(routes=[Route("/show", show, name="show")])
    server = await pagi_serve(Starlette(routes=[Mount("/sub", app=inner), Route("/plain", plain)]))
    async with one_connection(server) as client:
        assert (await client.get("/sub/show")).json() == ["/sub", "/sub/show", f"{server.url}/sub/show"]
        assert (await client.get("/sub/none")).status_code == 404
        assert (await client.get("/plain")).text == "plain"


async def test_the_metrics_page_is_mounted_like_any_app(pagi_serve):
    parser = pytest.importorskip("prometheus_client.parser")
    routes = [Mount("/metrics", app=MetricsApp()), Route("/plain", plain)]
    server = await pagi_serve(Starlette(routes=routes))
    async with one_connection(server) as client:
        assert (await client.get("/plain")).text == "plain"
        for _ in range(2):
            page = await client.get("/metrics", follow_redirects=True)
            assert page.status_code == 200
            families = {family.name: family for family in parser.text_string_to_metric_families(page.text)}
            assert [sample.value for sample in families["pagi_server_connections"].samples] == [1]
        assert (await client.get("/plain")).text == "plain"
