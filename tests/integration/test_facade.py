"""Applications' own metrics on the page of one process, over sockets."""

from __future__ import annotations

import shutil
import subprocess
import sys

import httpx
import pytest
import trio

from pagi_trio import Metrics, MetricsApp, URLMap
from tests.integration.command import TCP, get, running
from tests.integration.conftest import respond


def shop(metrics):
    """Return an application that counts its requests, as a user would write it."""
    orders = metrics.counter("orders_total", "Orders.", labels=["path"])
    work = metrics.timer("work_seconds", "Work.")

    @work.time()
    async def answer(scope, receive, send):
        orders.labels(path=scope["path"]).inc()
        await respond(send)

    return URLMap({"/metrics": MetricsApp(), "/": answer})


async def page(server):
    async with httpx.AsyncClient(base_url=server.url) as client:
        lines = (await client.get("/metrics")).text.splitlines()
    return {series: float(value) for series, _, value in (line.rpartition(" ") for line in lines) if "#" not in series}


@pytest.mark.trio
async def test_the_page_has_what_the_application_has_counted(pagi_serve):
    pytest.importorskip("prometheus_client")
    server = await pagi_serve(shop(Metrics(prefix="shop")), lifespan="off")
    assert (await page(server))["shop_work_seconds_count"] == 0
    async with httpx.AsyncClient(base_url=server.url) as client:
        for path in ("/a", "/b", "/a"):
            await client.get(path)
    told = await page(server)
    assert told['shop_orders_total{path="/a"}'] == 2
    assert told['shop_orders_total{path="/b"}'] == 1
    assert told["shop_work_seconds_count"] == 3
    assert told['shop_work_seconds_bucket{le="+Inf"}'] == 3


@pytest.mark.trio
async def test_both_formats_say_what_the_definitions_do(pagi_serve):
    pytest.importorskip("prometheus_client")
    metrics = Metrics(prefix="form")
    sent = metrics.counter("sent_bytes_total", "Bytes \\ sent,\nin all.", unit="bytes", labels=["to"])
    server = await pagi_serve(URLMap({"/metrics": MetricsApp()}))
    # The test itself has no context of the server, which is the only one.
    sent.labels(to='"you"\n').inc(2)
    async with httpx.AsyncClient(base_url=server.url) as client:
        text = (await client.get("/metrics")).text
        openmetrics = (await client.get("/metrics", headers={"accept": "application/openmetrics-text"})).text
    assert '# TYPE form_sent_bytes_total counter\nform_sent_bytes_total{to="\\"you\\"\\n"} 2.0\n' in text
    assert "# HELP form_sent_bytes_total Bytes \\\\ sent,\\nin all.\n" in text
    assert "# UNIT form_sent_bytes bytes\n" in openmetrics
    assert 'form_sent_bytes_total{to="\\"you\\"\\n"} 2.0\n' in openmetrics
    assert openmetrics.endswith("# EOF\n")


@pytest.mark.trio
async def test_two_servers_of_one_test_each_have_their_own(pagi_serve):
    pytest.importorskip("prometheus_client")
    metrics = Metrics(prefix="twice")
    one, other = await pagi_serve(shop(metrics)), await pagi_serve(shop(metrics))
    async with httpx.AsyncClient() as client:
        await client.get(f"{one.url}/a")
        await client.get(f"{one.url}/a")
        await client.get(f"{other.url}/b")
    told, told_other = await page(one), await page(other)
    assert told['twice_orders_total{path="/a"}'] == 2
    assert 'twice_orders_total{path="/b"}' not in told
    assert told_other['twice_orders_total{path="/b"}'] == 1
    assert 'twice_orders_total{path="/a"}' not in told_other


@pytest.mark.trio
async def test_the_limit_of_label_sets_is_a_setting(pagi_serve):
    metrics = Metrics(prefix="many")
    users = metrics.counter("users_total", "Users.", labels=["user"])
    server = await pagi_serve(shop(metrics), metrics={"series_per_metric": 2})
    for number in range(5):
        users.labels(user=str(number)).inc()
    assert server.metrics.value("pagi_metrics_dropped_series_total") == 3


@pytest.mark.trio
async def test_with_metrics_off_nothing_is_counted(pagi_serve):
    metrics = Metrics(prefix="off")
    told = []

    async def app(scope, receive, send):
        told.append(bool(metrics))
        await respond(send)

    hits = metrics.counter("hits_total", "Hits.")
    server = await pagi_serve(app, lifespan="off", metrics={"enabled": False})
    async with httpx.AsyncClient(base_url=server.url) as client:
        await client.get("/")
    hits.inc()
    assert told == [False]
    assert not hits.values


@pytest.mark.trio
async def test_a_callback_is_called_once_for_each_scrape_and_before_it(pagi_serve):
    pytest.importorskip("prometheus_client")
    metrics = Metrics(prefix="asked")
    scrapes = metrics.counter("scrapes_total", "Scrapes.")
    server = await pagi_serve(shop(metrics))
    remove = metrics.add_batch_callback(scrapes.inc)
    assert (await page(server))["asked_scrapes_total"] == 1
    assert (await page(server))["asked_scrapes_total"] == 2
    remove()
    assert (await page(server))["asked_scrapes_total"] == 2


@pytest.mark.trio
async def test_the_lifespan_counts_from_its_start_to_its_end(pagi_serve):
    metrics = Metrics(prefix="life")
    phases = metrics.counter("phases_total", "Phases.")
    seen = []

    async def app(scope, receive, send):
        assert scope["type"] == "lifespan"
        for phase in ("startup", "shutdown"):
            await receive()
            phases.inc()
            await send({"type": f"lifespan.{phase}.complete"})
            seen.append(bool(metrics))

    server = await pagi_serve(app)
    server.handle.shutdown()
    with trio.fail_after(5):
        while len(seen) < 2:
            await trio.sleep(0.01)
    assert seen == [True, True]
    [family] = [one for one in server.metrics.snapshot().application() if one.family.name == "life_phases"]
    assert family.samples[0].value == 2


WITHOUT = """
import sys
sys.modules["prometheus_client"] = None
import trio
from pagi_trio import Config, Metrics, serve

metrics = Metrics(prefix="without")
hits = metrics.counter("hits_total", "Hits.")

async def app(scope, receive, send):
    hits.inc(3)
    raise RuntimeError

async def main():
    async with trio.open_nursery() as nursery:
        handle = await nursery.start(serve, app, Config().replace(bind="127.0.0.1:0"))
        [family] = handle.metrics.snapshot().application()
        print(family.family.name, family.samples[0].value)
        handle.shutdown()

trio.run(main)
"""


def test_it_counts_without_prometheus_client():
    """Starts an interpreter, which takes most of its time."""
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    assert done.stdout == "without_hits 3.0\n"


@pytest.mark.outside
@pytest.mark.trio
async def test_promtool_has_no_remark(pagi_serve):
    pytest.importorskip("prometheus_client")
    promtool = shutil.which("promtool")
    assert promtool, "install promtool (Debian: prometheus)"
    metrics = Metrics(prefix="tidy")
    kept = [
        metrics.gauge("depth", "Depth.", workers="each"),
        metrics.histogram("size_bytes", "Size.", unit="bytes", buckets=(1e3, 1e6)),
    ]
    server = await pagi_serve(shop(metrics))
    kept[0].set(1)
    async with httpx.AsyncClient(base_url=server.url) as client:
        text = (await client.get("/metrics")).text
    done = await trio.run_process([promtool, "check", "metrics"], stdin=text.encode(), capture_stderr=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_command_serves_it_alone_too(tmp_path):
    """Starts an interpreter, which takes most of its time."""
    pytest.importorskip("prometheus_client")
    shutil.copy("tests/integration/facade_app.py", tmp_path / "app.py")
    command = (sys.executable, "-m", "pagi_trio", "app", *TCP, "--metrics-bind", "127.0.0.1:0")
    with running(*command, cwd=tmp_path) as program:
        url, metrics = program.wait_for_url(), program.wait_for_url("metrics")
        get(f"{url}/order")
        get(f"{url}/fork")
        lines = get(metrics).splitlines()
        for by in ("task", "thread", "plain thread"):
            assert f'shop_orders_total{{by="{by}"}} 1.0' in lines
        # While it was imported, nobody counted, but that it is there was known.
        assert 'shop_orders_total{by="import"} 0.0' in lines
        assert 'shop_orders_total{by="child"} 1.0' not in lines
