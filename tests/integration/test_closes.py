"""Every way a connection ends, and what it is then counted as in pagi_server_connections_closed_total.

Two of the reasons are not provoked here. ``write_error`` is for what the kernel says of a write that is not about the
client (no route, no memory, a time limit of TCP's own): between two ends on one machine it has no such thing to say.
``x-`` reasons of applications are none of the server's. How WebSockets end is in test_closes_websocket.py.
"""

from __future__ import annotations

import socket
import struct

import pytest
import trio

from tests.integration.embedded import serving

from .conftest import hello, read_body, respond
from .ledger import ended

pytestmark = pytest.mark.trio

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"

WAYS = []


def way(reason, app=hello, *, tls=False, **config):
    """Add a way to end a connection: what the client does on it, and how it is counted.

    Args:
        reason: As on the page.
        app: What is served.
        tls: Whether it is served over TLS, and the client has done its handshake.
        config: Settings that are not the defaults.
    """

    def add(client):
        WAYS.append(pytest.param(reason, app, tls, config, client, id=client.__name__))
        return client

    return add


@pytest.mark.parametrize(("reason", "app", "over_tls", "config", "client"), WAYS)
async def test_a_connection_is_counted_by_why_it_ended(
    raw, tls, authority, autojump_clock, reason, app, over_tls, config, client
):
    if over_tls:
        config = {**config, "tls": authority.files}
    async with serving(app, lifespan="off", **config) as server:
        async with (tls if over_tls else raw)(server) as connection:
            await client(connection, server)
        ledger = await ended(server)
    assert ledger.closed == {reason: 1}
    assert ledger.value("pagi_server_connections_total") == 1
    assert ledger.tls == ({"ok": 1} if over_tls else {})


def reset(client):
    """Leave so that the server is told of it by an error."""
    transport = client.stream if isinstance(client.stream, trio.SocketStream) else client.stream.transport_stream
    transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.socket.close()


async def settle():
    """Let the server take in what it has been sent."""
    await trio.testing.wait_all_tasks_blocked()


async def stop(server):
    server.handle.shutdown()
    await settle()


# Applications


async def echo(scope, receive, send):
    body, complete = await read_body(receive)
    if complete:
        await respond(send, body)


async def answer_without_reading(scope, receive, send):
    await respond(send, b"no")


async def download(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": bytes(1_000_000), "more_body": True})


async def events(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
    await trio.sleep_forever()


async def wait_for_ever(scope, receive, send):
    await trio.sleep_forever()


async def half_an_answer(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise ValueError("broken")


async def half_an_answer_then_read(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    await read_body(receive)


LEFT_OPEN = []


async def leave_a_nursery_open(scope, receive, send):
    async def block():
        async with trio.open_nursery():
            yield

    LEFT_OPEN.append(block())
    await LEFT_OPEN[-1].__anext__()
    await respond(send, b"hello")
    # The connection goes on in another task from here.
    await trio.sleep(1)


# done: a whole response


@way("done")
async def leaves_between_two_requests(client, server):
    await client.send(GET)
    await client.read_response()


@way("done", tls=True)
async def leaves_between_two_requests_over_tls(client, server):
    await client.send(GET)
    await client.read_response()


@way("done")
async def asks_for_a_close(client, server):
    await client.send(b"GET / HTTP/1.0\r\n\r\n")
    assert (await client.read_to_end()).endswith(b"hello")


@way("done", answer_without_reading)
async def goes_on_with_a_body_that_is_answered(client, server):
    await client.send(POST % 100_000 + bytes(90_000))
    assert (await client.read_response())[2] == b"no"


@way("done", answer_without_reading)
async def resets_what_lingers_after_its_answer(client, server):
    await client.send(POST % 100_000 + bytes(90_000))
    assert (await client.read_response())[2] == b"no"
    # The server has said that nothing more comes, and still reads.
    assert await client.read_to_end() == b""
    reset(client)


@way("done", answer_without_reading)
async def breaks_a_body_that_is_answered(client, server):
    await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX")
    assert (await client.read_response())[2] == b"no"
    assert await client.read_to_end() == b""


@way("done")
async def does_not_close_a_connection_that_is_over(client, server):
    await client.send(b"GET / HTTP/1.0\r\n\r\n" + GET)
    assert (await client.read_to_end()).endswith(b"hello")
    await ended(server)


# client_closed


@way("client_closed")
async def says_nothing_and_leaves(client, server):
    await settle()


@way("client_closed")
async def leaves_in_a_head(client, server):
    await client.send(GET[:-2])


@way("client_closed")
async def leaves_in_a_second_head(client, server):
    await client.send(GET + GET[:-2])
    await client.read_response()


@way("client_closed")
async def resets_between_two_requests(client, server):
    await client.send(GET)
    await client.read_response()
    reset(client)


@way("client_closed", echo)
async def leaves_in_a_body(client, server):
    await client.send(POST % 10 + b"12345")
    await settle()


@way("client_closed", download)
async def resets_in_a_response(client, server):
    await client.send(GET)
    await client.read_head()
    reset(client)


@way("client_closed", download, tls=True)
async def resets_in_a_response_over_tls(client, server):
    await client.send(GET)
    await client.read_head()
    reset(client)


@way("client_closed", download, tls=True)
async def leaves_in_a_response_over_tls(client, server):
    await client.send(GET)
    await client.read_head()
    await trio.aclose_forcefully(client.stream)


@way("client_closed", events)
async def leaves_an_event_stream(client, server):
    await client.send(GET)
    await client.read_until(b"data: x\n\n")


# client_timeout


@way("client_timeout", timeouts={"head_s": 1})
async def says_nothing(client, server):
    assert await client.read_to_end() == b""


@way("client_timeout", timeouts={"head_s": 1})
async def does_not_end_a_head(client, server):
    await client.send(GET + GET[:-2])
    assert (await client.read_response())[0] == 200
    assert (await client.read_response())[0] == 408
    assert await client.read_to_end() == b""


@way("client_timeout", echo, timeouts={"body_grace_s": 1})
async def does_not_end_a_body(client, server):
    await client.send(POST % 10 + b"12345")
    assert (await client.read_response())[0] == 408
    assert await client.read_to_end() == b""


@way("client_timeout", half_an_answer_then_read, timeouts={"body_grace_s": 1})
async def does_not_end_a_body_whose_answer_has_begun(client, server):
    await client.send(POST % 10)
    assert (await client.read_head())[0] == 200
    assert await client.read_to_end() == b"4\r\nhalf\r\n"


@way("client_timeout", half_an_answer_then_read, timeouts={"body_grace_s": 1})
async def does_not_end_a_body_whose_answer_would_end_with_the_connection(client, server):
    await client.send((POST % 10).replace(b"1.1", b"1.0"))
    assert (await client.read_head())[0] == 200
    # By an ordinary end the client would take the half for the whole.
    with pytest.raises(trio.BrokenResourceError):
        await client.read_to_end()


@way("client_timeout", answer_without_reading, timeouts={"head_s": 1})
async def does_not_end_a_body_that_is_answered(client, server):
    await client.send(POST % 10)
    assert (await client.read_response())[2] == b"no"
    assert await client.read_to_end() == b""


# The others


@way("keepalive_timeout", timeouts={"keep_alive_s": 1})
async def is_idle(client, server):
    await client.send(GET)
    await client.read_response()
    assert await client.read_to_end() == b""


@way("write_timeout", download, timeouts={"write_stall_s": 1})
async def does_not_read_a_response(client, server):
    await client.send(GET)
    await ended(server)


@way("read_error", wait_for_ever, tls=True, timeouts={"graceful_s": 1, "head_s": 1})
async def goes_on_in_the_clear(client, server):
    await client.stream.transport_stream.send_all(GET)
    await ended(server)


@way("protocol_error")
async def does_not_speak_http(client, server):
    await client.send(b"BROKEN\r\n\r\n")
    assert (await client.read_response())[0] == 400


@way("protocol_error", limits={"headers": 1})
async def sends_too_many_headers(client, server):
    await client.send(b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n")
    assert (await client.read_response())[0] == 431


@way("protocol_error", echo)
async def breaks_a_body(client, server):
    await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX")
    assert (await client.read_response())[0] == 400


@way("body_too_large", echo, limits={"body_bytes": 10})
async def announces_too_large_a_body(client, server):
    await client.send(POST % 11)
    assert (await client.read_response())[0] == 413


@way("server_error", half_an_answer)
async def gets_half_an_answer(client, server):
    await client.send(GET)
    assert b"half" in await client.read_to_end()


@way("server_error", half_an_answer)
async def gets_half_an_answer_that_would_end_with_the_connection(client, server):
    await client.send(b"GET / HTTP/1.0\r\n\r\n")
    with pytest.raises(trio.BrokenResourceError):
        await client.read_to_end()


@way("server_error", leave_a_nursery_open)
async def is_idle_when_an_application_leaves_a_nursery_open(client, server):
    await client.send(GET)
    assert (await client.read_response())[2] == b"hello"
    assert await client.read_to_end() == b""


@way("server_shutdown", half_an_answer_then_read, timeouts={"graceful_s": 1})
async def has_half_an_answer_when_the_server_stops(client, server):
    await client.send((POST % 10).replace(b"1.1", b"1.0"))
    await client.read_head()
    await stop(server)
    with pytest.raises(trio.BrokenResourceError):
        await client.read_to_end()


@way("server_shutdown", wait_for_ever, timeouts={"graceful_s": 1})
async def waits_when_the_server_stops(client, server):
    await client.send(GET)
    await settle()
    await stop(server)
    assert await client.read_to_end() == b""


@way("server_shutdown")
async def is_idle_when_the_server_stops(client, server):
    await client.send(GET)
    await client.read_response()
    await stop(server)
    assert await client.read_to_end() == b""


@way("server_shutdown", events)
async def listens_when_the_server_stops(client, server):
    await client.send(GET)
    await client.read_until(b"data: x\n\n")
    await stop(server)
    assert (await client.read_to_end()).endswith(b"0\r\n\r\n")
