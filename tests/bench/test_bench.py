"""The speed that the server promises beside its peers.

Run by name, alone on the machine: ``pytest tests/bench`` or ``pytest -m bench``; a plain ``pytest`` leaves it out,
see conftest.py. Each test takes some ten seconds: medians of interleaved rounds are what makes the ratios repeatable.
"""

from __future__ import annotations

from statistics import median

import pytest

from .measure import BUDGET_S, ROUNDS, counting_costs, cpu_costs, idle_costs
from .pushing import push_ms
from .servers import HYPERCORN, KINDS, OURS, UVICORN
from .table import ratio
from .works import WORKS

pytestmark = pytest.mark.bench


def _kinds(*names):
    kinds = [KINDS[name] for name in names]
    missing = {module for kind in kinds for module in kind.missing()}
    assert not missing, f"install {', '.join(sorted(missing))} to measure against"
    return kinds


def test_hello_costs_less_than_on_the_peers():
    costs = cpu_costs(WORKS["hello"], _kinds(OURS, UVICORN, HYPERCORN), ROUNDS, BUDGET_S)
    assert ratio(costs, OURS, UVICORN) >= 1.2
    assert ratio(costs, OURS, HYPERCORN) >= 12


def test_an_echo_costs_no_more_than_on_uvicorn():
    costs = cpu_costs(WORKS["echo"], _kinds(OURS, UVICORN), ROUNDS, BUDGET_S)
    assert ratio(costs, OURS, UVICORN) >= 1.0


@pytest.mark.parametrize("echo", ["echo", "echo-many"])
def test_counting_is_at_most_a_hundredth_of_an_echo(echo):
    added_ns, echo_ns = counting_costs(WORKS[echo], ROUNDS, BUDGET_S)
    assert added_ns <= 0.01 * echo_ns


@pytest.mark.parametrize("flavor", ["statsd", "dogstatsd"])
def test_a_push_of_300_series_takes_at_most_3_ms(flavor):
    # 0.8 and 0.9 ms on the machine where it was written, in up to ten turns of the loop.
    assert push_ms(flavor) <= 3


def test_an_idle_websocket_takes_at_most_8_kib():
    costs = idle_costs(_kinds(OURS), rounds=3)
    assert median(costs[OURS]) <= 8 * 1024
