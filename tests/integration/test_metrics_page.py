"""The metrics page end to end: what clients counted is what it says."""

from __future__ import annotations

import gc
import gzip
import os
import re
import subprocess
from contextlib import asynccontextmanager

import httpx
import pytest
import trio
import trio_websocket

from pagi_trio import MetricsApp, URLMap
from pagi_trio.metrics import catalog
from pagi_trio.metrics.flush import Flush
from pagi_trio.metrics.store import Store
from pagi_trio.metrics.tally import Tally
from pagi_trio.testing import serving

from .conftest import respond, until

prometheus_client = pytest.importorskip("prometheus_client")

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics  # noqa: E402
from prometheus_client.parser import text_string_to_metric_families as parse_text  # noqa: E402

pytestmark = pytest.mark.trio

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
EVENT = b"data: x\n\n"


async def app(scope, receive, send):
    """Echo on WebSockets; three events on /events, a stream that stays open on /open, else a short answer."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})
    elif scope["path"] in ("/events", "/open"):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for _ in range(3):
            await send({"type": "http.response.body", "body": EVENT, "more_body": True})
        if scope["path"] == "/open":
            await trio.sleep_forever()
        await send({"type": "http.response.body", "body": b": the end\n\n"})
    elif scope["path"] == "/fails":
        raise ValueError("broken")
    else:
        await respond(send, b"hello")


def mounted():
    return URLMap({"/metrics": MetricsApp(), "/": app})


@asynccontextmanager
async def browser():
    """An HTTP client of which everything has ten seconds."""
    with trio.fail_after(10):
        async with httpx.AsyncClient(trust_env=False, timeout=None) as client:
            yield client


@asynccontextmanager
async def websocket_to(server):
    """A WebSocket whose socket is closed however it ends, which trio-websocket leaves to the garbage collector."""
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    async with stream, trio.open_nursery() as nursery:
        yield await trio_websocket.wrap_client_stream(nursery, stream, "localhost", "/")
        nursery.cancel_scope.cancel()


async def scrape(client, url):
    """Return every sample of a page in the text format: value by name and labels."""
    answer = await client.get(url, headers={"accept-encoding": "identity"})
    assert answer.status_code == 200
    return samples(parse_text(answer.text))


def samples(families):
    found = {}
    for family in families:
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


def key(name, **labels):
    return name, tuple(sorted(labels.items()))


def ours(page):
    return {key: value for key, value in page.items() if key[0].startswith("pagi_")}


# What it says


async def test_every_series_of_the_catalog_is_there_from_the_first_scrape(pagi_serve):
    server = await pagi_serve(mounted())
    async with browser() as client:
        page = ours(await scrape(client, server.url + "/metrics"))
    assert page.keys() == {key(series.metric.name, **dict(series.labels)) for series in catalog.SERIES}
    moving = {
        "pagi_server_info": 1,
        "pagi_server_connections_total": 1,
        "pagi_server_connections_active": 1,
        "pagi_server_workers_active": 1,
        "pagi_server_worker_spawns_total": 1,
        "pagi_metrics_scrapes_total": 1,
    }
    for (name, labels), value in page.items():
        if name in ("pagi_server_start_time_seconds", "pagi_server_lifespan_startup_seconds"):
            assert value > 0
        elif name == "pagi_server_connections_by_state":
            assert value == (labels == (("state", "app"),))
        else:
            assert (name, value) == (name, moving.get(name, 0))


async def test_after_known_traffic_the_page_equals_what_the_clients_counted(pagi_serve, caplog):
    server = await pagi_serve(mounted())
    messages = ["", "é" * 7, "x" * 70_000, b"", bytes(126), os.urandom(200_000)]
    octets = sum(len(message.encode() if isinstance(message, str) else message) for message in messages)
    events = received = 0
    async with browser() as client:
        for _ in range(5):
            assert (await client.get(server.url + "/")).text == "hello"
        for _ in range(4):
            body = (await client.get(server.url + "/events")).content
            events += body.count(b"data: x\n\n")
            received += len(body)
        for _ in range(2):
            assert (await client.get(server.url + "/fails")).status_code == 500
        for _ in range(3):
            async with trio_websocket.open_websocket_url(server.ws_url + "/ws") as ws:
                for message in messages:
                    await ws.send_message(message)
                    assert await ws.get_message() == message
                await ws.ping()
        await until(lambda: server.metrics.value("pagi_websocket_connections_active") == 0)
        page = await scrape(client, server.url + "/metrics")
    expected = {
        "pagi_sse_connections_total": 4,
        "pagi_sse_connections_active": 0,
        "pagi_sse_events_sent_total": events,
        "pagi_sse_bytes_sent_total": received,
        "pagi_websocket_connections_total": 3,
        "pagi_websocket_connections_active": 0,
        "pagi_websocket_messages_received_total": 3 * len(messages),
        "pagi_websocket_messages_sent_total": 3 * len(messages),
        "pagi_websocket_bytes_received_total": 3 * octets,
        "pagi_websocket_bytes_sent_total": 3 * octets,
        "pagi_metrics_scrapes_total": 1,
        # The client's own, which a failure ends twice; and one for each WebSocket.
        "pagi_server_connections_total": 3 + 3,
        "pagi_server_workers_active": 1,
    }
    assert (events, received) == (12, 4 * (3 * len(EVENT) + len(b": the end\n\n")))
    assert {name: page[key(name)] for name in expected} == expected
    assert page[key("pagi_server_app_errors_total", scope="http")] == 2


async def test_states_sum_to_the_active_connections_at_every_scrape(pagi_serve, raw):
    server = await pagi_serve(mounted(), timeouts={"graceful_s": 0})
    seen = set()

    async with browser() as client, trio.open_nursery() as nursery:

        async def plain():
            while True:
                async with raw(server) as other:
                    for _ in range(3):
                        await other.send(GET)
                        await other.read_response()

        async def broken():
            while True:
                async with raw(server) as other:
                    await other.send(b"BROKEN\r\n\r\n")
                    await other.read_response()

        async def half():
            while True:
                async with raw(server) as other:
                    await other.send(b"GET / HT")
                    await trio.lowlevel.checkpoint()

        async def websocket():
            while True:
                async with websocket_to(server) as ws:
                    await ws.send_message("x")
                    await ws.get_message()

        async def stream():
            while True:
                async with raw(server) as other:
                    await other.send(b"GET /open HTTP/1.1\r\nHost: x\r\n\r\n")
                    await other.read_until(EVENT)

        for traffic in (plain, broken, half, websocket, stream):
            nursery.start_soon(traffic)
        for _ in range(40):
            page = await scrape(client, server.url + "/metrics")
            states = {
                labels[0][1]: value
                for (name, labels), value in page.items()
                if name == "pagi_server_connections_by_state"
            }
            assert sum(states.values()) == page[key("pagi_server_connections_active")]
            assert min(states.values()) >= 0
            assert page[key("pagi_sse_connections_active")] >= 0
            seen |= {state for state, value in states.items() if value}
        nursery.cancel_scope.cancel()
    assert {"app", "sse"} <= seen


async def test_nothing_ever_decreases_and_cut_off_connections_leave_no_gauge(pagi_serve, raw):
    server = await pagi_serve(mounted())
    counters = [metric.name for metric in catalog.CATALOG if metric.kind == "counter"]
    last = dict.fromkeys(counters, 0.0)

    async def session():
        async with websocket_to(server) as ws:
            for number in range(1000):
                await ws.send_message(bytes(number))
                await ws.get_message()

    async def stream():
        async with raw(server) as other:
            await other.send(b"GET /open HTTP/1.1\r\nHost: x\r\n\r\n")
            await trio.sleep_forever()

    def check():
        snapshot = server.metrics.snapshot()
        for metric, values in snapshot:
            if metric.kind == "counter":
                total = sum(value for _, value in values)
                assert total >= last[metric.name]
                last[metric.name] = total

    for turns in range(0, 60, 3):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session)
            nursery.start_soon(stream)
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
                check()
            nursery.cancel_scope.cancel()
        check()
    await until(lambda: server.metrics.value("pagi_server_connections_active") == 0)
    assert server.metrics.value("pagi_websocket_connections_active") == 0
    assert server.metrics.value("pagi_sse_connections_active") == 0
    assert last["pagi_websocket_messages_received_total"] > 0


async def test_the_numbers_stay_right_when_the_server_is_aborted_under_traffic(raw):
    async with trio.open_nursery() as clients:
        async with serving(mounted(), lifespan="off") as server:
            received = 0
            async with websocket_to(server) as ws, raw(server) as other:
                await other.send(b"GET /open HTTP/1.1\r\nHost: x\r\n\r\n")
                await other.read_until(EVENT)
                for _ in range(20):
                    await ws.send_message("hello")
                    received += len(await ws.get_message())
                assert server.metrics.value("pagi_server_connections_active") == 2
                server.handle.abort()
                await until(lambda: server.metrics.value("pagi_server_connections_active") == 0)
        clients.cancel_scope.cancel()
    # The handle answers after the server's end.
    assert server.metrics.value("pagi_server_workers_active") == 0
    assert server.metrics.value("pagi_websocket_connections_active") == 0
    assert server.metrics.value("pagi_sse_connections_active") == 0
    assert server.metrics.value("pagi_websocket_messages_sent_total") == 20
    assert server.metrics.value("pagi_websocket_bytes_sent_total") == received == 100


# How it says it


async def test_both_formats_parse_and_say_the_same(pagi_serve):
    server = await pagi_serve(mounted())
    async with browser() as client:
        text = await client.get(server.url + "/metrics")
        openmetrics = await client.get(server.url + "/metrics", headers={"accept": OPENMETRICS})
    assert text.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert openmetrics.headers["content-type"] == OPENMETRICS + "; charset=utf-8"
    assert openmetrics.text.endswith("# EOF\n")
    assert "_created" not in text.text
    first, second = ours(samples(parse_text(text.text))), ours(samples(parse_openmetrics(openmetrics.text)))
    second = {key: value for key, value in second.items() if not key[0].endswith("_created")}
    assert second.pop(key("pagi_metrics_scrapes_total")) == first.pop(key("pagi_metrics_scrapes_total")) + 1
    assert first == second
    for page in (text, openmetrics):
        assert "process_cpu_seconds_total" in page.text


async def test_the_apps_own_metrics_are_on_the_page_until_they_are_not(pagi_serve):
    server = await pagi_serve(mounted())
    counter = prometheus_client.Counter("pagi_test_orders_total", "Orders taken.")
    try:
        async with browser() as client:
            counter.inc(3)
            page = await scrape(client, server.url + "/metrics")
            assert page[key("pagi_test_orders_total")] == 3
    finally:
        prometheus_client.REGISTRY.unregister(counter)


async def test_gzip_on_the_wire_is_the_same_page(pagi_serve, raw):
    server = await pagi_serve(mounted())
    request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: %b\r\n\r\n"
    async with raw(server) as client:
        await client.send(request % b"gzip")
        _, headers, body = await client.read_response()
        assert headers[b"content-encoding"] == b"gzip"
        assert int(headers[b"content-length"]) == len(body)
        page = ours(samples(parse_text(gzip.decompress(body).decode())))
        assert page[key("pagi_metrics_scrapes_total")] == 1
        await client.send(request % b"gzip;q=0")
        _, headers, body = await client.read_response()
        assert b"content-encoding" not in headers
        assert b"pagi_metrics_scrapes_total 2.0\n" in body


async def test_head_405_and_404_on_one_connection_rfc9110_9_3_2(pagi_serve, raw):
    server = await pagi_serve(mounted())
    async with raw(server) as client:
        await client.send(b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        status, headers, _ = await client.read_response(head_only=True)
        assert status == 200
        assert int(headers[b"content-length"]) > 1000
        await client.send(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nx=1")
        status, headers, _ = await client.read_response()
        assert (status, headers[b"allow"]) == (405, b"GET, HEAD")
        await client.send(b"GET /metrics/x HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.read_response())[0] == 404
        await client.send(b"GET /metricsfoo HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.read_response())[2] == b"hello"
        await client.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"\npagi_metrics_scrapes_total 1.0\n" in (await client.read_response())[2]
    assert server.metrics.value("pagi_server_connections_total") == 1


async def test_a_websocket_to_the_page_is_refused(pagi_serve, raw):
    server = await pagi_serve(mounted())
    async with raw(server) as client:
        await client.send(
            b"GET /metrics HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert (await client.read_response())[0] == 403
    assert server.metrics.value("pagi_websocket_connections_total") == 0


@pytest.mark.outside
@pytest.mark.parametrize("warm", [False, True], ids=["fresh", "after traffic"])
async def test_promtool_has_no_remark(pagi_serve, warm):
    server = await pagi_serve(mounted())
    async with browser() as client:
        if warm:
            await client.get(server.url + "/events")
            async with trio_websocket.open_websocket_url(server.ws_url) as ws:
                await ws.send_message("x")
                await ws.get_message()
        page = (await client.get(server.url + "/metrics")).content
    result = await trio.run_process(
        ["promtool", "check", "metrics"], stdin=page, capture_stdout=True, stderr=subprocess.STDOUT, check=False
    )
    assert (result.returncode, result.stdout.decode()) == (0, "")


# A listener of its own


async def test_connections_to_the_pages_own_listener_are_not_counted(pagi_serve):
    server = await pagi_serve(app, metrics={"bind": "127.0.0.1:0"})
    (url,) = server.handle.metrics_urls
    async with browser() as client:
        for path in ("/metrics", "/", "/metrics"):
            page = await scrape(client, url + path)
        assert page[key("pagi_server_connections_total")] == 0
        assert page[key("pagi_server_connections_active")] == 0
        assert page[key("pagi_metrics_scrapes_total")] == 3
        # And the application's has no page.
        assert (await client.get(server.url + "/metrics")).text == "hello"
        page = await scrape(client, url)
        assert page[key("pagi_server_connections_total")] == 1
        assert page[key("pagi_server_connections_active")] == 1


async def test_the_pages_own_listener_may_be_a_unix_socket(pagi_serve, tmp_path):
    path = str(tmp_path / "metrics.sock")
    server = await pagi_serve(app, metrics={"bind": f"unix:{path}"})
    assert server.handle.metrics_urls == (f"unix:{path}",)
    with trio.fail_after(10):
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=path)) as client:
            assert (await scrape(client, "http://x/metrics"))[key("pagi_server_connections_total")] == 0


# Off, and several


def task_names():
    names = []
    waiting = [trio.lowlevel.current_root_task()]
    while waiting:
        task = waiting.pop()
        names.append(task.name)
        waiting += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return names


def parts_of_the_metrics():
    """Return how many stores, flushes and tallies with a channel exist in the process, and the flush tasks."""
    gc.collect()
    everything = gc.get_objects()
    return (
        sum(isinstance(one, Store) for one in everything),
        sum(isinstance(one, Flush) for one in everything),
        sum(isinstance(one, Tally) and one._channel is not None for one in everything),
        sum(re.search(r"\b(Flush|Meter)\.run", name) is not None for name in task_names()),
    )


async def test_switched_off_there_is_no_store_no_channel_and_no_task(pagi_serve, caplog):
    before = parts_of_the_metrics()
    server = await pagi_serve(mounted(), metrics={"enabled": False})
    assert server.handle.metrics is None
    with pytest.raises(RuntimeError, match="no metrics"):
        _ = server.metrics
    async with browser() as client:
        for _ in range(2):
            answer = await client.get(server.url + "/metrics")
            assert answer.status_code == 503
            assert answer.text == "metrics are switched off; start the server without --no-metrics\n"
        assert (await client.get(server.url + "/events")).status_code == 200
        async with trio_websocket.open_websocket_url(server.ws_url) as ws:
            await ws.send_message("x")
            assert await ws.get_message() == "x"
        assert parts_of_the_metrics() == before
    assert len([record for record in caplog.records if "no metrics page" in record.message]) == 1
    # The same look sees all of it where metrics are on.
    await pagi_serve(mounted())
    after = parts_of_the_metrics()
    assert [new - old for new, old in zip(after, before, strict=True)] == [1, 1, 2, 1]


async def test_two_servers_do_not_see_each_other(pagi_serve):
    first, second = await pagi_serve(mounted()), await pagi_serve(mounted())
    async with browser() as client:
        for _ in range(3):
            await client.get(first.url + "/events")
        await client.get(second.url + "/events")
        pages = [await scrape(client, server.url + "/metrics") for server in (first, second)]
    assert [page[key("pagi_sse_events_sent_total")] for page in pages] == [9, 3]
    assert [page[key("pagi_metrics_scrapes_total")] for page in pages] == [1, 1]
    assert [page[key("pagi_server_connections_total")] for page in pages] == [1, 1]


async def test_one_app_mounted_in_two_servers_answers_for_whoever_calls_it(pagi_serve):
    shared = mounted()
    first, second = await pagi_serve(shared), await pagi_serve(shared)
    async with browser() as client:
        await client.get(first.url + "/events")
        pages = [await scrape(client, server.url + "/metrics") for server in (first, second)]
    assert [page[key("pagi_sse_connections_total")] for page in pages] == [1, 0]
