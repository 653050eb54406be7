"""A jumping clock beside threads: MockClock jumps when all tasks wait, and cannot see that one waits for a thread."""

from __future__ import annotations

import math
import threading
import time
from contextlib import ExitStack
from functools import partial

import anyio.to_thread
import pytest
import trio
import trio.testing

from pagi_trio.testing.autojump import IDLE_S, PATIENCE_S, is_autojump, keep_time_for_threads, let_time_go_on

pytestmark = pytest.mark.trio

BLOCKED_S = 0.05
"""Of real time: how long a thread blocks."""


async def work():
    await trio.to_thread.run_sync(time.sleep, BLOCKED_S)


async def work_for_anyio():
    await anyio.to_thread.run_sync(time.sleep, BLOCKED_S)


async def start_thread(nursery, **options):
    """Start a thread that works until the event is set; returns it once it works."""
    begun, go_on = trio.Event(), threading.Event()

    def wait():
        trio.from_thread.run_sync(begun.set)
        # Far longer than it takes here, so that a test that fails comes to an end.
        go_on.wait(30)

    nursery.start_soon(partial(trio.to_thread.run_sync, wait, **options))
    await begun.wait()
    return go_on


@pytest.mark.parametrize("job", [work, work_for_anyio])
@pytest.mark.parametrize("deadline_s", [1, 1000])
async def test_a_thread_expires_no_deadline(autojump_clock, job, deadline_s):
    with keep_time_for_threads(), trio.move_on_after(deadline_s) as scope:
        await job()
    assert not scope.cancel_called
    assert trio.current_time() == 0


@pytest.mark.parametrize("job", [work, work_for_anyio])
async def test_without_it_a_thread_does(autojump_clock, job):
    with trio.move_on_after(1000) as scope:
        await job()
    assert scope.cancel_called


async def test_a_thread_that_works_already_is_seen(autojump_clock, nursery):
    nursery.start_soon(work)
    while trio.testing.active_thread_count() == 0:
        await trio.lowlevel.checkpoint()
    with keep_time_for_threads():
        assert autojump_clock.autojump_threshold == PATIENCE_S
        await trio.testing.wait_all_threads_completed()
    assert trio.current_time() == 0


async def test_a_thread_that_waits_for_time_to_go_on_comes_to_its_end(autojump_clock):
    # Takes half a second, which is what patience is.
    with keep_time_for_threads():
        await trio.to_thread.run_sync(trio.from_thread.run, trio.sleep, 5)
    assert trio.current_time() == 5


async def test_time_jumps_at_once_before_and_after_threads_work(autojump_clock):
    with keep_time_for_threads():
        assert autojump_clock.autojump_threshold == 0
        await trio.sleep(10)
        await work()
        # The step in which it comes back is not over before.
        await trio.lowlevel.checkpoint()
        assert autojump_clock.autojump_threshold == 0
        await trio.sleep(10)
    assert trio.current_time() == 20


async def test_time_stays_until_the_last_of_several_threads_is_done(autojump_clock, nursery):
    with keep_time_for_threads():
        one, two = await start_thread(nursery), await start_thread(nursery)
        one.set()
        while trio.testing.active_thread_count() == 2:
            await trio.lowlevel.checkpoint()
        assert autojump_clock.autojump_threshold == PATIENCE_S
        two.set()
        await trio.testing.wait_all_threads_completed()
        assert autojump_clock.autojump_threshold == 0


async def test_a_thread_that_is_abandoned_holds_no_time(autojump_clock, nursery):
    with keep_time_for_threads():
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as own:
                go_on = await start_thread(own, abandon_on_cancel=True)
                scope.cancel()
        await trio.sleep(1000)
        go_on.set()
    assert trio.current_time() == 1000


async def test_the_threshold_is_put_back_though_threads_still_work(autojump_clock, nursery):
    with keep_time_for_threads():
        go_on = await start_thread(nursery)
        assert autojump_clock.autojump_threshold == PATIENCE_S
    assert autojump_clock.autojump_threshold == 0
    go_on.set()


async def test_what_comes_after_the_block_is_as_without_it(autojump_clock, nursery):
    with keep_time_for_threads():
        await work()
    go_on = await start_thread(nursery)
    assert autojump_clock.autojump_threshold == 0
    go_on.set()


async def test_blocks_may_overlap(autojump_clock, nursery):
    one, two = keep_time_for_threads(), keep_time_for_threads()
    with one:
        two.__enter__()
        go_on = await start_thread(nursery)
    assert autojump_clock.autojump_threshold == PATIENCE_S
    two.__exit__(None, None, None)
    assert autojump_clock.autojump_threshold == 0
    go_on.set()
    with keep_time_for_threads():
        await work()
    assert trio.current_time() == 0


@pytest.mark.parametrize("chosen", [0.001, 0.75, math.inf])
async def test_a_threshold_that_is_chosen_is_only_ever_raised(mock_clock, chosen, nursery):
    mock_clock.autojump_threshold = chosen
    with keep_time_for_threads():
        go_on = await start_thread(nursery)
        assert mock_clock.autojump_threshold == max(chosen, PATIENCE_S)
        go_on.set()
        await trio.testing.wait_all_threads_completed()
        assert mock_clock.autojump_threshold == chosen


async def test_a_threshold_that_is_chosen_meanwhile_holds(mock_clock, nursery):
    with keep_time_for_threads():
        mock_clock.autojump_threshold = 0
        go_on = await start_thread(nursery)
        assert mock_clock.autojump_threshold == PATIENCE_S
        mock_clock.autojump_threshold = math.inf
        go_on.set()
        await trio.testing.wait_all_threads_completed()
        assert mock_clock.autojump_threshold == math.inf
        # Though it is what it is raised to.
        mock_clock.autojump_threshold = PATIENCE_S
        await trio.lowlevel.checkpoint()
        assert mock_clock.autojump_threshold == PATIENCE_S


async def test_other_clocks_are_left_alone():
    with keep_time_for_threads():
        await work()
        with trio.move_on_after(0):
            await trio.sleep_forever()


async def test_a_clock_jumps_by_itself_if_it_has_a_threshold(mock_clock):
    assert not is_autojump()
    mock_clock.autojump_threshold = 0
    assert is_autojump()
    mock_clock.autojump_threshold = 3
    assert is_autojump()


async def test_the_real_clock_does_not_jump():
    assert not is_autojump()


@pytest.mark.trio
async def test_a_thread_that_waits_for_time_is_waited_for_once_and_not_at_each_jump(autojump_clock):
    thresholds = []

    async def tick():
        while True:
            await trio.sleep(0.25)
            thresholds.append(autojump_clock.autojump_threshold)

    with keep_time_for_threads():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            await trio.to_thread.run_sync(trio.from_thread.run, trio.sleep, 20)
            nursery.cancel_scope.cancel()
        assert len(thresholds) >= 79
        assert set(thresholds[1:]) == {0}
        # The next thread has all of it again.
        await trio.to_thread.run_sync(lambda: thresholds.append(autojump_clock.autojump_threshold))
        assert thresholds[-1] == PATIENCE_S


async def test_a_clock_that_stands_still_jumps_while_anybody_ends(mock_clock):
    with ExitStack() as first, ExitStack() as second:
        first.enter_context(let_time_go_on())
        second.enter_context(let_time_go_on())
        first.close()
        assert mock_clock.autojump_threshold == IDLE_S
        await trio.sleep(10)
        second.close()
        assert mock_clock.autojump_threshold == math.inf


async def test_a_clock_that_moves_by_itself_needs_nothing_to_end(mock_clock):
    mock_clock.rate = 1
    with let_time_go_on():
        assert mock_clock.autojump_threshold == math.inf
    mock_clock.rate = 0
    mock_clock.autojump_threshold = 3
    with let_time_go_on():
        assert mock_clock.autojump_threshold == 3
    assert mock_clock.autojump_threshold == 3
