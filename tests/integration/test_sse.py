"""Event streams over real sockets: what is one, what is counted, and how they end (WHATWG HTML section 9.2)."""

from __future__ import annotations

import socket
import struct

import pytest
import trio

from pagi_trio import testing
from pagi_trio.nurseries.sse import CANCEL_AFTER_S

from .conftest import read_body, respond, until

pytestmark = pytest.mark.trio

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
STREAM = (b"content-type", b"text/event-stream")
EVENT = b"data: x\n\n"


async def start_stream(send, *headers):
    await send({"type": "http.response.start", "status": 200, "headers": headers or [STREAM]})


async def send_part(send, data, *, more=True):
    await send({"type": "http.response.body", "body": data, "more_body": more})


def streaming(*parts):
    """Return an application that sends these parts as an event stream and ends it."""

    async def app(scope, receive, send):
        await start_stream(send)
        for part in parts:
            await send_part(send, part)
        await send_part(send, b"", more=False)

    return app


def counted(server):
    """Return the streams, events and bytes on the page."""
    names = ("connections_total", "events_sent_total", "bytes_sent_total")
    return tuple(server.metrics.value(f"pagi_sse_{name}") for name in names)


class Held:
    """An application that opens a stream, sends one event and sleeps until it is cancelled.

    Attributes:
        opened: Set once the event has been sent.
        cancelled: Set once it has been cancelled.
    """

    def __init__(self):
        self.opened = trio.Event()
        self.cancelled = trio.Event()

    async def __call__(self, scope, receive, send):
        await start_stream(send)
        await send_part(send, EVENT)
        self.opened.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            self.cancelled.set()
            raise


# What is one


@pytest.mark.parametrize(
    "headers",
    [
        [STREAM],
        [(b"Content-Type", b"Text/Event-Stream")],
        [(b"content-type", b"text/event-stream;charset=utf-8")],
        [(b"content-type", b" text/event-stream ; a=b")],
        [STREAM, (b"content-encoding", b"identity")],
        [STREAM, (b"content-length", b"9")],
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"POST", b"PUT"])
async def test_a_200_of_the_type_is_a_stream_whatever_its_method_and_spelling(pagi_serve, raw, method, headers):
    async def app(scope, receive, send):
        await respond(send, EVENT, headers=headers)

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(method + b" / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.read_response())[2] == EVENT
    assert counted(server) == (1, 1, len(EVENT))


@pytest.mark.parametrize(
    ("method", "status", "content_type"),
    [
        (b"HEAD", 200, b"text/event-stream"),
        (b"GET", 201, b"text/event-stream"),
        (b"GET", 404, b"text/event-stream"),
        (b"GET", 204, b"text/event-stream"),
        (b"GET", 200, b"text/plain"),
        (b"GET", 200, b"text/event-streams"),
        (b"GET", 200, b"text/plain; text/event-stream"),
        (b"GET", 200, b"application/text/event-stream"),
    ],
)
async def test_nothing_else_is_a_stream(pagi_serve, raw, method, status, content_type):
    async def app(scope, receive, send):
        body = b"" if status == 204 else EVENT
        await respond(send, body, status=status, headers=[(b"content-type", content_type)])

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(method + b" / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.read_response(head_only=method == b"HEAD"))[0] == status
    assert counted(server) == (0, 0, 0)


async def test_a_response_that_was_refused_is_no_stream(pagi_serve, raw, caplog):
    async def app(scope, receive, send):
        await respond(send, EVENT, headers=[STREAM, (b"x", b"a\nb")])

    server = await pagi_serve(app, lifespan="off", raise_app_exceptions=False)
    async with raw(server) as client:
        await client.send(GET)
        assert (await client.read_response())[0] == 500
    assert counted(server) == (0, 0, 0)
    assert server.metrics.value("pagi_server_app_errors_total", scope="http") == 1


async def test_with_a_content_encoding_bytes_count_and_events_do_not_which_is_logged_once(pagi_serve, raw, caplog):
    async def app(scope, receive, send):
        await start_stream(send, STREAM, (b"content-encoding", b"gzip"))
        await send_part(send, EVENT * 3, more=False)

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        for _ in range(2):
            await client.send(GET)
            assert (await client.read_response())[2] == EVENT * 3
    assert counted(server) == (2, 0, 2 * 3 * len(EVENT))
    assert [record.message for record in caplog.records if "Content-Encoding" in record.message] == [
        "an event stream with a Content-Encoding: its events are not counted"
    ]


# What is counted


@pytest.mark.parametrize(
    ("parts", "events"),
    [
        ([], 0),
        ([b""], 0),
        ([EVENT], 1),
        ([EVENT * 5], 5),
        ([b"d", b"ata:", b" x\n", b"\n"], 1),
        ([b"data: x\r", b"\n\r", b"\n"], 1),
        ([b"data: x\r", b"\r"], 1),
        ([b"data: x\n\n\n\n"], 1),
        ([b"data\n\n"], 1),
        ([b"data: a\ndata: b\nid: 1\nevent: e\n\n"], 1),
        ([b": comment\n\n", b":\n\n", b"\n"], 0),
        ([b"retry: 10\n\n", b"id: 7\n\n", b"event: e\n\n"], 0),
        ([EVENT, b": heartbeat\n\n", EVENT], 2),
        ([EVENT, b"data: unfinished\n"], 1),
        ([EVENT, b"data: unfinished"], 1),
        ([b"database: x\n\n", b" data: x\n\n", b"DATA: x\n\n"], 0),
        ([b"\xef\xbb\xbfdata: x\n\n"], 1),
        (["data: é\n\n".encode()[:7], "data: é\n\n".encode()[7:]], 1),
    ],
)
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_events_are_blocks_that_a_browser_dispatches_and_bytes_are_all_of_the_body_html_9_2_6(
    pagi_serve, raw, parts, events, version
):
    server = await pagi_serve(streaming(*parts), lifespan="off")
    async with raw(server) as client:
        await client.send(b"GET / HTTP/" + version + b"\r\nHost: x\r\n\r\n")
        assert (await client.read_response())[2] == b"".join(parts)
    assert counted(server) == (1, events, len(b"".join(parts)))


async def test_streams_are_counted_apart_even_at_the_same_time(pagi_serve, raw):
    turn = trio.Event()

    async def app(scope, receive, send):
        await start_stream(send)
        # Half of an event on each, so that together they would look like one.
        await send_part(send, b"data: x\n" if scope["path"] == "/1" else b"\n")
        await turn.wait()
        await send_part(send, b"", more=False)

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as first, raw(server) as second:
        await first.send(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n")
        await first.read_head()
        await second.send(b"GET /2 HTTP/1.1\r\nHost: x\r\n\r\n")
        await second.read_head()
        assert server.metrics.value("pagi_sse_connections_active") == 2
        turn.set()
        await until(lambda: server.metrics.value("pagi_sse_connections_active") == 0)
    assert counted(server) == (2, 0, len(b"data: x\n\n"))


async def test_a_slow_reader_never_has_more_than_the_page_and_in_the_end_the_same(pagi_serve, raw):
    count, event = 200, b"data: " + b"x" * 65536 + b"\n\n"
    sent = []

    async def app(scope, receive, send):
        await start_stream(send)
        for _ in range(count):
            await send_part(send, event)
            sent.append(1)
        await send_part(send, b"", more=False)

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(GET)
        await client.read_head()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(sent) < count, "the kernel took everything, nothing is tested"
        _, events, size = counted(server)
        assert events in (len(sent), len(sent) + 1)
        assert len(sent) * len(event) <= size < (len(sent) + 1) * len(event)
        received = 0
        for _ in range(count):
            assert int(await client.read_until(b"\r\n"), 16) == len(event)
            received += len(await client.read_exactly(len(event) + 2)) - 2
            assert received <= counted(server)[2]
        assert await client.read_until(b"\r\n\r\n") == b"0"
    assert counted(server) == (1, count, count * len(event))


async def test_what_a_cut_off_reader_got_is_never_more_than_the_page(pagi_serve, raw):
    event = b"data: " + b"x" * 65536 + b"\n\n"

    async def app(scope, receive, send):
        await start_stream(send)
        with pytest.raises(OSError, match="has left"):
            while True:
                await send_part(send, event)

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(GET)
        await client.read_head()
        for _ in range(20):
            await client.read_until(b"\r\n")
            await client.read_exactly(len(event) + 2)
    await until(lambda: server.metrics.value("pagi_sse_connections_active") == 0)
    _, events, size = counted(server)
    assert size >= 20 * len(event)
    assert events == size // len(event)


async def test_the_rest_of_a_cancelled_send_still_counts_when_it_leaves(pagi_serve, raw):
    event = b"data: " + b"x" * 24_000_000 + b"\n\n"

    async def app(scope, receive, send):
        await start_stream(send)
        with trio.move_on_after(0.01) as scope:
            await send_part(send, event)
        assert scope.cancelled_caught
        await send_part(send, EVENT, more=False)

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(GET)
        await client.read_head()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert counted(server)[1] == 0
        assert int(await client.read_until(b"\r\n"), 16) == len(event)
        assert await client.read_exactly(len(event) + 2) == event + b"\r\n"
        assert await client.read_until(b"\r\n\r\n") == b"9\r\ndata: x\n\n\r\n0"
    assert counted(server) == (1, 2, len(event) + len(EVENT))


# While it is open


async def test_an_app_that_gives_each_send_its_time_queues_no_more_than_one_part(pagi_serve, raw):
    event = b"data: " + b"x" * 24_000_000 + b"\n\n"

    async def app(scope, receive, send):
        await start_stream(send)
        for part in (event, *[EVENT] * 100):
            with trio.move_on_after(0.001) as sending:
                await send_part(send, part)
            assert sending.cancelled_caught
        given_up.set()
        await send_part(send, b": last\n\n", more=False)

    given_up = trio.Event()
    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(GET)
        await given_up.wait()
        assert (await client.read_response())[2] == event + b": last\n\n"
    assert counted(server) == (1, 1, len(event) + len(b": last\n\n"))


async def test_a_stream_opens_though_its_first_event_is_long_in_coming(pagi_client, autojump_clock):
    begun = trio.Event()

    async def app(scope, receive, send):
        if scope["path"] == "/begin":
            begun.set()
            await respond(send)
            return
        await start_stream(send)
        await begun.wait()
        await send_part(send, EVENT, more=False)

    client = await pagi_client(app, lifespan="off")
    with trio.fail_after(1):
        async with client.sse() as events:
            await client.get("/begin")
            assert [event.data async for event in events] == ["x"]
    assert counted(client) == (1, 1, len(EVENT))


async def test_an_app_that_fails_before_its_stream_has_opened_is_answered_with_500(pagi_client, autojump_clock):
    async def app(scope, receive, send):
        await start_stream(send)
        await trio.lowlevel.checkpoint()
        raise ValueError

    client = await pagi_client(app, lifespan="off", raise_app_exceptions=False)
    assert (await client.get("/")).status_code == 500


async def test_gauge_and_state_follow_a_stream_and_the_connection_stays_after_it(pagi_serve, raw):
    more = trio.Event()

    async def app(scope, receive, send):
        await start_stream(send)
        await send_part(send, EVENT)
        await more.wait()
        await send_part(send, EVENT, more=False)

    server = await pagi_serve(app, lifespan="off")
    value = server.metrics.value
    async with raw(server) as client:
        for number in (1, 2):
            await client.send(GET)
            await client.read_head()
            assert await client.read_until(b"\n\n") == b"9\r\ndata: x"
            assert value("pagi_sse_connections_active") == 1
            assert value("pagi_server_connections_by_state", state="sse") == 1
            assert value("pagi_server_connections_active") == 1
            more.set()
            assert await client.read_until(b"0\r\n\r\n") == b"\r\n9\r\ndata: x\n\n\r\n"
            assert value("pagi_sse_connections_active") == 0
            await until(lambda: value("pagi_server_connections_by_state", state="idle") == 1)
            assert counted(server) == (number, 2 * number, 2 * number * len(EVENT))
            more = trio.Event()
    assert value("pagi_server_connections_total") == 1


async def test_a_request_that_came_during_a_stream_is_answered_after_it_rfc9112_9_3_2(pagi_serve, raw):
    more = trio.Event()

    async def app(scope, receive, send):
        if scope["path"] == "/next":
            await respond(send, b"next")
            return
        await start_stream(send)
        await send_part(send, EVENT)
        await more.wait()
        await send_part(send, b"", more=False)

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(GET)
        await client.read_head()
        await client.send(b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
        # The reaper looks for the client's end, and finds the next request instead.
        await trio.sleep(0.6)
        more.set()
        await client.read_until(b"0\r\n\r\n")
        assert (await client.read_response())[2] == b"next"


async def test_a_post_may_be_answered_by_a_stream_while_its_body_still_comes(pagi_serve, raw):
    async def app(scope, receive, send):
        await start_stream(send)
        await send_part(send, EVENT)
        body, complete = await read_body(receive)
        assert complete
        await send_part(send, b"data: %d\n\n" % len(body), more=False)

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        await client.read_head()
        assert await client.read_until(b"\n\n") == b"9\r\ndata: x"
        # Over two looks of the reaper, which must leave the body to the application.
        for _ in range(10):
            await client.send(bytes(10_000))
            await trio.sleep(0.05)
        assert b"data: 100000\n\n" in await client.read_until(b"0\r\n\r\n")
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert b"data: 0\n\n" in await client.read_to_end()
    assert counted(server)[:2] == (2, 4)


async def test_an_app_that_fails_in_a_stream_is_counted_as_such_and_cuts_it_off(pagi_serve, raw, caplog):
    async def app(scope, receive, send):
        await start_stream(send)
        await send_part(send, EVENT)
        raise ValueError("broken")

    server = await pagi_serve(app, lifespan="off", raise_app_exceptions=False)
    async with raw(server) as client:
        await client.send(GET)
        await client.read_head()
        assert await client.read_to_end() == b"9\r\ndata: x\n\n\r\n"
    assert server.metrics.value("pagi_server_app_errors_total", scope="sse") == 1
    assert server.metrics.value("pagi_server_app_errors_total", scope="http") == 0
    assert server.metrics.value("pagi_sse_connections_active") == 0
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "sse GET /" in record.message


# A client that leaves. Each of these takes up to a second: that is the promise, and no timer is made shorter.


def reset(stream):
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


LEAVE = {
    "close": lambda stream: stream.socket.close(),
    "half-close": lambda stream: stream.socket.shutdown(socket.SHUT_WR),
    "reset": reset,
}


@pytest.mark.parametrize("leave", LEAVE)
async def test_a_client_that_leaves_is_noticed_though_the_app_only_sleeps(pagi_serve, raw, leave):
    app = Held()
    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(GET)
        await client.read_head()
        await app.opened.wait()
        assert server.metrics.value("pagi_sse_connections_active") == 1
        LEAVE[leave](client.stream)
        with trio.fail_after(10):
            await app.cancelled.wait()
        await until(lambda: server.metrics.value("pagi_sse_connections_active") == 0)
        await until(lambda: server.metrics.value("pagi_server_connections_active") == 0)
    assert server.metrics.value("pagi_server_app_errors_total", scope="sse") == 0
    assert counted(server) == (1, 1, len(EVENT))


async def test_a_client_that_leaves_is_noticed_without_metrics_too(pagi_serve, raw):
    app = Held()
    server = await pagi_serve(app, lifespan="off", metrics={"enabled": False})
    async with raw(server) as client:
        await client.send(GET)
        await client.read_head()
    with trio.fail_after(10):
        await app.cancelled.wait()


@pytest.mark.parametrize("body", [b"", bytes(10), bytes(200_000)], ids=["none", "short", "long"])
async def test_a_client_that_leaves_is_noticed_though_the_app_never_read_its_body(pagi_serve, raw, body):
    app = Held()
    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await client.read_head()
    with trio.fail_after(10):
        await app.cancelled.wait()
    await until(lambda: server.metrics.value("pagi_sse_connections_active") == 0)


async def test_a_client_that_leaves_behind_a_full_buffer_is_noticed(pagi_serve, raw):
    cancelled = trio.Event()

    async def app(scope, receive, send):
        await start_stream(send)
        try:
            while True:
                await send_part(send, bytes(1_000_000))
        except (trio.Cancelled, OSError):
            cancelled.set()
            raise

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(GET)
        await client.read_head()
        await trio.testing.wait_all_tasks_blocked(0.01)
        client.stream.socket.shutdown(socket.SHUT_WR)
        with trio.fail_after(10):
            await cancelled.wait()
    await until(lambda: server.metrics.value("pagi_sse_connections_active") == 0)


async def test_an_app_that_receives_is_told_at_once_and_has_time_to_end(pagi_serve, raw):
    ended = trio.Event()

    async def app(scope, receive, send):
        await start_stream(send)
        await send_part(send, EVENT)
        assert (await receive())["type"] == "http.request"
        assert (await receive())["type"] == "http.disconnect"
        for _ in range(1000):
            await trio.lowlevel.checkpoint()
        with pytest.raises(OSError, match="client_closed"):
            await send_part(send, EVENT)
        ended.set()

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(GET)
        await client.read_head()
    with trio.fail_after(10):
        await ended.wait()
    await until(lambda: server.metrics.value("pagi_server_connections_active") == 0)
    assert server.metrics.value("pagi_server_app_errors_total", scope="sse") == 0


async def test_an_app_that_goes_on_after_its_disconnect_is_cancelled(pagi_serve, raw):
    told, cancelled = trio.Event(), trio.Event()

    async def app(scope, receive, send):
        await start_stream(send)
        await send_part(send, EVENT)
        await receive()
        await receive()
        told.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(GET)
        await client.read_head()
    with trio.fail_after(10):
        await told.wait()
        await cancelled.wait()


async def test_a_cancelled_app_may_clean_up_behind_a_shield(pagi_serve, raw):
    steps = []
    cleaned = trio.Event()

    async def app(scope, receive, send):
        await start_stream(send)
        await send_part(send, EVENT)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
        finally:
            with trio.CancelScope(shield=True):
                steps.append("begun")
                await trio.sleep(0.01)
                steps.append("done")
            cleaned.set()

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(GET)
        await client.read_head()
    with trio.fail_after(10):
        await cleaned.wait()
    assert steps == ["begun", "done"]
    await until(lambda: server.metrics.value("pagi_server_connections_active") == 0)


async def test_a_background_task_of_an_earlier_request_outlives_the_stream(pagi_serve, raw):
    release, finished = trio.Event(), trio.Event()
    stream = Held()

    async def app(scope, receive, send):
        if scope["path"] == "/stream":
            await stream(scope, receive, send)
        else:
            await respond(send, b"early")
            await release.wait()
            finished.set()

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(GET)
        assert (await client.read_response())[2] == b"early"
        await client.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        await client.read_head()
    with trio.fail_after(10):
        await stream.cancelled.wait()
    await until(lambda: server.metrics.value("pagi_sse_connections_active") == 0)
    await trio.testing.wait_all_tasks_blocked()
    assert not finished.is_set()
    release.set()
    with trio.fail_after(10):
        await finished.wait()
    await until(lambda: server.metrics.value("pagi_server_connections_active") == 0)


async def test_an_app_that_goes_on_after_the_end_of_its_stream_is_left_alone(pagi_serve, raw):
    release, finished = trio.Event(), trio.Event()

    async def app(scope, receive, send):
        await start_stream(send)
        await send_part(send, EVENT, more=False)
        await release.wait()
        finished.set()

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(GET)
        await client.read_response()
        assert server.metrics.value("pagi_sse_connections_active") == 0
    # Over two looks of the reaper, which would have cancelled it while it was a stream.
    await trio.sleep(0.8)
    assert not finished.is_set()
    release.set()
    with trio.fail_after(10):
        await finished.wait()


async def test_the_leaving_of_one_client_leaves_the_other_streams_alone(pagi_serve, raw):
    more = trio.Event()
    left = trio.Event()

    async def app(scope, receive, send):
        await start_stream(send)
        await send_part(send, EVENT)
        try:
            await more.wait()
        except trio.Cancelled:
            left.set()
            raise
        await send_part(send, EVENT, more=False)

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as stays:
        async with raw(server) as leaves:
            for client in (stays, leaves):
                await client.send(GET)
                await client.read_head()
        await left.wait()
        await until(lambda: server.metrics.value("pagi_sse_connections_active") == 1)
        more.set()
        assert await stays.read_until(b"0\r\n\r\n") == b"9\r\ndata: x\n\n\r\n" * 2


async def test_an_app_has_a_moment_to_act_on_its_disconnect_whenever_the_client_leaves(pagi_serve, raw):
    taken_s = []

    async def app(scope, receive, send):
        await start_stream(send)
        await send_part(send, EVENT)
        while (await receive())["type"] != "http.disconnect":
            pass
        told = trio.current_time()
        try:
            await trio.sleep_forever()
        finally:
            taken_s.append(trio.current_time() - told)

    server = await pagi_serve(app, lifespan="off")
    # Spread over the time between two looks of the reaper.
    for n in range(8):
        async with raw(server) as client:
            await client.send(GET)
            await client.read_head()
            await trio.sleep(0.03 * n)
    await until(lambda: len(taken_s) == 8)
    assert min(taken_s) >= CANCEL_AFTER_S


async def test_a_stream_whose_last_bytes_still_leave_when_the_server_stops_is_ended_once(raw):
    async def app(scope, receive, send):
        await start_stream(send)
        await send_part(send, EVENT)
        ending.set()
        # More than the kernel takes.
        await send_part(send, b"data: " + bytes(20_000_000) + b"\n\n", more=False)

    ending = trio.Event()
    with trio.fail_after(20):
        async with testing.serve(app, lifespan="off") as server, raw(server) as client:
            await client.send(GET)
            await ending.wait()
            await trio.testing.wait_all_tasks_blocked()
            server.handle.shutdown()
            await trio.testing.wait_all_tasks_blocked()
            assert len((await client.read_response())[2]) > 20_000_000
            assert await client.read_to_end() == b""


async def test_a_stream_over_http_1_0_that_a_stopping_server_ends_is_no_error_to_its_client(raw):
    held = Held()
    with trio.fail_after(20):
        async with testing.serve(held, lifespan="off") as server, raw(server) as client:
            await client.send(b"GET / HTTP/1.0\r\n\r\n")
            await held.opened.wait()
            server.handle.shutdown()
            await client.read_head()
            # Ends with the connection, which only a response that breaks off has reset.
            assert await client.read_to_end() == EVENT
