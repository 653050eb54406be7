"""A server of one process that pushes to a StatsD daemon, from its start to its very end."""

from __future__ import annotations

import logging
from functools import partial

import httpx
import pytest
import trio
import trio_websocket

from pagi_trio.config import Config
from pagi_trio.metrics import Metrics
from pagi_trio.server import serve
from tests.integration.embedded import serving
from tests.statsd import Daemon, address_of, bound

from .conftest import hello, respond

pytestmark = pytest.mark.trio


async def app(scope, receive, send):
    """Do a bit of everything: echo, stream two events, or answer."""
    if scope["type"] == "lifespan":
        for phase in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{phase}.complete"})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
    elif scope["path"] == "/events":
        await respond(send, b"data: 1\n\ndata: 2\n\n", headers=[(b"content-type", b"text/event-stream")])
    else:
        await hello(scope, receive, send)


@pytest.fixture
def udp():
    with bound() as sock:
        yield sock


async def test_the_daemon_has_everything_though_no_interval_ever_ended(udp):
    daemon = Daemon()
    async with serving(app, statsd={"address": address_of(udp), "interval_s": 3600, "prefix": "web"}) as server:
        async with httpx.AsyncClient() as client:
            for path in ("/", "/events", "/events"):
                await client.get(server.url + path)
        async with trio_websocket.open_websocket_url(server.ws_url) as ws:
            for text in ("a", "bcd"):
                await ws.send_message(text)
                await ws.get_message()
    daemon.take_all(udp)
    counters = {name.removeprefix("web.pagi_"): value for name, value in daemon.counters.items() if value}
    expected = {
        "server_connections_total": 2,
        "websocket_connections_total": 1,
        "websocket_messages_received_total": 2,
        "websocket_messages_sent_total": 2,
        "websocket_bytes_received_total": 4,
        "websocket_bytes_sent_total": 4,
        "websocket_handshakes_total.accepted": 1,
        "sse_connections_total": 2,
        "sse_events_sent_total": 4,
        "sse_bytes_sent_total": 36,
        "metrics_pushes_total.statsd.ok": 1,
        "websocket_session_seconds_count": 1,
        "websocket_session_seconds_bucket.Inf": 1,
        "sse_stream_seconds_count": 2,
    }
    assert {name: counters.get(name) for name in expected} == expected
    assert daemon.gauges["web.pagi_server_connections_active"] == 0
    assert daemon.gauges["web.pagi_server_worker_up.1"] == 0
    # The application's shutdown was timed before.
    assert daemon.gauges["web.pagi_server_lifespan_shutdown_seconds"] > 0


async def test_the_daemon_has_the_applications_own_metrics_as_their_callbacks_leave_them(udp):
    metrics = Metrics(prefix="shop")
    orders = metrics.counter("orders_total", "Orders.", labels=["method"])
    depth = metrics.gauge("depth", "Jobs that wait.")
    work = metrics.timer("work_seconds", "Work.", buckets=(0.5, 1))
    waiting = 0

    async def shop(scope, receive, send):
        nonlocal waiting
        orders.labels(method="GET").inc()
        work.observe(0.75)
        waiting -= 2
        await respond(send)

    remove = metrics.add_batch_callback(lambda: depth.set(waiting))
    daemon = Daemon()
    async with (
        serving(shop, lifespan="off", statsd={"address": address_of(udp)}) as server,
        httpx.AsyncClient() as client,
    ):
        for _ in range(3):
            await client.get(server.url)
    remove()
    daemon.take_all(udp)
    own = {name: value for name, value in daemon.counters.items() if name.startswith("shop_")}
    assert own == {
        "shop_orders_total.GET": 3,
        "shop_work_seconds_bucket.0_5": 0,
        "shop_work_seconds_bucket.1_0": 3,
        "shop_work_seconds_bucket.Inf": 3,
        "shop_work_seconds_count": 3,
        "shop_work_seconds_sum": 2.25,
    }
    assert daemon.gauges["shop_depth"] == -6


async def test_a_server_that_is_cancelled_pushes_its_last_as_well(udp):
    daemon = Daemon()
    async with trio.open_nursery() as nursery:
        config = Config().replace(bind=("127.0.0.1:0",), statsd={"address": address_of(udp)})
        [url] = await nursery.start(partial(serve, app, config))
        async with httpx.AsyncClient() as client:
            await client.get(url)
        nursery.cancel_scope.cancel()
    daemon.take_all(udp)
    assert daemon.counters["pagi_server_connections_total"] == 1
    assert daemon.gauges["pagi_server_connections_active"] == 0


async def test_nobody_there_is_one_line_in_the_log_and_a_count(caplog):
    with bound() as sock:
        address = address_of(sock)
    with caplog.at_level(logging.WARNING, logger="pagi_trio"):
        async with serving(hello, lifespan="off", statsd={"address": address, "interval_s": 0.1}) as server:
            failed = partial(server.metrics.value, "pagi_metrics_pushes_total", exporter="statsd", outcome="failed")
            with trio.fail_after(10):
                while failed() < 3:
                    await trio.sleep(0.02)
            async with httpx.AsyncClient() as client:
                assert (await client.get(server.url)).text == "hello"
    [record] = caplog.records
    assert record.getMessage() == (
        f"metrics were not pushed to statsd: {address}: Connection refused; further failures are only counted"
    )


async def test_without_a_daemon_nothing_is_pushed(pagi_serve):
    server = await pagi_serve(hello)
    for outcome in ("ok", "failed"):
        assert server.metrics.value("pagi_metrics_pushes_total", exporter="statsd", outcome=outcome) == 0
