"""The kernel's bound on a hang in C code. Each test starts an interpreter, since what it tests is killed."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

IN_ONE_CALL = "sum(range(10**11))"
IN_TURNS = "for _ in range(6):\n    limit.renew()\n    spin(0.1)"
IN_A_THREAD = "thread = threading.Thread(target=spin, args=(0.6,)); thread.start(); thread.join()"

PROGRAM = """
import threading, time
from pagi_trio.cpu_limit import CPULimit

def spin(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass

limit = CPULimit(0.3)
limit.renew()
{}
"""


@pytest.mark.parametrize(
    ("work", "status"),
    [
        pytest.param(IN_ONE_CALL, -signal.SIGKILL, id="a call of C code that never ends is ended"),
        pytest.param(IN_TURNS, 0, id="as much in turns is not"),
        pytest.param(IN_A_THREAD, 0, id="nor is as much in another thread"),
        pytest.param("time.sleep(0.6)", 0, id="nor is waiting"),
    ],
)
def test_the_processor_time_between_two_turns_is_bound(work, status):
    assert subprocess.run([sys.executable, "-c", PROGRAM.format(work)], timeout=100, check=False).returncode == status
