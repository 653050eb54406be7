"""What can be asked of the workers before any has been started."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pagi_trio.config import Config
from pagi_trio.nurseries.worker import Blueprint
from pagi_trio.nurseries.workers import Workers
from pagi_trio.recruits import Recruits

if TYPE_CHECKING:
    from collections.abc import Callable

    from pagi_trio.metrics.store import Store


@pytest.mark.parametrize("ask", [Workers.add, Workers.remove, Workers.restart, Workers.stop, Workers.abort])
def test_before_they_run_a_signal_changes_no_number(
    share: Callable[[int], Store], caplog: pytest.LogCaptureFixture, ask: Callable[[Workers], None]
) -> None:
    blueprint = Blueprint("app", factory=False, config=Config(), listeners=[], store=share(8), recruits=Recruits("app"))
    workers = Workers(blueprint, 2, lambda: None, is_patient=False)
    ask(workers)
    assert (workers.wanted, workers.ready) == (0, 0)
    assert caplog.records == []
