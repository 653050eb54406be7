"""Every way an event stream ends, what it is counted as in pagi_sse_closes_total, and how long each thing has lasted."""

from __future__ import annotations

import struct

import pytest
import trio

from tests.integration.embedded import serving

from .conftest import read_body, respond
from .ledger import ended
from .test_closes import GET, POST, leave_a_nursery_open, reset, settle, stop
from .test_websocket import HANDSHAKE, echo, frame, open_websocket, read_frame

pytestmark = pytest.mark.trio

STREAM = (b"content-type", b"text/event-stream")
EVENT = b"data: x\n\n"

WAYS = []


async def begin(send, *headers):
    await send({"type": "http.response.start", "status": 200, "headers": [STREAM, *headers]})
    await send({"type": "http.response.body", "body": EVENT, "more_body": True})


async def hold(scope, receive, send):
    await begin(send)
    await trio.sleep_forever()


async def listen(scope, receive, send):
    await begin(send)
    await read_body(receive)
    await receive()


async def end(scope, receive, send):
    await begin(send)
    await send({"type": "http.response.body", "body": b""})


async def end_and_go_on(scope, receive, send):
    await end(scope, receive, send)
    await trio.sleep(5)


async def flood(scope, receive, send):
    await begin(send)
    while True:
        await send({"type": "http.response.body", "body": bytes(1_000_000), "more_body": True})


async def fail(scope, receive, send):
    await begin(send)
    raise ValueError("broken")


async def fail_before_anything_is_sent(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [STREAM]})
    raise ValueError("broken")


async def fail_behind_its_end(scope, receive, send):
    await end(scope, receive, send)
    raise ValueError("broken")


async def give_up(scope, receive, send):
    await begin(send)


async def promise_too_much(scope, receive, send):
    await begin(send, (b"content-length", b"100"))


async def last_send_cancelled(scope, receive, send):
    await begin(send)
    with trio.move_on_after(1):
        await send({"type": "http.response.body", "body": bytes(20_000_000)})


async def deny_with_a_stream(scope, receive, send):
    await receive()
    await send({"type": "websocket.http.response.start", "status": 200, "headers": [STREAM]})
    await send({"type": "websocket.http.response.body", "body": EVENT, "more_body": True})
    await receive()


def way(reason, app=hold, *, tls=False, **config):
    """Add a way to end a stream: what the client does once it has asked for it, and how that is counted.

    Args:
        reason: As on the page.
        app: What is served.
        tls: Whether it is served over TLS.
        config: Settings that are not the defaults.
    """

    def add(client):
        WAYS.append(pytest.param(reason, app, tls, config, client, id=client.__name__))
        return client

    return add


@pytest.mark.parametrize(("reason", "app", "over_tls", "config", "client"), WAYS)
async def test_a_stream_is_counted_by_why_it_ended(
    raw, tls, authority, autojump_clock, reason, app, over_tls, config, client
):
    if over_tls:
        config = {**config, "tls": authority.files}
    with trio.fail_after(60):
        async with serving(app, lifespan="off", **config) as server:
            async with (tls if over_tls else raw)(server) as connection:
                await client(connection, server)
            ledger = await ended(server)
    assert ledger.streams == {reason: 1}
    assert ledger.value("pagi_sse_connections_total") == 1


# done


@way("done", end)
async def reads_to_its_end(client, server):
    await client.send(GET)
    assert (await client.read_response())[2] == EVENT


@way("done", end)
async def reads_to_an_end_that_is_that_of_the_connection(client, server):
    await client.send(b"GET / HTTP/1.0\r\n\r\n")
    assert (await client.read_to_end()).endswith(EVENT)


@way("done", end_and_go_on)
async def leaves_an_application_that_goes_on(client, server):
    await client.send(GET)
    assert (await client.read_response())[2] == EVENT


@way("done", fail_behind_its_end)
async def does_not_see_what_fails_behind_its_end(client, server):
    await client.send(GET)
    assert (await client.read_response())[2] == EVENT


@way("done", last_send_cancelled)
async def reads_what_the_application_did_not_wait_for(client, server):
    await client.send(GET)
    await client.read_until(EVENT)
    await trio.sleep(2)
    assert (await client.read_until(b"\r\n0\r\n\r\n")).count(0) == 20_000_000


# client_closed


@way("client_closed")
async def leaves(client, server):
    await client.send(GET)
    await client.read_until(EVENT)


@way("client_closed", listen)
async def leaves_an_application_that_receives(client, server):
    await client.send(GET)
    await client.read_until(EVENT)


@way("client_closed", flood)
async def resets_under_a_flood(client, server):
    await client.send(GET)
    await client.read_until(EVENT)
    reset(client)


@way("client_closed", flood, tls=True)
async def leaves_under_a_flood_over_tls(client, server):
    await client.send(GET)
    await client.read_until(EVENT)
    await trio.aclose_forcefully(client.stream)


@way("client_closed", give_up)
async def leaves_before_its_application_gives_up(client, server):
    await client.send(GET)
    reset(client)


@way("client_closed", listen, timeouts={"body_grace_s": 1})
async def does_not_end_its_body(client, server):
    await client.send(POST % 10)
    assert (await client.read_to_end()).endswith(EVENT + b"\r\n")


@way("client_closed", listen, limits={"body_bytes": 10})
async def sends_too_large_a_body(client, server):
    await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    await client.read_until(EVENT)
    await client.send(b"b\r\nhello world\r\n")
    await client.read_to_end()


@way("client_closed", listen)
async def breaks_its_body(client, server):
    await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    await client.read_until(EVENT)
    await client.send(b"5\r\nhelloX")
    await client.read_to_end()


@way("client_closed", tls=True)
async def goes_on_in_the_clear(client, server):
    await client.send(GET)
    await client.read_until(EVENT)
    await client.stream.transport_stream.send_all(GET)
    await ended(server)


@way("client_closed", deny_with_a_stream)
async def leaves_a_denial(client, server):
    await client.send(HANDSHAKE % b"")
    await client.read_until(EVENT)


@way("client_closed", deny_with_a_stream)
async def sends_too_much_to_a_denial(client, server):
    await client.send(HANDSHAKE % b"" + bytes(100_000))
    await client.read_until(EVENT)
    await ended(server)


# The others


@way("write_timeout", flood, timeouts={"sse_write_stall_s": 1})
async def does_not_read(client, server):
    await client.send(GET)
    await ended(server)


@way("server_shutdown", listen)
async def listens_when_the_server_stops(client, server):
    await client.send(GET)
    await client.read_until(EVENT)
    await stop(server)
    assert (await client.read_to_end()).endswith(b"0\r\n\r\n")


@way("server_shutdown")
async def has_an_application_that_sleeps_when_the_server_stops(client, server):
    await client.send(GET)
    await client.read_until(EVENT)
    await stop(server)
    assert (await client.read_to_end()).endswith(b"0\r\n\r\n")


@way("server_shutdown")
async def listens_when_the_server_is_aborted(client, server):
    await client.send(GET)
    await client.read_until(EVENT)
    server.handle.abort()
    await client.read_to_end()


@way("server_shutdown", flood, timeouts={"graceful_s": 1})
async def does_not_read_when_the_server_stops(client, server):
    await client.send(GET)
    await settle()
    await stop(server)
    await ended(server)


@way("server_shutdown", flood, timeouts={"graceful_s": 1})
async def resets_after_it_was_told_that_the_server_stops(client, server):
    await client.send(GET)
    await settle()
    await stop(server)
    reset(client)


@way("server_error", fail)
async def has_an_application_that_fails(client, server):
    await client.send(GET)
    assert (await client.read_to_end()).endswith(EVENT + b"\r\n")


@way("server_error", fail_before_anything_is_sent)
async def has_an_application_that_fails_at_once(client, server):
    await client.send(GET)
    assert (await client.read_response())[0] == 500


@way("server_error", give_up)
async def has_an_application_that_gives_up(client, server):
    await client.send(GET)
    assert (await client.read_to_end()).endswith(EVENT + b"\r\n")


@way("server_error", promise_too_much)
async def gets_less_than_was_promised(client, server):
    await client.send(GET)
    assert (await client.read_to_end()).endswith(EVENT)


# How long it was


def lasted(ledger, kind):
    """Return how often and how long."""
    return ledger.value(f"pagi_{kind}_seconds_count"), ledger.value(f"pagi_{kind}_seconds_sum")


async def test_a_stream_lasts_from_its_start_to_its_end_and_its_connection_longer(raw, autojump_clock):
    async def app(scope, receive, send):
        await trio.sleep(0.5)
        await begin(send)
        await trio.sleep(1.25)
        await send({"type": "http.response.body", "body": b""})
        # It is over.
        await trio.sleep(1)

    async with serving(app, lifespan="off") as server:
        async with raw(server) as client:
            for _ in range(2):
                await client.send(GET)
                assert (await client.read_response())[2] == EVENT
        ledger = await ended(server)
    assert lasted(ledger, "sse_stream") == (2, 2.5)
    assert ledger.value("pagi_server_connection_seconds_sum") >= 3.5
    assert server.metrics.value("pagi_sse_stream_seconds_bucket", le="1") == 0
    assert server.metrics.value("pagi_sse_stream_seconds_bucket", le="5") == 2


async def test_a_session_lasts_from_its_acceptance_to_the_first_close(raw, autojump_clock):
    async def app(scope, receive, send):
        await receive()
        await trio.sleep(2)
        await send({"type": "websocket.accept"})
        await trio.sleep(1)
        await send({"type": "websocket.close", "code": 4000})
        await trio.sleep(1.5)

    async with serving(app, lifespan="off") as server, raw(server) as client:
        await open_websocket(client)
        assert await read_frame(client) == (0x88, struct.pack("!H", 4000))
        # The bound is in its bucket.
        assert server.metrics.value("pagi_websocket_session_seconds_bucket", le="1") == 1
        assert server.metrics.value("pagi_websocket_session_seconds_sum") == 1.0
        assert server.metrics.value("pagi_server_connection_seconds_count") == 0
        await client.send(frame(8, struct.pack("!H", 4000)))
        assert await client.read_to_end() == b""
        ledger = await ended(server)
    assert lasted(ledger, "websocket_session") == (1, 1.0)
    assert lasted(ledger, "server_connection") == (1, 4.5)


async def test_a_connection_lasts_from_its_acceptance_however_often_it_is_used(raw, autojump_clock):
    async def app(scope, receive, send):
        await trio.sleep(1)
        await respond(send, b"hello")

    async with serving(app, lifespan="off") as server, raw(server) as client:
        for _ in range(3):
            await client.send(GET)
            await client.read_response()
        await client.stream.aclose()
        ledger = await ended(server)
    assert lasted(ledger, "server_connection") == (1, 3.0)
    assert server.metrics.value("pagi_server_connection_seconds_bucket", le="1") == 0
    assert server.metrics.value("pagi_server_connection_seconds_bucket", le="10") == 1


async def test_what_was_never_accepted_has_no_session_and_no_stream(raw, autojump_clock):
    async with serving(echo, lifespan="off") as server:
        async with raw(server) as client:
            await client.send((HANDSHAKE % b"").replace(b"Version: 13", b"Version: 99"))
            await client.read_to_end()
        ledger = await ended(server)
    assert lasted(ledger, "websocket_session") == lasted(ledger, "sse_stream") == (0, 0.0)
    assert lasted(ledger, "server_connection")[0] == 1


async def test_a_connection_whose_task_is_kept_has_ended_once(raw, autojump_clock):
    async with serving(leave_a_nursery_open, lifespan="off") as server:
        async with raw(server) as client:
            await client.send(GET)
            assert (await client.read_response())[2] == b"hello"
            assert await client.read_to_end() == b""
        ledger = await ended(server)
    assert lasted(ledger, "server_connection")[0] == 1


# Comments


async def test_every_comment_line_of_a_stream_counts_and_a_heartbeat_is_one(raw, autojump_clock):
    async def app(scope, receive, send):
        await begin(send)
        for _ in range(3):
            await trio.sleep(1)
            await send({"type": "http.response.body", "body": b": ping\n\n", "more_body": True})
        await send({"type": "http.response.body", "body": b": a\n:", "more_body": True})
        # The client has it, and it is not whole.
        await trio.sleep(1)
        middle.append(server.metrics.value("pagi_sse_comments_sent_total"))
        await send({"type": "http.response.body", "body": b" b\ndata: y\n\n: unfinished"})

    middle = []
    async with serving(app, lifespan="off") as server, raw(server) as client:
        await client.send(GET)
        body = (await client.read_response())[2]
        assert sum(line.startswith(b":") for line in body.split(b"\n")[:-1]) == 5
        assert server.metrics.value("pagi_sse_comments_sent_total") == 5
        assert server.metrics.value("pagi_sse_events_sent_total") == 2
    assert middle == [4]


@pytest.mark.parametrize("header", [(b"content-type", b"text/plain"), (b"content-encoding", b"gzip")])
async def test_comments_of_what_cannot_be_read_as_a_stream_do_not_count(raw, autojump_clock, header):
    async def app(scope, receive, send):
        headers = [header] if header[0] == b"content-type" else [STREAM, header]
        await respond(send, b": a\n\n", headers=headers)

    async with serving(app, lifespan="off") as server, raw(server) as client:
        await client.send(GET)
        assert (await client.read_response())[2] == b": a\n\n"
        assert server.metrics.value("pagi_sse_comments_sent_total") == 0
