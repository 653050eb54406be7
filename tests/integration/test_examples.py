"""The examples of the documentation, each served and used."""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio
import trio_websocket
from trio.testing import wait_all_tasks_blocked

from pagi_trio import serve, testing
from tests.integration.command import TCP, get, running, scrape, until

# What the page shows for a metric, as an expression in it.
SHOWN = "document.querySelector('[data-metric=%s]')?.textContent"

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"

pytestmark = pytest.mark.trio


def load(name):
    """Import an example afresh, so that no test sees the chat of another."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def live():
    return load("live")


async def test_live_shows_a_page(live, pagi_serve):
    server = await pagi_serve(live.app)
    async with httpx.AsyncClient(base_url=server.url) as client:
        page = await client.get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.text.count("<button") == 5
        assert (await client.get("/nowhere")).status_code == 404
        assert (await client.get("/chat")).status_code == 426


async def test_live_tells_every_page_what_one_says_and_counts_what_the_clients_count(live, pagi_serve):
    server = await pagi_serve(live.app)
    texts = ["one", "zwei \N{EURO SIGN}", "x" * 300]
    url = f"{server.ws_url}/chat"
    with trio.fail_after(5):
        async with (
            trio_websocket.open_websocket_url(url) as first,
            trio_websocket.open_websocket_url(url) as second,
            trio_websocket.open_websocket_url(url) as third,
        ):
            assert server.metrics.value("pagi_websocket_connections_active") == 3
            # A page that nobody has joined yet hears nothing of it: all three have an answer first.
            for page in (first, second, third):
                await page.ping()
            for text in texts:
                await second.send_message(text)
            for page in (first, second, third):
                assert [await page.get_message() for _ in texts] == texts
    size = sum(len(text.encode()) for text in texts)
    value = server.metrics.value
    assert value("pagi_websocket_connections_total") == 3
    assert value("pagi_websocket_connections_active") == 0
    assert value("pagi_websocket_messages_received_total") == 3
    assert value("pagi_websocket_bytes_received_total") == size
    assert value("pagi_websocket_messages_sent_total") == 9
    assert value("pagi_websocket_bytes_sent_total") == 3 * size


async def test_live_sends_away_a_page_that_falls_behind(live):
    """Called as a server calls it: when a real client falls behind is the kernel's to say."""
    chat = live.Chat()
    stuck = trio.Event()
    closes = []
    to_slow, from_slow = trio.open_memory_channel(1)
    to_quick, from_quick = trio.open_memory_channel(1)

    async def send_to_slow(message):
        if message["type"] == "websocket.send":
            await stuck.wait()
        elif message["type"] == "websocket.close":
            closes.append(message["code"])
            await to_slow.send({"type": "websocket.disconnect", "code": 1013, "reason": ""})

    heard = []

    async def send_to_quick(message):
        if message["type"] == "websocket.send":
            heard.append(message["text"])

    async with trio.open_nursery() as nursery:
        for to_app, from_app, send in ((to_slow, from_slow, send_to_slow), (to_quick, from_quick, send_to_quick)):
            await to_app.send({"type": "websocket.connect"})
            nursery.start_soon(chat, {"type": "websocket"}, from_app.receive, send)
        await wait_all_tasks_blocked()
        said = [str(number) for number in range(live.QUEUE_MESSAGES + 2)]
        for text in said:
            await to_quick.send({"type": "websocket.receive", "text": text})
            await wait_all_tasks_blocked()
        assert heard == said
        stuck.set()
        await wait_all_tasks_blocked()
        assert closes == [1013]
        await to_quick.send({"type": "websocket.disconnect", "code": 1000, "reason": ""})


async def test_live_tells_the_time_until_the_client_leaves(live, pagi_serve, raw, monkeypatch):
    """Takes up to a second, which is what the server may take to notice."""
    monkeypatch.setattr(live, "TICK_S", 0.01)
    ended = trio.Event()

    async def clock(scope, receive, send):
        try:
            await live.clock(scope, receive, send)
        finally:
            if scope["type"] == "http":
                ended.set()

    server = await pagi_serve(clock)
    async with raw(server) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        status, headers = await client.read_head()
        assert (status, headers[b"content-type"]) == (200, b"text/event-stream")
        for _ in range(3):
            event = await client.read_until(b"\n\n")
            assert re.search(rb"data: \d\d:\d\d:\d\d$", event)
        assert server.metrics.value("pagi_sse_connections_active") == 1
        assert server.metrics.value("pagi_sse_events_sent_total") >= 3
        # From here on it neither sends nor receives.
        monkeypatch.setattr(live, "TICK_S", 3600)
    with trio.fail_after(5):
        await ended.wait()
    assert server.metrics.value("pagi_sse_connections_total") == 1


async def test_live_ends_long_before_its_time_is_up_though_pages_are_open(live, raw):
    """Takes half a second, in which the clock could take notice of the end; ``timeouts.graceful_s`` is 20."""
    with trio.fail_after(5):
        # trio-websocket leaves a connection that the server closed to the garbage collector: this stream is ours.
        async with (
            testing.serve(live.app) as server,
            raw(server) as reader,
            raw(server) as chat,
            trio.open_nursery() as tasks,
        ):
            await reader.send(b"GET /clock HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.read_head())[0] == 200
            page = await trio_websocket.wrap_client_stream(tasks, chat.stream, "x", "/chat")
            server.handle.shutdown()
            with pytest.raises(trio_websocket.ConnectionClosed):
                await page.get_message()
            assert page.closed.code == 1001
            await reader.read_to_end()


async def test_live_mounts_the_metrics_page(live, pagi_serve):
    pytest.importorskip("prometheus_client")
    server = await pagi_serve(live.app)
    async with httpx.AsyncClient(base_url=server.url) as client:
        page = (await client.get("/metrics")).text
    assert "\npagi_server_connections_active 1.0\n" in page
    assert "\npagi_websocket_connections_total 0.0\n" in page


class Browser:
    """A page of Chromium, spoken to over the DevTools protocol."""

    def __init__(self, socket):
        self._socket = socket
        self._calls = 0

    async def call(self, method, **params):
        self._calls += 1
        await self._socket.send_message(json.dumps({"id": self._calls, "method": method, "params": params}))
        while True:
            answer = json.loads(await self._socket.get_message())
            if answer.get("id") == self._calls:
                assert "error" not in answer, answer
                return answer["result"]

    async def evaluate(self, expression):
        answer = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, expression):
        """Wait until an expression holds, looked at anew whenever the page has changed."""
        await self.evaluate(
            f"""new Promise(resolve => {{
                const look = () => ({expression}) && (observer.disconnect(), resolve(true));
                const observer = new MutationObserver(look);
                observer.observe(document, {{subtree: true, childList: true, characterData: true, attributes: true}});
                look();
            }})"""
        )


@contextlib.asynccontextmanager
async def browse(url, profile):
    """Open a page in Chromium; the browser has ended when this is left."""
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run "
        "--disable-background-networking --disable-component-update --disable-sync --remote-debugging-port=0 "
        "--window-size=1280,1000"
    )
    command = ["chromium", *flags.split(), f"--user-data-dir={profile}", "about:blank"]
    start = partial(trio.run_process, command, check=False, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    async with trio.open_nursery() as nursery:
        process = await nursery.start(start)
        address = await devtools_address(process.stderr)
        nursery.start_soon(drop, process.stderr)
        async with httpx.AsyncClient() as client:
            tab = (await client.put(f"http://{address}/json/new?about:blank")).json()
        async with trio_websocket.open_websocket_url(tab["webSocketDebuggerUrl"], max_message_size=2**24) as socket:
            browser = Browser(socket)
            await browser.call("Page.navigate", url=url)
            yield browser
            # Its children end with it; a terminated browser may leave some behind.
            await browser.call("Browser.close")


async def devtools_address(stderr):
    """Read what Chromium says until it names the port that it has chosen."""
    said = b""
    while not (found := re.search(rb"DevTools listening on ws://([^/]+)/", said)):
        data = await stderr.receive_some()
        assert data, f"chromium did not start: {said.decode()}"
        said += data
    return found[1].decode()


async def drop(stream):
    """Read and forget, so that the writer never waits."""
    async for _ in stream:
        pass


@pytest.mark.outside
async def test_live_moves_its_counters_in_a_browser(live, pagi_serve, tmp_path):
    """Takes the seconds that a browser needs to start."""
    pytest.importorskip("prometheus_client")
    server = await pagi_serve(live.app)
    with trio.fail_after(60):
        async with browse(server.url, tmp_path / "profile") as browser:
            await browser.until("/^connected as/.test(document.getElementById('chat-state')?.textContent)")
            await browser.until("/^[0-9:]{8}$/.test(document.getElementById('time').textContent)")
            await browser.until(f"{SHOWN % 'pagi_websocket_connections_active'} === '1'")
            await browser.until(f"{SHOWN % 'pagi_sse_connections_active'} === '1'")

            await browser.evaluate("document.getElementById('ten').click()")
            await browser.until(f"{SHOWN % 'pagi_websocket_connections_active'} === '11'")
            await browser.evaluate("document.getElementById('say').click()")
            await browser.until("/: hello$/.test(document.getElementById('log').textContent)")
            await browser.until(f"{SHOWN % 'pagi_websocket_messages_received_total'} === '1'")
            await browser.until(f"{SHOWN % 'pagi_websocket_messages_sent_total'} === '11'")
            await browser.evaluate("document.getElementById('none').click()")
            await browser.until(f"{SHOWN % 'pagi_websocket_connections_active'} === '1'")

            await browser.evaluate("document.getElementById('hundred').click()")
            await browser.until(f"{SHOWN % 'pagi_websocket_messages_received_total'} === '101'")
            await browser.until(f"{SHOWN % 'pagi_websocket_messages_sent_total'} === '111'")
            await browser.evaluate("document.getElementById('toggle').click()")
            await browser.until(f"{SHOWN % 'pagi_sse_connections_active'} === '0'")
            if folder := os.environ.get("SCREENSHOTS"):
                shot = await browser.call("Page.captureScreenshot")
                await trio.Path(folder, "live.png").write_bytes(base64.b64decode(shot["data"]))


async def test_hello_answers_echoes_and_has_a_lifespan(capsys):
    with trio.fail_after(5):
        async with testing.serve(load("hello").app) as server:
            async with httpx.AsyncClient() as client:
                assert (await client.get(server.url)).text == "hello\n"
            async with trio_websocket.open_websocket_url(server.ws_url) as client:
                await client.send_message("hello")
                assert await client.get_message() == "hello"
    assert capsys.readouterr().out == "open the database here\nand close it here\n"


async def test_embedded_is_its_own_client_and_stops(capsys):
    with trio.fail_after(5):
        await load("embedded").main()
    assert re.fullmatch(
        r"serving on http://127\.0\.0\.1:\d+\nit says hello\nconnections so far: 1\n", capsys.readouterr().out
    )


async def test_a_program_that_asks_for_sigterm_ends_as_it_wants_to():
    """It may block: nothing else runs here."""
    with running(sys.executable, EXAMPLES / "stopped_by_sigterm.py", "127.0.0.1:0") as program:
        assert get(program.wait_for_url()) == "hello\n"
        program.send_signal(signal.SIGTERM)
        assert program.finish() == (0, "")


async def test_starlette_has_its_own_metrics_on_the_page(pagi_serve):
    prometheus_client = pytest.importorskip("prometheus_client")
    example = load("starlette_metrics")
    try:
        server = await pagi_serve(example.app)
        async with httpx.AsyncClient(base_url=server.url, follow_redirects=True) as client:
            assert (await client.post("/order")).text == "thank you\n"
            page = (await client.get("/metrics")).text
    finally:
        prometheus_client.REGISTRY.unregister(example.orders)
    assert "\nshop_orders_total 1.0\n" in page
    assert "\npagi_server_connections_active 1.0\n" in page


async def test_workers_have_one_page_of_what_all_of_them_count():
    """Takes a third of a second, in which two processes start. It may block: nothing else runs here."""
    pytest.importorskip("prometheus_client")
    metrics_bind = ("--metrics-bind", "127.0.0.1:0")
    with running(sys.executable, "-m", "pagi_trio", "-w", "2", EXAMPLES / "workers.py", *TCP, *metrics_bind) as program:
        lines = program.wait_for_each({"serving on ": 1, "metrics on ": 1, " is ready": 2})
        url, page_url = (line.split()[-1] for what in ("serving", "metrics") for line in lines if f"{what} on" in line)
        answers = []
        until(lambda: answers.append(get(f"{url}/tea")) or len(set(answers)) == 2)
        assert set(answers) == {"worker 1\n", "worker 2\n"}
        for page in (scrape(page_url), scrape(f"{url}/metrics")):
            assert page['shop_hits_total{path="/tea"}'] == len(answers)
            assert "shop_busy" in page
            assert page["pagi_server_workers_active"] == 2
        program.send_signal(signal.SIGTERM)
        assert program.finish() == (0, "")


async def test_hypercorn_settings_are_taken():
    example = load("hypercorn_settings")
    example.config.bind = ["127.0.0.1:0"]
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve, example.app, example.config)
            async with httpx.AsyncClient() as client:
                assert (await client.get(server[0])).text == "hello\n"
            server.shutdown()
