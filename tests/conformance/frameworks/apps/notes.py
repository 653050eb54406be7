"""What has happened in an application, for its client to wait for, and what its client lets happen.

Every application of this directory offers them at ``/notes/NAME``: POST adds one, GET waits for one.
"""

from __future__ import annotations

import threading
from collections import defaultdict

import trio

LIMIT_S = 10
"""Ten times what anything here takes on a machine that is busy."""


class Notes:
    """For applications of tasks."""

    def __init__(self):
        self._events = defaultdict(trio.Event)

    def add(self, name):
        self._events[name].set()

    async def wait(self, name):
        with trio.fail_after(LIMIT_S):
            await self._events[name].wait()


class ThreadNotes:
    """For applications of threads."""

    def __init__(self):
        self._events = defaultdict(threading.Event)

    def add(self, name):
        self._events[name].set()

    def wait(self, name):
        if not self._events[name].wait(LIMIT_S):
            raise TimeoutError(name)
