from __future__ import annotations

import gzip
import logging
import sys
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from pagi_trio.metrics import endpoint
from pagi_trio.metrics.endpoint import TURN_BYTES, MetricsApp
from pagi_trio.metrics.meter import Meter
from pagi_trio.metrics.server_metrics import ServerMetrics

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.trio

TEXT = b"text/plain; version=0.0.4; charset=utf-8"
PLAIN = b"text/plain; charset=utf-8"
GONE = "gone"


class Answer:
    def __init__(self, sent: list[dict[str, object]]) -> None:
        start, *rest = sent
        assert start["type"] == "http.response.start"
        assert [message["type"] for message in rest] == ["http.response.body"]
        self.status = start["status"]
        fields: list[tuple[bytes, bytes]] = list(start["headers"])  # type: ignore[call-overload]
        self.headers = dict(fields)
        assert len(self.headers) == len(fields)
        assert all(name == name.lower() for name in self.headers)
        self.body: bytes = rest[0]["body"]  # type: ignore[assignment]


async def ask(
    app: MetricsApp,
    metrics: object = GONE,
    *,
    method: str = "GET",
    path: str = "/metrics",
    root_path: str = "/metrics",
    headers: list[tuple[bytes, bytes]] | None = None,
) -> Answer:
    extensions = {} if metrics is GONE else {"pagi.metrics": metrics}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "root_path": root_path,
        "headers": headers or [],
        "extensions": extensions,
    }
    return Answer(await call(app, scope))


async def call(app: MetricsApp, scope: dict[str, object]) -> list[dict[str, object]]:
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        raise AssertionError("there is nothing to receive")

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    await app(scope, receive, send)  # type: ignore[arg-type]
    return sent


@pytest.fixture
def metrics() -> ServerMetrics:
    return ServerMetrics(Meter.create())


@pytest.fixture
def no_prometheus_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pagi_trio.metrics.exporters.prometheus", raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)


@pytest.mark.parametrize("path", ["/metrics", "/metrics/"])
async def test_get_answers_with_the_page(metrics: ServerMetrics, path: str) -> None:
    pytest.importorskip("prometheus_client")
    answer = await ask(MetricsApp(), metrics, path=path)
    assert answer.status == 200
    assert answer.headers == {
        b"content-type": TEXT,
        b"vary": b"accept, accept-encoding",
        b"content-length": b"%d" % len(answer.body),
    }
    assert b"\npagi_metrics_scrapes_total 1.0\n" in answer.body
    assert metrics.value("pagi_metrics_scrapes_total") == 1


async def test_an_app_of_its_own_answers_at_the_root(metrics: ServerMetrics) -> None:
    pytest.importorskip("prometheus_client")
    assert (await ask(MetricsApp(), metrics, path="/", root_path="")).status == 200


async def test_head_has_the_headers_of_get_and_no_body_rfc9110_9_3_2(metrics: ServerMetrics) -> None:
    pytest.importorskip("prometheus_client")
    app = MetricsApp()
    get = await ask(app, metrics)
    head = await ask(app, metrics, method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers.keys() == get.headers.keys()
    assert int(head.headers[b"content-length"]) > 1000
    assert metrics.value("pagi_metrics_scrapes_total") == 1


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get"])
async def test_other_methods_are_not_allowed_rfc9110_15_5_6(metrics: ServerMetrics, method: str) -> None:
    answer = await ask(MetricsApp(), metrics, method=method)
    assert answer.status == 405
    assert answer.headers[b"allow"] == b"GET, HEAD"
    assert answer.headers[b"content-type"] == PLAIN
    assert answer.body.count(b"\n") == 1


@pytest.mark.parametrize(
    ("path", "root_path"),
    [("/metrics/x", "/metrics"), ("/metrics//", "/metrics"), ("/metricsfoo", "/metrics"), ("/x", "")],
)
async def test_paths_below_are_not_found(metrics: ServerMetrics, path: str, root_path: str) -> None:
    answer = await ask(MetricsApp(), metrics, path=path, root_path=root_path)
    assert (answer.status, answer.body) == (404, b"not found\n")


async def test_openmetrics_and_gzip_where_asked_for(metrics: ServerMetrics) -> None:
    pytest.importorskip("prometheus_client")
    headers = [
        (b"accept", b"image/png"),
        (b"accept-encoding", b"br, gzip"),
        (b"accept", b"application/openmetrics-text; version=1.0.0"),
    ]
    answer = await ask(MetricsApp(), metrics, headers=headers)
    assert answer.headers[b"content-type"] == b"application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert answer.headers[b"content-encoding"] == b"gzip"
    assert answer.headers[b"content-length"] == b"%d" % len(answer.body)
    assert gzip.decompress(answer.body).endswith(b"# EOF\n")


@pytest.mark.parametrize("accept", [b"", b";q=", b"*/*;q=0", b"\xff\x00", b"text/plain;version=9", b'"'])
async def test_no_accept_value_makes_it_fail(metrics: ServerMetrics, accept: bytes) -> None:
    pytest.importorskip("prometheus_client")
    answer = await ask(MetricsApp(), metrics, headers=[(b"accept", accept), (b"accept-encoding", accept)])
    assert (answer.status, answer.headers[b"content-type"]) == (200, TEXT)
    assert b"content-encoding" not in answer.headers


async def test_a_long_page_lets_others_run_and_is_whole(metrics: ServerMetrics) -> None:
    pytest.importorskip("prometheus_client")
    app = MetricsApp()
    pieces = [b"# %d\n" % number + b"x" * 1000 + b"\n" for number in range(50)]
    turns = 0

    def render(metrics: ServerMetrics, *, openmetrics: bool) -> Iterator[bytes]:
        yield from pieces

    app._render = render

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        plain = await ask(app, metrics)
        # The page takes five checkpoints: at the first the other task starts, at the last it may come second.
        assert turns >= 3
        packed = await ask(app, metrics, headers=[(b"accept-encoding", b"gzip")])
        nursery.cancel_scope.cancel()
    assert plain.body == gzip.decompress(packed.body) == b"".join(pieces)


async def test_another_server_is_told_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    app = MetricsApp()
    with caplog.at_level(logging.WARNING, logger="pagi_trio"):
        answers = [await ask(app) for _ in range(3)]
    for answer in answers:
        assert answer.status == 503
        assert answer.headers[b"content-type"] == PLAIN
        assert answer.body == b"these metrics are counted by pagi-trio; serve the application with it\n"
    assert len(caplog.records) == 1


async def test_metrics_that_are_off_are_told_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    app = MetricsApp()
    with caplog.at_level(logging.WARNING, logger="pagi_trio"):
        answers = [await ask(app, None) for _ in range(3)]
        await ask(app)
    assert {(answer.status, answer.body) for answer in answers} == {
        (503, b"metrics are switched off; start the server without --no-metrics\n")
    }
    assert len(caplog.records) == 2


@pytest.mark.usefixtures("no_prometheus_client")
async def test_without_prometheus_client_it_says_what_to_install(
    metrics: ServerMetrics, caplog: pytest.LogCaptureFixture
) -> None:
    app = MetricsApp()
    with caplog.at_level(logging.WARNING, logger="pagi_trio"):
        answers = [await ask(app, metrics) for _ in range(2)]
    assert {answer.status for answer in answers} == {503}
    assert b"pip install 'pagi-trio[prometheus]'" in answers[0].body
    assert len(caplog.records) == 1
    assert metrics.value("pagi_metrics_scrapes_total") == 0


async def test_a_failing_collector_is_a_500_counted_and_logged_once(
    metrics: ServerMetrics, caplog: pytest.LogCaptureFixture
) -> None:
    prometheus_client = pytest.importorskip("prometheus_client")

    class Broken:
        def describe(self) -> list[object]:
            return []

        def collect(self) -> list[object]:
            raise LookupError("the application's own")

    broken = Broken()
    prometheus_client.REGISTRY.register(broken)
    try:
        app = MetricsApp()
        with caplog.at_level(logging.ERROR, logger="pagi_trio"):
            answers = [await ask(app, metrics) for _ in range(2)]
    finally:
        prometheus_client.REGISTRY.unregister(broken)
    for answer in answers:
        assert (answer.status, answer.headers[b"content-type"]) == (500, PLAIN)
        assert answer.body.count(b"\n") == 1
        assert b"application's own" not in answer.body
    assert metrics.value("pagi_metrics_errors_total", part="render") == 2
    assert metrics.value("pagi_metrics_scrapes_total") == 2
    [record] = caplog.records
    assert record.exc_info is not None


async def test_a_websocket_is_refused() -> None:
    assert await call(MetricsApp(), {"type": "websocket", "path": "/"}) == [{"type": "websocket.close"}]


async def test_the_lifespan_is_declined() -> None:
    assert await call(MetricsApp(), {"type": "lifespan"}) == []


async def test_pages_are_written_one_after_another_so_that_many_scrapes_starve_nobody(
    metrics: ServerMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = 0
    pieces: list[int] = []

    def render(_metrics: ServerMetrics, *, openmetrics: bool) -> Iterator[bytes]:
        nonlocal begun
        begun += 1
        number = begun
        for _ in range(5):
            pieces.append(number)
            yield bytes(TURN_BYTES)

    monkeypatch.setattr(endpoint, "_find_render", lambda: render)
    others = 0
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            # Wherever they are mounted, the pages of one server.
            nursery.start_soon(ask, MetricsApp(), metrics)
        while len(pieces) < 100:
            await trio.lowlevel.checkpoint()
            others += 1
    assert pieces == sorted(pieces)
    # Someone else had a turn between any two pieces.
    assert others >= 100 - 20
