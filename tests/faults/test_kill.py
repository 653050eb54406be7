"""Workers that are killed by SIGKILL: nothing but their own connections is lost, and no total ever steps back."""

from __future__ import annotations

import os
import signal

import pytest
import trio

from .equality import check, check_balance, expected

pytestmark = pytest.mark.trio

EXITS = 'pagi_server_worker_exits_total{{reason="{}"}}'.format
CUT_CONNECTIONS = 'pagi_server_connections_closed_total{reason="server_error"}'
CUT_WEBSOCKETS = 'pagi_websocket_closes_total{code="1006",side="none"}'
SENT, RECEIVED = "pagi_websocket_messages_sent_total", "pagi_websocket_messages_received_total"


async def talk_to_all(crowd, clients, workers):
    """Have two WebSockets on each worker: as many as that takes, since the kernel chooses who accepts."""
    while sum(count >= 2 for count in crowd.workers.values()) < workers:
        assert sum(crowd.workers.values()) < 200
        clients.start_soon(crowd.talk)
        await crowd.wait_units(2)


async def test_a_worker_killed_under_websocket_load_costs_its_own_connections_and_no_total(start, watched):
    async with start("-w", "3", workers=3) as server, watched(server) as (crowd, watch):
        async with trio.open_nursery() as clients:
            await talk_to_all(crowd, clients, 3)
            before = server.workers()
            os.kill(before[1], signal.SIGKILL)
            await server.wait_line("is ready", 4)
            await crowd.wait_units(500)
            after = server.workers()
            assert (after[2], after[3]) == (before[2], before[3])
            crowd.stop()
        await server.wait_page(lambda page: page[EXITS("killed")] == 1)
        assert crowd.cut.sessions >= 2
        await watch.leave()
        await check(server, expected(crowd, watch))


async def test_a_worker_killed_in_a_silence_takes_not_one_message_along(start, watched):
    async with start("-w", "2", workers=2) as server, watched(server) as (crowd, _):
        async with trio.open_nursery() as clients:
            began = trio.current_time()
            await talk_to_all(crowd, clients, 2)
            await crowd.wait_units(200)
            await crowd.pause()
            got = crowd.echoed
            # The other worker's last fold may be 50 ms away.
            await server.wait_page(lambda page: page[SENT] == page[RECEIVED] == got)
            os.kill(server.workers()[1], signal.SIGKILL)
            page = await server.wait_page(lambda page: page[EXITS("killed")] == 1)
            assert (page[SENT], page[RECEIVED]) == (got, got)
            # Whatever it had open has ended with it: nobody else ends in this silence.
            check_balance(page)
            assert page[CUT_CONNECTIONS] >= page[CUT_WEBSOCKETS] >= 2
            # They have been open for a while, and none for longer than this takes.
            cut, age_s = page[CUT_WEBSOCKETS], page["pagi_websocket_session_seconds_sum"]
            assert page["pagi_websocket_session_seconds_count"] == cut
            assert 0 < age_s <= cut * (trio.current_time() - began)
            crowd.resume()
            await crowd.wait_units(200)
            crowd.stop()
        got = crowd.done.received + crowd.cut.received
        assert got > page[SENT]
        await check(server, {SENT: (got, got), RECEIVED: (got, got)})


async def test_all_workers_killed_at_once_again_and_again(start, watched):
    rounds = 3
    async with start("-w", "2", workers=2) as server:
        async with watched(server) as (crowd, watch):
            async with trio.open_nursery() as clients:
                for client in (crowd.talk, crowd.keep_alive, crowd.once, crowd.listen):
                    clients.start_soon(client)
                for number in range(1, rounds + 1):
                    await crowd.wait_units(200)
                    for pid in server.workers().values():
                        os.kill(pid, signal.SIGKILL)
                    await server.wait_ready(False)
                    await server.wait_ready()
                    await server.wait_line("is ready", 2 + 2 * number)
                await crowd.wait_units(200)
                crowd.stop()
            page = await server.wait_page(lambda page: page["pagi_server_workers_active"] == 2)
            assert page[EXITS("killed")] == 2 * rounds
            assert page["pagi_server_worker_spawns_total"] == 2 + 2 * rounds
            await watch.leave()
        await check(server, expected(crowd, watch))
        assert await server.finish() == 0
