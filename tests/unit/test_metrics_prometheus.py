from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("prometheus_client")

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Summary, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from pagi_trio.metrics.catalog import CATALOG, SERIES
from pagi_trio.metrics.exporters.prometheus import PART_SAMPLES, Collector, render
from pagi_trio.metrics.meter import Meter
from pagi_trio.metrics.server_metrics import ServerMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.registry import Collector as AnyCollector

    from pagi_trio.metrics.catalog import Series

    Register = Callable[[AnyCollector], None]


@pytest.fixture
def metrics() -> ServerMetrics:
    return ServerMetrics(Meter.create())


@pytest.fixture
def register() -> Iterator[Register]:
    """Register in the process's own registry, for one test."""
    registered: list[AnyCollector] = []

    def add(collector: AnyCollector) -> None:
        REGISTRY.register(collector)
        registered.append(collector)

    yield add
    for collector in registered:
        REGISTRY.unregister(collector)


@pytest.fixture
def app_metrics(register: Register) -> None:
    jobs = Counter("app_jobs_total", "Jobs done.", ["queue"], registry=None)
    jobs.labels("mail").inc(3)
    seconds = Histogram("app_job_seconds", "How long a job took.", registry=None)
    seconds.observe(0.2)
    size = Summary("app_job_size_bytes", "How big a job was.", registry=None)
    size.observe(10)
    created = Gauge("app_last_created", "A gauge whose name ends like a counter's time.", registry=None)
    for collector in (jobs, seconds, size, created):
        register(collector)


def keys_of(series: Series) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    """Name the samples of a series as the page of one process does, which is its own first worker."""
    name = series.metric.name
    if series.metric.kind == "histogram":
        bounds = [*map(str, series.metric.buckets), "+Inf"]
        buckets = {(f"{name}_bucket", frozenset({*series.labels, ("le", bound)})) for bound in bounds}
        return buckets | {(name + part, frozenset(series.labels)) for part in ("_count", "_sum")}
    return {(name, frozenset({("worker", "1")} if series.metric.aggregation == "slot" else series.labels))}


def page(metrics: ServerMetrics, *, openmetrics: bool = False) -> str:
    return b"".join(render(metrics, openmetrics=openmetrics)).decode()


def test_every_series_is_on_the_text_page_with_its_type_and_help(metrics: ServerMetrics) -> None:
    samples = {
        (sample.name, frozenset(sample.labels.items())): (family.type, family.documentation)
        for family in parse_text(page(metrics))
        for sample in family.samples
    }
    for series in SERIES:
        for key in keys_of(series):
            assert samples[key] == (series.metric.kind, series.metric.help)


def test_every_series_is_on_the_openmetrics_page(metrics: ServerMetrics) -> None:
    text = page(metrics, openmetrics=True)
    names = {
        (sample.name, frozenset(sample.labels.items()))
        for family in parse_openmetrics(text)
        for sample in family.samples
    }
    assert set().union(*map(keys_of, SERIES)) <= names
    assert text.endswith("# EOF\n")
    assert text.count("# EOF") == 1


def test_numbers_are_up_to_date(metrics: ServerMetrics) -> None:
    metrics.meter.websocket.sent.extend([1] * 12)
    metrics.meter.websocket.mark()
    assert "\npagi_websocket_messages_sent_total 12.0\n" in page(metrics)


def test_names_of_ours_have_no_unit_line(metrics: ServerMetrics) -> None:
    assert "# UNIT pagi_" not in page(metrics, openmetrics=True)


@pytest.mark.usefixtures("app_metrics")
def test_created_is_in_openmetrics_alone_for_the_apps_own_too(metrics: ServerMetrics) -> None:
    text = page(metrics)
    assert "app_jobs_total{" in text
    assert "app_job_seconds_bucket{" in text
    assert "app_job_size_bytes_count " in text
    assert "app_last_created " in text
    assert text.replace("app_last_created", "").count("_created") == 0
    openmetrics = page(metrics, openmetrics=True)
    assert "app_jobs_created{" in openmetrics
    assert "pagi_server_connections_created " in openmetrics
    assert openmetrics.count("pagi_sse_stream_seconds_created ") == 1


def test_our_counters_were_created_when_the_server_started(metrics: ServerMetrics) -> None:
    start = metrics.value("pagi_server_start_time_seconds")
    families = {family.name: family for family in parse_openmetrics(page(metrics, openmetrics=True))}
    created = [s for s in families["pagi_sse_events_sent"].samples if s.name.endswith("_created")]
    assert [sample.value for sample in created] == [start]


@pytest.mark.usefixtures("app_metrics")
def test_the_process_and_the_app_are_on_the_page(metrics: ServerMetrics) -> None:
    for openmetrics in (False, True):
        text = page(metrics, openmetrics=openmetrics)
        assert "\nprocess_cpu_seconds_total " in text
        assert "\npython_info{" in text
        assert '\napp_jobs_total{queue="mail"} 3.0' in text


@pytest.mark.parametrize("openmetrics", [False, True])
def test_a_family_is_on_the_page_once_though_the_app_registered_ours(
    metrics: ServerMetrics, register: Register, *, openmetrics: bool
) -> None:
    register(Collector(metrics))
    text = page(metrics, openmetrics=openmetrics)
    lines = [line for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(lines) == len(set(lines))
    assert sum(line.startswith("# TYPE pagi_") for line in lines) == len(CATALOG)


def test_a_family_of_the_apps_that_repeats_a_sample_name_of_ours_is_left_out(
    metrics: ServerMetrics, register: Register
) -> None:
    class Rival:
        def collect(self) -> Iterator[GaugeMetricFamily]:
            yield GaugeMetricFamily("pagi_sse_events_sent_total", "Not ours.", value=7)

    register(Rival())
    assert "Not ours." not in page(metrics)
    assert "\npagi_sse_events_sent_total 0.0\n" in page(metrics)


@pytest.mark.parametrize("value", ["many", [1]])
def test_a_family_that_cannot_be_written_costs_itself_alone_and_is_logged_once(
    metrics: ServerMetrics, register: Register, caplog: pytest.LogCaptureFixture, value: float
) -> None:
    class Careless:
        def collect(self) -> Iterator[GaugeMetricFamily]:
            depth = GaugeMetricFamily("app_depth", "What is no number.")
            for number in range(50):
                depth.add_sample("app_depth", {"number": str(number)}, value)
            yield depth
            yield GaugeMetricFamily("app_width", "One behind it.", value=2)

    register(Careless())
    for openmetrics in (False, True):
        text = page(metrics, openmetrics=openmetrics)
        assert "app_depth" not in text
        assert "\napp_width 2.0\n" in text
    assert metrics.value("pagi_metrics_errors_total", part="render") == 2
    [record] = caplog.records
    assert record.getMessage().startswith("the metric app_depth cannot be written, and is left out: ")
    assert len(record.getMessage()) < 300


@pytest.mark.parametrize("openmetrics", [False, True])
def test_a_family_of_many_samples_is_written_in_parts_and_is_whole(
    metrics: ServerMetrics, register: Register, *, openmetrics: bool
) -> None:
    registry = CollectorRegistry()
    jobs = Counter("app_jobs_total", "Jobs done.", ["queue"], registry=registry)
    seconds = Histogram("app_job_seconds", "How long a job took.", ["queue"], registry=registry)
    for number in range(250):
        jobs.labels(str(number)).inc(number)
        seconds.labels(str(number)).observe(number)
    register(jobs)
    register(seconds)
    pieces = list(render(metrics, openmetrics=openmetrics))
    assert max(len(piece.splitlines()) for piece in pieces) <= PART_SAMPLES + 3
    whole = generate_openmetrics(registry).removesuffix(b"# EOF\n") if openmetrics else generate_latest(registry)
    created = [line for line in whole.splitlines() if not openmetrics and b"_created" in line]
    assert b"".join(piece for piece in pieces if b"app_job" in piece).splitlines() == [
        line for line in whole.splitlines() if line not in created
    ]


def test_rendering_registers_nothing(metrics: ServerMetrics) -> None:
    page(metrics)
    assert not any(family.name.startswith("pagi_") for family in REGISTRY.collect())


def test_the_collector_serves_a_registry_of_the_apps_own(metrics: ServerMetrics) -> None:
    registry = CollectorRegistry(auto_describe=True)
    registry.register(Collector(metrics))
    text = generate_latest(registry).decode()
    assert "\npagi_server_connections_total 0.0\n" in text
    assert "_created" not in text


@pytest.mark.outside
@pytest.mark.usefixtures("app_metrics")
def test_promtool_has_no_remark(metrics: ServerMetrics, register: Register) -> None:
    # The summary's and the odd gauge's names are this module's, and fine with promtool too.
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=page(metrics).encode(), capture_output=True, check=False
    )
    assert checked.stdout + checked.stderr == b""
    assert checked.returncode == 0
