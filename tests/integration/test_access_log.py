"""The access log: one line in the common log format for each response."""

from __future__ import annotations

import fcntl
import io
import os
import re
import signal
import sys
import threading
from time import perf_counter

import pytest
import trio
import trio.testing

from pagi_trio import testing
from pagi_trio.errors import ConfigError
from pagi_trio.nurseries.access import AccessLog
from pagi_trio.nurseries.connection import READ_AHEAD_BYTES
from pagi_trio.wire.head import RequestLine
from tests.integration.embedded import serving

from .conftest import RawClient, hello, respond, until

pytestmark = pytest.mark.trio

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
OPENING = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
LINE = re.compile(
    r'(?P<host>\S+) - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "(?P<request>[^"]*)" (?P<status>\d{3})'
    r" (?P<size>\d+) (?P<seconds>\d+\.\d{6})"
)


def lines(path):
    """Return host, request, status and size of every line, each checked to be one."""
    matches = [LINE.fullmatch(line) for line in path.read_text("utf-8").splitlines()]
    assert None not in matches, path.read_text("utf-8")
    assert all(float(match["seconds"]) < 60 for match in matches)
    return [(match["host"], match["request"], int(match["status"]), int(match["size"])) for match in matches]


@pytest.fixture
def log(tmp_path):
    return tmp_path / "access.log"


async def exchange(server, raw, *requests):
    """Send requests one after another, each on a connection of its own; return their statuses."""
    statuses = []
    for request in requests:
        async with raw(server) as client:
            await client.send(request)
            statuses.append((await client.read_head())[0])
            await client.read_to_end()
    return statuses


def get(path, *, method=b"GET", version=b"1.1"):
    return method + b" " + path + b" HTTP/" + version + b"\r\nHost: x\r\nConnection: close\r\n\r\n"


async def test_a_line_for_each_response_with_its_body_bytes(raw, log):
    async def app(scope, receive, send):
        if scope["path"] == "/parts":
            await send({"type": "http.response.start", "status": 201, "headers": []})
            for part in (b"one", b"", b"three"):
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body"})
        else:
            await respond(send, b"hello", status=404)

    async with testing.serve(app, lifespan="off", access_log=str(log)) as server:
        await exchange(server, raw, get(b"/a%20b?c=%22"), get(b"/parts", version=b"1.0"), get(b"/", method=b"POST"))
    assert lines(log) == [
        ("127.0.0.1", "GET /a%20b?c=%22 HTTP/1.1", 404, 5),
        ("127.0.0.1", "GET /parts HTTP/1.0", 201, 8),
        ("127.0.0.1", "POST / HTTP/1.1", 404, 5),
    ]


async def test_a_response_to_head_has_no_bytes(raw, log):
    async with testing.serve(hello, lifespan="off", access_log=str(log)) as server:
        await exchange(server, raw, get(b"/", method=b"HEAD"))
    assert lines(log) == [("127.0.0.1", "HEAD / HTTP/1.1", 200, 0)]


async def test_nothing_that_a_client_sends_makes_a_line_of_its_own(raw, log):
    async with testing.serve(hello, lifespan="off", access_log=str(log)) as server:
        assert await exchange(server, raw, get(b'/"%0a"\\'), get(b'/?"200"')) == [200, 200]
    assert [request for _, request, _, _ in lines(log)] == ["GET /%22%0a%22\\ HTTP/1.1", "GET /?%22200%22 HTTP/1.1"]


async def test_the_servers_own_answers_have_their_lines_too(raw, log, caplog):
    async def app(scope, receive, send):
        if scope["path"] == "/fails":
            raise ValueError("broken")

    async with testing.serve(app, raise_app_exceptions=False, lifespan="off", access_log=str(log)) as server:
        assert await exchange(server, raw, get(b"/fails"), get(b"/silent")) == [500, 500]
    assert [(request, status) for _, request, status, _ in lines(log)] == [
        ("GET /fails HTTP/1.1", 500),
        ("GET /silent HTTP/1.1", 500),
    ]


@pytest.mark.parametrize(
    ("body", "status", "size"), [([], 500, 22), ([{"body": b"abc", "more_body": True}], 401, 3), ([{}], 401, 0)]
)
async def test_a_denied_handshake_has_one_line_whatever_its_application_leaves_undone(raw, log, body, status, size):
    async def app(scope, receive, send):
        await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
        for part in body:
            await send({"type": "websocket.http.response.body", **part})

    async with testing.serve(app, raise_app_exceptions=False, lifespan="off", access_log=str(log)) as server:
        assert await exchange(server, raw, OPENING) == [status]
    assert lines(log) == [("127.0.0.1", "GET / HTTP/1.1", status, size)]


async def test_an_accepted_handshake_has_its_line_as_soon_as_it_is_answered(raw, log):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await receive()

    async with testing.serve(app, lifespan="off", access_log=str(log)) as server, raw(server) as client:
        await client.send(OPENING)
        assert (await client.read_head())[0] == 101
        with trio.fail_after(10):
            while not log.read_text():
                await trio.sleep(0.01)
    assert lines(log) == [("127.0.0.1", "GET / HTTP/1.1", 101, 0)]


async def test_a_client_that_leaves_before_its_handshake_is_answered_has_its_line(raw, log):
    async def app(scope, receive, send):
        await receive()
        arrived.set()
        assert (await receive())["type"] == "websocket.disconnect"

    arrived = trio.Event()
    async with testing.serve(app, lifespan="off", access_log=str(log)) as server, raw(server) as client:
        await client.send(OPENING)
        await arrived.wait()
    assert lines(log) == [("127.0.0.1", "GET / HTTP/1.1", 499, 0)]


async def test_a_client_that_left_before_its_handshake_was_answered_has_no_second_line_when_the_server_stops(raw, log):
    async def app(scope, receive, send):
        while (await receive())["type"] != "websocket.disconnect":
            pass
        left.set()
        await stopping.wait()

    left, stopping = trio.Event(), trio.Event()
    async with testing.serve(app, lifespan="off", access_log=str(log)) as server:
        async with raw(server) as client:
            await client.send(OPENING)
        await left.wait()
        server.handle.shutdown()
        await trio.testing.wait_all_tasks_blocked()
        stopping.set()
    assert lines(log) == [("127.0.0.1", "GET / HTTP/1.1", 499, 0)]
    assert server.metrics.value("pagi_websocket_handshakes_total", outcome="abandoned") == 1
    assert server.metrics.value("pagi_server_connections_closed_total", reason="client_closed") == 1


async def test_the_seconds_of_a_denied_handshake_begin_with_its_head(raw, log, autojump_clock, monkeypatch):
    async def app(scope, receive, send):
        await trio.sleep(3)
        await send({"type": "websocket.close"})

    for module in ("access", "exchange", "opening"):
        monkeypatch.setattr(f"pagi_trio.nurseries.{module}.perf_counter", trio.current_time)
    async with serving(app, lifespan="off", access_log=str(log)) as server:
        await exchange(server, raw, OPENING)
    assert LINE.fullmatch(log.read_text().rstrip("\n"))["seconds"] == "3.000000"


async def test_a_body_whose_last_send_was_cancelled_counts_as_it_leaves(raw, log):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with trio.CancelScope() as sending:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, {"type": "http.response.body", "body": body})
                await trio.testing.wait_all_tasks_blocked()
                sending.cancel()
        assert sending.cancelled_caught
        cancelled.set()

    cancelled = trio.Event()
    # More than the kernel takes.
    body = bytes(20_000_000)
    async with testing.serve(app, lifespan="off", access_log=str(log)) as server, raw(server) as client:
        await client.send(GET)
        await cancelled.wait()
        assert (await client.read_response())[2] == body
    assert lines(log) == [("127.0.0.1", "GET / HTTP/1.1", 200, len(body))]


async def test_a_response_has_one_line_though_its_application_does_not_wait_for_its_last_send(raw, log):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        nursery.start_soon(send, {"type": "http.response.body", "body": body})
        await trio.testing.wait_all_tasks_blocked()
        returned.set()

    returned = trio.Event()
    # More than the kernel takes.
    body = bytes(20_000_000)
    async with (
        testing.serve(app, lifespan="off", access_log=str(log)) as server,
        trio.open_nursery() as nursery,
        raw(server) as client,
    ):
        await client.send(GET)
        await returned.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert (await client.read_response())[2] == body
    assert lines(log) == [("127.0.0.1", "GET / HTTP/1.1", 200, len(body))]


async def test_a_handshake_that_the_server_refuses_has_its_line(raw, log):
    async def app(scope, receive, send):
        while (await receive())["type"] != "websocket.disconnect":
            arrived.set()

    arrived = trio.Event()
    async with testing.serve(app, lifespan="off", access_log=str(log)) as server:
        async with raw(server) as client:
            # More than is kept of what comes too early.
            await client.send(OPENING.replace(b"GET /", b"GET /early", 1) + bytes(2 * READ_AHEAD_BYTES))
            assert (await client.read_head())[0] == 400
        assert await exchange(server, raw, OPENING.replace(b"dGhlIH", b"", 1)) == [400]
        arrived = trio.Event()
        async with raw(server) as client:
            await client.send(OPENING.replace(b"GET /", b"GET /late", 1))
            await arrived.wait()
            server.handle.shutdown()
            assert (await client.read_head())[0] == 503
    assert [(request, status) for _, request, status, _ in lines(log)] == [
        ("GET /early HTTP/1.1", 400),
        ("GET / HTTP/1.1", 400),
        ("GET /late HTTP/1.1", 503),
    ]


async def test_pipelined_requests_have_a_line_each_in_order(raw, log):
    async with testing.serve(hello, lifespan="off", access_log=str(log)) as server, raw(server) as client:
        await client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(50)))
        for _ in range(50):
            await client.read_response()
    assert [request for _, request, _, _ in lines(log)] == [f"GET /{n} HTTP/1.1" for n in range(50)]


async def test_lines_are_written_while_the_server_runs(raw, log):
    async with testing.serve(hello, lifespan="off", access_log=str(log)) as server, raw(server) as client:
        await client.send(GET)
        await client.read_response()
        with trio.fail_after(10):
            while not log.read_text():
                await trio.sleep(0.01)
        assert len(lines(log)) == 1


async def test_a_log_is_added_to(raw, log):
    for _ in range(2):
        async with testing.serve(hello, lifespan="off", access_log=str(log)) as server:
            await exchange(server, raw, get(b"/"))
    assert len(lines(log)) == 2


async def test_a_unix_client_has_no_address(log, tmp_path):
    path = str(tmp_path / "app.sock")
    bind = (f"unix:{path}",)
    async with (
        testing.serve(hello, lifespan="off", access_log=str(log), bind=bind),
        await trio.open_unix_socket(path) as stream,
    ):
        await stream.send_all(GET)
        await RawClient(stream).read_response()
    assert [host for host, *_ in lines(log)] == ["-"]


@pytest.mark.parametrize(
    ("stdout", "what"), [(None, "is closed"), (io.StringIO(), "is StringIO, which takes no bytes")]
)
async def test_a_dash_without_a_standard_output_to_write_to_is_an_error_that_says_so(monkeypatch, stdout, what):
    monkeypatch.setattr(sys, "stdout", stdout)
    with pytest.raises(ConfigError, match=f"^access_log: cannot write to '-': standard output {what}; name a file$"):
        async with testing.serve(hello, lifespan="off", access_log="-"):
            pass


async def test_a_dash_is_standard_output_and_leaves_it_open(raw, capsys):
    async with testing.serve(hello, lifespan="off", access_log="-") as server:
        await exchange(server, raw, get(b"/"))
    assert LINE.fullmatch(capsys.readouterr().out.rstrip("\n"))
    print("still open")
    assert capsys.readouterr().out == "still open\n"


async def test_a_standard_output_that_the_application_closes_costs_the_lines_and_not_the_server(
    raw, monkeypatch, caplog
):
    async def app(scope, receive, send):
        sys.stdout.close()
        await respond(send)

    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
    async with testing.serve(app, lifespan="off", access_log="-") as server:
        await exchange(server, raw, get(b"/"))
        # By the reaper, which everybody needs.
        await until(lambda: caplog.messages)
        await exchange(server, raw, get(b"/"))
    assert caplog.messages == ["cannot write the access log, lines are lost: I/O operation on closed file."]


async def test_without_the_setting_nothing_is_written(raw, capsys):
    async with testing.serve(hello, lifespan="off") as server:
        await exchange(server, raw, get(b"/"))
    assert capsys.readouterr().out == ""


async def test_no_line_is_lost_where_a_signal_ends_the_wait_for_the_reader_of_a_pipe(tmp_path, monkeypatch):
    def read():
        received.append(os.read(pipe, 4096))
        # Less than the lines: so the log waits for the pipe, or is about to.
        signal.pthread_kill(main, signal.SIGUSR1)
        while data := os.read(pipe, 65536):
            received.append(data)

    path = tmp_path / "pipe"
    os.mkfifo(path)
    pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(pipe, True)
    received = []
    main = threading.get_ident()
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    reader = threading.Thread(target=read)
    try:
        with AccessLog(str(path)) as log:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
            for number in range(1000):
                log.add(None, None, 200, number, 0.0)
            reader.start()
        reader.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
        os.close(pipe)
    text = b"".join(received).decode()
    assert [int(LINE.fullmatch(line)["size"]) for line in text.splitlines()] == list(range(1000))


async def test_a_log_that_cannot_be_written_is_named(tmp_path):
    target = str(tmp_path / "missing" / "access.log")
    with pytest.raises(ConfigError) as caught:
        async with testing.serve(hello, lifespan="off", access_log=target):
            raise AssertionError("it must not start")
    assert str(caught.value) == f"access_log: cannot write to {target!r}: No such file or directory"


async def test_long_lines_are_written_before_they_take_much_memory(log):
    target = b"/?" + b"a" * 8000
    line = RequestLine("GET", "/", b"/", target[2:], "1.1", None, None)
    with AccessLog(str(log)) as access:
        for _ in range(20):
            access.add(("127.0.0.1", 1), line, 200, 0, perf_counter())
        assert len(log.read_bytes()) > 15 * len(target)
    assert len(lines(log)) == 20
