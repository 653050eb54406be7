"""Processes that stand still: the others go on, the page answers, and what was counted is kept."""

from __future__ import annotations

import os
import signal

import pytest
import trio

from .clients import Connection, Crowd
from .equality import check, expected
from .test_kill import EXITS, RECEIVED, SENT, talk_to_all

pytestmark = pytest.mark.trio

BLOCKED = 'pagi_server_worker_blocked_seconds{{worker="{}"}}'.format
TIMEOUT_S = 1
"""The shortest --worker-timeout there is."""


async def hang(port):
    """Have a worker enter a loop that never ends; return once that connection is gone."""
    async with await Connection.open(port) as connection:
        await connection.send(b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n")
        await connection.wait_closed()


async def test_a_worker_in_an_endless_loop_shows_and_is_replaced_while_the_others_serve(start, watched):
    async with (
        start("-w", "2", "--worker-timeout", str(TIMEOUT_S), workers=2) as server,
        watched(server) as (crowd, watch),
    ):
        async with trio.open_nursery() as clients:
            await talk_to_all(crowd, clients, 2)
            clients.start_soon(hang, server.port)
            await server.wait_page(lambda page: max(page[BLOCKED(1)], page[BLOCKED(2)]) > 0)
            served = crowd.units
            await crowd.wait_units(200)
            await server.wait_page(lambda page: page[EXITS("hung")] == 1)
            assert crowd.units > served
            await server.wait_line("is ready", 3)
            await server.wait_line('app.py", line')
            crowd.stop()
        await watch.leave()
        watch.connections += 1
        assert crowd.cut.sessions >= 2
        await check(server, expected(crowd, watch))


async def test_the_page_of_the_parent_answers_while_every_worker_hangs(start):
    async with start("-w", "2", "--worker-timeout", "60", workers=2) as server, trio.open_nursery() as clients:
        clients.start_soon(hang, server.port)
        await server.wait_page(lambda page: max(page[BLOCKED(1)], page[BLOCKED(2)]) > 0)
        clients.start_soon(hang, server.port)
        page = await server.wait_page(lambda page: min(page[BLOCKED(1)], page[BLOCKED(2)]) > 0)
        assert page["pagi_server_connections_total"] == page["pagi_server_connections_active"] == 2
        for pid in server.workers().values():
            os.kill(pid, signal.SIGKILL)


async def test_a_stopped_worker_goes_on_where_it_was(start, watched):
    async with start("-w", "2", workers=2) as server, watched(server) as (crowd, watch):
        async with trio.open_nursery() as clients:
            await talk_to_all(crowd, clients, 2)
            pid = server.workers()[1]
            os.kill(pid, signal.SIGSTOP)
            await server.wait_page(lambda page: page[BLOCKED(1)] > 0)
            await crowd.wait_units(100)
            os.kill(pid, signal.SIGCONT)
            await server.wait_page(lambda page: page[BLOCKED(1)] == 0)
            await crowd.wait_units(100)
            crowd.stop()
        await watch.leave()
        assert crowd.cut.connections == 0
        page = await check(server, expected(crowd, watch))
        assert page["pagi_server_worker_spawns_total"] == 2


async def test_a_worker_that_stays_stopped_is_killed_and_its_counts_are_kept(start, watched):
    async with (
        start("-w", "2", "--worker-timeout", str(TIMEOUT_S), workers=2) as server,
        watched(server) as (crowd, _),
    ):
        async with trio.open_nursery() as clients:
            await talk_to_all(crowd, clients, 2)
            await crowd.pause()
            got = crowd.echoed
            await server.wait_page(lambda page: page[SENT] == page[RECEIVED] == got)
            os.kill(server.workers()[1], signal.SIGSTOP)
            page = await server.wait_page(lambda page: page[EXITS("hung")] == 1)
            assert (page[SENT], page[RECEIVED]) == (got, got)
            await server.wait_line("is ready", 3)
            crowd.resume()
            await crowd.wait_units(200)
            crowd.stop()
        got = crowd.done.received + crowd.cut.received
        assert got > page[SENT]
        await check(server, {SENT: (got, got), RECEIVED: (got, got)})


async def test_while_the_parent_is_stopped_its_workers_serve_and_their_pages_are_exact(start):
    async with start("-w", "2", "--worker-timeout", str(TIMEOUT_S), workers=2) as server:
        async with trio.open_nursery() as clients:
            crowd = Crowd(server.port)
            await talk_to_all(crowd, clients, 2)
            server.send_signal(signal.SIGSTOP)
            # Longer than a worker may stand still: nobody but the parent does.
            ends = trio.current_time() + TIMEOUT_S + 1
            while trio.current_time() < ends:
                await crowd.wait_units(50)
            await crowd.pause()
            got = crowd.echoed
            for _ in range(4):
                await server.wait_worker_page(lambda page: page[SENT] == page[RECEIVED] == got)
            dead = server.workers()[2]
            os.kill(dead, signal.SIGKILL)
            crowd.resume()
            await crowd.wait_units(100)
            page = await server.page_of_worker()
            assert page[SENT] >= got
            assert page["pagi_server_workers_active"] == 2
            server.send_signal(signal.SIGCONT)
            await server.wait_line("is ready", 3)
            await crowd.wait_units(100)
            crowd.stop()
        page = await server.page()
        assert dead not in server.children()
        assert page[EXITS("killed")] == 1
        assert page["pagi_server_worker_spawns_total"] == 3
        assert page["pagi_server_workers_active"] == 2
