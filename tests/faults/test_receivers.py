"""Real receivers: a Prometheus that scrapes, and the StatsD daemon; what they say is what the clients have counted.

Prometheus is Debian's package; StatsD is ``npm install statsd``, whose command is to be in the path.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from contextlib import asynccontextmanager, suppress

import httpx
import pytest
import trio

from pagi_trio.metrics.catalog import CATALOG
from tests.statsd import bound

from .clients import Crowd
from .test_kill import talk_to_all

pytestmark = [pytest.mark.trio, pytest.mark.outside]

SENT, RECEIVED = "pagi_websocket_messages_sent_total", "pagi_websocket_messages_received_total"
EVENTS = "pagi_sse_events_sent_total"
HANDSHAKES = "pagi_websocket_handshakes_total"


@asynccontextmanager
async def running(*command, ready):
    """Run a program for the length of a block, which gets the line that says that it is ready."""
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        async with trio.open_nursery() as nursery:
            yield await nursery.start(_read, process, ready)
            nursery.cancel_scope.cancel()
    finally:
        process.kill()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
            await process.wait()
            await process.stdout.aclose()


async def _read(process, ready, task_status):
    """Read all that a program says; there must be somebody who does."""
    said = ""
    is_ready = False
    async for data in process.stdout:
        said += data.decode()
        if not is_ready and (line := next((line for line in said.split("\n")[:-1] if ready in line), None)):
            is_ready = True
            task_status.started(line)
    raise AssertionError(f"it ended: {said}")


async def until(condition, limit_s=20):
    with trio.fail_after(limit_s):
        while not (found := await condition()):
            await trio.sleep(0.05)
        return found


# Prometheus

SCRAPE_MS = 500
"""Between two scrapes, and how long one may take: Prometheus has no more patience than that, however busy all are."""


class Prometheus:
    """Its query API."""

    def __init__(self, address):
        self._client = httpx.AsyncClient(base_url=f"http://{address}/api/v1", timeout=10)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self._client.aclose()

    async def ask(self, path, **parameters):
        answer = (await self._client.get(path, params=parameters)).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    async def query(self, text):
        """Return the one value that a query has; None if it has none."""
        found = (await self.ask("/query", query=text))["result"]
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None

    async def has_scraped(self, times):
        """Return whether it has scraped so often, and never in vain but where it had no patience."""
        failed = f"up == 0 and scrape_duration_seconds < {SCRAPE_MS / 1000}"
        assert await self.query(f"count_over_time(({failed})[2m:100ms])") is None
        return (await self.query("sum_over_time(up[2m])") or 0) >= times


@asynccontextmanager
async def prometheus(tmp_path, port):
    """Have a real one scrape the page on a port twice a second."""
    config = {
        "global": {"scrape_interval": f"{SCRAPE_MS}ms", "scrape_timeout": f"{SCRAPE_MS}ms"},
        "scrape_configs": [{"job_name": "pagi", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}],
    }
    file = tmp_path / "prometheus.yml"
    file.write_text(json.dumps(config))
    command = ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    async with (
        running(*command, "--web.listen-address=127.0.0.1:0", ready="Listening on") as line,
        Prometheus(re.search(r"127\.0\.0\.1:\d+", line)[0]) as found,
    ):
        yield found


async def scraped(prom, values):
    """Wait until Prometheus has these values, each the sum over a metric's series."""
    found = {}

    async def is_so():
        for series in values:
            found[series] = await prom.query(f"sum({series})")
        return found == values

    try:
        await until(is_so)
    except trio.TooSlowError:
        assert found == values


async def test_a_real_prometheus_answers_with_what_the_clients_have_counted(start, tmp_path):
    async with start("-w", "2", workers=2) as server, prometheus(tmp_path, server.page_port) as prom:
        crowd = Crowd(server.port)
        async with trio.open_nursery() as clients:
            for client in (crowd.talk, crowd.listen, crowd.keep_alive):
                clients.start_soon(client)
            # Two scrapes of a server that is at work, and some more.
            await until(lambda: prom.has_scraped(4))
            crowd.stop()
        done = crowd.done
        assert min(done.received, done.events, done.sessions, done.answers) > 0
        expected = {
            SENT: done.received,
            RECEIVED: done.sent,
            "pagi_websocket_bytes_sent_total": done.received_bytes,
            EVENTS: done.events,
            f'{HANDSHAKES}{{outcome="accepted"}}': done.sessions,
            'orders_total{kind="http"}': done.answers,
            "order_size_sum": done.size / 4,
        }
        await scraped(prom, expected)
        await check_types(prom)
        assert await server.finish() == 0


async def check_types(prom):
    """Check that what it knows of each metric is what the catalog says."""
    told = await prom.ask("/metadata")
    for metric in CATALOG:
        # OpenMetrics, which it asks for, has no _total in the names of families.
        [known] = told[metric.name.removesuffix("_total")]
        assert (known["type"], known["help"]) == (metric.kind, metric.help)


@pytest.mark.slow
async def test_a_real_prometheus_sees_no_counter_step_back_though_workers_are_killed_for_thirty_seconds(
    start, tmp_path
):
    async with (
        start("-w", "3", workers=3, limit_s=120) as server,
        prometheus(tmp_path, server.page_port) as prom,
    ):
        crowd = Crowd(server.port, rest_s=0.005)
        async with trio.open_nursery() as clients:
            await talk_to_all(crowd, clients, 3)
            for client in (crowd.listen, crowd.keep_alive, crowd.once):
                clients.start_soon(client)
            since = trio.current_time()
            while trio.current_time() < since + 30:
                await trio.sleep(4)
                # One that is about to get ready has no number yet.
                with suppress(ProcessLookupError, StopIteration):
                    os.kill(next(iter(server.workers().values())), signal.SIGKILL)
            crowd.stop()

        async def is_told():
            # The last fold of a worker may be 50 ms away.
            page = await server.page()
            return all([await prom.query(f"sum({total})") == page[total] for total in (SENT, EVENTS)])

        await until(is_told)
        totals = (
            SENT,
            RECEIVED,
            EVENTS,
            HANDSHAKES,
            "pagi_server_connections_total",
            "orders_total",
            "order_size_count",
        )
        for total in totals:
            assert await prom.query(f"sum(resets({total}[2m]))") == 0
        await until(lambda: prom.has_scraped(50))
        assert await prom.query(f"sum(increase({SENT}[2m]))") > 0
        assert await prom.query('pagi_server_worker_exits_total{reason="killed"}') >= 5


# StatsD


class RealStatsD:
    """The daemon's management interface."""

    def __init__(self, port):
        self._port = port

    async def ask(self, what):
        """Return what it has, by name."""
        async with await trio.open_tcp_stream("127.0.0.1", self._port) as stream:
            await stream.send_all(what.encode())
            said = b""
            while b"END" not in said:
                said += await stream.receive_some()
        pairs = re.findall(r"'?([\w.-]+)'?: (-?[\d.]+(?:e[+-]\d+)?)", said.decode())
        return {name: float(value) for name, value in pairs}


def free_port():
    with bound() as sock:
        return sock.getsockname()[1]


@asynccontextmanager
async def real_statsd(tmp_path):
    """Run it; the block gets its interface and its port."""
    port, management = free_port(), free_port()
    config = {
        "port": port,
        "address": "127.0.0.1",
        "mgmt_port": management,
        "mgmt_address": "127.0.0.1",
        "title": False,
        # It keeps all until it is asked.
        "backends": [],
        "flushInterval": 3_600_000,
    }
    file = tmp_path / "statsd.js"
    file.write_text(json.dumps(config))
    async with running("statsd", file, ready="server is up"):
        yield RealStatsD(management), port


async def test_the_real_statsd_sums_what_the_clients_have_counted(start, tmp_path):
    async with real_statsd(tmp_path) as (daemon, port):
        options = ("--statsd", f"127.0.0.1:{port}", "--statsd-interval", "0.2", "--statsd-prefix", "web")
        async with start("-w", "2", *options, workers=2) as server:
            crowd = Crowd(server.port)
            async with trio.open_nursery() as clients:
                await talk_to_all(crowd, clients, 2)
                for client in (crowd.listen, crowd.keep_alive):
                    clients.start_soon(client)
                await crowd.wait_units(1000)
                crowd.stop()
            assert await server.finish() == 0
        done = crowd.done
        expected = {
            f"web.{SENT}": done.received,
            f"web.{RECEIVED}": done.sent,
            f"web.{EVENTS}": done.events,
            f"web.{HANDSHAKES}.accepted": done.sessions,
            "web.orders_total.http": done.answers,
            "web.order_size_sum": done.size / 4,
            "statsd.bad_lines_seen": 0,
        }

        async def is_told():
            counters = await daemon.ask("counters")
            return {name: counters.get(name) for name in expected} == expected

        await until(is_told)
        gauges = await daemon.ask("gauges")
        assert gauges["web.pagi_server_workers_active"] == 0
        assert gauges["web.pagi_server_draining"] == 1
