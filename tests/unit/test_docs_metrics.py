"""The metrics cookbook says what is so: its files are shown as they are, its queries ask for series that exist."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from pagi_trio.metrics.application.naming import Workers
from pagi_trio.metrics.catalog import CATALOG

from .test_docs import ROOT, blocks, rows

COOKBOOK = (ROOT / "docs" / "how-to" / "metrics.md").read_text(encoding="utf-8")

FILES = ROOT / "docs" / "examples" / "metrics"

ALERTS = FILES / "alerts.yml"


def queries(text):
    """Return the queries of a page, one a line."""
    lines = "\n".join(blocks(text, "promql")).splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def wrong_selectors(text):
    """Return what selects series of the catalog by a label or a value that they do not have."""
    metrics = {metric.name: metric for metric in CATALOG}
    wrong = []
    for name, inner in re.findall(r"\b(pagi_\w+)\{([^}]*)\}", text):
        for label, value in re.findall(r'(\w+)(?:=|!=|=~|!~)"([^"]*)"', inner):
            known = dict(metrics[name].labels).get(label, ())
            wrong += [f'{name}{{{label}="{one}"}}' for one in value.split("|") if one not in known]
    return wrong


def misfits(text):
    """Return the blocks that are of no file of the example."""
    files = [path.read_text(encoding="utf-8") for path in FILES.iterdir() if path.is_file()]
    found = [block for language in ("yaml", "nginx") for block in blocks(text, language)]
    return [block for block in found if not any(block in file for file in files)]


def test_what_is_shown_of_files_stands_there():
    assert misfits(COOKBOOK) == []
    assert {path.name for path in FILES.iterdir() if path.is_file()} <= set(
        re.findall(r"\(\.\./examples/metrics/([^)]+)\)", COOKBOOK)
    )


def test_queries_and_alerts_select_by_labels_and_values_that_exist():
    assert len(queries(COOKBOOK)) > 15
    assert wrong_selectors(COOKBOOK) == []
    assert wrong_selectors(ALERTS.read_text(encoding="utf-8")) == []


def test_every_way_for_gauges_of_several_workers_is_explained():
    explained = {one for cells in rows(COOKBOOK) for one in re.findall(r'`"(\w+)"`', cells[0])}
    assert explained == set(Workers.__args__)


def test_what_is_wrong_is_found():
    assert wrong_selectors('rate(pagi_sse_closes_total{reason=~"done|bored"}[5m]) pagi_server_draining{x="y"}') == [
        'pagi_sse_closes_total{reason="bored"}',
        'pagi_server_draining{x="y"}',
    ]
    assert misfits("```yaml\nrule_files: []\n```\n") == ["rule_files: []\n"]
    assert queries("```promql\n# Why?\nup\n\nup > 0\n```\n") == ["up", "up > 0"]


def promtool(*arguments):
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.outside
def test_prometheus_reads_the_queries_and_the_files(tmp_path):
    rules = [{"record": f"recipe:{number}", "expr": one} for number, one in enumerate(queries(COOKBOOK))]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "recipes", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(file))
    assert "SUCCESS" in promtool("check", "config", str(FILES / "prometheus.yml"))


UP = 'pagi_server_worker_up{worker="%d"}'
CLOSES = 'pagi_websocket_closes_total{code="%s",side="%s"}'

# For each alert, series by the minute for as long as it takes, and the labels that it then has; then series for which
# nobody is to be woken.
CASES = {
    "WorkersMissing": (
        {UP % 1: "1x20", UP % 2: "1 1 1 0x17", "pagi_server_workers_configured": "2x20"},
        [{}],
        {UP % 1: "1x20", UP % 2: "1 1 0 1x17", "pagi_server_workers_configured": "2x20"},
    ),
    "WorkersMissing, for none lives": ({"pagi_server_workers_configured": "2x20"}, [{}], {}),
    "WorkersEnd": (
        {'pagi_server_worker_exits_total{reason="crashed"}': "0x15 1x5"},
        [{"reason": "crashed"}],
        {'pagi_server_worker_exits_total{reason="recycled"}': "0x15 1x5"},
    ),
    "EventLoopBlocked": (
        {'pagi_server_worker_blocked_seconds{worker="2"}': "0x17 1.5 0 0"},
        [{"worker": "2"}],
        {'pagi_server_worker_blocked_seconds{worker="2"}': "0 1.5 0x18"},
    ),
    "SessionsFail": (
        {CLOSES % ("1000", "client"): "0+50x20", CLOSES % ("1011", "server"): "0+1x20"},
        [{}],
        {CLOSES % ("1000", "client"): "0+500x20", CLOSES % ("1011", "server"): "0+1x20"},
    ),
    "ApplicationErrors": (
        {'pagi_server_app_errors_total{scope="sse"}': "0x15 1x5"},
        [{"scope": "sse"}],
        {'pagi_server_app_errors_total{scope="sse"}': "1x20"},
    ),
    "ConnectionsNearTheLimit": (
        {"pagi_server_connections_active": "81x20", "pagi_server_connections_limit": "100x20"},
        [{}],
        {"pagi_server_connections_active": "81x17 80 81 81", "pagi_server_connections_limit": "100x20"},
    ),
    "ClientsTurnedAway": (
        {'pagi_server_connections_rejected_total{reason="limit"}': "0x18 1 1"},
        [{}],
        {'pagi_server_connections_rejected_total{reason="handshake"}': "0x18 1 1"},
    ),
    "NoFileDescriptors": (
        {'pagi_server_accept_errors_total{kind="enfile"}': "0x18 1 1"},
        [{"kind": "enfile"}],
        {'pagi_server_accept_errors_total{kind="econnaborted"}': "0x18 1 1"},
    ),
    "MetricsIncomplete": (
        {'pagi_metrics_errors_total{part="callback"}': "0x15 1x5", "pagi_metrics_dropped_series_total": "0x15 1x5"},
        [{"part": "callback"}, {}],
        {'pagi_metrics_errors_total{part="callback"}': "0x20", "pagi_metrics_dropped_series_total": "7x20"},
    ),
}


def case(alert, series, labels):
    """Return a test of promtool's, after twenty minutes."""
    named = [
        {"series": f'{name.rstrip("}")}{"," if "{" in name else "{"}instance="a"}}', "values": values}
        for name, values in series.items()
    ]
    fires = [{"exp_labels": {"instance": "a", **one}} for one in labels]
    return {
        "interval": "1m",
        "input_series": named,
        "alert_rule_test": [{"alertname": alert, "eval_time": "20m", "exp_alerts": fires}],
    }


@pytest.mark.outside
def test_alerts_wake_somebody_when_they_should_and_only_then(tmp_path):
    # What they say is for people, and in nobody's way here.
    rules = re.sub(r"^ +annotations:\n.*\n", "", ALERTS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    named = [(alert.partition(",")[0], one) for alert, one in CASES.items()]
    assert re.findall(r"alert: (\w+)", rules) == list(dict.fromkeys(alert for alert, _ in named))
    file, tests = tmp_path / "alerts.yml", tmp_path / "tests.yml"
    file.write_text(rules)
    cases = [one for alert, (bad, labels, good) in named for one in (case(alert, bad, labels), case(alert, good, []))]
    tests.write_text(json.dumps({"rule_files": [str(file)], "evaluation_interval": "1m", "tests": cases}))
    promtool("check", "rules", str(ALERTS))
    assert "SUCCESS" in promtool("test", "rules", str(tests))
