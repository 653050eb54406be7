"""What counting costs a WebSocket echo, in nanoseconds: one message in, one out, and their share of the folds.

Too little to be seen by running a server with metrics on and off, which differ by more from run to run. So the
statements that count are timed alone, in this process, and set against what an echo costs the server. Of every
repetition the cheapest counts, on both sides: disturbances only ever add, and a disturbed echo would make the share
look smaller than it is.
"""

from __future__ import annotations

import time

import trio

from pagi_trio.metrics.meter import FLUSH_INTERVAL_S, Meter

ECHOES = 20_000
FOLDS = 50
REPEATS = 50
"""Many short repetitions rather than few long ones: some of them are then left undisturbed."""


class _Session:
    """As far from its tally as a session of the server is: looking it up is part of the cost.

    The size of a message is not: the server takes it for its fairness budget, whether or not anybody counts.
    """

    __slots__ = ("meter", "tally")

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.tally = meter.websocket


def added_ns(echo_ns: float) -> float:
    """Measure what counting adds to an echo that costs a busy server this much CPU time in all.

    The folds come at most once in each flush interval, so that a busy server shares one among the echoes of that
    interval.
    """
    echoes_per_fold = FLUSH_INTERVAL_S * 1e9 / echo_ns
    return _count_ns() + trio.run(_fold_ns) / echoes_per_fold


def _count_ns() -> float:
    session = _Session(Meter.create())
    session.tally.mark()
    counted = min(_timed(_count, session) for _ in range(REPEATS))
    empty = min(_timed(_do_not_count, session) for _ in range(REPEATS))
    return (counted - empty) / ECHOES


def _timed(loop, session: _Session) -> int:
    before = time.thread_time_ns()
    loop(session, 64)
    return time.thread_time_ns() - before


def _count(session: _Session, size: int) -> None:
    for _ in range(ECHOES):
        tally = session.tally
        tally.received.append(size)
        if not tally.dirty:
            tally.mark()
        tally = session.tally
        tally.sent.append(size)
        if not tally.dirty:
            tally.mark()
    # What a fold costs for each message that it takes; what it costs for being one comes extra.
    session.meter.fold_all()


def _do_not_count(session: _Session, size: int) -> None:
    for _ in range(ECHOES):
        pass


async def _fold_ns() -> float:
    """Measure one turn of the flush task: woken by a tally, asleep for an interval, folding."""
    interval_s = 0.001
    meter = Meter.create(interval_s)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(meter.run)
        idle = min([await _turns_ns(meter, interval_s, counting=False) for _ in range(6)])
        counting = min([await _turns_ns(meter, interval_s, counting=True) for _ in range(6)])
        nursery.cancel_scope.cancel()
    return (counting - idle) / FOLDS


async def _turns_ns(meter: Meter, interval_s: float, *, counting: bool) -> int:
    tally = meter.websocket
    before = time.thread_time_ns()
    for _ in range(FOLDS):
        if counting:
            tally.received.append(64)
            tally.mark()
        await trio.sleep(2 * interval_s)
        while tally.dirty:  # the machine was busy elsewhere
            await trio.sleep(interval_s)
    return time.thread_time_ns() - before
