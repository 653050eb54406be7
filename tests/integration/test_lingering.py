"""The end of a connection, which the client still gets to read; RFC 9112 section 9.6."""

from __future__ import annotations

import pytest
import trio

from pagi_trio import testing

from .conftest import hello, read_body, respond, until

pytestmark = pytest.mark.trio


def is_closing(server):
    return server.metrics.value("pagi_server_connections_by_state", state="closing") == 1


async def test_what_lingers_when_the_server_stops_may_do_so_and_counts_as_what_it_was(raw):
    with trio.fail_after(10):
        async with testing.serve(hello, lifespan="off") as server, raw(server) as client:
            await client.send(b"no request\r\n\r\n")
            await until(lambda: is_closing(server))
            server.handle.shutdown()
            # A reset would be what this is answered with, and the response lost with it.
            for _ in range(3):
                await trio.testing.wait_all_tasks_blocked(0.01)
                await client.send(bytes(65536))
            assert (await client.read_response())[0] == 400
            assert await client.read_to_end() == b""
    assert server.metrics.value("pagi_server_connections_rejected_total", reason="shutdown") == 0
    assert server.metrics.value("pagi_server_connections_closed_total", reason="protocol_error") == 1


async def test_a_request_is_refused_once_however_long_its_client_lingers(pagi_serve, raw, tmp_path):
    log = tmp_path / "access.log"

    async def app(scope, receive, send):
        await read_body(receive)

    server = await pagi_serve(app, lifespan="off", access_log=str(log), timeouts={"body_grace_s": 0.5})
    async with raw(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
        assert (await client.read_response())[0] == 408
        # Until the server ends it, after two seconds of lingering.
        await until(lambda: server.metrics.value("pagi_server_connections_active") == 0)
    await until(lambda: log.read_text().count("\n"))
    [line] = log.read_text().splitlines()
    assert '"POST / HTTP/1.1" 408 ' in line


async def test_a_stopping_server_does_not_wait_for_a_body_whose_request_is_answered(raw):
    async def app(scope, receive, send):
        await respond(send, b"hello")

    with trio.fail_after(10):
        timeouts = {"head_s": 30, "graceful_s": 30}
        async with testing.serve(app, lifespan="off", timeouts=timeouts) as server, raw(server) as client:
            await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
            assert (await client.read_response())[2] == b"hello"
            server.handle.shutdown()
            assert await client.read_to_end() == b""
