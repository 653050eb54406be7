"""Applications' own metrics over worker processes: exact sums, over a kill and over new code.

Each test starts several interpreters, and so takes longer than a quarter second.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.integration.command import get, request, scrape, until

pytest.importorskip("prometheus_client")

if not hasattr(os, "pidfd_open"):
    pytest.skip("several workers are for Linux alone", allow_module_level=True)

WORKERS = ("-w", "2", "--metrics-bind", "127.0.0.1:0")

ORDERS = 'shop_orders_total{{by="{}"}}'.format


@pytest.fixture
def shop(supervised, tmp_path):
    """``with shop() as program``: the command serves facade_app by two workers."""
    text = Path(__file__).with_name("facade_app.py").read_text()
    (tmp_path / "shop.py").write_text(text)

    def start(*arguments):
        return supervised(*WORKERS, *arguments, app="shop")

    return start


def order_of_each(url, pids, path="/order"):
    """Send requests until each worker has answered one; return how many each has answered, by process id."""
    answered = {}
    while not set(pids) <= set(answered):
        pid = int(get(url + path))
        answered[pid] = answered.get(pid, 0) + 1
    return answered


def stop(program):
    program.send_signal(signal.SIGTERM)
    assert program.finish()[0] == 0


def test_every_page_has_the_sum_also_after_a_kill(shop):
    with shop() as program:
        url, page = program.wait_for_url(), program.wait_for_url("metrics")
        workers = program.wait_ready(2)
        answered = order_of_each(url, workers.values())
        sent = sum(answered.values())
        for where in (page, f"{url}/metrics"):
            told = scrape(where)
            assert [told[ORDERS(by)] for by in ("task", "thread", "plain thread")] == [sent] * 3
            assert told["shop_order_size_count"] == told['shop_order_size_bucket{le="1.0"}'] == sent
            assert told["shop_order_size_sum"] == sent
            assert told[ORDERS("import")] == 0
        os.kill(workers[1], signal.SIGKILL)
        program.wait_ready(1)
        told = scrape(page)
        assert told[ORDERS("task")] == told["shop_order_size_count"] == sent
        get(f"{url}/order")
        assert scrape(page)[ORDERS("task")] == sent + 1
        stop(program)


def test_a_gauge_of_a_killed_worker_is_gone(shop):
    with shop() as program:
        url, page = program.wait_for_url(), program.wait_for_url("metrics")
        workers = program.wait_ready(2)
        with request(url, "/wait"), request(url, "/wait"):
            until(lambda: scrape(page)["shop_orders_open"] == 2)
            for pid in workers.values():
                os.kill(pid, signal.SIGKILL)
            program.wait_ready(2)
            # Its successor is ready before it has told that it has none.
            until(lambda: scrape(page).get("shop_orders_open") == 0)
        stop(program)


def test_a_gauge_for_each_worker_has_their_slots(shop):
    with shop() as program:
        url, page = program.wait_for_url(), program.wait_for_url("metrics")
        workers = program.wait_ready(2)
        order_of_each(url, workers.values(), "/number?5")
        told = scrape(page)
        assert (told['shop_number{worker="1"}'], told['shop_number{worker="2"}']) == (5, 5)
        stop(program)


def test_callbacks_are_called_by_the_worker_that_answers_and_soon_by_the_others(shop):
    with shop() as program:
        url, page = program.wait_for_url(), program.wait_for_url("metrics")
        workers = program.wait_ready(2)
        held = sum(order_of_each(url, workers.values(), "/hold").values())
        until(lambda: scrape(page)["shop_held_total"] == held)
        stop(program)


def test_a_process_that_the_application_forks_is_on_no_page(shop):
    with shop() as program:
        url, page = program.wait_for_url(), program.wait_for_url("metrics")
        workers = program.wait_ready(2)
        order_of_each(url, workers.values())
        order_of_each(url, workers.values(), "/fork")
        assert scrape(page).get(ORDERS("child"), 0) == 0
        stop(program)


def test_new_code_that_defines_a_metric_anew_begins_it_anew_and_goes_on_with_the_others(shop, tmp_path):
    with shop() as program:
        url, page = program.wait_for_url(), program.wait_for_url("metrics")
        workers = program.wait_ready(2)
        sent = sum(order_of_each(url, workers.values()).values())
        file = tmp_path / "shop.py"
        file.write_text(file.read_text().replace("buckets=(1, 2)", "buckets=(1, 2, 3)"))
        program.send_signal(signal.SIGHUP)
        program.wait_for_each({"is ready": 2, "ended: clean": 2})
        get(f"{url}/order?2.5")
        told = scrape(page)
        assert told[ORDERS("task")] == sent + 1
        assert told["shop_order_size_count"] == told['shop_order_size_bucket{le="3.0"}'] == 1
        stop(program)


def test_a_name_that_prometheus_client_has_too_counts_there_and_is_told(shop, tmp_path):
    file = tmp_path / "shop.py"
    file.write_text(
        "from prometheus_client import Counter\n"
        "Counter('shop_orders', 'Not those.', ['by']).labels('task').inc(100)\n"
        + file.read_text().replace("from __future__ import annotations\n", "")
    )
    with shop() as program:
        url, page = program.wait_for_url(), program.wait_for_url("metrics")
        program.wait_ready(2)
        get(f"{url}/order")
        assert [line for line in program.errors if "shop_orders is a metric of prometheus_client already" in line]
        assert scrape(page)[ORDERS("task")] == 200
        stop(program)


def test_both_kinds_of_metrics_count_beside_each_other(shop, tmp_path):
    file = tmp_path / "shop.py"
    text = file.read_text().replace(
        "metrics = Metrics",
        "from prometheus_client import Counter\nMORE = Counter('more', 'More.', ['by'])\nmetrics = Metrics",
    )
    file.write_text(
        text.replace(
            '    ORDERS.labels(by="task").inc()\n',
            "    ORDERS.labels(by=\"task\").inc()\n    MORE.labels('task').inc()\n",
        )
    )
    with shop() as program:
        url, page = program.wait_for_url(), program.wait_for_url("metrics")
        workers = program.wait_ready(2)
        sent = sum(order_of_each(url, workers.values()).values())
        told = scrape(page)
        assert told[ORDERS("task")] == told['more_total{by="task"}'] == sent
        stop(program)
