"""Starlette and sse-starlette over real sockets: what they rely on in a server, and counters equal to the client's."""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager

import httpx
import pytest
import trio
import trio_websocket
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocketDisconnect

from pagi_trio.metrics.endpoint import MetricsApp
from pagi_trio.testing import serving

pytestmark = [
    pytest.mark.trio,
    # Starlette leaves the generator of a client that has left to the garbage collector.
    pytest.mark.filterwarnings("ignore:Async generator .* was garbage collected:ResourceWarning"),
]

GET = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"

# By hand: trio-websocket leaves its socket open when it is refused.
HANDSHAKE = (
    b"GET %s HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def one_connection(server):
    """Return a client whose requests share one connection."""
    return httpx.AsyncClient(
        base_url=server.url, verify=False, trust_env=False, timeout=5, limits=httpx.Limits(max_connections=1)
    )


async def plain(request):
    return PlainTextResponse("plain")


def watched(app):
    """Return the application, and an event that is set when a call of it for a request has ended."""
    ended = trio.Event()

    async def watch(scope, receive, send):
        try:
            await app(scope, receive, send)
        finally:
            if scope["type"] != "lifespan" and scope["path"] != "/plain":
                ended.set()

    return watch, ended


async def wait(event):
    with trio.fail_after(5):
        await event.wait()


def app_errors(server):
    return sum(server.metrics.value("pagi_server_app_errors_total", scope=s) for s in ("http", "websocket", "sse"))


async def test_json_and_path_parameters_one_request_after_another(pagi_serve):
    async def item(request):
        return JSONResponse({"id": request.path_params["id"], "q": request.query_params["q"], **await request.json()})

    server = await pagi_serve(Starlette(routes=[Route("/items/{id:int}", item, methods=["POST"])]))
    async with one_connection(server) as client:
        for number in range(3):
            response = await client.post(f"/items/{number}?q=ä", json={"sent": "ü"})
            assert response.json() == {"id": number, "q": "ä", "sent": "ü"}
        assert (await client.get("/items/1")).status_code == 405
        assert (await client.get("/nothing")).status_code == 404
    assert server.metrics.value("pagi_server_connections_total") == 1


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


async def test_files_are_uploaded(pagi_serve):
    async def upload(request):
        async with request.form() as form:
            content = await form["file"].read()
            return JSONResponse([form["word"], form["file"].filename, hashlib.sha256(content).hexdigest()])

    server = await pagi_serve(Starlette(routes=[Route("/", upload, methods=["POST"])]))
    content = bytes(range(256)) * 2000
    async with one_connection(server) as client:
        for _ in range(2):
            response = await client.post("/", data={"word": "ä"}, files={"file": ("name.bin", content)})
            assert response.json() == ["ä", "name.bin", hashlib.sha256(content).hexdigest()]
    assert server.metrics.value("pagi_server_connections_total") == 1


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


async def test_is_disconnected_says_no_until_the_client_leaves(pagi_serve, raw):
    polled, gone = trio.Event(), trio.Event()

    async def poll(request):
        while not await request.is_disconnected():
            polled.set()
            await trio.sleep(0.001)
        gone.set()
        return PlainTextResponse("")

    server = await pagi_serve(Starlette(routes=[Route("/", poll)]))
    async with raw(server) as client:
        await client.send(GET % b"/")
        await wait(polled)
        assert not gone.is_set()
    await wait(gone)


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


async def test_a_websocket_counts_what_the_client_counts(pagi_serve):
    async def echo(websocket):
        await websocket.accept(subprotocol="echo", headers=[(b"x-y", b"z")])
        try:
            while True:
                message = await websocket.receive()
                if message["type"] == "websocket.disconnect":
                    codes.append(message["code"])
                    return
                if message.get("text") is not None:
                    await websocket.send_text(message["text"])
                else:
                    await websocket.send_bytes(message["bytes"])
        finally:
            websockets_ended.set()

    codes, websockets_ended = [], trio.Event()
    server = await pagi_serve(Starlette(routes=[WebSocketRoute("/ws/{room}", echo)]))
    messages = ["häuser", b"\x00\xff", "", "x" * 70_000, b"y" * 70_000]
    async with trio_websocket.open_websocket_url(server.ws_url + "/ws/1", subprotocols=["echo"]) as client:
        assert client.subprotocol == "echo"
        assert (b"x-y", b"z") in client.handshake_headers
        for message in messages:
            await client.send_message(message)
            assert await client.get_message() == message
        assert server.metrics.value("pagi_websocket_connections_active") == 1
    await wait(websockets_ended)
    size = sum(len(m.encode() if isinstance(m, str) else m) for m in messages)
    for direction in ("received", "sent"):
        assert server.metrics.value(f"pagi_websocket_messages_{direction}_total") == len(messages)
        assert server.metrics.value(f"pagi_websocket_bytes_{direction}_total") == size
    assert codes == [1000]


async def test_a_websocket_endpoint_that_only_iterates_ends_with_its_client(pagi_serve):
    async def echo(websocket):
        await websocket.accept()
        try:
            while True:
                await websocket.send_json(await websocket.receive_json())
        except WebSocketDisconnect as left:
            seen.append((left.code, left.reason))
            ended.set()

    seen, ended = [], trio.Event()
    server = await pagi_serve(Starlette(routes=[WebSocketRoute("/", echo)]))
    async with trio_websocket.open_websocket_url(server.ws_url) as client:
        await client.send_message('{"a": 1}')
        assert await client.get_message() == '{"a":1}'
        await client.aclose(4000, "enough")
    await wait(ended)
    assert seen == [(4000, "enough")]
    assert app_errors(server) == 0


@pytest.mark.parametrize("way", ["receives", "sends"])
async def test_a_websocket_client_that_leaves_is_no_error_of_an_endpoint_that_does_not_expect_it(
    pagi_serve, way, caplog
):
    async def endpoint(websocket):
        await websocket.accept()
        await websocket.send_text("hello")
        while True:
            if way == "receives":
                await websocket.receive_text()
            else:
                await websocket.send_text("tick")
                await trio.sleep(0.001)

    app, ended = watched(Starlette(routes=[WebSocketRoute("/", endpoint)]))
    server = await pagi_serve(app)
    async with trio_websocket.open_websocket_url(server.ws_url) as client:
        assert await client.get_message() == "hello"
    await wait(ended)
    assert server.metrics.value("pagi_websocket_connections_active") == 0
    assert app_errors(server) == 0
    assert [record for record in caplog.records if record.exc_info] == []


async def test_a_websocket_is_refused_before_it_is_accepted(pagi_serve, raw):
    async def closes(websocket):
        await websocket.close(1008)

    async def denies(websocket):
        raise HTTPException(401, "who are you?")

    server = await pagi_serve(Starlette(routes=[WebSocketRoute("/closes", closes), WebSocketRoute("/denies", denies)]))
    for path, status, body in ((b"/closes", 403, b""), (b"/denies", 401, b"who are you?"), (b"/nowhere", 403, b"")):
        async with raw(server) as client:
            await client.send(HANDSHAKE % path)
            answer, _, text = await client.read_response()
            assert answer == status
            assert body in text
    assert server.metrics.value("pagi_websocket_connections_total") == 0
    assert app_errors(server) == 0


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

    async with serving(Starlette(routes=[Route("/", show)], lifespan=lifespan)) as server:
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
        async with serving(app) as server, one_connection(server) as client, client.stream("GET", "/") as response:
            received = response.aiter_raw()
            assert b"data: hello" in await anext(received)
            server.handle.shutdown()
            assert b"".join([part async for part in received]) == b""
    assert closed.is_set()
