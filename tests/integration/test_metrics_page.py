"""The metrics page end to end: what clients counted is what it says."""

from __future__ import annotations

import gc
import gzip
import os
import re
import resource
import subprocess
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import httpx
import pytest
import trio
import trio_websocket

from pagi_trio import Config, MetricsApp, URLMap, serve, testing
from pagi_trio.metrics import catalog
from pagi_trio.metrics.flush import Flush
from pagi_trio.metrics.store import Store
from pagi_trio.metrics.tally import Tally
from pagi_trio.page import CONNECTIONS
from tests.integration.embedded import start_server

from .conftest import respond, until
from .raw_client import RawClient

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


def keys_of(series):
    """Name the samples of a series as the page of one process does, which is its own first worker."""
    name = series.metric.name
    if series.metric.kind == "histogram":
        bounds = [*map(str, series.metric.buckets), "+Inf"]
        return {key(f"{name}_bucket", le=bound) for bound in bounds} | {key(f"{name}_count"), key(f"{name}_sum")}
    return {key(name, **({"worker": "1"} if series.metric.aggregation == "slot" else dict(series.labels)))}


def ours(page):
    return {key: value for key, value in page.items() if key[0].startswith("pagi_")}


# What it says


async def test_every_series_of_the_catalog_is_there_from_the_first_scrape(pagi_serve):
    server = await pagi_serve(mounted())
    async with browser() as client:
        page = ours(await scrape(client, server.url + "/metrics"))
    assert page.keys() == set().union(*map(keys_of, catalog.SERIES))
    moving = {
        "pagi_server_info": 1,
        "pagi_server_connections_total": 1,
        "pagi_server_connections_active": 1,
        "pagi_server_connections_limit": resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 64,
        "pagi_server_workers_active": 1,
        "pagi_server_worker_spawns_total": 1,
        "pagi_server_workers_configured": 1,
        "pagi_server_worker_up": 1,
        "pagi_metrics_scrapes_total": 1,
    }
    timed = {
        "pagi_server_start_time_seconds",
        "pagi_server_worker_start_time_seconds",
        "pagi_server_lifespan_startup_seconds",
    }
    for (name, labels), value in page.items():
        if name in timed:
            assert value > 0
        elif name == "pagi_server_connections_by_state":
            assert value == (labels == (("state", "app"),))
        else:
            assert (name, value) == (name, moving.get(name, 0))


async def test_after_known_traffic_the_page_equals_what_the_clients_counted(pagi_serve, caplog):
    server = await pagi_serve(mounted(), raise_app_exceptions=False)
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
    last = {}

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
        for metric, samples in snapshot:
            if metric.kind != "gauge":
                for suffix, labels, value in samples:
                    name = key(metric.name + suffix, **labels)
                    assert value >= last.get(name, 0.0)
                    last[name] = value

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
    assert last[key("pagi_websocket_messages_received_total")] > 0


async def test_the_numbers_stay_right_when_the_server_is_aborted_under_traffic(raw):
    async with trio.open_nursery() as clients:
        async with testing.serve(mounted(), lifespan="off") as server:
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


async def test_the_pages_own_listener_takes_few_connections_and_turns_others_away(pagi_serve, raw):
    server = await pagi_serve(app, metrics={"bind": "127.0.0.1:0"})
    (url,) = server.handle.metrics_urls

    @asynccontextmanager
    async def connect():
        async with await trio.open_tcp_stream("127.0.0.1", httpx.URL(url).port) as stream:
            yield RawClient(stream)

    async with AsyncExitStack() as clients:
        for _ in range(CONNECTIONS):
            client = await clients.enter_async_context(connect())
            await client.send(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await client.read_response())[0] == 200
        # Without a request, which might arrive when nobody is there any more and reset the answer.
        client = await clients.enter_async_context(connect())
        assert (await client.read_response())[0] == 503
        async with raw(server) as client:
            await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await client.read_response())[2] == b"hello"


async def test_the_pages_own_listener_may_be_a_unix_socket(pagi_serve, tmp_path):
    path = str(tmp_path / "metrics.sock")
    server = await pagi_serve(app, metrics={"bind": f"unix:{path}"})
    assert server.handle.metrics_urls == (f"unix:{path}",)
    with trio.fail_after(10):
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=path)) as client:
            assert (await scrape(client, "http://x/metrics"))[key("pagi_server_connections_total")] == 0


# Health, on the same listener


@asynccontextmanager
async def served_from_the_start(app, path):
    """Serve with a page on a unix socket; yield before the application has started, with a client for that socket."""
    handles = []

    async with trio.open_nursery() as nursery:

        async def start():
            handles.append(await start_server(nursery, app, {"metrics": {"bind": f"unix:{path}"}}))

        nursery.start_soon(start)
        with trio.fail_after(10):
            await until(path.exists)
            transport = httpx.AsyncHTTPTransport(uds=str(path))
            async with httpx.AsyncClient(transport=transport, base_url="http://x", timeout=None) as client:
                yield client, handles
        nursery.cancel_scope.cancel()


async def health_of(client):
    answers = [await client.get(path) for path in ("/-/healthy", "/-/ready")]
    return [(answer.status_code, answer.text) for answer in answers]


async def test_health_from_the_start_to_the_end(tmp_path, raw):
    may_start, is_called, may_answer, may_end = (trio.Event() for _ in range(4))

    async def slow(scope, receive, send):
        if scope["type"] == "lifespan":
            for phase, event in (("startup", may_start), ("shutdown", may_end)):
                await receive()
                await event.wait()
                await send({"type": f"lifespan.{phase}.complete"})
        else:
            is_called.set()
            await may_answer.wait()
            await respond(send, b"at last")

    path = tmp_path / "page.sock"
    async with served_from_the_start(slow, path) as (client, handles):

        async def state():
            page = await scrape(client, "/metrics")
            names = ("pagi_server_workers_active", "pagi_server_draining")
            return [page[key("pagi_server_worker_up", worker="1")], *(page[key(name)] for name in names)]

        assert await health_of(client) == [(200, "ok\n"), (503, "starting\n")]
        assert await state() == [0, 1, 0]
        may_start.set()
        await until(lambda: handles)
        assert await health_of(client) == [(200, "ok\n"), (200, "ok\n")]
        assert await state() == [1, 1, 0]
        async with raw(handles[0]) as other:
            await other.send(GET)
            await is_called.wait()
            handles[0].handle.shutdown()
            assert await health_of(client) == [(200, "ok\n"), (503, "draining\n")]
            assert await state() == [0, 1, 1]
            may_answer.set()
            assert (await other.read_response())[2] == b"at last"
        # While the application shuts down as well.
        assert await health_of(client) == [(200, "ok\n"), (503, "draining\n")]
        assert await state() == [0, 1, 1]
        may_end.set()
        await until(lambda: not path.exists())
    assert handles[0].metrics.value("pagi_server_workers_active") == 0


async def test_a_server_that_is_stopped_while_it_starts_is_draining(tmp_path):
    is_cancelled, may_end, trigger = trio.Event(), trio.Event(), trio.Event()

    async def never_starts(scope, receive, send):
        await receive()
        try:
            await trio.sleep_forever()
        finally:
            is_cancelled.set()
            with trio.CancelScope(shield=True):
                await may_end.wait()

    path = tmp_path / "page.sock"
    config = Config(bind=("127.0.0.1:0",)).replace(metrics={"bind": f"unix:{path}"})
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(serve, never_starts, config, shutdown_trigger=trigger.wait))
            await until(path.exists)
            async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path))) as client:
                assert (await client.get("http://x/-/ready")).text == "starting\n"
                trigger.set()
                await is_cancelled.wait()
                assert (await client.get("http://x/-/ready")).text == "draining\n"
                assert (await client.get("http://x/-/healthy")).status_code == 200
            may_end.set()


@pytest.mark.parametrize("turns", range(4))
async def test_a_server_that_is_stopped_right_after_its_start_is_not_up(turns):
    has_started = trio.Event()
    seen = []

    async def quick(scope, receive, send):
        metrics = scope["extensions"]["pagi.metrics"]
        await receive()
        await send({"type": "lifespan.startup.complete"})
        has_started.set()
        await receive()
        seen.extend([metrics.value("pagi_server_worker_up", worker="1"), metrics.value("pagi_server_draining")])
        await send({"type": "lifespan.shutdown.complete"})

    async def trigger():
        await has_started.wait()
        for _ in range(turns):
            await trio.lowlevel.checkpoint()

    await serve(quick, Config(bind=("127.0.0.1:0",)), shutdown_trigger=trigger)
    assert seen == [0, 1]


async def test_health_has_its_two_addresses_and_no_other(pagi_serve):
    server = await pagi_serve(app, metrics={"bind": "127.0.0.1:0"})
    (url,) = server.handle.metrics_urls
    async with browser() as client:
        for path, status in (("/-/ready/", 200), ("/-/ready/x", 404), ("/-/", 404), ("/-/readyx", 404)):
            assert (await client.get(url + path)).status_code == status
        assert (await client.post(url + "/-/ready")).status_code == 405
        assert (await client.head(url + "/-/healthy")).status_code == 200
        # Nor has the application's listener any.
        assert (await client.get(server.url + "/-/ready")).text == "hello"


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
