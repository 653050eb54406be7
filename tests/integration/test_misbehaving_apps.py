"""What an application gets wrong stays with its own connection, and its client never gets a wrong response."""

from __future__ import annotations

import asyncio
import logging
import os

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pagi_trio import testing
from pagi_trio.nurseries.http1 import REQUEST_COST
from pagi_trio.nurseries.readiness import BUDGET
from pagi_trio.nurseries.sockets import open_listeners

from .conftest import hello, respond, until
from .test_websocket import HANDSHAKE, frame, open_websocket, read_frame

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def kept_open(block):
    """Return an application that leaves a block open, in a generator that it does not exhaust, and answers."""
    generators = []

    async def app(scope, receive, send):
        if scope["path"] == "/open":

            async def generate():
                async with block() as inside:
                    yield inside

            generators.append(generate())
            await anext(generators[-1])
        await respond(send, b"answer")

    return app, generators


class open_scope:
    async def __aenter__(self):
        self.scope = trio.CancelScope()
        return self.scope.__enter__()

    async def __aexit__(self, *exc):
        return self.scope.__exit__(*exc)


@pytest.mark.parametrize("block", [trio.open_nursery, open_scope])
# What Trio says when it finds such a generator at its end.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.trio
async def test_a_block_that_an_app_leaves_open_costs_nobody_else(raw, caplog, block):
    app, generators = kept_open(block)
    async with testing.serve(app, lifespan="off", timeouts={"graceful_s": 5}) as server:
        async with raw(server) as other:
            await other.send(GET)
            await other.read_response()
            async with raw(server) as client:
                await client.send(b"GET /open HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert (await client.read_response())[2] == b"answer"
                assert await client.read_to_end() == b""
            await other.send(GET)
            assert (await other.read_response())[2] == b"answer"
        await until(lambda: server.metrics.value("pagi_server_connections_active") == 0)
        started = trio.current_time()
    # Nobody waited for the task that was left over.
    assert trio.current_time() - started < 5
    assert any("left a" in message for message in caplog.messages)
    generators.clear()


@pytest.mark.trio
async def test_an_await_that_is_not_trios_is_the_apps_error_and_nobody_elses(pagi_serve, raw, caplog):
    seen = []

    async def app(scope, receive, send):
        if scope["path"] == "/foreign":
            try:
                async with trio.open_nursery():
                    await asyncio.sleep(0)
            except* TypeError as errors:
                seen.append(errors)
                raise
        await respond(send, b"answer")

    server = await pagi_serve(app, lifespan="off", raise_app_exceptions=False)
    async with raw(server) as client:
        await client.send(b"GET /foreign HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.read_response())[0] == 500
    async with raw(server) as client:
        await client.send(GET)
        assert (await client.read_response())[2] == b"answer"
    assert len(seen) == 1


async def send_in_part(send, message):
    """Send what the kernel does not take all of, and be cancelled while that waits."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, message)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_a_response_ends_once_even_while_its_end_is_on_the_way(pagi_serve, raw):
    begun, refused = trio.Event(), []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send_in_part(send, {"type": "http.response.body", "body": bytes(8_000_000)})
        begun.set()
        with pytest.raises(RuntimeError) as caught:
            await send({"type": "http.response.body", "body": b"more"})
        refused.append(str(caught.value))

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        for _ in range(2):
            await client.send(GET)
            await begun.wait()
            begun = trio.Event()
            assert (await client.read_response())[2] == bytes(8_000_000)
    assert len(refused) == 2
    assert all("nothing can follow" in line for line in refused)


@pytest.mark.trio
async def test_an_empty_end_waits_for_what_is_before_it(pagi_serve, raw):
    begun = trio.Event()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"8000000")]})
        await send_in_part(send, {"type": "http.response.body", "body": bytes(8_000_000), "more_body": True})
        begun.set()
        await send({"type": "http.response.body", "body": b""})

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await begun.wait()
        assert len((await client.read_response())[2]) == 8_000_000
        assert await client.read_to_end() == b""


@pytest.mark.trio
async def test_a_body_that_breaks_after_its_answer_gets_no_second_one(pagi_serve, raw):
    server = await pagi_serve(hello, lifespan="off")
    async with raw(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloBROKEN")
        assert (await client.read_response())[2] == b"hello"
        assert await client.read_to_end() == b""


@pytest.mark.trio
async def test_a_write_timeout_ends_streams_and_sessions_alike(pagi_serve, raw):
    reasons = []

    async def app(scope, receive, send):
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            message = {"type": "websocket.send", "bytes": bytes(1_000_000)}
        else:
            start = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
            await send(start)
            message = {"type": "http.response.body", "body": bytes(1_000_000), "more_body": True}
        try:
            while True:
                with trio.move_on_after(0.05):
                    await send(message)
        except OSError as error:
            reasons.append(str(error))
            raise

    server = await pagi_serve(app, lifespan="off", timeouts={"write_stall_s": 0.3, "sse_write_stall_s": 0.3})
    async with raw(server) as stream, raw(server) as session:
        await stream.send(GET)
        await session.send(HANDSHAKE % b"")
        await until(lambda: len(reasons) == 2)
        await until(lambda: server.metrics.value("pagi_sse_connections_active") == 0)
        await until(lambda: server.metrics.value("pagi_websocket_connections_active") == 0)
    assert reasons == ["the client has left (write_timeout)"] * 2


@pytest.mark.trio
async def test_each_of_several_receivers_gets_its_message(pagi_serve, raw):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})

        async def answer_one():
            message = await receive()
            await send({"type": "websocket.send", "text": message["text"]})

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(answer_one)

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await open_websocket(client)
        await trio.testing.wait_all_tasks_blocked()
        await client.send(frame(1, b"a") + frame(1, b"b"))
        assert {(await read_frame(client))[1] for _ in range(2)} == {b"a", b"b"}
        await client.send(frame(1, b"c"))
        assert (await read_frame(client))[1] == b"c"
        await client.send(frame(1, b"d"))
        assert (await read_frame(client))[1] == b"d"


@pytest.mark.trio
async def test_a_denial_that_is_an_event_stream_counts_out(pagi_serve, raw, caplog):
    async def app(scope, receive, send):
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "websocket.http.response.start", "status": 200, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b"data: x\n\n", "more_body": True})
        raise ValueError("in the middle")

    server = await pagi_serve(app, lifespan="off", raise_app_exceptions=False)
    async with raw(server) as client:
        await client.send(HANDSHAKE % b"")
        await client.read_to_end()
    assert server.metrics.value("pagi_sse_connections_total") == 1
    assert server.metrics.value("pagi_sse_connections_active") == 0


@pytest.mark.trio
async def test_a_flood_of_control_frames_lets_others_run(pagi_serve, raw, caplog):
    """An application that receives gets nothing from them, so the server itself must take its turns."""
    caplog.set_level(logging.INFO)

    async def app(scope, receive, send):
        if scope["type"] == "http":
            await respond(send, b"alive")
            return
        await receive()
        await send({"type": "websocket.accept"})
        await receive()

    server = await pagi_serve(app, lifespan="off")
    flood = frame(10, b"") * 10_000
    async with raw(server) as flooder, raw(server) as client, trio.open_nursery() as nursery:
        await open_websocket(flooder)

        async def pour():
            while True:
                await flooder.send(flood)

        nursery.start_soon(pour)
        for _ in range(20):
            await client.send(GET)
            assert (await client.read_response())[2] == b"alive"
        nursery.cancel_scope.cancel()


@pytest.mark.trio
@pytest.mark.parametrize("opcode", [1, 9], ids=["messages", "pings"])
async def test_a_flood_behind_the_end_of_a_session_lets_others_run(pagi_serve, raw, opcode):
    """What comes between the server's Close and the client's is read in turns as well."""
    ended = trio.Event()

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await ended.wait()

    server = await pagi_serve(app, lifespan="off")
    count = 30_000
    turns = 0
    async with raw(server) as flooder, trio.open_nursery() as nursery:
        await open_websocket(flooder)
        # All of it is on its way before the application ends.
        await flooder.send(frame(opcode, b"") * count + frame(8, b""))
        nursery.start_soon(flooder.read_to_end)
        ended.set()
        while server.metrics.value("pagi_server_connections_active"):
            await trio.lowlevel.checkpoint()
            turns += 1
    # A third of what so many frames in each would make; it was five in all.
    assert turns > count / BUDGET / 3


def test_a_listener_closed_twice_leaves_the_file_of_its_successor(tmp_path):
    path = tmp_path / "app.sock"
    (first,) = open_listeners([f"unix:{path}"], 1)
    first.close()
    (second,) = open_listeners([f"unix:{path}"], 1)
    # As a file system does that gives the inode of a file that is gone to the next one.
    assert first.path == second.path
    object.__setattr__(first, "inode", second.inode)
    first.close()
    assert os.path.exists(path)  # noqa: PTH110 - a socket is no regular file
    second.close()


@pytest.mark.trio
@pytest.mark.parametrize("size", [500, 5_000, 60_000])
async def test_a_client_that_stops_reading_is_cut_off_whatever_the_reaper_flushes(pagi_serve, raw, size):
    reasons = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(size), "more_body": True})
        except OSError as error:
            reasons.append(str(error))

    server = await pagi_serve(app, lifespan="off", timeouts={"write_stall_s": 0.3, "sse_write_stall_s": 0.3})
    async with raw(server) as client:
        await client.send(GET)
        await until(lambda: reasons)
    assert reasons == ["the client has left (write_timeout)"]


@pytest.mark.trio
async def test_bytes_before_the_handshake_is_answered_are_refused_once_they_are_many(pagi_serve, raw):
    seen = []

    async def app(scope, receive, send):
        await receive()
        seen.append(await receive())

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.send, HANDSHAKE % b"" + bytes(100_000))
        assert (await client.read_response())[0] == 400
        await until(lambda: seen)
    assert seen == [{"type": "websocket.disconnect", "code": 1006, "reason": "queue_overflow"}]


@pytest.mark.trio
async def test_an_access_log_that_cannot_be_written_costs_only_its_lines(pagi_serve, raw, caplog):
    server = await pagi_serve(hello, lifespan="off", access_log="/dev/full")
    async with raw(server) as client:
        await client.send(GET)
        assert (await client.read_response())[0] == 200
        await until(lambda: "cannot write the access log" in caplog.text)
        await client.send(GET)
        assert (await client.read_response())[0] == 200


@pytest.mark.trio
@pytest.mark.parametrize("in_a_group", [False, True])
async def test_a_cancellation_of_old_is_an_error_of_the_app(pagi_serve, raw, in_a_group):
    async def app(scope, receive, send):
        kept = None
        with trio.CancelScope() as old:
            old.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as error:
                kept = error
                raise
        raise BaseExceptionGroup("group", [KeyError("x"), kept]) if in_a_group else kept

    server = await pagi_serve(app, lifespan="off", raise_app_exceptions=False)
    for _ in range(2):
        async with raw(server) as client:
            await client.send(GET)
            assert (await client.read_response())[0] == 500
    assert server.metrics.value("pagi_server_app_errors_total", scope="http") == 2


@pytest.mark.trio
async def test_requests_that_come_all_at_once_let_others_run(pagi_serve, raw):
    """Their application may never wait, and each of them computes for as long as a framework does."""
    answered = 0

    async def app(scope, receive, send):
        nonlocal answered
        answered += 1
        await respond(send, b"answer")

    server = await pagi_serve(app, lifespan="off")
    most = 0
    async with raw(server) as client, trio.open_nursery() as nursery:
        await client.send(GET * 500)
        nursery.start_soon(client.read_to_end)
        while answered < 500:
            before = answered
            await trio.lowlevel.checkpoint()
            most = max(most, answered - before)
        nursery.cancel_scope.cancel()
    # The server may have two turns between two of this task's.
    assert most <= 2 * (BUDGET // REQUEST_COST + 1)


PARTS = 250
MANY_PARTS = {
    # Each block is final, and so ends its stream (RFC 7692 section 7.2.3.4).
    "streams": frame(2, b"\x03\x00" * PARTS, rsv1=True),
    "fragments": frame(2, fin=False) + frame(0, fin=False) * (PARTS - 2) + frame(0),
}


@pytest.mark.trio
@pytest.mark.parametrize("message", MANY_PARTS.values(), ids=MANY_PARTS)
async def test_messages_of_very_many_parts_let_others_run(pagi_serve, raw, message):
    """They take far more time than others of their size, and empty ones fit into one read by the hundred."""
    received = 0
    count = 40

    async def app(scope, receive, send):
        nonlocal received
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            received += 1

    server = await pagi_serve(app, lifespan="off")
    most = 0
    async with raw(server) as client:
        await open_websocket(client, b"Sec-WebSocket-Extensions: permessage-deflate\r\n")
        await client.send(message * count)
        while received < count:
            before = received
            await trio.lowlevel.checkpoint()
            most = max(most, received - before)
        await client.send(frame(8, b""))
        await client.read_to_end()
    # As above; without a price of their own it would be all of them.
    assert most <= 2 * (BUDGET // (PARTS // 8) + 1)
