"""Workers that are replaced on purpose, under load: not one request fails, and the totals are exact."""

from __future__ import annotations

import os
import re
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from .clients import Connection
from .equality import check, expected

pytestmark = pytest.mark.trio

RECYCLES = 200
REST_S = 0.01
"""Enough for a hundred requests a second by each client, and the processors are left to the workers that start."""

EXITS = 'pagi_server_worker_exits_total{{reason="{}"}}'.format


async def test_three_reloads_under_load_fail_no_request_and_count_every_one(start, watched):
    async with start("-w", "2", workers=2) as server, watched(server) as (crowd, watch):
        async with trio.open_nursery() as clients:
            for client in (crowd.keep_alive, crowd.keep_alive, crowd.once, crowd.once, crowd.listen, crowd.talk):
                clients.start_soon(client)
            await crowd.wait_units(300)
            # The second comes during the first, and waits for it.
            server.send_signal(signal.SIGHUP)
            await server.wait_line("replacing the workers")
            server.send_signal(signal.SIGHUP)
            await server.wait_page(lambda page: page[EXITS("clean")] == 4)
            await crowd.wait_units(300)
            server.send_signal(signal.SIGHUP)
            await server.wait_page(lambda page: page[EXITS("clean")] == 6)
            await crowd.wait_units(300)
            crowd.stop()
        await watch.leave()
        assert crowd.failed == []
        page = await check(server, expected(crowd, watch))
        assert page["pagi_server_worker_spawns_total"] == 8


def shared_bytes(pid):
    """Return how much of the shared memory of metrics is in RAM."""
    match = re.search(
        r"^\S+ rw-s .*memfd:pagi-trio-metrics.*\n(?:.*\n)*?Rss: +(\d+) kB",
        Path(f"/proc/{pid}/smaps").read_text(),
        re.MULTILINE,
    )
    return int(match[1]) * 1024


async def wait_recycled(server, count):
    await server.wait_page(lambda page: page[EXITS("recycled")] >= count)


@pytest.mark.slow
async def test_two_hundred_recycled_workers_under_load_leave_exact_totals_and_nothing_else(start, watched):
    async with (
        start("-w", "4", "--max-requests", "5", "--max-requests-jitter", "5", workers=4, limit_s=300) as server,
        watched(server, REST_S) as (crowd, watch),
    ):
        async with trio.open_nursery() as clients:
            for client in (crowd.keep_alive, crowd.keep_alive, crowd.once, crowd.listen, crowd.talk):
                clients.start_soon(client)
            for count in range(5, 21, 5):
                await wait_recycled(server, count)
            early_bytes, early_page = shared_bytes(server.process.pid), watch.sizes[-1]
            for count in range(25, RECYCLES + 1, 5):
                await wait_recycled(server, count)
            crowd.stop()
        await watch.leave()
        assert crowd.failed == []
        page = await check(server, expected(crowd, watch))
        assert page[EXITS("recycled")] == page["pagi_server_worker_spawns_total"] - page["pagi_server_workers_active"]
        # A slot that is used for the first time takes memory, and a line for each series of its own.
        assert shared_bytes(server.process.pid) <= early_bytes * 1.5
        assert watch.sizes[-1] <= early_page * 1.5


@pytest.mark.parametrize("before", [0, 1], ids=["opened", "used"])
async def test_a_connection_that_was_just_opened_or_used_is_still_answered_by_a_worker_that_leaves(start, before):
    async with start("-w", "1", "--max-requests", "1000000", workers=1) as server, AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(await Connection.open(server.port)) for _ in range(10)]
        for connection in connections * before:
            assert (await connection.get("/?1")).status == 200
        await server.wait_page(lambda page: page["pagi_server_connections_active"] == 10)
        server.send_signal(signal.SIGHUP)
        await server.wait_line("stopping: ")
        for connection in connections:
            response = await connection.get("/?3")
            assert (response.body, response.headers.get(b"connection")) == (b"xxx", b"close")


async def test_a_client_that_was_told_to_go_on_before_the_reload_is_answered_once_more(start):
    """The head of its response was out, and said nothing of an end, when the worker was told to leave."""
    async with (
        start("-w", "1", "--max-requests", "1000000", workers=1) as server,
        await Connection.open(server.port) as connection,
    ):
        await connection.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"connection" not in (await connection.head()).headers
        server.send_signal(signal.SIGHUP)
        await server.wait_line("stopping: ")
        os.kill(server.children()[0], signal.SIGUSR1)
        assert await connection.exactly(2) == b"ok"
        response = await connection.get("/?3")
        assert (response.body, response.headers.get(b"connection")) == (b"xxx", b"close")
