"""Deadlines and limits, with small values; whoever waits for a deadline does so with ten times its length."""

from __future__ import annotations

import logging
import socket
from contextlib import suppress

import pytest
import trio

from .conftest import RawClient, hello, read_body, respond, until

pytestmark = pytest.mark.trio

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
SLACK_S = 10


async def echo(scope, receive, send):
    body, _complete = await read_body(receive)
    await respond(send, body)


async def ends(client):
    """Wait until the server has closed; return what it still sent."""
    with trio.fail_after(SLACK_S):
        return await client.read_to_end()


# Deadlines. The reaper looks four times a second, so each of these takes longer than a quarter.


async def test_a_connection_that_says_nothing_has_its_deadline(pagi_serve, raw):
    server = await pagi_serve(hello, lifespan="off", timeouts={"head_s": 0.5})
    async with raw(server) as client:
        assert await ends(client) == b""
    await until(lambda: server.metrics.value("pagi_server_connections_active") == 0)
    assert server.metrics.value("pagi_server_connections_closed_total", reason="client_timeout") == 1


@pytest.mark.parametrize("first", [b"G", b"GET / HTTP/1.1\r\nHost: x\r\nA: "], ids=["a byte", "half"])
async def test_a_head_that_does_not_end_is_answered_at_its_deadline_rfc9110_15_5_9(pagi_serve, raw, first):
    server = await pagi_serve(hello, lifespan="off", timeouts={"head_s": 0.5})
    async with raw(server) as client:
        await client.send(first)
        status, headers, body = await client.read_response()
        assert (status, headers[b"connection"]) == (408, b"close")
        assert body == b"the headers took longer than 0.5 s\n"
        assert await ends(client) == b""
    await until(lambda: server.metrics.value("pagi_server_connections_active") == 0)
    assert server.metrics.value("pagi_server_connections_closed_total", reason="client_timeout") == 1


@pytest.mark.parametrize("before", [b"", GET], ids=["first", "second"])
async def test_no_byte_gives_a_head_more_time(pagi_serve, raw, before):
    server = await pagi_serve(hello, lifespan="off", timeouts={"head_s": 0.5})
    async with raw(server) as client:
        if before:
            await client.send(before)
            await client.read_response()
        await client.send(b"GET / HTTP/1.1\r\nX: ")

        async with trio.open_nursery() as nursery:

            async def drip():
                # The server may close between two bytes.
                with suppress(trio.BrokenResourceError):
                    while True:
                        await trio.sleep(0.05)
                        await client.send(b"x")

            nursery.start_soon(drip)
            assert (await client.read_head())[0] == 408
            nursery.cancel_scope.cancel()


async def test_an_idle_connection_is_closed_after_its_time_and_not_before(pagi_serve, raw):
    server = await pagi_serve(hello, lifespan="off", timeouts={"keep_alive_s": 1.0, "head_s": 0.2})
    async with raw(server) as client:
        for _ in range(3):
            await client.send(GET)
            assert (await client.read_response())[0] == 200
            # Longer than a head may take, shorter than a connection may idle.
            await trio.sleep(0.5)
        assert await ends(client) == b""


async def test_without_keep_alive_a_connection_ends_after_its_response(pagi_serve, raw):
    server = await pagi_serve(hello, lifespan="off", timeouts={"keep_alive_s": 0})
    async with raw(server) as client:
        await client.send(GET)
        _, headers, body = await client.read_response()
        assert body == b"hello"
        assert await ends(client) == b""
        # Or the client might send its next request into a connection that is being closed.
        assert headers.get(b"connection") == b"close"


async def test_an_app_may_take_longer_than_any_deadline_of_its_client(pagi_serve, raw):
    async def app(scope, receive, send):
        await trio.sleep(0.8)
        await respond(send, b"late")

    server = await pagi_serve(
        app, lifespan="off", timeouts={"head_s": 0.1, "keep_alive_s": 0.1, "write_stall_s": 0.1, "tls_handshake_s": 0.1}
    )
    async with raw(server) as client:
        await client.send(GET)
        assert (await client.read_response())[2] == b"late"


async def test_a_client_that_takes_nothing_is_cut_off_and_the_app_told(pagi_serve, raw):
    reasons = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(1_000_000), "more_body": True})
        except OSError as error:
            reasons.append(error.reason)
            assert (await receive())["type"] == "http.disconnect"

    server = await pagi_serve(app, lifespan="off", timeouts={"write_stall_s": 0.5})
    async with raw(server) as client:
        await client.send(GET)
        await until(lambda: reasons)
        assert reasons == ["write_timeout"]
        # Behind what it has not read the client could not see an end; and the end is not that of the response.
        with pytest.raises(trio.BrokenResourceError):
            await client.read_to_end()
        await until(lambda: server.metrics.value("pagi_server_connections_active") == 0)


async def test_a_client_that_takes_little_but_goes_on_is_not_cut_off(pagi_serve, raw):
    part = bytes(1_000_000)
    count = 20

    async def app(scope, receive, send):
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-length", b"%d" % (count * len(part)))],
            }
        )
        for left in reversed(range(count)):
            await send({"type": "http.response.body", "body": part, "more_body": left > 0})

    server = await pagi_serve(app, lifespan="off", timeouts={"write_stall_s": 0.6})
    async with raw(server) as client:
        await client.send(GET)
        await client.read_head()
        for _ in range(count):
            await client.read_exactly(len(part))
            await trio.sleep(0.1)


async def test_the_end_of_a_refused_connection_has_its_deadline(pagi_serve, raw):
    server = await pagi_serve(hello, lifespan="off")
    async with raw(server) as client:
        await client.send(b"BROKEN\r\n\r\n")
        assert (await client.read_response())[0] == 400
        # It stays half-open, sends nothing and does not close.
        await until(lambda: server.metrics.value("pagi_server_connections_active") == 0)


# Limits


async def test_a_connection_beyond_the_limit_gets_a_503_rfc9110_15_6_4(pagi_serve, raw):
    server = await pagi_serve(hello, lifespan="off", limits={"connections": 2})
    async with raw(server) as first, raw(server) as second:
        for client in (first, second):
            await client.send(GET)
            assert (await client.read_response())[0] == 200
        async with raw(server) as third:
            status, headers, _ = await third.read_response()
            assert (status, headers[b"retry-after"], headers[b"connection"]) == (503, b"1", b"close")
            assert await ends(third) == b""
        for client in (first, second):
            await client.send(GET)
            assert (await client.read_response())[0] == 200
    # Refused is not accepted.
    await until(lambda: server.metrics.value("pagi_server_connections_active") == 0)
    assert server.metrics.value("pagi_server_connections_total") == 2
    async with raw(server) as client:
        await client.send(GET)
        assert (await client.read_response())[0] == 200


async def test_a_client_that_has_sent_its_request_already_can_read_the_503(pagi_serve, raw):
    server = await pagi_serve(hello, lifespan="off", limits={"connections": 1})
    async with raw(server) as first:
        await first.send(GET)
        await first.read_response()
        # All before the server's next turn, since nothing here yields.
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.sendall(GET)
            sock.setblocking(False)
            third = RawClient(trio.SocketStream(trio.socket.from_stdlib_socket(sock)))
            with trio.fail_after(SLACK_S):
                assert (await third.read_response())[0] == 503


async def test_a_burst_is_held_to_the_limit_over_all_listeners(pagi_serve):
    server = await pagi_serve(hello, lifespan="off", limits={"connections": 3}, bind=("127.0.0.1:0", "127.0.0.1:0"))
    ports = [int(url.rpartition(":")[2]) for url in server.handle]
    # All before the server's next turn, since nothing here yields.
    socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(5) for port in ports]
    try:
        await trio.testing.wait_all_tasks_blocked()
        assert server.metrics.value("pagi_server_connections_active") == 3
        assert server.metrics.value("pagi_server_connections_total") == 3
    finally:
        for sock in socks:
            sock.close()


@pytest.mark.parametrize("size", [10, 11])
@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
async def test_an_announced_body_beyond_the_limit_is_a_413_rfc9110_15_5_14(pagi_serve, raw, size, expect):
    called = []

    async def app(scope, receive, send):
        called.append(scope)
        await echo(scope, receive, send)

    server = await pagi_serve(app, lifespan="off", limits={"body_bytes": 10})
    async with raw(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n" % (expect, size))
        if size == 11:
            status, headers, _ = await client.read_response()
            assert (status, headers[b"connection"]) == (413, b"close")
            assert called == []
        else:
            if expect:
                assert (await client.read_head())[0] == 100
            await client.send(bytes(size))
            assert (await client.read_response())[2] == bytes(size)


@pytest.mark.parametrize("size", [10, 11])
async def test_a_chunked_body_beyond_the_limit_is_a_413_and_a_disconnect_rfc9110_15_5_14(pagi_serve, raw, size):
    complete = []

    async def app(scope, receive, send):
        body, whole = await read_body(receive)
        complete.append(whole)
        if whole:
            await respond(send, body)

    server = await pagi_serve(app, lifespan="off", limits={"body_bytes": 10})
    async with raw(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await trio.testing.wait_all_tasks_blocked()
        await client.send(b"%x\r\n%b\r\n0\r\n\r\n" % (size - 5, bytes(size - 5)))
        status, headers, _ = await client.read_response()
        if size == 10:
            assert (status, complete) == (200, [True])
        else:
            assert (status, complete) == (413, [False])
            assert headers[b"connection"] == b"close"
            assert await ends(client) == b""
    assert server.metrics.value("pagi_server_app_errors_total", scope="http") == 0


BODY_REFUSALS = {
    "body": (b"b\r\n0123456789a\r\n", 413, "the body is longer than 10 bytes"),
    "extensions": (b"1;aaaaaaaaaa\r\n", 400, "the chunk extensions are longer than is allowed"),
    "trailers": (b"0\r\nA: 67890123\r\n\r\n", 431, "the trailers are longer than is allowed"),
    "speed": (b"1\r\n", 408, "the body comes slower than 240 bytes a second"),
}


@pytest.mark.parametrize("begun", [False, True], ids=["unanswered", "answered"])
@pytest.mark.parametrize(("sent", "status", "why"), BODY_REFUSALS.values(), ids=BODY_REFUSALS)
async def test_the_log_says_which_limit_a_body_broke(pagi_serve, raw, caplog, sent, status, why, begun):
    async def app(scope, receive, send):
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        assert (await read_body(receive))[1] is False

    caplog.set_level(logging.INFO, "pagi_trio")
    limits = {"body_bytes": 10, "chunk_extension_bytes": 10, "trailer_bytes": 10}
    server = await pagi_serve(app, lifespan="off", limits=limits, timeouts={"body_grace_s": 0.25})
    async with raw(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + sent)
        assert (await client.read_head())[0] == (200 if begun else status)
        # A response that has begun is cut off where it is, by a reset.
        with suppress(trio.BrokenResourceError):
            await ends(client)
    said = [record.getMessage().partition(": ")[2] for record in caplog.records if why in record.getMessage()]
    assert said == [f"cut off: {why}" if begun else f"answered {status}: {why}"]


async def test_the_bodies_limit_is_for_each_request(pagi_serve, raw):
    server = await pagi_serve(echo, lifespan="off", limits={"body_bytes": 10})
    async with raw(server) as client:
        for _ in range(3):
            await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n0123456789")
            assert (await client.read_response())[2] == b"0123456789"


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "endless"])
async def test_a_request_line_beyond_the_limit_is_a_414_rfc9110_15_5_15(pagi_serve, raw, whole):
    server = await pagi_serve(hello, lifespan="off", limits={"request_line_bytes": 100})
    line = b"GET /%b HTTP/1.1"
    end = b"\r\nHost: x\r\n\r\n" if whole else b""
    async with raw(server) as client:
        await client.send(line % (b"a" * 86) + b"\r\nHost: x\r\n\r\n")
        assert (await client.read_response())[0] == 200
        await client.send(line % (b"a" * 87) + end if whole else b"GET /" + b"a" * 97)
        assert (await client.read_response())[0] == 414
        assert await ends(client) == b""


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "endless"])
@pytest.mark.parametrize("request_line_bytes", [64, 8192])
async def test_a_head_beyond_the_limit_is_a_431_rfc6585_5(pagi_serve, raw, whole, request_line_bytes):
    server = await pagi_serve(
        hello, lifespan="off", limits={"head_bytes": 1000, "request_line_bytes": request_line_bytes}
    )
    fields = b"GET / HTTP/1.1\r\nHost: x\r\nX: "
    async with raw(server) as client:
        await client.send(fields.ljust(1000, b"a") + b"\r\n\r\n")
        assert (await client.read_response())[0] == 200
        await client.send(fields.ljust(1001, b"a") + (b"\r\n\r\n" if whole else b""))
        assert (await client.read_response())[0] == 431
        assert await ends(client) == b""


async def test_more_fields_than_the_limit_are_a_431_rfc6585_5(pagi_serve, raw):
    server = await pagi_serve(hello, lifespan="off", limits={"headers": 3})
    async with raw(server) as client:
        for count, status in ((2, 200), (3, 431)):
            await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * count + b"\r\n")
            assert (await client.read_response())[0] == status
        assert await ends(client) == b""


async def test_any_number_of_empty_lines_before_a_request_hurts_nobody_rfc9112_2_2(pagi_serve, raw, caplog):
    server = await pagi_serve(hello, lifespan="off")
    async with raw(server) as client:
        await client.send(b"\r\n" * 20_000 + GET)
        assert (await client.read_response())[0] == 200
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


async def test_what_comes_behind_an_upload_is_not_buffered_without_end(pagi_serve, raw):
    async def app(scope, receive, send):
        await receive()
        assert (await receive())["type"] == "http.disconnect"

    server = await pagi_serve(app, lifespan="off", timeouts={"graceful_s": 0})
    async with raw(server) as client:
        sent = 0
        with trio.move_on_after(0.5):
            while True:
                await client.stream.send_all(GET * 1000)
                sent += len(GET) * 1000
        assert 0 < sent < 50_000_000, "the server took all of it"
