"""Deadlines of clients that are slow, or do nothing: on Trio's autojump clock, where how long it took is exact."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio

from .clock import HOUR_S, TICK_S, assert_within_a_tick, seconds_until
from .conftest import hello, respond, until
from .ledger import ended

pytestmark = pytest.mark.trio

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


# Heads


async def test_a_connection_that_says_nothing_has_its_deadline(embed, autojump_clock, connect):
    config, patient = connect
    server = await embed(hello, lifespan="off", timeouts={"head_s": 3}, **config)
    async with patient(server) as client:

        async def closed():
            assert await client.read_to_end() == b""

        assert_within_a_tick(await seconds_until(closed), 3)
    assert (await ended(server)).closed == {"client_timeout": 1}


@pytest.mark.parametrize("before", [b"", GET], ids=["first", "second"])
@pytest.mark.parametrize("begun", [b"G", b"GET / HTTP/1.1\r\nHost: x\r\nA: "], ids=["a byte", "half"])
async def test_a_head_that_does_not_end_is_answered_at_its_deadline_rfc9110_15_5_9(
    embed, autojump_clock, connect, begun, before
):
    config, patient = connect
    server = await embed(hello, lifespan="off", timeouts={"head_s": 3}, **config)
    async with patient(server) as client:
        if before:
            await client.send(before)
            await client.read_response()
            # It may idle for longer than a head may take.
            await trio.sleep(20)
        await client.send(begun)

        async def answered():
            status, headers, body = await client.read_response()
            assert (status, headers[b"connection"]) == (408, b"close")
            assert body == b"the headers took longer than 3 s\n"

        assert_within_a_tick(await seconds_until(answered), 3)
        assert await client.read_to_end() == b""
    assert (await ended(server)).closed == {"client_timeout": 1}


async def test_no_byte_gives_a_head_more_time(embed, autojump_clock, connect):
    config, patient = connect
    server = await embed(hello, lifespan="off", timeouts={"head_s": 3}, **config)
    async with patient(server) as client:
        await client.send(b"GET / HTTP/1.1\r\nX: ")
        async with trio.open_nursery() as nursery:

            async def drip():
                # The server may close between two bytes.
                with suppress(trio.BrokenResourceError):
                    while True:
                        await trio.sleep(0.1)
                        await client.send(b"x")

            nursery.start_soon(drip)

            async def answered():
                assert (await client.read_head())[0] == 408

            assert_within_a_tick(await seconds_until(answered), 3)
            nursery.cancel_scope.cancel()


async def test_a_head_in_time_leaves_the_next_one_all_of_its_own(embed, autojump_clock, connect):
    config, patient = connect
    server = await embed(hello, lifespan="off", timeouts={"head_s": 3}, **config)
    async with patient(server) as client:
        for _ in range(3):
            await client.send(GET[:10])
            await trio.sleep(3 - 2 * TICK_S)
            await client.send(GET[10:])
            assert (await client.read_response())[0] == 200
            await trio.sleep(10)


# Between requests


async def test_an_idle_connection_is_closed_after_its_time_and_not_before(embed, autojump_clock, connect):
    config, patient = connect
    server = await embed(hello, lifespan="off", timeouts={"keep_alive_s": 30, "head_s": 1}, **config)
    async with patient(server) as client:
        for _ in range(3):
            await client.send(GET)
            assert (await client.read_response())[0] == 200
            # Longer than a head may take.
            await trio.sleep(30 - 2 * TICK_S)
        await client.send(GET)
        await client.read_response()

        async def closed():
            # By a reset, where no real time has passed in which the response could have been acknowledged.
            with suppress(trio.BrokenResourceError):
                assert await client.read_to_end() == b""

        assert_within_a_tick(await seconds_until(closed), 30)
    assert (await ended(server)).closed == {"keepalive_timeout": 1}


async def test_without_keep_alive_a_connection_ends_after_its_response(pagi_serve, raw):
    server = await pagi_serve(hello, lifespan="off", timeouts={"keep_alive_s": 0})
    async with raw(server) as client:
        await client.send(GET)
        _, headers, body = await client.read_response()
        assert body == b"hello"
        assert await client.read_to_end() == b""
        # Or the client might send its next request into a connection that is being closed.
        assert headers.get(b"connection") == b"close"


async def test_an_app_may_take_longer_than_any_deadline_of_its_client(embed, autojump_clock, connect):
    async def app(scope, receive, send):
        await trio.sleep(HOUR_S / 2)
        await respond(send, b"late")

    config, patient = connect
    short = dict.fromkeys(("head_s", "keep_alive_s", "write_stall_s", "sse_write_stall_s", "body_grace_s"), 0.1)
    server = await embed(app, lifespan="off", timeouts=short, **config)
    async with patient(server) as client:
        await client.send(GET)
        assert (await client.read_response())[2] == b"late"


async def test_the_end_of_a_refused_connection_has_its_deadline(embed, autojump_clock, connect):
    config, patient = connect
    server = await embed(hello, lifespan="off", **config)
    async with patient(server) as client:
        await client.send(b"BROKEN\r\n\r\n")
        assert (await client.read_response())[0] == 400
        # It stays half-open, sends nothing and does not close.
        await until(lambda: server.metrics.value("pagi_server_connections_active") == 0)


# Clients that do not read


def flood(reasons, content_type):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", content_type)]})
        with pytest.raises(OSError, match="the client has left") as caught:
            while True:
                await send({"type": "http.response.body", "body": bytes(1_000_000), "more_body": True})
        told = await receive()
        reasons.extend([caught.value.reason, told["reason"]])

    return app


# On the clock of the machine, since what the kernel does for a client takes its time by that one.


@pytest.mark.parametrize(
    ("content_type", "stall_s"), [(b"text/plain", 1), (b"text/event-stream", 0.5)], ids=["response", "event stream"]
)
async def test_a_client_that_takes_nothing_is_cut_off_and_the_app_told(pagi_serve, connect, content_type, stall_s):
    config, patient = connect
    reasons = []
    timeouts = {"write_stall_s": 1, "sse_write_stall_s": 0.5}
    server = await pagi_serve(flood(reasons, content_type), lifespan="off", timeouts=timeouts, **config)
    async with patient(server) as client:
        await client.send(GET)
        assert await seconds_until(lambda: until(lambda: reasons)) >= stall_s
        assert reasons == ["write_timeout"] * 2
        # Behind what it has not read the client could not see an end; and the end is not that of the response.
        with pytest.raises(trio.BrokenResourceError):
            await client.read_to_end()
    ledger = await ended(server)
    assert ledger.closed == {"write_timeout": 1}
    assert ledger.value("pagi_sse_connections_active") == 0


async def test_a_client_that_takes_less_than_the_kernel_waits_for_is_not_cut_off(pagi_serve):
    """The kernel takes nothing more before a third of its buffer is free, about a megabyte here."""
    reasons = []
    server = await pagi_serve(flood(reasons, b"text/plain"), lifespan="off", timeouts={"write_stall_s": 2})
    sock = trio.socket.socket()
    # As behind a slow line: with a large buffer, the client's own kernel would tell of what is read by the megabyte.
    sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 32768)
    await sock.connect(("127.0.0.1", server.port))
    async with trio.SocketStream(sock) as stream:
        await stream.send_all(GET)
        with trio.move_on_after(5):
            while True:
                assert await stream.receive_some(2000)
                await trio.sleep(0.01)
        assert reasons == []


@pytest.mark.parametrize("content_type", [b"text/plain", b"text/event-stream"])
async def test_a_client_that_takes_little_but_goes_on_is_not_cut_off(embed, autojump_clock, connect, content_type):
    part = bytes(1_000_000)
    count = 20

    async def app(scope, receive, send):
        headers = [(b"content-length", b"%d" % (count * len(part))), (b"content-type", content_type)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for left in reversed(range(count)):
            await send({"type": "http.response.body", "body": part, "more_body": left > 0})

    config, patient = connect
    timeouts = {"write_stall_s": 3, "sse_write_stall_s": 3}
    server = await embed(app, lifespan="off", timeouts=timeouts, **config)
    async with patient(server) as client:
        await client.send(GET)
        await client.read_head()
        for _ in range(count):
            await client.read_exactly(len(part))
            await trio.sleep(1)
    assert (await ended(server)).closed == {"done": 1}


async def test_a_stream_that_has_nothing_to_send_is_not_stalled(embed, autojump_clock, connect):
    async def app(scope, receive, send):
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(3):
            await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
            await trio.sleep(HOUR_S / 6)
        await send({"type": "http.response.body", "body": b""})

    config, patient = connect
    server = await embed(app, lifespan="off", timeouts={"sse_write_stall_s": 1, "write_stall_s": 1}, **config)
    async with patient(server) as client:
        await client.send(GET)
        assert (await client.read_response())[2] == b"data: x\n\n" * 3
