from __future__ import annotations

from pathlib import Path

import pytest

from pagi_trio.metrics import catalog, reference
from pagi_trio.metrics.catalog import CATALOG, INFO, SERIES

COUNTERS = {
    "pagi_server_connections_total",
    "pagi_server_worker_exits_total",
    "pagi_server_worker_spawns_total",
    "pagi_server_app_errors_total",
    "pagi_server_lifespan_failures_total",
    "pagi_websocket_connections_total",
    "pagi_websocket_messages_received_total",
    "pagi_websocket_messages_sent_total",
    "pagi_websocket_bytes_received_total",
    "pagi_websocket_bytes_sent_total",
    "pagi_sse_connections_total",
    "pagi_sse_events_sent_total",
    "pagi_sse_bytes_sent_total",
    "pagi_sse_closes_total",
    "pagi_sse_comments_sent_total",
    "pagi_metrics_scrapes_total",
    "pagi_metrics_flushes_total",
    "pagi_metrics_pushes_total",
    "pagi_server_connections_rejected_total",
    "pagi_server_connections_closed_total",
    "pagi_server_accept_errors_total",
    "pagi_server_tls_handshakes_total",
    "pagi_websocket_handshakes_total",
    "pagi_websocket_closes_total",
    "pagi_metrics_dropped_series_total",
    "pagi_metrics_errors_total",
}
GAUGES = {
    "pagi_server_info",
    "pagi_server_start_time_seconds",
    "pagi_server_connections_active",
    "pagi_server_connections_by_state",
    "pagi_server_connections_limit",
    "pagi_server_workers_active",
    "pagi_server_workers_configured",
    "pagi_server_worker_up",
    "pagi_server_worker_start_time_seconds",
    "pagi_server_worker_blocked_seconds",
    "pagi_server_draining",
    "pagi_server_lifespan_startup_seconds",
    "pagi_server_lifespan_shutdown_seconds",
    "pagi_websocket_connections_active",
    "pagi_sse_connections_active",
}
HISTOGRAMS = {"pagi_server_connection_seconds", "pagi_websocket_session_seconds", "pagi_sse_stream_seconds"}


def test_the_names_are_the_contract() -> None:
    assert {metric.name for metric in CATALOG if metric.kind == "counter"} == COUNTERS
    assert {metric.name for metric in CATALOG if metric.kind == "gauge"} == GAUGES
    assert {metric.name for metric in CATALOG if metric.kind == "histogram"} == HISTOGRAMS
    assert len(CATALOG) == len(COUNTERS) + len(GAUGES) + len(HISTOGRAMS)


@pytest.mark.parametrize("metric", CATALOG, ids=lambda metric: metric.name)
def test_a_metric_says_what_it_is_in_whole_sentences(metric: catalog.Metric) -> None:
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.help.endswith(".")
    assert "\n" not in metric.help
    assert "|" not in metric.help


def test_series_know_their_place() -> None:
    places = [place for series in SERIES for place in range(series.index, series.index + series.width)]
    assert places == list(range(catalog.PLACES))
    for series in SERIES:
        assert catalog.find(series.metric.name, **dict(series.labels)) is series
        if series.metric.kind != "histogram":
            assert series.width == 1
            assert catalog.index(series.metric.name, **dict(series.labels)) == series.index


@pytest.mark.parametrize(
    "metric", [metric for metric in CATALOG if metric.kind == "histogram"], ids=lambda one: one.name
)
def test_a_histogram_has_rising_bounds_and_is_a_sum_over_processes(metric: catalog.Metric) -> None:
    assert list(metric.buckets) == sorted({float(bound) for bound in metric.buckets})
    assert metric.buckets[-1] < float("inf")
    assert metric.aggregation == "sum"
    assert metric.name.endswith(f"_{metric.unit}")


def test_no_other_metric_has_buckets() -> None:
    assert {metric.kind for metric in CATALOG if metric.buckets} == {"histogram"}


def test_a_family_has_a_series_for_each_value_of_its_labels_in_order() -> None:
    states = [dict(series.labels)["state"] for series in SERIES if series.metric.name.endswith("_by_state")]
    assert states == ["tls", "head", "app", "idle", "websocket", "sse", "http2", "closing"]


def test_info_has_one_series() -> None:
    assert sum(series.metric is INFO for series in SERIES) == 1


@pytest.mark.parametrize(
    ("name", "labels", "said"),
    [
        ("pagi_server_conections_total", {}, "did you mean 'pagi_server_connections_total'?"),
        ("pagi_sse_connections", {}, "did you mean 'pagi_sse_connections_"),
        ("x", {}, "no metric 'x'"),
        ("pagi_server_app_errors_total", {}, "pagi_server_app_errors_total takes scope; got none"),
        ("pagi_server_app_errors_total", {"kind": "http"}, "takes scope; got kind"),
        (
            "pagi_server_app_errors_total",
            {"scope": "ftp"},
            "no scope='ftp'; it is one of http, websocket, sse, lifespan",
        ),
        ("pagi_sse_connections_total", {"scope": "sse"}, "takes no labels; got scope"),
        ("pagi_sse_stream_second_count", {}, "did you mean 'pagi_sse_stream_seconds_count'?"),
        (
            "pagi_sse_stream_seconds",
            {},
            "is a histogram, with pagi_sse_stream_seconds_bucket, pagi_sse_stream_seconds_count, pagi_sse_stream_sec",
        ),
    ],
)
def test_what_is_no_series_is_told_what_is(name: str, labels: dict[str, str], said: str) -> None:
    with pytest.raises(KeyError) as caught:
        catalog.index(name, **labels)
    assert said in caught.value.args[0]
    assert "\n" not in caught.value.args[0]


def test_a_name_with_little_in_common_is_taken_for_no_other() -> None:
    for name in ("pagi_http_requests_total", "pagi_http_request_total", "pagi_requests_total"):
        assert catalog.misnamed(name) == f"no metric {name!r}"


def test_the_reference_page_is_what_the_catalog_renders() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"
    assert page.read_text(encoding="utf-8") == reference.render()
