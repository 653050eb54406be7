"""How long something took, where the clock of the test goes by itself."""

from __future__ import annotations

import trio

TICK_S = 0.25
"""The reaper looks four times a second, so that a deadline is met within a quarter of one."""

HOUR_S = 3600


async def seconds_until(wait):
    began = trio.current_time()
    await wait()
    return trio.current_time() - began


def assert_within_a_tick(seconds, deadline_s):
    # What the reaper calls now may be a tick old as well when the time begins to run.
    assert deadline_s - TICK_S <= seconds <= deadline_s + 2 * TICK_S
