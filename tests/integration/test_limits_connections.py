"""Connections that are turned away: beyond the limit, because the server stops, or for their TLS handshake."""

from __future__ import annotations

import logging
import socket
import ssl
import struct
from contextlib import suppress

import pytest
import trio

from tests.integration.embedded import serving

from .clock import assert_within_a_tick, seconds_until
from .conftest import RawClient, hello, respond
from .ledger import Ledger, ended
from .test_closes import settle

pytestmark = pytest.mark.trio

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
SLACK_S = 10


# The limit


async def test_a_connection_beyond_the_limit_gets_a_503_rfc9110_15_6_4(pagi_serve, raw, caplog):
    server = await pagi_serve(hello, lifespan="off", limits={"connections": 2})
    assert server.metrics.value("pagi_server_connections_limit") == 2
    async with raw(server) as first, raw(server) as second:
        for client in (first, second):
            await client.send(GET)
            assert (await client.read_response())[0] == 200
        for turned_away in (1, 2, 3):
            async with raw(server) as third:
                status, headers, _ = await third.read_response()
                assert (status, headers[b"retry-after"], headers[b"connection"]) == (503, b"1", b"close")
                assert await third.read_to_end() == b""
            assert Ledger(server.metrics).rejected == {"limit": turned_away}
        for client in (first, second):
            await client.send(GET)
            assert (await client.read_response())[0] == 200
    # Refused is not accepted.
    ledger = await ended(server)
    assert ledger.value("pagi_server_connections_total") == 2
    assert ledger.closed == {"done": 2}
    async with raw(server) as client:
        await client.send(GET)
        assert (await client.read_response())[0] == 200
    [said] = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert said == "more than 2 connections: those beyond are turned away"


async def test_over_tls_a_connection_beyond_the_limit_is_closed(pagi_serve, raw, tls, authority):
    server = await pagi_serve(hello, lifespan="off", limits={"connections": 1}, tls=authority.files)
    async with tls(server) as first:
        await first.send(GET)
        assert (await first.read_response())[0] == 200
        async with raw(server) as second:
            assert await second.read_to_end() == b""
        ledger = Ledger(server.metrics)
        assert ledger.rejected == {"limit": 1}
        # It had no handshake of which anything could have become.
        assert ledger.tls == {"ok": 1}
    await ended(server)
    async with tls(server) as client:
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
        await settle()
        ledger = Ledger(server.metrics)
        ledger.check()
        assert ledger.value("pagi_server_connections_active") == 3
        assert ledger.value("pagi_server_connections_total") == 3
        assert ledger.rejected == {"limit": 7}
    finally:
        for sock in socks:
            sock.close()


# A server that stops


async def silent(client):
    await settle()


async def answered(client):
    await client.send(GET)
    assert (await client.read_response())[0] == 200


async def half_a_head(client):
    await client.send(GET[:10])
    await settle()


async def refused(client):
    await client.send(b"BROKEN\r\n\r\n")
    assert (await client.read_response())[0] == 400


async def in_flight(client):
    await client.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    await settle()


@pytest.mark.parametrize(
    ("client", "rejected", "reason"),
    [
        (silent, {"shutdown": 1}, "server_shutdown"),
        (answered, {}, "server_shutdown"),
        (half_a_head, {}, "client_timeout"),
        (refused, {}, "protocol_error"),
        (in_flight, {}, "done"),
    ],
)
async def test_a_stop_turns_away_who_has_not_asked_yet(raw, autojump_clock, client, rejected, reason):
    async def app(scope, receive, send):
        await trio.sleep(scope["path"] == "/slow")
        await respond(send, b"hello")

    async with serving(app, lifespan="off", timeouts={"head_s": 1}) as server, raw(server) as connection:
        await client(connection)
        server.handle.shutdown()
        await connection.read_to_end()
        ledger = await ended(server)
    assert ledger.rejected == rejected
    assert ledger.closed == {reason: 1}


# TLS handshakes


@pytest.fixture(scope="module")
def hello_record():
    """What a client sends first."""
    outgoing = ssl.MemoryBIO()
    context = ssl.create_default_context()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="x").do_handshake()
    return outgoing.read()


async def nothing(client, server):
    await client.read_to_end()


async def leaves(client, server):
    await client.stream.send_eof()
    await client.read_to_end()


async def resets(client, server):
    client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.stream.socket.close()


async def sends_garbage(client, server):
    # The server may be done with it before it has all, and close behind the rest.
    with suppress(trio.BrokenResourceError):
        await client.send(GET * 100)
        assert b"HTTP" not in await client.read_to_end()


async def sees_the_server_stop(client, server):
    await settle()
    server.handle.shutdown()
    await client.read_to_end()


async def sees_the_server_abort(client, server):
    await settle()
    server.handle.abort()
    await client.read_to_end()


@pytest.mark.parametrize("begun", ["silent", "half", "answered"])
@pytest.mark.parametrize(
    ("client", "outcome", "rejected", "reason"),
    [
        (nothing, "timeout", "handshake", "client_timeout"),
        (leaves, "failed", "handshake", "client_closed"),
        (resets, "failed", "handshake", "client_closed"),
        (sends_garbage, "failed", "handshake", "protocol_error"),
        (sees_the_server_stop, "failed", "shutdown", "server_shutdown"),
        (sees_the_server_abort, "failed", "shutdown", "server_shutdown"),
    ],
)
async def test_a_tls_handshake_that_fails_counts_once_by_why(
    raw, autojump_clock, authority, hello_record, begun, client, outcome, rejected, reason
):
    async with serving(hello, lifespan="off", tls=authority.files, timeouts={"tls_handshake_s": 1}) as server:
        async with raw(server) as connection:
            await connection.send({"silent": b"", "half": hello_record[:50], "answered": hello_record}[begun])
            if begun == "answered":
                await connection.read_exactly(1)
            await client(connection, server)
        ledger = await ended(server)
    assert ledger.tls == {outcome: 1}
    assert ledger.rejected == {rejected: 1}
    assert ledger.closed == {reason: 1}


async def test_a_tls_handshake_has_its_deadline_and_no_byte_moves_it(raw, autojump_clock, authority, hello_record):
    async with serving(hello, lifespan="off", tls=authority.files, timeouts={"tls_handshake_s": 3}) as server:
        async with raw(server) as client, trio.open_nursery() as nursery:

            async def drip():
                for byte in hello_record:
                    await client.send(bytes((byte,)))
                    await trio.sleep(0.1)

            async def closed():
                with pytest.raises(trio.BrokenResourceError):
                    await drip()

            assert_within_a_tick(await seconds_until(closed), 3)
            nursery.cancel_scope.cancel()
        assert (await ended(server)).tls == {"timeout": 1}


async def test_a_client_that_resets_before_it_is_accepted_is_one_whose_handshake_failed(pagi_serve, authority):
    server = await pagi_serve(hello, lifespan="off", tls=authority.files)
    # All before the server's next turn, since nothing here yields.
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await settle()
    ledger = await ended(server)
    assert ledger.tls == {"failed": 1}
    assert ledger.rejected == {"handshake": 1}
    assert ledger.closed == {"client_closed": 1}
