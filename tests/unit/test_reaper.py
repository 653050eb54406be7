"""The walk over all connections, which must not keep the loop however many of them have something to read."""

from __future__ import annotations

from time import perf_counter

import pytest
import trio

from pagi_trio.config import Config
from pagi_trio.metrics.meter import NullMeter
from pagi_trio.nurseries.reaper import TURN_S, reap
from pagi_trio.nurseries.service import HEAD, Service

pytestmark = pytest.mark.trio

CONNECTIONS = 10


class Busy:
    """A connection that takes a whole turn for what its client has sent."""

    state = HEAD

    def __init__(self, ticked):
        self._ticked = ticked

    def tick(self, now):
        self._ticked(self)
        begun = perf_counter()
        while perf_counter() - begun <= TURN_S:
            pass

    def abort(self, reason):
        raise AssertionError(reason)

    def drain(self):
        raise AssertionError


def service_of(ticked):
    async def app(scope, receive, send):
        raise AssertionError

    service = Service(app, Config(), NullMeter(), state={}, extensions={}, interrupt=lambda: None)
    service.connections.update(Busy(ticked) for _ in range(CONNECTIONS))
    return service


async def test_others_run_between_connections_that_keep_the_walk_busy():
    ticks = turns = 0

    def ticked(_connection):
        nonlocal ticks
        ticks += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reap, service_of(ticked))
        while ticks < CONNECTIONS:
            await trio.lowlevel.checkpoint()
            turns += 0 < ticks < CONNECTIONS
        nursery.cancel_scope.cancel()
    # The walk may have two turns between two of this task's.
    assert turns >= CONNECTIONS // 2 - 1


async def test_a_connection_that_ends_while_others_run_is_not_looked_at():
    ticks = 0
    done = trio.Event()

    def ticked(connection):
        nonlocal ticks
        ticks += 1
        # All others end before the walk comes to them.
        service.connections.intersection_update({connection})
        done.set()

    service = service_of(ticked)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reap, service)
        await done.wait()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert ticks == 1
