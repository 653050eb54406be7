"""Wait until any other task has run: what only tasks can change is looked at again then, and never in between."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class _Steps(trio.abc.Instrument):
    """Wakes tasks that look at something after each step of a task that does not.

    Steps of those that look change nothing, and are left out, or two of them would wake each other for ever.
    """

    def __init__(self) -> None:
        self.looking: set[trio.lowlevel.Task] = set()
        self.parked: Final = trio.lowlevel.ParkingLot()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Wake them, unless the task is one of them."""
        if task not in self.looking:
            self.parked.unpark_all()


_steps: Final[trio.lowlevel.RunVar[_Steps]] = trio.lowlevel.RunVar("pagi_trio.testing.steps")
"""Those of this run; made at the first use, and an instrument only while somebody looks."""


@contextmanager
def _looking() -> Iterator[_Steps]:
    """Have this task be one that looks, for the length of a block."""
    try:
        steps = _steps.get()
    except LookupError:
        steps = _Steps()
        _steps.set(steps)
    task = trio.lowlevel.current_task()
    if not steps.looking:
        trio.lowlevel.add_instrument(steps)
    steps.looking.add(task)
    try:
        yield steps
    finally:
        steps.looking.remove(task)
        if not steps.looking:
            trio.lowlevel.remove_instrument(steps)


async def wait_until(condition: Callable[[], bool], within_s: float) -> bool:
    """Wait until a condition holds that only tasks of this run can make true.

    The condition is looked at once now, and once each time after other tasks have run: a server that is busy costs
    a look for each round of the loop, and one that is idle costs nothing. The wait is no deadline and no sleep of its
    own, so that a clock that jumps is not moved by it, unless nothing else is left to happen.

    Args:
        condition: Must not wait, and must not wake a task.
        within_s: How long to wait at most, seconds of Trio's clock.

    Returns:
        Whether it holds.

    Cancellation: leaves nothing behind. A checkpoint, whether or not the condition holds at once.
    """
    with trio.move_on_after(within_s):
        # Before this task is one that looks, so that what it has just done is seen by others that look.
        await trio.lowlevel.checkpoint()
        with _looking() as steps:
            while not condition():
                await steps.parked.park()
            return True
    return condition()
