from __future__ import annotations

import pytest
import trio

from pagi_trio.nurseries.stall import PROGRESS_BYTES, Stall

pytestmark = pytest.mark.trio

LONGEST_S = 60


async def looked_at(stall, seconds, undelivered):
    """Let time pass, and say whether the stall is too long then."""
    await trio.sleep(seconds)
    return stall.is_too_long(LONGEST_S, lambda: undelivered)


async def test_it_lasts_since_the_kernel_has_last_taken_some(autojump_clock):
    stall = Stall()
    await trio.sleep(10)
    assert stall.seconds == 10
    stall.restart()
    assert stall.seconds == 0


async def test_a_client_that_acknowledges_nothing_is_given_up_just_beyond_the_time(autojump_clock):
    stall = Stall()
    assert not await looked_at(stall, 31, PROGRESS_BYTES)
    assert not await looked_at(stall, 29, PROGRESS_BYTES)
    assert await looked_at(stall, 1, PROGRESS_BYTES)


@pytest.mark.parametrize(("acknowledged", "given_up"), [(PROGRESS_BYTES - 1, True), (PROGRESS_BYTES, False)])
async def test_what_counts_is_what_is_acknowledged_in_the_second_half(autojump_clock, acknowledged, given_up):
    stall, waiting = Stall(), 10 * PROGRESS_BYTES
    # Of the first half, nothing is known.
    assert not await looked_at(stall, 29, 20 * PROGRESS_BYTES)
    assert not await looked_at(stall, 2, waiting)
    assert await looked_at(stall, 30, waiting - acknowledged) is given_up


async def test_a_slow_reader_has_all_of_the_time_again(autojump_clock):
    stall, waiting = Stall(), 10 * PROGRESS_BYTES
    for _ in range(3):
        assert not await looked_at(stall, 31, waiting)
        waiting -= PROGRESS_BYTES
        assert not await looked_at(stall, 30, waiting)
        assert stall.seconds == 0
    assert not await looked_at(stall, 31, waiting)
    assert await looked_at(stall, 30, waiting)


async def test_what_was_measured_before_the_kernel_took_some_counts_no_more(autojump_clock):
    stall = Stall()
    assert not await looked_at(stall, 31, 10 * PROGRESS_BYTES)
    stall.restart()
    # More than half passes before anybody looks again.
    assert not await looked_at(stall, 31, PROGRESS_BYTES)
    assert await looked_at(stall, 30, PROGRESS_BYTES)
