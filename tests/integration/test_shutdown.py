"""Shutdown while clients are there: what is in flight ends, what is idle is closed, and all of it has a bound.

Most tests run on Trio's autojump clock: what takes seconds then takes none, and how long it took is exact.
"""

from __future__ import annotations

import logging
import os
import socket
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tests.integration.embedded import serving

from .conftest import hello, respond
from .test_websocket import HANDSHAKE, frame, open_websocket, read_frame

pytestmark = pytest.mark.trio

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
CLOSE_1001 = (0x88, (1001).to_bytes(2, "big"))

GRACEFUL_S = 3
LIFESPAN_S = 1
TIMEOUTS = {"graceful_s": GRACEFUL_S, "shutdown_s": LIFESPAN_S}

STATES = ("tls", "head", "app", "idle", "websocket", "sse", "http2", "closing")


class Watched:
    """A server, and when it was first told to stop."""

    def __init__(self, served):
        self.port = served.port
        self.metrics = served.metrics
        self.handle = served.handle
        self.began = None

    def stop(self):
        self.began = trio.current_time() if self.began is None else self.began
        self.handle.shutdown()

    def abort(self):
        self.began = trio.current_time() if self.began is None else self.began
        self.handle.abort()

    @property
    def seconds(self):
        return trio.current_time() - self.began


@asynccontextmanager
async def stopped_within(app, limit_s, **config):
    """Serve for the length of the block; check that the server, once told to stop, ends in time and leaves nothing."""
    with trio.fail_after(60):
        async with serving(app, **{"timeouts": TIMEOUTS, **config}) as served:
            server = Watched(served)
            yield server
            server.stop()
        assert server.seconds <= limit_s
    assert_all_gone(server)


def assert_all_gone(server):
    value = server.metrics.value
    active = {what: value(f"pagi_{what}_connections_active") for what in ("server", "websocket", "sse")}
    active |= {state: value("pagi_server_connections_by_state", state=state) for state in STATES}
    active["workers"] = value("pagi_server_workers_active")
    assert not any(active.values()), active


async def settle():
    """Let everything that has arrived be taken in."""
    await trio.testing.wait_all_tasks_blocked()


async def is_refused(server):
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    except OSError:
        return True
    await stream.aclose()
    return False


class InFlight:
    """An application that answers when it is told to, and tells when it has been called."""

    def __init__(self):
        self.called = trio.Event()
        self.go = trio.Event()

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError("only http")
        self.called.set()
        await self.go.wait()
        await respond(send, b"done")


# HTTP


async def test_idle_connections_are_closed_at_once(raw, autojump_clock):
    async with stopped_within(hello, 0) as server, raw(server) as used, raw(server) as fresh:
        await used.send(GET)
        assert (await used.read_response())[2] == b"hello"
        await settle()
        server.stop()
        assert await used.read_to_end() == b""
        assert await fresh.read_to_end() == b""


async def test_a_request_in_flight_is_answered_and_the_connection_closed_rfc9112_9_6(raw, autojump_clock):
    app = InFlight()
    async with stopped_within(app, 0) as server, raw(server) as client:
        await client.send(GET)
        await app.called.wait()
        server.stop()
        await settle()
        app.go.set()
        status, headers, body = await client.read_response()
        assert (status, headers[b"connection"], body) == (200, b"close", b"done")
        assert await client.read_to_end() == b""


async def test_a_response_that_has_begun_is_finished(raw, autojump_clock):
    go = trio.Event()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first ", "more_body": True})
        await go.wait()
        await send({"type": "http.response.body", "body": b"second"})

    async with stopped_within(app, 0, lifespan="off") as server, raw(server) as client:
        await client.send(GET)
        status, _ = await client.read_head()
        assert (status, await client.read_until(b"first \r\n")) == (200, b"6\r\n")
        server.stop()
        await settle()
        go.set()
        assert await client.read_to_end() == b"6\r\nsecond\r\n0\r\n\r\n"


async def test_an_upload_in_flight_is_taken_to_its_end(raw, autojump_clock):
    called = trio.Event()

    async def app(scope, receive, send):
        body = b""
        more = True
        while more:
            called.set()
            message = await receive()
            assert message["type"] == "http.request"
            body += message["body"]
            more = message["more_body"]
        await respond(send, body)

    async with stopped_within(app, 0, lifespan="off") as server, raw(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nfirst")
        await called.wait()
        server.stop()
        await settle()
        await client.send(b"final")
        assert (await client.read_response())[2] == b"firstfinal"
        assert await client.read_to_end() == b""


# Several times, since Trio shuffles which of the two the server takes in first.
@pytest.mark.parametrize("_time", range(4))
@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("used", [True, False])
async def test_a_request_that_waits_in_the_socket_is_still_answered(raw, autojump_clock, used, turns, _time):
    """A request that comes some turns of Trio's loop after the stop, but before its connection is closed."""
    async with stopped_within(hello, 0) as server, raw(server) as client:
        if used:
            await client.send(GET)
            await client.read_response()
        if not await is_open_after(server, client, turns):
            return
        await client.send(GET)
        status, _, body = await client.read_response()
        assert (status, body) == (200, b"hello")
        assert await client.read_to_end() == b""


async def is_open_after(server, client, turns):
    """Stop the server, and return whether it has not closed a connection some turns later; no checkpoint since then."""
    await settle()
    server.stop()
    for _ in range(turns):
        await trio.lowlevel.checkpoint()
    if is_closed(client):
        assert turns
        return False
    return True


def is_closed(client):
    """Whether the server has closed; without waiting."""
    with socket.socket(fileno=os.dup(client.stream.socket.fileno())) as twin:
        twin.setblocking(False)
        try:
            return twin.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False


# Several times, since Trio shuffles which of the two the server takes in first.
@pytest.mark.parametrize("_time", range(4))
@pytest.mark.parametrize("turns", range(4))
async def test_empty_lines_that_wait_in_the_socket_hold_nothing_up_rfc9112_2_2(raw, autojump_clock, turns, _time):
    async with stopped_within(hello, 0) as server, raw(server) as client:
        await client.send(GET)
        await client.read_response()
        if not await is_open_after(server, client, turns):
            return
        await client.send(b"\r\n\r\n")
        assert await client.read_to_end() == b""


async def test_a_request_that_is_half_here_has_its_deadline_to_become_whole(raw, autojump_clock):
    async with stopped_within(hello, GRACEFUL_S) as server, raw(server) as client:
        await client.send(GET[:10])
        await settle()
        server.stop()
        await settle()
        await client.send(GET[10:])
        _, headers, body = await client.read_response()
        assert (headers[b"connection"], body) == (b"close", b"hello")


async def test_a_request_that_stays_half_here_is_cut_off_within_the_graceful_timeout(raw, autojump_clock):
    async with stopped_within(hello, GRACEFUL_S) as server, raw(server) as client:
        await client.send(GET[:10])
        await settle()
        server.stop()
        assert await client.read_to_end() == b""


async def test_of_pipelined_requests_only_the_one_in_flight_is_answered(raw, autojump_clock):
    app = InFlight()
    async with stopped_within(app, 0) as server, raw(server) as client:
        await client.send(GET * 3)
        await app.called.wait()
        server.stop()
        await settle()
        app.go.set()
        _, headers, body = await client.read_response()
        assert (headers[b"connection"], body) == (b"close", b"done")
        # RFC 9112 section 9.3.2: what follows a close is not answered, and the client may send it again.
        assert await client.read_to_end() == b""


# Several times, since Trio shuffles which of the two goes on first where the connection lets others run.
@pytest.mark.parametrize("_time", range(6))
async def test_what_was_answered_before_the_stop_is_not_reset_by_what_is_pipelined_behind_it_rfc9112_9_6(
    raw, autojump_clock, _time
):
    answered = 0

    async def app(scope, receive, send):
        nonlocal answered
        await receive()
        answered += 1
        if answered == 1:
            server.stop()
        await respond(send, b"x")

    # With more than fits into the buffers, and than is answered before others get to run.
    async with stopped_within(app, 0, lifespan="off") as server, raw(server) as client:
        await client.send(GET * 10_000)
        await client.stream.send_eof()
        answers = await client.read_to_end()
        assert answers.count(b"HTTP/1.1 200 OK") == answered > 1


async def test_new_connections_are_refused_while_the_server_drains(raw, autojump_clock):
    app = InFlight()
    async with stopped_within(app, 0) as server, raw(server) as client:
        await client.send(GET)
        await app.called.wait()
        assert not await is_refused(server)
        server.stop()
        await settle()
        assert await is_refused(server)
        app.go.set()
        assert (await client.read_response())[2] == b"done"


async def test_a_background_task_is_waited_for(raw, autojump_clock):
    events = []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            events.append((await receive())["type"])
            await send({"type": "lifespan.shutdown.complete"})
            return
        await respond(send, b"done")
        await trio.sleep(2)
        events.append("background")

    async with stopped_within(app, 2) as server, raw(server) as client:
        await client.send(GET)
        assert (await client.read_response())[2] == b"done"
        server.stop()
        # The client need not wait for it.
        assert await client.read_to_end() == b""
        assert events == []
    assert events == ["background", "lifespan.shutdown"]


async def test_the_metrics_count_down_as_connections_end(raw, autojump_clock):
    app = InFlight()
    async with stopped_within(app, 0) as server, raw(server) as busy, raw(server):
        await busy.send(GET)
        await app.called.wait()
        await settle()
        assert server.metrics.value("pagi_server_connections_active") == 2
        server.stop()
        await settle()
        assert server.metrics.value("pagi_server_connections_active") == 1
        assert server.metrics.value("pagi_server_connections_by_state", state="app") == 1
        app.go.set()
        assert (await busy.read_response())[2] == b"done"
        await settle()
        assert server.metrics.value("pagi_server_connections_active") == 0


# WebSocket


async def test_a_websocket_gets_a_close_1001_and_its_application_the_reason_rfc6455_7_4_1(raw, autojump_clock):
    disconnects = []

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        disconnects.append(await receive())

    async with stopped_within(app, 0, lifespan="off") as server, raw(server) as client:
        await open_websocket(client)
        server.stop()
        assert await read_frame(client) == CLOSE_1001
        await client.send(frame(8, CLOSE_1001[1]))
        assert await client.read_to_end() == b""
    assert disconnects == [{"type": "websocket.disconnect", "code": 1001, "reason": "server_shutdown"}]


async def test_a_websocket_that_sends_on_gets_an_oserror_asgi_2_4(raw, autojump_clock):
    caught = []

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        try:
            while True:
                await trio.sleep(0.1)
                await send({"type": "websocket.send", "text": ""})
        except OSError as error:
            caught.append(str(error))
            raise

    async with stopped_within(app, GRACEFUL_S, lifespan="off") as server, raw(server) as client:
        await open_websocket(client)
        server.stop()
        assert await read_frame(client) == CLOSE_1001
    assert caught == ["the client has left (server_shutdown)"]
    assert server.metrics.value("pagi_server_app_errors_total", scope="websocket") == 0


async def test_a_websocket_whose_client_does_not_answer_the_close_is_not_waited_for_long(raw, autojump_clock):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await receive()

    async with stopped_within(app, GRACEFUL_S, lifespan="off") as server, raw(server) as client:
        await open_websocket(client)
        server.stop()
        assert await read_frame(client) == CLOSE_1001
        assert await client.read_to_end() == b""


async def test_a_handshake_in_progress_is_refused_with_503(raw, autojump_clock, caplog):
    called = trio.Event()
    disconnects = []

    async def app(scope, receive, send):
        await receive()
        called.set()
        disconnects.append(await receive())

    async with stopped_within(app, GRACEFUL_S, lifespan="off") as server, raw(server) as client:
        await client.send(HANDSHAKE % b"")
        await called.wait()
        server.stop()
        assert (await client.read_response())[0] == 503
        assert await client.read_to_end() == b""
    assert disconnects == [{"type": "websocket.disconnect", "code": 1006, "reason": "server_shutdown"}]
    # It is none of the application's errors.
    assert [server.metrics.value("pagi_server_app_errors_total", scope=kind) for kind in ("http", "websocket")] == [
        0,
        0,
    ]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_websocket_application_that_ignores_its_disconnect_is_cancelled(raw, autojump_clock):
    ended = []

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    async with stopped_within(app, GRACEFUL_S, lifespan="off") as server, raw(server) as client:
        await open_websocket(client)
        server.stop()
        assert await read_frame(client) == CLOSE_1001
    assert ended[0] - server.began == pytest.approx(GRACEFUL_S)


# Event streams


def event_stream(events, then):
    """Return an application that streams one event and then does what it is given, noting what happens when."""

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            events.append((await receive())["type"])
            await send({"type": "lifespan.shutdown.complete"})
            return
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        try:
            await then(receive, send)
        finally:
            events.append("cleaned up")

    return app


async def open_stream(client):
    await client.send(GET)
    assert (await client.read_head())[0] == 200
    await client.read_until(b"data: 1\n\n\r\n")


async def sleep_forever(receive, send):
    await trio.sleep_forever()


async def test_a_stream_whose_application_does_nothing_is_cancelled_and_cleans_up_before_lifespan_shutdown(
    raw, autojump_clock
):
    events = []
    async with stopped_within(event_stream(events, sleep_forever), 1) as server, raw(server) as client:
        await open_stream(client)
        assert server.metrics.value("pagi_sse_connections_active") == 1
        server.stop()
        # It ends as a response that is whole, so that a browser connects again instead of reporting an error.
        assert await client.read_to_end() == b"0\r\n\r\n"
    assert events == ["cleaned up", "lifespan.shutdown"]


async def test_a_stream_that_waits_for_its_disconnect_ends_at_once(raw, autojump_clock):
    events = []

    async def wait(receive, send):
        events.append((await receive())["type"])

    async with stopped_within(event_stream(events, wait), 0) as server, raw(server) as client:
        await open_stream(client)
        server.stop()
        assert await client.read_to_end() == b"0\r\n\r\n"
    assert events == ["http.disconnect", "cleaned up", "lifespan.shutdown"]


@pytest.mark.parametrize("is_late", [False, True], ids=["started_before", "started_after"])
async def test_a_stream_that_had_no_event_yet_is_answered_all_the_same(raw, autojump_clock, is_late):
    async def app(scope, receive, send):
        called.set()
        if is_late:
            await stopping.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        while (await receive())["type"] != "http.disconnect":
            pass

    called, stopping = trio.Event(), trio.Event()
    async with stopped_within(app, 0.25, lifespan="off") as server, raw(server) as client:
        await client.send(GET)
        await called.wait()
        server.stop()
        await settle()
        stopping.set()
        status, headers, body = await client.read_response()
        assert (status, headers[b"content-type"], body) == (200, b"text/event-stream", b"")
        assert await client.read_to_end() == b""


async def test_a_stream_is_told_why_it_ends(raw, autojump_clock):
    disconnects = []

    async def wait(receive, send):
        disconnects.append(await receive())

    async with stopped_within(event_stream([], wait), 0) as server, raw(server) as client:
        await open_stream(client)
        server.stop()
        await client.read_to_end()
    assert disconnects == [{"type": "http.disconnect", "reason": "server_shutdown"}]


async def test_a_stream_that_sends_on_gets_an_oserror_asgi_2_4(raw, autojump_clock):
    events = []

    async def send_on(receive, send):
        try:
            while True:
                await trio.sleep(0.1)
                await send({"type": "http.response.body", "body": b": still\n\n", "more_body": True})
        except OSError as error:
            events.append(str(error))
            # As an application does that has no use for it; it is none of its errors.
            raise

    async with stopped_within(event_stream(events, send_on), 1) as server, raw(server) as client:
        await open_stream(client)
        server.stop()
        await client.read_to_end()
    assert events == ["the client has left (server_shutdown)", "cleaned up", "lifespan.shutdown"]
    assert server.metrics.value("pagi_server_app_errors_total", scope="sse") == 0


async def test_the_cleanup_of_a_stream_may_take_its_time_before_lifespan_shutdown(raw, autojump_clock):
    events = []

    async def clean_up_slowly(receive, send):
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(1, shield=True):
                await trio.sleep_forever()
            events.append("slow")

    async with stopped_within(event_stream(events, clean_up_slowly), GRACEFUL_S) as server, raw(server) as client:
        await open_stream(client)
        server.stop()
        await client.read_to_end()
    assert events == ["slow", "cleaned up", "lifespan.shutdown"]


# The bound


async def test_an_application_that_ignores_everything_is_cancelled_after_the_graceful_timeout(
    raw, autojump_clock, caplog
):
    ended = []
    called = trio.Event()

    async def app(scope, receive, send):
        called.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    async with stopped_within(app, GRACEFUL_S, lifespan="off") as server, raw(server) as client:
        await client.send(GET)
        await called.wait()
        server.stop()
        await client.read_to_end()
    assert ended[0] - server.began == pytest.approx(GRACEFUL_S)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_the_whole_is_bounded_by_both_timeouts_and_a_second(raw, autojump_clock):
    """Every protocol at once, each application ignoring whatever it can, and a lifespan that hangs."""

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
        elif scope["path"] == "/background":
            await respond(send)
        elif scope["path"] == "/stream":
            await send(
                {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
            )
            await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        try:
            await trio.sleep_forever()
        finally:
            # A cleanup that does not mind being cancelled either, for a while.
            with trio.move_on_after(0.4, shield=True):
                await trio.sleep_forever()

    async with (
        stopped_within(app, GRACEFUL_S + LIFESPAN_S + 1) as server,
        raw(server) as idle,
        raw(server) as silent,
        raw(server) as background,
        raw(server) as stream,
        raw(server) as websocket,
    ):
        await silent.send(GET)
        await background.send(b"GET /background HTTP/1.1\r\nHost: x\r\n\r\n")
        await background.read_response()
        await stream.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        await stream.read_head()
        await open_websocket(websocket)
        await settle()
        server.stop()
        assert await idle.read_to_end() == b""
    assert server.metrics.value("pagi_server_lifespan_failures_total", phase="shutdown") == 1


async def test_a_client_that_reads_nothing_does_not_hold_the_server_up(raw, autojump_clock):
    called = trio.Event()

    async def app(scope, receive, send):
        called.set()
        await respond(send, bytes(64 * 1024 * 1024))

    async with stopped_within(app, GRACEFUL_S, lifespan="off") as server, raw(server) as client:
        await client.send(GET)
        await called.wait()
        await settle()
        server.stop()


async def test_a_graceful_timeout_of_zero_cancels_at_once(raw, autojump_clock):
    app = InFlight()
    async with stopped_within(app, 0, timeouts={"graceful_s": 0}) as server, raw(server) as client:
        await client.send(GET)
        await app.called.wait()
        server.stop()
        assert await client.read_to_end() == b""


async def test_shutdown_may_be_called_again_and_after_the_end(raw, autojump_clock):
    app = InFlight()
    async with stopped_within(app, 0) as server, raw(server) as client:
        await client.send(GET)
        await app.called.wait()
        server.stop()
        await settle()
        server.stop()
        app.go.set()
        assert (await client.read_response())[2] == b"done"
    server.stop()
    server.abort()


async def test_a_scraper_that_keeps_its_connection_does_not_hold_the_server_up(raw, autojump_clock):
    pytest.importorskip("prometheus_client")
    async with stopped_within(hello, 0, metrics={"bind": "127.0.0.1:0"}) as server:
        [page] = server.handle.metrics_urls
        host, _, port = page.removeprefix("http://").rpartition(":")
        async with await trio.open_tcp_stream(host, int(port)) as scraper:
            await scraper.send_all(GET)
            assert (await scraper.receive_some()).startswith(b"HTTP/1.1 200 ")
            server.stop()
            while await scraper.receive_some():
                pass


# Abort


@pytest.mark.parametrize("graceful_first", [True, False])
async def test_abort_ends_everything_at_once(raw, autojump_clock, caplog, graceful_first):
    caplog.set_level(logging.INFO, "pagi_trio")
    ended = []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
        try:
            await trio.sleep_forever()
        finally:
            ended.append(scope["type"])

    async with stopped_within(app, 0) as server, raw(server) as http, raw(server) as websocket:
        await http.send(GET)
        await open_websocket(websocket)
        await settle()
        if graceful_first:
            server.stop()
            await settle()
        server.abort()
        assert await http.read_to_end() == b""
        await websocket.read_to_end()
    assert sorted(ended) == ["http", "lifespan", "websocket"]
    assert not [message for message in caplog.messages if "did not answer within" in message]


# Several times, since Trio shuffles whether the application or who waits for it goes first.
@pytest.mark.parametrize("_time", range(6))
async def test_abort_does_not_wait_for_a_lifespan_shutdown_in_progress(autojump_clock, caplog, _time):
    stopping = trio.Event()

    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        stopping.set()
        await trio.sleep_forever()

    async with stopped_within(app, 0) as server:
        server.stop()
        await stopping.wait()
        server.abort()
    # It was not given its second, so it must not be said that it took too long.
    assert not [message for message in caplog.messages if "did not answer within" in message]
