"""What a StatsD daemon has been sent by several workers: what their clients have counted, whoever died meanwhile."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import asynccontextmanager

import pytest
import trio

from tests.statsd import Daemon, address_of, bound

from .clients import HANDSHAKE, Connection, Crowd
from .test_kill import talk_to_all

pytestmark = pytest.mark.trio

PUSHES = 'pagi_metrics_pushes_total{{exporter="statsd",outcome="{}"}}'.format
SENT, RECEIVED = "pagi_websocket_messages_sent_total", "pagi_websocket_messages_received_total"
HANDSHAKES = "pagi_websocket_handshakes_total"
OFTEN = ("--statsd-interval", "0.1")


@asynccontextmanager
async def listening(sock):
    """Take what comes to a daemon's socket, and at the end what is left."""
    daemon = Daemon()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(daemon.listen, sock)
        yield daemon
        nursery.cancel_scope.cancel()
    daemon.take_all(sock)


async def send_invalid_handshake(port):
    async with await Connection.open(port) as connection:
        await connection.send(HANDSHAKE.replace(b"Version: 13", b"Version: 12"))
        assert (await connection.response()).status == 426
        await connection.wait_closed()


def of_statsd(name, **labels):
    return ".".join([name, *(value.replace(".", "_") for value in labels.values())])


def of_dogstatsd(name, **labels):
    return (name, "env:test", *(f"{key}:{value}" for key, value in labels.items()))


def counted(crowd, key):
    """Return what the daemon has to have summed, all connections having ended as they should."""
    done = crowd.done
    assert crowd.cut.connections == 0
    assert min(done.sessions, done.received, done.streams, done.events, done.answers) > 0
    totals = {
        "pagi_websocket_connections_total": done.sessions,
        SENT: done.received,
        RECEIVED: done.sent,
        "pagi_websocket_bytes_sent_total": done.received_bytes,
        "pagi_websocket_bytes_received_total": done.sent_bytes,
        "pagi_sse_connections_total": done.streams,
        "pagi_sse_events_sent_total": done.events,
        "pagi_sse_bytes_sent_total": done.stream_bytes,
        # The application's own, over workers as well.
        "order_size_count": done.answers,
        "order_size_sum": done.size / 4,
    }
    return {
        **{key(name): value for name, value in totals.items()},
        key(HANDSHAKES, outcome="accepted"): done.sessions,
        key("order_size_bucket", le="1.0"): done.small,
        key("orders_total", kind="http"): done.answers,
        key("orders_total", kind="message"): done.received,
    }


@pytest.mark.parametrize(
    ("flavor", "key"),
    [((), of_statsd), (("--statsd-flavor", "dogstatsd", "--statsd-tags", "env:test"), of_dogstatsd)],
    ids=["statsd", "dogstatsd"],
)
async def test_a_daemon_sums_what_the_clients_of_four_workers_have_counted(start, flavor, key):
    with bound() as sock:
        async with (
            listening(sock) as daemon,
            start("-w", "4", "--statsd", address_of(sock), *OFTEN, *flavor, workers=4) as server,
        ):
            crowd = Crowd(server.port)
            async with trio.open_nursery() as clients:
                await talk_to_all(crowd, clients, 4)
                for client in (crowd.listen, crowd.listen, crowd.keep_alive, crowd.once):
                    clients.start_soon(client)
                for _ in range(3):
                    await send_invalid_handshake(server.port)
                await crowd.wait_units(1000)
                # Sums of many increments, and not the one of the last push.
                await daemon.until(lambda: daemon.increments.get(key(SENT), 0) > 3)
                crowd.stop()
            assert await server.finish() == 0
        expected = counted(crowd, key) | {key(HANDSHAKES, outcome="invalid"): 3}
        assert {name: daemon.counters.get(name) for name in expected} == expected
        for name in ("pagi_server_connections_active", "pagi_server_workers_active"):
            assert daemon.gauges[key(name)] == 0


async def test_a_killed_worker_takes_nothing_back_and_leaves_nothing_out(start):
    with bound() as sock:
        async with (
            listening(sock) as daemon,
            start("-w", "2", "--statsd", address_of(sock), *OFTEN, workers=2) as server,
        ):
            crowd = Crowd(server.port)
            async with trio.open_nursery() as clients:
                await talk_to_all(crowd, clients, 2)
                await crowd.wait_units(200)
                await crowd.pause()
                got = crowd.echoed
                await daemon.until(lambda: daemon.counters[SENT] == daemon.counters[RECEIVED] == got)
                os.kill(server.workers()[1], signal.SIGKILL)
                await daemon.until(lambda: daemon.counters["pagi_server_worker_exits_total.killed"] == 1)
                await server.wait_line("is ready", 3)
                crowd.resume()
                await crowd.wait_units(200)
                crowd.stop()
            assert await server.finish() == 0
        got = crowd.done.received + crowd.cut.received
        assert (daemon.counters[SENT], daemon.counters[RECEIVED]) == (got, got)
        # No increment was ever negative.
        assert crowd.cut.sessions >= 2
        assert daemon.counters["pagi_websocket_closes_total.1006.none"] >= crowd.cut.sessions
        assert daemon.gauges["pagi_websocket_connections_active"] == 0


@pytest.fixture(params=["udp", "unix"])
def rebound(request, tmp_path):
    """``with rebound() as sock``: a daemon's socket, each time at the same address."""
    if request.param == "unix":
        return lambda: bound(str(tmp_path / "statsd.sock"), socket.AF_UNIX)
    with bound() as sock:
        address = sock.getsockname()
    return lambda: bound(address)


async def test_a_daemon_that_is_dead_at_the_start_dies_and_comes_back_misses_nothing(start, rebound):
    with rebound() as sock:
        address = address_of(sock)
    total = {}

    def add(daemon):
        for name, value in daemon.counters.items():
            total[name] = total.get(name, 0) + value

    async with start("-w", "2", "--statsd", address, *OFTEN, workers=2) as server:
        await server.wait_page(lambda page: page[PUSHES("failed")] >= 2)
        crowd = Crowd(server.port)
        async with trio.open_nursery() as clients:
            for client in (crowd.talk, crowd.listen, crowd.keep_alive):
                clients.start_soon(client)
            await crowd.wait_units(100)
            for _ in range(2):
                with rebound() as sock:
                    async with listening(sock) as daemon:
                        goal = total.get(SENT, 0) + 1
                        await daemon.until(
                            lambda d=daemon, goal=goal: total.get(SENT, 0) + d.counters.get(SENT, 0) > goal
                        )
                        ok = (await server.page())[PUSHES("ok")]
                        await server.wait_page(lambda page, ok=ok: page[PUSHES("ok")] > ok)
                add(daemon)
                failed = (await server.page())[PUSHES("failed")]
                await crowd.wait_units(100)
                await server.wait_page(lambda page, failed=failed: page[PUSHES("failed")] >= failed + 2)
            crowd.stop()
        with rebound() as sock:
            async with listening(sock) as daemon:
                assert await server.finish() == 0
            add(daemon)
        expected = counted(crowd, of_statsd)
        assert {name: total.get(name) for name in expected} == expected
        assert len([line for line in server.lines if "were not pushed" in line]) == 1


async def test_a_daemon_that_never_reads_keeps_nobody(start, tmp_path):
    with bound(str(tmp_path / "statsd.sock"), socket.AF_UNIX) as sock:
        async with start("-w", "2", "--statsd", address_of(sock), "--statsd-interval", "0.5", workers=2) as server:
            await server.wait_page(lambda page: page[PUSHES("failed")] >= 2)
            crowd = Crowd(server.port)
            async with trio.open_nursery() as clients:
                for client in (crowd.talk, crowd.listen, crowd.keep_alive):
                    clients.start_soon(client)
                await crowd.wait_units(200)
                crowd.stop()
            assert crowd.cut.connections == 0
            assert await server.finish() == 0
            [line] = [line for line in server.lines if "were not pushed" in line]
            assert "Resource temporarily unavailable; further failures are only counted" in line
