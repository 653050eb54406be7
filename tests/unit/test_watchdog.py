"""The bound on the end of a process, which nothing that the process does may hold up.

It takes half a second: that is how long the last words may.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress

import pytest

from pagi_trio.config import Config
from pagi_trio.failure import EXIT_STUCK
from pagi_trio.watchdog import Watchdog

LIMIT_S = 10

STUCK = """
import threading
from pagi_trio.config import Config
from pagi_trio.process import set_up_logging
from pagi_trio.watchdog import Watchdog

set_up_logging("info")
config = Config().replace(**{"timeouts.graceful_s": 0.0, "timeouts.shutdown_s": 0.0})
Watchdog(config, slack_s=0.0).start()
while True:
    threading.Event().wait()
"""


def fill(pipe: int) -> None:
    """Write to a pipe until it takes no more."""
    os.set_blocking(pipe, False)
    with suppress(BlockingIOError):
        while True:
            os.write(pipe, b"x" * 4096)
    with suppress(BlockingIOError):
        while True:
            os.write(pipe, b"x")
    os.set_blocking(pipe, True)


@pytest.mark.parametrize("is_full", [False, True])
def test_the_process_ends_in_time_though_nobody_reads_its_standard_error(is_full: bool) -> None:
    readable, writable = os.pipe()
    if is_full:
        fill(writable)
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with (
        os.fdopen(readable, "rb") as said,
        subprocess.Popen([sys.executable, "-c", STUCK], env=environ, stderr=writable) as process,
    ):
        os.close(writable)
        try:
            assert process.wait(LIMIT_S) == EXIT_STUCK
        finally:
            process.kill()
        assert is_full or b"did not end within 0 s" in said.read()


def test_a_bound_longer_than_a_thread_can_wait_is_as_long_as_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[object] = []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    watchdog = Watchdog(Config().replace(**{"timeouts.graceful_s": 1e15}))
    watchdog.start()
    watchdog.release()
    timer = watchdog._timer
    timer.finished.set()
    timer.join(LIMIT_S)
    assert not failed


def test_a_process_without_room_for_a_thread_stops_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    Watchdog(Config()).start()
