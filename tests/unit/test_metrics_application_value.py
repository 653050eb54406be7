"""The application's own metrics, read by the names and labels that they have on the page."""

from __future__ import annotations

import pytest

from pagi_trio.metrics.application.aggregation import AppFamily, Sample
from pagi_trio.metrics.application.lookup import read
from pagi_trio.metrics.application.region import Family

from .facade import counting, metrics

__all__ = ["metrics"]


def test_each_kind_is_read_as_the_page_has_it(metrics):
    orders = metrics.counter("orders_total", "Orders.", labels=["country"])
    depth = metrics.gauge("depth", "Depth.")
    sizes = metrics.histogram("sizes", "Sizes.", buckets=(1, 10))
    with counting() as server:
        orders.labels(country="at").inc(2)
        depth.set(-1)
        for size in (0.5, 5, 50):
            sizes.observe(size)
        assert server.value("shop_orders_total", country="at") == 2
        assert server.value("shop_depth") == -1
        assert server.value("shop_sizes_bucket", le="10.0") == 2
        assert server.value("shop_sizes_bucket", le="+Inf") == server.value("shop_sizes_count") == 3
        assert server.value("shop_sizes_sum") == 55.5
        # The server's own are found as before.
        assert server.value("pagi_server_connections_total") == 0


def test_what_nobody_has_counted_is_0_so_that_a_difference_can_be_made(metrics):
    kept = (
        metrics.counter("orders_total", "Orders.", labels=["country"]),
        metrics.gauge("depth", "Depth.", labels=["queue"]),
        metrics.timer("work_seconds", "Work.", labels=["kind"]),
    )
    assert len(kept) == 3
    with counting() as server:
        assert server.value("shop_orders_total", country="at") == 0
        assert server.value("shop_depth", queue="mail") == 0
        assert server.value("shop_work_seconds_count", kind="mail") == 0
        assert server.value("shop_work_seconds_bucket", kind="mail", le="0.5") == 0


@pytest.mark.parametrize("workers", ["max", "min", "latest"])
def test_a_gauge_that_nobody_has_set_has_no_value_unless_it_is_a_sum(metrics, workers):
    age = metrics.gauge("age", "Age.", labels=["of"], workers=workers)
    with counting() as server:
        with pytest.raises(KeyError, match="shop_age has not been set with of='mail'"):
            server.value("shop_age", of="mail")
        age.labels(of="mail").set(3)
        assert server.value("shop_age", of="mail") == 3


@pytest.mark.parametrize(
    ("name", "labels", "why"),
    [
        ("shop_orders_total", {}, "shop_orders_total takes country; got none"),
        ("shop_orders_total", {"city": "x"}, "shop_orders_total takes country; got city"),
        ("shop_sizes_bucket", {}, "shop_sizes_bucket takes le; got none"),
        ("shop_sizes_bucket", {"le": "2"}, "shop_sizes_bucket has no le='2'; it is one of 1.0, +Inf"),
        ("shop_sizes_sum", {"le": "1.0"}, "shop_sizes_sum takes no labels; got le"),
        ("shop_each", {}, "shop_each takes worker; got none"),
        ("shop_orders", {"country": "at"}, "no metric 'shop_orders'; did you mean 'shop_orders_total'?"),
        ("shop_order_total", {"country": "at"}, "no metric 'shop_order_total'; did you mean 'shop_orders_total'?"),
    ],
)
def test_what_does_not_fit_is_said(metrics, name, labels, why):
    kept = (
        metrics.counter("orders_total", "Orders.", labels=["country"]),
        metrics.histogram("sizes", "Sizes.", buckets=(1,)),
        metrics.gauge("each", "Each.", workers="each"),
    )
    with counting() as server, pytest.raises(KeyError) as caught:
        server.value(name, **labels)
    assert caught.value.args[0].startswith(why)
    assert len(kept) == 3


def test_a_summary_of_another_library_has_a_count_and_a_sum():
    family = AppFamily(Family("x", "summary"), [Sample("_count", {}, 2.0), Sample("_sum", {}, 3.5)])
    assert (read([family], "x_count", {}), read([family], "x_sum", {}), read([family], "x", {})) == (2.0, 3.5, None)
