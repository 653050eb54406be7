"""What clients have counted equals what each exporter got: the page, the recorder, StatsD and DogStatsD.

Over workers, and where some are killed, tests/faults does the same for the page and for StatsD.
"""

from __future__ import annotations

import re
from collections import Counter

import httpx
import pytest
import trio
import trio_websocket

from pagi_trio.config_statsd import parse_daemon
from pagi_trio.metrics import Metrics
from pagi_trio.metrics.push.recorder import Recorder
from pagi_trio.metrics.push.statsd import StatsD
from pagi_trio.metrics.push.statsd_format import DogStatsDWriter
from pagi_trio.metrics.pushing import Pushing
from tests.integration.conftest import until
from tests.integration.embedded import serving
from tests.statsd import Daemon, address_of, bound

pytestmark = pytest.mark.trio

HANDSHAKE = (
    b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: %d\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

SIZES = (0, 1, 125, 126, 3000, 65535, 65536, 70001)

# Each has something that no browser dispatches.
BLOCKS = (
    b"data: 1\n\n",
    b": beat\n\n",
    b"id: 7\n\n",
    b"event: x\ndata: 2\ndata: 3\n\n",
    b": beat\ndata: 4\n\n",
    b"retry: 5\n\n",
)

metrics = Metrics(prefix="accounting")
copies = metrics.counter("copies_total", "Copies sent.", labels=["kind"])


class App:
    """Send each message back as often as the path says, stream what the query asks for, and turn some away."""

    def __init__(self):
        self.hanging = trio.Event()
        self.abandoned = trio.Event()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "websocket":
            await receive()
            if scope["path"] == "/refused":
                await send({"type": "websocket.close"})
            elif scope["path"] == "/hanging":
                self.hanging.set()
                await receive()
                self.abandoned.set()
            else:
                await self._copy(int(scope["path"][1:]), receive, send)
        else:
            await self._stream(int(scope["query_string"]), send)

    async def _copy(self, times, receive, send):
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            for _ in range(times):
                await send({**message, "type": "websocket.send"})
                copies.labels(kind="text" if message.get("text") is not None else "bytes").inc()

    async def _stream(self, count, send):
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for number in range(count):
            block = BLOCKS[number % len(BLOCKS)]
            # An event may come in several pieces.
            for piece in (block[:3], block[3:]):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"data: unfinished\n"})


class Clients:
    """Clients of one server.

    Attributes:
        counts: What they have seen, by the series that has to be equal to it.
    """

    def __init__(self, server):
        self._server = server
        self.counts = Counter()

    def count(self, name, amount=1, **labels):
        self.counts[name, tuple(labels.items())] += amount

    async def talk(self, times, make):
        """Send messages of all sizes, and read as many copies of each as were asked for."""
        async with trio_websocket.open_websocket_url(f"{self._server.ws_url}/{times}") as websocket:
            self.count("pagi_websocket_connections_total")
            self.count("pagi_websocket_handshakes_total", outcome="accepted")
            for size in SIZES:
                message = make(size)
                await websocket.send_message(message)
                self.count("pagi_websocket_messages_received_total")
                self.count("pagi_websocket_bytes_received_total", size_of(message))
                for _ in range(times):
                    got = await websocket.get_message()
                    assert got == message
                    self.count("pagi_websocket_messages_sent_total")
                    self.count("pagi_websocket_bytes_sent_total", size_of(got))
                    self.count("accounting_copies_total", kind=type(got).__name__.replace("str", "text"))
        self.count("pagi_websocket_closes_total", code="1000", side="client")
        self.count("pagi_websocket_session_seconds_count")

    async def knock(self, path, version, outcome):
        """Ask for a WebSocket in vain."""
        stream = await trio.open_tcp_stream("127.0.0.1", self._server.port)
        async with stream:
            await stream.send_all(HANDSHAKE % (path, version))
            head = await stream.receive_some(65536)
        assert head.startswith({"refused": b"HTTP/1.1 403 ", "invalid": b"HTTP/1.1 426 "}[outcome])
        self.count("pagi_websocket_handshakes_total", outcome=outcome)

    async def leave(self, app):
        """Ask for a WebSocket and go before there is an answer."""
        stream = await trio.open_tcp_stream("127.0.0.1", self._server.port)
        async with stream:
            await stream.send_all(HANDSHAKE % (b"/hanging", 13))
            await app.hanging.wait()
        await app.abandoned.wait()
        self.count("pagi_websocket_handshakes_total", outcome="abandoned")

    async def listen(self, count):
        """Read an event stream as a browser does."""
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"{self._server.url}/events?{count}")
        *blocks, _ = answer.content.split(b"\n\n")
        self.count("pagi_sse_connections_total")
        self.count("pagi_sse_closes_total", reason="done")
        self.count("pagi_sse_stream_seconds_count")
        self.count("pagi_sse_bytes_sent_total", len(answer.content))
        self.count(
            "pagi_sse_events_sent_total", sum(re.search(rb"^data", one, re.MULTILINE) is not None for one in blocks)
        )
        self.count("pagi_sse_comments_sent_total", len(re.findall(rb"^:", answer.content, re.MULTILINE)))

    async def do_everything(self):
        async with trio.open_nursery() as nursery:
            for times in (1, 3):
                nursery.start_soon(self.talk, times, lambda size: "\N{EURO SIGN}" * size)
                nursery.start_soon(self.talk, times, bytes)
            for count in (0, 5, 60):
                nursery.start_soon(self.listen, count)
            for _ in range(3):
                nursery.start_soon(self.knock, b"/refused", 13, "refused")
            for _ in range(2):
                nursery.start_soon(self.knock, b"/1", 12, "invalid")


def size_of(message):
    return len(message.encode() if isinstance(message, str) else message)


async def read_page(server):
    async with httpx.AsyncClient(trust_env=False) as client:
        lines = (await client.get(f"{server.handle.metrics_urls[0]}/metrics")).text.splitlines()
    return {series: float(value) for series, _, value in (line.rpartition(" ") for line in lines) if "#" not in series}


def of_page(page, name, labels):
    inner = ",".join(f'{label}="{value}"' for label, value in sorted(labels))
    return page[f"{name}{{{inner}}}" if inner else name]


def of_statsd(daemon, name, labels):
    return daemon.counters[".".join([name, *(value for _, value in labels)])]


def of_dogstatsd(daemon, name, labels):
    tags = tuple(f"{label}:{value}" for label, value in labels)
    return daemon.counters[(name, *tags) if tags else name]


async def test_what_the_clients_have_counted_is_what_every_exporter_got():
    pytest.importorskip("prometheus_client")
    app, recorder, statsd, dogstatsd = App(), Recorder(0.01), Daemon(), Daemon()
    sent = "pagi_websocket_messages_sent_total"
    with trio.fail_after(30), bound() as sock, bound() as other:
        settings = {"statsd": {"address": address_of(sock), "interval_s": 0.1}, "metrics": {"bind": "127.0.0.1:0"}}
        async with serving(app, lifespan="off", **settings) as server, trio.open_nursery() as nursery:
            tagged = StatsD(parse_daemon(address_of(other)), DogStatsDWriter("", []), 0.01)
            pushing = Pushing(server.metrics, [recorder, tagged])
            pushing.start(nursery)
            for task in (lambda: statsd.listen(sock), lambda: dogstatsd.listen(other)):
                nursery.start_soon(task)
            clients = Clients(server)
            for _ in range(2):
                await clients.do_everything()
                # So that all of them have sums of several differences.
                so_far = clients.counts[sent, ()]
                for daemon in (statsd, dogstatsd):
                    await daemon.until(lambda daemon=daemon, so_far=so_far: daemon.counters.get(sent, 0) >= so_far)
            await clients.leave(app)
            # A client may know of an end a moment before it is counted.
            await until(lambda: server.metrics.value("pagi_server_connections_active") == 0)
            page = await read_page(server)
            nursery.cancel_scope.cancel()
        await pushing.finish()
        statsd.take_all(sock)
        dogstatsd.take_all(other)
    expected = dict(clients.counts)
    assert {key: of_page(page, *key) for key in expected} == expected
    assert {key: recorder.value(key[0], **dict(key[1])) for key in expected} == expected
    assert {key: of_statsd(statsd, *key) for key in expected} == expected
    assert {key: of_dogstatsd(dogstatsd, *key) for key in expected} == expected
    assert {outcome for name, labels in expected if "handshakes" in name for _, outcome in labels} == {
        "accepted",
        "refused",
        "invalid",
        "abandoned",
    }
