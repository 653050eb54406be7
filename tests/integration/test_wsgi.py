"""WSGI applications (PEP 3333) behind the wrapper, which gathers the body and calls them in a thread."""

from __future__ import annotations

import logging
import sys
import threading

import flask
import httpx
import pytest
import trio

from .conftest import RawClient

pytestmark = pytest.mark.trio

GET = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"


def one_connection(server):
    """Return a client whose requests share one connection."""
    return httpx.AsyncClient(
        base_url=server.url, verify=False, trust_env=False, timeout=5, limits=httpx.Limits(max_connections=1)
    )


async def in_chunks(body):
    yield body


async def wait(event):
    with trio.fail_after(5):
        await event.wait()


@pytest.fixture
def app():
    app = flask.Flask(__name__)

    @app.get("/plain")
    def plain():
        return f"plain {flask.request.args.get('q')}"

    @app.post("/echo")
    def echo():
        return flask.request.get_data()

    @app.post("/form")
    def form():
        return [flask.request.form["word"], flask.request.files["file"].filename]

    @app.get("/nothing")
    def nothing():
        return "", 204

    @app.get("/stream")
    def stream():
        return (f"{number}\n" for number in range(100)), {"X-Y": "ä"}

    @app.get("/broken")
    def broken():
        raise ValueError("the reason")

    return app


@pytest.mark.parametrize("interface", ["auto", "wsgi"])
async def test_flask_answers_one_request_after_another(pagi_serve, app, interface):
    server = await pagi_serve(app, interface=interface)
    async with one_connection(server) as client:
        for _ in range(2):
            assert (await client.get("/plain?q=ä")).text == "plain ä"
            for body in (b"", b"hello", bytes(200_000)):
                assert (await client.post("/echo", content=body)).content == body
                assert (await client.post("/echo", content=in_chunks(body))).content == body
            response = await client.post("/form", data={"word": "ü"}, files={"file": ("name", b"x")})
            assert response.json() == ["ü", "name"]
            response = await client.get("/stream")
            assert response.text == "".join(f"{number}\n" for number in range(100))
            assert response.headers["x-y"].encode("latin-1") == "ä".encode("latin-1")
            assert (await client.get("/none")).status_code == 404
            assert (await client.head("/plain")).headers["content-length"] == "10"
    assert server.metrics.value("pagi_server_connections_total") == 1


async def test_an_empty_iterable_is_an_answer_pep3333(pagi_serve, app):
    server = await pagi_serve(app)
    async with one_connection(server) as client:
        response = await client.get("/nothing")
        assert (response.status_code, response.content) == (204, b"")
        assert (await client.get("/plain")).status_code == 200
    assert server.metrics.value("pagi_server_connections_total") == 1


async def test_the_environ_says_what_pep3333_asks_for(pagi_serve, raw):
    environs = []

    def app(environ, start_response):
        environs.append(environ)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ["wsgi.input"].read()]

    server = await pagi_serve(app, root_path="/base")
    async with raw(server) as client:
        await client.send(
            b"POST /base/caf%C3%A9?q=%20 HTTP/1.1\r\nHost: x\r\nContent-Type: a/b\r\nX-Y: z\r\n"
            b"Content-Length: 4\r\n\r\nbody"
        )
        status, headers, body = await client.read_response()
        assert (status, headers[b"content-type"], body) == (200, b"text/plain", b"body")
    (environ,) = environs
    expected = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "/base",
        "PATH_INFO": "/café".encode().decode("latin-1"),
        "QUERY_STRING": "q=%20",
        "CONTENT_TYPE": "a/b",
        "CONTENT_LENGTH": "4",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "x",
        "HTTP_X_Y": "z",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
    }
    assert {name: environ[name] for name in expected} == expected
    assert environ["SERVER_PORT"] == str(server.port)


@pytest.mark.parametrize(
    ("path", "below"),
    [("/base", "/"), ("/base/", "/"), ("/base/x", "/x"), ("/", "/"), ("/x", "/x"), ("/basex", "/basex")],
)
async def test_the_path_is_what_is_below_the_mount_whether_or_not_the_proxy_has_cut_it(pagi_serve, raw, path, below):
    def app(environ, start_response):
        start_response("200 OK", [])
        return [f"{environ['SCRIPT_NAME']} {environ['PATH_INFO']}".encode()]

    server = await pagi_serve(app, root_path="/base")
    async with raw(server) as client:
        await client.send(GET % path.encode())
        assert (await client.read_response())[2] == f"/base {below}".encode()


async def test_the_port_of_a_unix_socket_is_the_usual_one_of_its_scheme(pagi_serve, tmp_path):
    def app(environ, start_response):
        start_response("200 OK", [])
        return [environ["SERVER_PORT"].encode()]

    path = str(tmp_path / "app.sock")
    await pagi_serve(app, bind=(f"unix:{path}",), forwarded={"trusted": ("unix",)})
    async with await trio.open_unix_socket(path) as stream:
        client = RawClient(stream)
        await client.send(GET % b"/")
        assert (await client.read_response())[2] == b"80"
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-Proto: https\r\n\r\n")
        assert (await client.read_response())[2] == b"443"


async def test_a_header_with_an_underscore_does_not_pass_for_one_of_the_proxy(pagi_serve, raw):
    def app(environ, start_response):
        start_response("200 OK", [])
        return [environ["HTTP_X_USER"].encode()]

    server = await pagi_serve(app)
    async with raw(server) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\nX_User: root\r\nX-User: guest\r\nX-User_: me\r\n\r\n")
        assert (await client.read_response())[2] == b"guest"


@pytest.mark.parametrize("chunks", [[], [b"2", b"3"]])
async def test_what_is_written_comes_before_what_is_returned_pep3333(pagi_serve, raw, chunks):
    def app(environ, start_response):
        write = start_response("200 OK", [])
        write(b"0")
        write(b"1")
        return chunks

    server = await pagi_serve(app)
    async with raw(server) as client:
        await client.send(GET % b"/")
        assert (await client.read_response())[2] == b"01" + b"".join(chunks)


async def test_an_error_takes_the_place_of_the_head_until_that_is_sent_pep3333(pagi_serve, raw, caplog):
    def app(environ, start_response):
        start_response("200 OK", [])
        if environ["PATH_INFO"] == "/late":
            yield b"half"
        try:
            raise ValueError("the reason")
        except ValueError:
            start_response("503 Not now", [], sys.exc_info())
        yield b"sorry"

    server = await pagi_serve(app, raise_app_exceptions=False)
    async with raw(server) as client:
        await client.send(GET % b"/early")
        status, _, body = await client.read_response()
        assert (status, body) == (503, b"sorry")
        await client.send(GET % b"/late")
        assert (await client.read_head())[0] == 200
        assert await client.read_to_end() == b"4\r\nhalf\r\n"
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError]


async def test_applications_run_beside_each_other_in_threads(pagi_serve):
    both = threading.Barrier(2, timeout=5)

    def app(environ, start_response):
        both.wait()
        start_response("200 OK", [])
        return [str(threading.current_thread() is threading.main_thread()).encode()]

    server = await pagi_serve(app)
    answers = []

    async def ask():
        async with one_connection(server) as client:
            answers.append((await client.get("/")).text)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(ask)
    assert answers == ["False", "False"]


class Chunks:
    """A WSGI response that notes its end; made in the application's thread."""

    def __init__(self, chunks, closed):
        self._chunks = iter(chunks)
        self._closed = closed

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._chunks)

    def close(self):
        trio.from_thread.run_sync(self._closed.set)


def endless():
    while True:
        yield bytes(65536)


def failing():
    yield b"half"
    raise ValueError("in the middle")


async def test_what_the_app_returned_is_closed_at_the_end_pep3333(pagi_serve, raw):
    closed = trio.Event()

    def app(environ, start_response):
        start_response("200 OK", [])
        return Chunks([b"one", b"", b"two"], closed)

    server = await pagi_serve(app)
    async with raw(server) as client:
        await client.send(GET % b"/")
        assert (await client.read_response())[2] == b"onetwo"
        await wait(closed)


async def test_what_the_app_returned_is_closed_when_the_client_leaves_pep3333(pagi_serve, raw, caplog):
    closed = trio.Event()

    def app(environ, start_response):
        start_response("200 OK", [])
        return Chunks(endless(), closed)

    server = await pagi_serve(app)
    async with raw(server) as client:
        await client.send(GET % b"/")
        await client.read_exactly(100_000)
    await wait(closed)
    await trio.testing.wait_all_tasks_blocked()
    assert server.metrics.value("pagi_server_app_errors_total", scope="http") == 0
    assert [record for record in caplog.records if record.exc_info] == []


async def test_what_the_app_returned_is_closed_when_it_fails_and_the_response_is_visibly_broken(
    pagi_serve, raw, caplog
):
    closed = trio.Event()

    def app(environ, start_response):
        start_response("200 OK", [])
        return Chunks(failing(), closed)

    server = await pagi_serve(app, raise_app_exceptions=False)
    async with raw(server) as client:
        await client.send(GET % b"/")
        assert (await client.read_head())[0] == 200
        assert await client.read_to_end() == b"4\r\nhalf\r\n"
    await wait(closed)
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError]


async def test_an_app_error_is_a_500_and_one_traceback(pagi_serve, raw, caplog):
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/fine":
            start_response("200 OK", [])
            return [b"fine"]
        raise ValueError("the reason")

    server = await pagi_serve(app, raise_app_exceptions=False)
    async with one_connection(server) as client:
        assert (await client.get("/broken")).status_code == 500
        assert (await client.get("/fine")).text == "fine"
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.exc_info[0] for record in errors] == [ValueError]
    assert "GET /broken" in errors[0].getMessage()
    assert server.metrics.value("pagi_server_app_errors_total", scope="http") == 1


async def test_an_error_that_flask_answers_is_a_500_and_the_connection_goes_on(pagi_serve, app, caplog):
    server = await pagi_serve(app)
    async with one_connection(server) as client:
        assert (await client.get("/broken")).status_code == 500
        assert (await client.get("/plain")).status_code == 200
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError]
    assert server.metrics.value("pagi_server_connections_total") == 1


@pytest.mark.parametrize("chunks", [[b""], []])
async def test_an_app_that_does_not_call_start_response_is_a_500_pep3333(pagi_serve, raw, caplog, chunks):
    server = await pagi_serve(lambda environ, start_response: chunks, interface="wsgi", raise_app_exceptions=False)
    async with raw(server) as client:
        await client.send(GET % b"/")
        assert (await client.read_response())[0] == 500
    assert "did not call start_response" in caplog.text


@pytest.mark.parametrize(
    "framing",
    [b"Content-Length: 10\r\n\r\nhalf", b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"],
    ids=["content-length", "chunked"],
)
async def test_an_upload_that_is_cut_never_reaches_the_app(pagi_serve, raw, framing, caplog):
    bodies = []

    def app(environ, start_response):
        bodies.append(environ["wsgi.input"].read())
        start_response("200 OK", [])
        return [b"ok"]

    server = await pagi_serve(app)
    async with raw(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\n" + framing)
        await trio.testing.wait_all_tasks_blocked()
    async with raw(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nwhole")
        assert (await client.read_response())[2] == b"ok"
    assert bodies == [b"whole"]
    assert server.metrics.value("pagi_server_app_errors_total", scope="http") == 0
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("framing", [b"Content-Length: 11\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\nb\r\n"])
async def test_a_body_over_the_limit_is_refused_with_413_rfc9110_15_5_14(pagi_serve, raw, framing):
    called = []

    def app(environ, start_response):
        called.append(environ)
        start_response("200 OK", [])
        return [b"ok"]

    server = await pagi_serve(app, wsgi_body_max_bytes=10)
    async with raw(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\n" + framing + b"12345678901")
        assert (await client.read_response())[0] == 413
    assert called == []


async def test_a_body_at_the_limit_is_taken(pagi_serve, raw, app):
    server = await pagi_serve(app, wsgi_body_max_bytes=10)
    async with raw(server) as client:
        for _ in range(2):
            await client.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n1234567890")
            assert (await client.read_response())[2] == b"1234567890"


async def test_a_websocket_is_refused(pagi_serve, app, raw):
    server = await pagi_serve(app)
    async with raw(server) as client:
        await client.send(
            b"GET /plain HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert (await client.read_response())[0] == 403


async def test_the_first_part_arrives_while_the_app_makes_the_second(pagi_serve, raw):
    go_on = threading.Event()

    def app(environ, start_response):
        def parts():
            yield b"first"
            assert go_on.wait(5)
            yield b"second"

        start_response("200 OK", [])
        return parts()

    server = await pagi_serve(app)
    async with raw(server) as client:
        await client.send(GET % b"/")
        await client.read_head()
        assert await client.read_until(b"\r\nfirst\r\n") == b"5"
        go_on.set()
        assert await client.read_until(b"0\r\n\r\n") == b"6\r\nsecond\r\n"


async def test_a_server_sent_stream_counts_its_events(pagi_serve, app):
    @app.get("/events")
    def events():
        return flask.Response((f"data: {number}\n\n" for number in range(10)), mimetype="text/event-stream")

    server = await pagi_serve(app)
    async with one_connection(server) as client:
        body = (await client.get("/events")).content
        assert body.count(b"data: ") == 10
        assert server.metrics.value("pagi_sse_events_sent_total") == 10
        assert server.metrics.value("pagi_sse_bytes_sent_total") == len(body)
        assert (await client.get("/plain")).status_code == 200
