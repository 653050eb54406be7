"""Too few files, a worker that cannot start, a parent that is gone: what is left serves on, or ends."""

from __future__ import annotations

import resource
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from .clients import Connection, Crowd, CutError
from .equality import check, expected
from .test_kill import EXITS, talk_to_all

pytestmark = pytest.mark.trio

EMFILE = 'pagi_server_accept_errors_total{kind="emfile"}'
REJECTED = [
    f'pagi_server_connections_rejected_total{{reason="{reason}"}}' for reason in ("limit", "shutdown", "handshake")
]


async def test_workers_without_files_leave_connections_to_others_and_lose_none(start, watched):
    async with start("-w", "2", workers=2) as server, AsyncExitStack() as stack:
        # Few enough for the application to use them all up in a moment; the parent, which has the page, keeps its own.
        for pid in server.workers().values():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (100, 100))
        doors = {}
        asked = 0
        while len(doors) < 2:
            connection = await stack.enter_async_context(await Connection.open(server.port))
            doors[(await connection.get("/?0")).headers[b"x-worker"]] = connection
            asked += 1
        one, other = doors.values()
        assert (await one.get("/open-files?0")).status == 200

        async with watched(server) as (crowd, watch):
            async with trio.open_nursery() as clients:
                for client in (crowd.once, crowd.once, crowd.talk, crowd.listen):
                    clients.start_soon(client)
                await crowd.wait_units(300)
                crowd.stop()
            await watch.leave()
            assert crowd.failed == []
            # What this test has done itself counts as well.
            watch.connections += asked
            crowd.done.answers += asked + 1
            crowd.done.small += asked + 1
            page = await check(server, expected(crowd, watch) | {"pagi_server_connections_active": (asked, asked)})
        connections = page["pagi_server_connections_total"]

        # No worker has any left: what comes now waits in the kernel.
        assert (await other.get("/open-files")).status == 200
        waiting = [await stack.enter_async_context(await Connection.open(server.port)) for _ in range(20)]
        for connection in waiting:
            await connection.send(b"GET /?3 HTTP/1.1\r\nHost: x\r\n\r\n")
        await server.wait_line("cannot accept on ", 2)
        page = await server.wait_page(lambda page: page[EMFILE] >= 4)
        assert page["pagi_server_connections_total"] == connections
        assert (await one.get("/close-files")).status == 200
        assert (await other.get("/close-files")).status == 200
        for connection in waiting:
            assert (await connection.response()).body == b"xxx"
        page = await check(server, {"pagi_server_connections_total": (connections + 20, connections + 20)})
        # It is over: nobody fails to accept any more, and nobody was turned away for it.
        assert (await server.page())[EMFILE] == page[EMFILE]
        assert [series for series in REJECTED if page[series]] == []


async def test_one_worker_of_four_that_cannot_start_is_tried_again_while_the_others_serve(start, watched, tmp_path):
    stumble = tmp_path / "stumble"
    stumble.touch()
    async with (
        start("-w", "4", workers=3, environ={"STUMBLE_FILE": str(stumble)}) as server,
        watched(server) as (crowd, watch),
    ):
        async with trio.open_nursery() as clients:
            for client in (crowd.once, crowd.keep_alive, crowd.talk):
                clients.start_soon(client)
            await server.wait_line("this worker stumbles")
            await server.wait_line("is ready", 4)
            await crowd.wait_units(100)
            crowd.stop()
        await watch.leave()
        assert crowd.failed == []
        page = await check(server, expected(crowd, watch))
        assert page[EXITS("startup_failed")] == 1
        assert page["pagi_server_worker_spawns_total"] == 5
        assert page["pagi_server_workers_active"] == 4


def is_gone(pid):
    """Whether a process has ended, waited for or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


async def wait_gone(pids):
    with trio.fail_after(30):
        while not all(is_gone(pid) for pid in pids):
            await trio.sleep(0.01)


async def test_a_parent_that_is_killed_takes_its_workers_along_which_say_goodbye(start):
    async with start("-w", "2", workers=2) as server:
        crowd = Crowd(server.port)
        async with trio.open_nursery() as clients:
            await talk_to_all(crowd, clients, 2)
            await crowd.wait_units(100)
            pids = server.workers().values()
            server.send_signal(signal.SIGKILL)
            await wait_gone(pids)
            crowd.stop()
        # Those that tried to come again were refused.
        assert crowd.cut.sessions == 0
        assert crowd.done.sessions >= 4
        with pytest.raises(CutError, match="refused"):
            await Connection.open(server.port)


@pytest.mark.slow
async def test_idle_workers_live_as_long_as_their_parent_and_no_longer(start):
    """A minute: what watches over a parent's death may go by the thread that started the worker, and threads idle."""
    async with start("-w", "2", workers=2, limit_s=120) as server:
        pids = server.workers().values()
        await trio.sleep(60)
        assert not any(is_gone(pid) for pid in pids)
        assert (await server.ask("/")).status == 200
        server.send_signal(signal.SIGKILL)
        await wait_gone(pids)
