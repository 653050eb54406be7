"""The long run in short: all but the growth of memory, which takes longer to tell."""

from __future__ import annotations

import pytest

from tests.endurance.run import Plan, endure
from tests.endurance.sessions import SESSIONS


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_nothing_is_left_over_by_clients_that_leave_at_any_point(tls):
    """Takes some seconds, since clients that leave at random need some time to leave in every way."""
    outcome = endure(
        Plan(seconds=3, seed=7, clients=60, tls=tls, sample_every_s=0.5, idle_most_s=1.0, check_growth=False)
    )
    assert outcome.faults == []
    seen = outcome.done + outcome.left
    assert {one.__name__ for one, share in SESSIONS.items() if share >= 1} <= set(seen)
    assert outcome.left.total() > 10
    assert max(one.tasks for one in outcome.during) > outcome.last.tasks
    assert any(one.gauges for one in outcome.during)
