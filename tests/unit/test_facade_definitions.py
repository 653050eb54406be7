"""Definitions of applications' own metrics: what they may say, and what the same or another one again means."""

from __future__ import annotations

import gc
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagi_trio.metrics import Metrics
from pagi_trio.metrics.application.naming import describe, write_bound
from pagi_trio.metrics.application.registry import REGISTRY

from .facade import metrics

__all__ = ["metrics"]

NAMES = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,20}", fullmatch=True)
LABELS = st.from_regex(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]{0,20}", fullmatch=True).filter(lambda name: name != "le")


def refuse(kind, message, make):
    with pytest.raises(kind) as caught:
        make()
    assert str(caught.value) == message


def test_the_name_is_the_prefix_and_what_was_given(metrics):
    assert repr(metrics.counter("orders_total", "Orders.")) == "<Counter shop_orders_total>"
    assert repr(Metrics().gauge("depth", "Depth.")) == "<Gauge depth>"
    hits = metrics.counter("hits_total", "Hits.", labels=["path"])
    assert repr(hits) == "<Labelled shop_hits_total(path)>"
    assert repr(hits.labels(path="/")) == "<Counter shop_hits_total(path='/')>"


def test_the_package_and_the_root_show_it_when_asked():
    code = (
        "import sys, pagi_trio.metrics, pagi_trio\n"
        "assert 'pagi_trio.metrics.facade' not in sys.modules\n"
        "assert pagi_trio.metrics.Metrics is pagi_trio.Metrics\n"
        "assert 'Metrics' in dir(pagi_trio.metrics)\n"
        "assert not hasattr(pagi_trio.metrics, 'Nothing')\n"
        "assert 'prometheus_client' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("orders", "shop_orders: a counter's name must end with _total"),
        (
            "or-ders_total",
            "'shop_or-ders_total' is no name of a metric: it has letters, digits, _ and :, no digit first",
        ),
        (
            "orders_total\n",
            "'shop_orders_total\\n' is no name of a metric: it has letters, digits, _ and :, no digit first",
        ),
        ("bestellungen_für_total", None),
    ],
)
def test_a_bad_name_is_refused(metrics, name, message):
    with pytest.raises(ValueError) as caught:
        metrics.counter(name, "Orders.")
    assert message in (None, str(caught.value))


def test_names_of_the_server_are_refused():
    refuse(
        ValueError,
        "pagi_trio_depth: names that begin with pagi_ are the server's own",
        lambda: Metrics("pagi_trio").gauge("depth", "Depth."),
    )


def test_other_wrong_definitions_are_refused_by_name(metrics):
    counter, gauge, histogram = metrics.counter, metrics.gauge, metrics.histogram
    refuse(ValueError, "shop_a_total: only a counter's name may end with _total", lambda: gauge("a_total", "A."))
    refuse(ValueError, "_total: there is no name in front of _total", lambda: Metrics().counter("_total", "A."))
    refuse(
        ValueError,
        "shop_a_total: its unit is 'bytes', so its name must end with _bytes_total",
        lambda: counter("a_total", "A.", unit="bytes"),
    )
    refuse(
        ValueError,
        "shop_a: its unit is 'seconds', so its name must end with _seconds",
        lambda: metrics.timer("a", "A."),
    )
    refuse(
        TypeError,
        "shop_a_total: labels must be a list of names, ['path']",
        lambda: counter("a_total", "A.", labels="path"),
    )
    refuse(ValueError, "shop_a_total: labels is empty; leave it out", lambda: counter("a_total", "A.", labels=[]))
    refuse(ValueError, "shop_a_total: it has a label twice: b, b", lambda: counter("a_total", "A.", labels=["b", "b"]))
    refuse(TypeError, "shop_a_total: a label's name must be text, not 3", lambda: counter("a_total", "A.", labels=[3]))
    refuse(ValueError, "shop_a: a histogram has a label le of its own", lambda: histogram("a", "A.", labels=["le"]))
    refuse(
        ValueError,
        "shop_a: workers='all': must be one of sum, max, min, latest, each",
        lambda: gauge("a", "A.", workers="all"),
    )
    refuse(TypeError, "shop_a: its description must be text, not ['b']", lambda: gauge("a", ["b"]))
    refuse(TypeError, "shop_a_5: its unit must be text, not 5", lambda: gauge("a_5", "A.", unit=5))
    refuse(
        ValueError,
        "shop_a: workers=['sum']: must be one of sum, max, min, latest, each",
        lambda: gauge("a", "A.", workers=["sum"]),
    )
    refuse(TypeError, "shop_a_total: labels must be a list of names, not 3", lambda: counter("a_total", "A.", labels=3))
    refuse(TypeError, "the name of a metric is text, not None", lambda: gauge(None, "A."))
    refuse(TypeError, "the prefix of metrics is text, not 3", lambda: Metrics(3))
    refuse(
        ValueError,
        "'1a' is no prefix of metrics: it has letters, digits, _ and :, no digit first",
        lambda: Metrics("1a"),
    )


@pytest.mark.parametrize("label", ["__name", "a-b", "", "1a", "ü", "a\n"])
def test_a_bad_label_is_refused(metrics, label):
    rule = "is no name of a label: it has letters, digits and _, no digit and no __ first"
    refuse(ValueError, f"shop_a_total: {label!r} {rule}", lambda: metrics.counter("a_total", "A.", labels=[label]))


@pytest.mark.parametrize("buckets", [(), (1, 1), (2, 1), (float("nan"),), (float("inf"),), (float("-inf"), 1)])
def test_bad_buckets_are_refused(metrics, buckets):
    refuse(
        ValueError,
        f"shop_a: buckets must be one or more rising numbers, not {buckets!r}",
        lambda: metrics.histogram("a", "A.", buckets=buckets),
    )
    refuse(TypeError, "shop_a: buckets must be numbers, not ['x']", lambda: metrics.histogram("a", "A.", buckets=["x"]))
    with pytest.raises(TypeError, match=r"^shop_a: buckets must be numbers"):
        metrics.histogram("a", "A.", buckets=[10**400])


def test_the_same_definition_is_the_same_metric(metrics):
    again = Metrics(prefix="shop")
    hits = metrics.counter("hits_total", "Hits.", labels=["path"])
    assert again.counter("hits_total", "In other words.", labels=("path",)) is hits
    depth = metrics.gauge("depth", "Depth.", workers="max")
    assert again.gauge("depth", "Depth.", workers="max") is depth
    size = metrics.histogram("size_bytes", "Size.", unit="bytes", buckets=[1, 2])
    assert again.histogram("size_bytes", "Size.", unit="bytes", buckets=(1.0, 2.0, float("inf"))) is size
    work = metrics.timer("work_seconds", "Work.")
    assert again.timer("work_seconds", "Work.") is work


def test_another_definition_of_a_name_is_refused_by_what_differs(metrics):
    kept = [
        metrics.counter("hits_total", "Hits.", labels=["path"]),
        metrics.gauge("depth", "Depth."),
        metrics.histogram("size_bytes", "Size.", unit="bytes", buckets=[1, 2]),
    ]
    refuse(
        ValueError,
        "shop_hits_total: has been defined with path, not with method",
        lambda: metrics.counter("hits_total", "Hits.", labels=["method"]),
    )
    refuse(
        ValueError,
        "shop_hits_total: has been defined with path, not with no labels",
        lambda: metrics.counter("hits_total", "Hits."),
    )
    refuse(ValueError, "shop_hits: is a counter already, not a gauge", lambda: metrics.gauge("hits", "Hits."))
    refuse(
        ValueError,
        "shop_hits_created: its samples would have names that shop_hits_total has already",
        lambda: metrics.gauge("hits_created", "Hits."),
    )
    refuse(
        ValueError,
        "shop_size_bytes_count: its samples would have names that shop_size_bytes has already",
        lambda: metrics.gauge("size_bytes_count", "Size."),
    )
    refuse(
        ValueError,
        "shop_size_bytes: has been defined with the buckets 1.0, 2.0, +Inf, not 1.0, +Inf",
        lambda: metrics.histogram("size_bytes", "Size.", unit="bytes", buckets=[1]),
    )
    refuse(
        ValueError,
        "shop_size_bytes: has been defined with the unit 'bytes', not ''",
        lambda: metrics.histogram("size_bytes", "Size.", buckets=[1, 2]),
    )
    refuse(
        ValueError,
        "shop_depth: has been defined with another way for several workers to become one",
        lambda: metrics.gauge("depth", "Depth.", workers="each"),
    )
    work = metrics.histogram("work_seconds", "Work.", unit="seconds")
    refuse(
        ValueError,
        "shop_work_seconds: is a histogram already, not a timer",
        lambda: metrics.timer("work_seconds", "Work."),
    )
    assert kept
    assert work


def test_a_metric_that_nobody_holds_leaves_its_name_to_others(metrics):
    metrics.counter("passing_total", "Passing.")
    gc.collect()
    assert metrics.gauge("passing", "Passing.")


@given(prefix=st.just("") | NAMES, name=NAMES, labels=st.lists(LABELS, min_size=1, max_size=4, unique=True))
def test_every_name_of_the_grammar_can_be_defined(prefix, name, labels):
    name = f"{name}_total"
    if not f"{prefix}_{name}".lstrip("_").startswith("pagi_"):
        made = Metrics(prefix).counter(name, "Any.", labels=labels)
        assert made.labels(**dict.fromkeys(labels, "x")).label_values == ("x",) * len(labels)


@given(name=st.text(max_size=12), label=st.text(max_size=12))
def test_nothing_else_can(name, label):
    """The page's grammar decides, whatever the text: what is refused is refused with ValueError, here and not there."""
    try:
        family = describe("counter", name, "Any.", labels=[label])
    except ValueError:
        return
    assert re.fullmatch(r"[a-zA-Z_:][a-zA-Z0-9_:]*_total", name, re.ASCII)
    assert re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", label, re.ASCII)
    assert family.labels == (label,)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_bound_is_written_so_that_it_reads_the_same(bound):
    assert float(write_bound(bound)) == bound


@pytest.mark.parametrize(
    ("bound", "text"),
    [
        (0.005, "0.005"),
        (1, "1.0"),
        (1e3, "1000.0"),
        (123456, "123456.0"),
        (1e6, "1e+06"),
        (1.5e9, "1.5e+09"),
        (1e16, "1e+16"),
    ],
)
def test_a_bound_is_written_as_prometheus_client_writes_it(bound, text):
    assert write_bound(float(bound)) == text


def test_the_registry_keeps_no_metric_alive():
    made = Metrics("gone").counter("a_total", "A.")
    assert made in REGISTRY.metrics()
    del made
    gc.collect()
    assert "gone_a" not in [one.family.name for one in REGISTRY.metrics()]
