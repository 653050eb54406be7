"""The example of the metrics cookbook: what it counts by itself, in one process and in two."""

from __future__ import annotations

import importlib.util
import shlex
import signal
import sys
import urllib.request
import zlib
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
import trio_websocket

from tests.integration.command import TCP, running, scrape, until
from tests.statsd import Daemon, address_of, bound
from tests.unit.test_docs import blocks, commands

ROOT = Path(__file__).resolve().parents[2]
GALLERY = ROOT / "docs" / "examples" / "metrics" / "gallery.py"
COOKBOOK = (ROOT / "docs" / "how-to" / "metrics.md").read_text(encoding="utf-8")

# Where the cookbook's commands have the application and the page.
APP, PAGE = "http://127.0.0.1:8000", "http://127.0.0.1:9100"

PICTURE = b"\x89PNG" + bytes(4996)

pytestmark = pytest.mark.trio


@pytest.fixture
def gallery():
    """Import it afresh; a module that is imported twice has the same metrics."""
    spec = importlib.util.spec_from_file_location("example_gallery", GALLERY)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_logins_are_counted_by_a_method_that_no_client_makes_up(gallery, pagi_client):
    client = await pagi_client(gallery.app)
    for method, status in (("passkey", 200), ("password", 200), ("passkey", 200), ("magic", 404)):
        assert (await client.post(f"/login/{method}")).status_code == status
    assert client.metrics.value("gallery_logins_total", method="passkey") == 2
    assert client.metrics.value("gallery_logins_total", method="password") == 1
    assert client.metrics.value("gallery_logins_total", method="magic") == 0


async def test_a_test_of_the_application_reads_its_own_metrics_as_it_does_the_servers(gallery, pagi_client):
    client = await pagi_client(gallery.app)
    with client.metrics.delta() as delta:
        await client.post("/login/passkey")
        assert delta.value("gallery_logins_total", method="passkey") == 1
    with pytest.raises(AssertionError, match=r'of the same metric, \{method="passkey"\} is 1'):
        await client.metrics.wait_for("gallery_logins_total", 1, method="magic", within_s=0.01)


async def test_uploads_are_counted_where_they_are_worked_on_a_thread_included(gallery, pagi_client):
    client = await pagi_client(gallery.app)
    value = client.metrics.value
    for data, status in ((PICTURE, 202), (b"text", 415), (PICTURE, 202)):
        assert (await client.post("/upload", content=data)).status_code == status
    await client.metrics.wait_for("gallery_work_seconds_count", 2, step="thumbnail")
    assert value("gallery_work_seconds_count", step="shrink") == 2
    assert value("gallery_work_seconds_count", step="check") == 3
    assert value("gallery_upload_bytes_sum") == 2 * len(PICTURE) + 4
    assert value("gallery_upload_bytes_bucket", le="1000.0") == 1
    assert value("gallery_packing_ratio") == len(zlib.compress(PICTURE)) / len(PICTURE)
    assert value("gallery_queue_depth") == 0


async def test_what_waits_is_told_though_nothing_counts_it_up_and_down(gallery, pagi_client, monkeypatch):
    stuck = trio.Event()

    async def make_no_thumbnails(pictures):
        await stuck.wait()
        async for _ in pictures:
            pass

    monkeypatch.setattr(gallery, "make_thumbnails", make_no_thumbnails)
    client = await pagi_client(gallery.app)
    for _ in range(100):
        assert (await client.post("/upload", content=PICTURE)).status_code == 202
    assert client.metrics.value("gallery_queue_depth") == 100
    assert (await client.post("/upload", content=PICTURE)).status_code == 503
    stuck.set()
    await client.metrics.wait_for("gallery_queue_depth", 0)


async def test_what_is_expensive_is_not_done_where_nobody_counts(gallery, pagi_client, monkeypatch):
    monkeypatch.delattr(zlib, "compress")
    client = await pagi_client(gallery.app, **{"metrics.enabled": False})
    assert (await client.post("/upload", content=PICTURE)).status_code == 202
    assert not gallery.metrics


async def test_the_hot_path_is_counted_when_somebody_looks(gallery, pagi_client):
    client = await pagi_client(gallery.app)
    async with client.websocket("/pointer") as websocket:
        for number in range(1, 4):
            await websocket.send_message("1,2")
            assert await websocket.get_message() == "1,2"
            assert client.metrics.value("gallery_moves_total") == number


async def move(url, times):
    with trio.fail_after(10):
        async with trio_websocket.open_websocket_url(f"ws{url.removeprefix('http')}/pointer") as websocket:
            for _ in range(times):
                await websocket.send_message("1,2")
                await websocket.get_message()


def post(url, data=b""):
    with urllib.request.urlopen(urllib.request.Request(url, data, method="POST"), timeout=10) as response:
        return response.status


@contextmanager
def two_workers(*arguments):
    """Serve the gallery by the command of the quick start, on free ports; gives the URLs of application and page."""
    [command] = [one for one in commands(COOKBOOK) if one[2].endswith("gallery.py")]
    assert command[-1] == PAGE.removeprefix("http://")
    command[-1] = "127.0.0.1:0"
    with running(sys.executable, "-m", "pagi_trio", *command, *TCP, *arguments, cwd=ROOT) as program:
        lines = program.wait_for_each({"serving on ": 1, "metrics on ": 1, " is ready": 2})
        urls = {what: line.split()[-1] for what in ("serving", "metrics") for line in lines if f"{what} on" in line}
        yield urls["serving"], urls["metrics"]
        program.send_signal(signal.SIGTERM)
        assert program.finish() == (0, "")


async def test_two_workers_have_one_page():
    """Takes a third of a second, in which two processes start. It may block: nothing else runs here."""
    pytest.importorskip("prometheus_client")
    with two_workers() as (url, page_url):
        for _ in range(10):
            assert post(f"{url}/login/password") == 200
            assert post(f"{url}/upload", PICTURE) == 202
        for _ in range(5):
            await move(url, 3)
        expected = {
            'gallery_logins_total{method="password"}': 10,
            'gallery_logins_total{method="passkey"}': 0,
            'gallery_work_seconds_count{step="check"}': 10,
            'gallery_work_seconds_count{step="shrink"}': 10,
            'gallery_work_seconds_count{step="thumbnail"}': 10,
            "gallery_upload_bytes_sum": 10 * len(PICTURE),
            "gallery_queue_depth": 0,
            "gallery_moves_total": 15,
        }
        until(lambda: expected.items() <= scrape(page_url).items())


async def test_what_a_hot_path_has_kept_is_counted_at_the_end_of_a_worker():
    """Takes a third of a second, in which two processes start. It may block: nothing else runs here."""
    daemon = Daemon()
    with bound() as sock:
        # Nothing else would hand it over before the end.
        rare = ("--metrics-flush-interval", "20")
        with two_workers("--statsd", address_of(sock), *rare) as (url, _):
            for _ in range(5):
                await move(url, 3)
        daemon.take_all(sock)
    assert daemon.counters["pagi_websocket_messages_sent_total"] == 15
    assert daemon.counters["gallery_moves_total"] == 15


@pytest.mark.outside
async def test_the_quick_start_shows_what_its_commands_do():
    pytest.importorskip("prometheus_client")
    shown = next(block for block in blocks(COOKBOOK, "") if block.startswith("pagi_")).splitlines()
    calls = [line for block in blocks(COOKBOOK, "sh") for line in block.splitlines() if line.startswith("curl ")]
    with two_workers() as (url, page_url):
        *before, last = [shlex.split(call.replace(APP, url).replace(PAGE, page_url)) for call in calls]
        for call in before:
            assert await curl(call) == ["welcome"]
        page = await curl(last)
    assert set(shown) - set(page) == set()


async def curl(call):
    with trio.fail_after(10):
        done = await trio.run_process([*call, "--silent", "--show-error", "--fail"], capture_stdout=True)
    return done.stdout.decode().splitlines()
