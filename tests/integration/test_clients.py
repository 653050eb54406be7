"""Clients that people use: websockets, trio-websocket, httpx and curl."""

from __future__ import annotations

import json
import logging
import threading

import httpx
import pytest
import trio
import trio_websocket
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from .conftest import hello, read_body, respond

pytestmark = pytest.mark.trio


async def websocket_echo(scope, receive, send):
    """Echo messages; ``close me`` closes with 4000, a path of ``/denied`` is denied with a body."""
    assert (await receive())["type"] == "websocket.connect"
    if scope["path"] == "/denied":
        await send({"type": "websocket.http.response.start", "status": 418, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"tea"})
        return
    await send({"type": "websocket.accept", "subprotocol": next(iter(scope["subprotocols"]), None)})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") == "close me":
            await send({"type": "websocket.close", "code": 4000, "reason": "enough"})
        else:
            await send({**message, "type": "websocket.send"})


def counted(server):
    return tuple(
        server.metrics.value(f"pagi_websocket_{what}_{way}_total")
        for what in ("messages", "bytes")
        for way in ("received", "sent")
    )


MESSAGES = ["häuser", b"\x00\xff", "", "again " * 20_000, bytes(range(256)) * 500]
SIZE = sum(len(m.encode() if isinstance(m, str) else m) for m in MESSAGES)


@pytest.mark.parametrize("compression", ["deflate", None])
async def test_websockets_echoes_and_counts_the_same(pagi_serve, compression):
    server = await pagi_serve(websocket_echo, lifespan="off")

    def session():
        # That library runs on threads or asyncio.
        with connect(server.ws_url, compression=compression, subprotocols=["one", "two"]) as client:
            extensions = client.response.headers.get("Sec-WebSocket-Extensions", "")
            for message in MESSAGES:
                client.send(message)
                assert client.recv(timeout=5) == message
            client.send(iter(["in ", "three ", "fragments"]))
            assert client.recv(timeout=5) == "in three fragments"
            return client.subprotocol, extensions

    subprotocol, extensions = await trio.to_thread.run_sync(session)
    assert subprotocol == "one"
    assert extensions.startswith("permessage-deflate") is (compression == "deflate")
    size = SIZE + len("in three fragments")
    assert counted(server) == (len(MESSAGES) + 1, len(MESSAGES) + 1, size, size)


async def test_websockets_gets_its_pings_answered(pagi_serve):
    server = await pagi_serve(websocket_echo, lifespan="off")

    def session():
        with connect(server.ws_url) as client:
            pongs = [client.ping(payload) for payload in (b"one", b"two", bytes(125))]
            return [pong.wait(5) for pong in pongs]

    assert await trio.to_thread.run_sync(session) == [True] * 3
    assert counted(server) == (0, 0, 0, 0)


class PongLog(logging.Handler):
    """Sees in the log of websockets when the client answers a ping."""

    def __init__(self):
        super().__init__()
        self.answered = threading.Event()

    def emit(self, record):
        if "PONG" in record.getMessage() and record.msg.startswith(">"):
            self.answered.set()


async def test_websockets_answers_the_pings_of_the_server(pagi_serve):
    settings = {"ping_interval_s": 0.01, "ping_timeout_s": 5}
    server = await pagi_serve(websocket_echo, lifespan="off", websocket=settings)
    pongs = PongLog()
    logger = logging.getLogger("the client that answers pings")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(pongs)

    def session():
        with connect(server.ws_url, logger=logger) as client:
            answered = pongs.answered.wait(5)
            client.send("still there")
            return answered, client.recv(timeout=5)

    assert await trio.to_thread.run_sync(session) == (True, "still there")
    assert counted(server) == (1, 1, 11, 11)


async def test_websockets_learns_why_it_is_closed_or_denied(pagi_serve):
    server = await pagi_serve(websocket_echo, lifespan="off")

    def session():
        with connect(server.ws_url) as client:
            client.send("close me")
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(timeout=5)
        with pytest.raises(InvalidStatus) as denied:
            connect(server.ws_url + "/denied")
        return closed.value.rcvd, denied.value.response

    close, response = await trio.to_thread.run_sync(session)
    assert (close.code, close.reason) == (4000, "enough")
    assert (response.status_code, response.body) == (418, b"tea")


async def test_trio_websocket_echoes_pings_and_counts_the_same(pagi_serve):
    server = await pagi_serve(websocket_echo, lifespan="off")
    async with trio_websocket.open_websocket_url(server.ws_url, subprotocols=["one"]) as client:
        assert client.subprotocol == "one"
        for message in MESSAGES:
            await client.send_message(message)
            assert await client.get_message() == message
        with trio.fail_after(5):
            await client.ping(b"one")
            await client.ping()
    assert (client.closed.code, client.closed.reason) == (1000, None)
    assert counted(server) == (len(MESSAGES), len(MESSAGES), SIZE, SIZE)


async def test_many_trio_websockets_at_once_count_to_the_message(pagi_serve):
    server = await pagi_serve(websocket_echo, lifespan="off")
    clients, turns = 20, 10

    async def session(number):
        async with trio_websocket.open_websocket_url(server.ws_url) as client:
            for turn in range(turns):
                await client.send_message(f"{number:03} {turn:03}")
                assert await client.get_message() == f"{number:03} {turn:03}"

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for number in range(clients):
                nursery.start_soon(session, number)
    total = clients * turns
    assert counted(server) == (total, total, 7 * total, 7 * total)
    assert server.metrics.value("pagi_websocket_connections_total") == clients
    assert server.metrics.value("pagi_server_connections_total") == clients


async def http_app(scope, receive, send):
    """Answer by path: a stream, an event stream, or what was sent."""
    if scope["path"] == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(10):
            await send({"type": "http.response.body", "body": b"%d," % number * 1000, "more_body": True})
        await send({"type": "http.response.body"})
    elif scope["path"] == "/events":
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for number in range(10):
            await send({"type": "http.response.body", "body": b": beat\n\ndata: %d\n\n" % number, "more_body": True})
        await send({"type": "http.response.body"})
    else:
        body, complete = await read_body(receive)
        assert complete
        await respond(send, body or scope["method"].encode())


STREAM = b"".join(b"%d," % number * 1000 for number in range(10))


async def test_httpx_keeps_its_connection_through_all_kinds_of_bodies(pagi_serve):
    async def upload():
        for number in range(100):
            yield b"%d" % number * 1000

    server = await pagi_serve(http_app, lifespan="off")
    limits = httpx.Limits(max_connections=1)
    async with httpx.AsyncClient(base_url=server.url, verify=False, trust_env=False, limits=limits) as client:
        for _ in range(3):
            assert (await client.get("/")).content == b"GET"
            assert (await client.head("/")).headers["content-length"] == "4"
            assert (await client.get("/stream")).content == STREAM
            assert len((await client.post("/", content=upload())).content) == 190_000
            assert (await client.put("/", json={"a": [1]})).json() == {"a": [1]}
    assert server.metrics.value("pagi_server_connections_total") == 1


async def test_httpx_opens_connections_beside_each_other(pagi_serve):
    server = await pagi_serve(http_app, lifespan="off")
    async with httpx.AsyncClient(base_url=server.url, verify=False, trust_env=False) as client:
        answers = []

        async def ask(path):
            answers.append((await client.get(path)).content)

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask, "/stream")
        assert answers == [STREAM] * 10
    assert server.metrics.value("pagi_server_connections_total") <= 10


async def curl(*arguments, stdin=b""):
    """Run curl without its configuration; return what it wrote to its output and its trace."""
    # -q comes first, or a .curlrc would be read.
    command = ["curl", "-q", "--silent", "--show-error", "--noproxy", "*", "--max-time", "5", *arguments]
    done = await trio.run_process(command, stdin=stdin, capture_stdout=True, capture_stderr=True)
    return done.stdout, done.stderr


@pytest.mark.outside
async def test_curl_takes_two_answers_from_one_connection(pagi_serve):
    server = await pagi_serve(hello)
    output, trace = await curl("--verbose", f"{server.url}/1", f"{server.url}/2")
    assert output == b"hellohello"
    assert trace.count(b"< HTTP/1.1 200 OK") == 2
    assert server.metrics.value("pagi_server_connections_total") == 1


@pytest.mark.outside
async def test_curl_uploads_in_chunks_rfc9112_7_1(pagi_serve):
    server = await pagi_serve(http_app, lifespan="off")
    body = bytes(range(256)) * 1000
    arguments = ["-X", "POST", "-H", "Transfer-Encoding: chunked", "-H", "Expect:", "--data-binary", "@-"]
    output, _ = await curl(*arguments, f"{server.url}/", stdin=body)
    assert output == body


@pytest.mark.outside
async def test_curl_waits_for_100_continue_rfc9110_10_1_1(pagi_serve):
    server = await pagi_serve(http_app, lifespan="off")
    # Without the 100 it would wait for these ten seconds, which are more than it has.
    arguments = ["--verbose", "-H", "Expect: 100-continue", "--expect100-timeout", "10", "--data-binary", "@-"]
    output, trace = await curl(*arguments, f"{server.url}/", stdin=bytes(2000))
    assert output == bytes(2000)
    assert trace.count(b"< HTTP/1.1 100 Continue") == 1
    assert trace.count(b"< HTTP/1.1 200 OK") == 1


@pytest.mark.outside
async def test_curl_gets_a_head_without_a_body_rfc9110_9_3_2(pagi_serve):
    server = await pagi_serve(hello)
    output, _ = await curl("--head", f"{server.url}/1", f"{server.url}/2")
    assert output.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert output.count(b"content-length: 5\r\n") == 2
    assert b"hello" not in output
    assert server.metrics.value("pagi_server_connections_total") == 1


@pytest.mark.outside
async def test_curl_speaks_http_1_0_rfc9112_6_3(pagi_serve):
    server = await pagi_serve(http_app, lifespan="off")
    output, trace = await curl("--http1.0", "--verbose", f"{server.url}/stream")
    assert output == STREAM
    assert b"transfer-encoding" not in trace.lower()


@pytest.mark.outside
async def test_curl_reads_an_event_stream_and_counts_the_same(pagi_serve):
    server = await pagi_serve(http_app, lifespan="off")
    summary = '{"type": "%{content_type}", "size": %{size_download}}'
    output, _ = await curl("--no-buffer", "--write-out", summary, f"{server.url}/events")
    body, brace, rest = output.partition(b"{")
    assert json.loads(brace + rest) == {"type": "text/event-stream", "size": len(body)}
    assert body.count(b"data: ") == 10
    assert server.metrics.value("pagi_sse_events_sent_total") == 10
    assert server.metrics.value("pagi_sse_bytes_sent_total") == len(body)


@pytest.mark.outside
async def test_curl_stops_in_the_middle_and_the_server_goes_on(pagi_serve):
    ended = trio.Event()

    async def app(scope, receive, send):
        if scope["path"] != "/endless":
            await hello(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
        finally:
            ended.set()

    server = await pagi_serve(app, lifespan="off")
    done = await trio.run_process(
        ["curl", "-q", "-s", "--noproxy", "*", "--max-time", "0.1", "-o", "/dev/null", f"{server.url}/endless"],
        check=False,
    )
    assert done.returncode == 28  # CURLE_OPERATION_TIMEDOUT
    with trio.fail_after(5):
        await ended.wait()
    assert (await curl(f"{server.url}/"))[0] == b"hello"
