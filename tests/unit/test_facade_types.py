"""What a type checker says of code that uses `Metrics`, and of tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy")

ROOT = Path(__file__).resolve().parents[2]

RIGHT = """
from typing import assert_type

from pagi_trio import testing
from pagi_trio.metrics import Metrics
from pagi_trio.metrics.application.handles import Counter, Gauge, Histogram, Timer
from pagi_trio.metrics.application.labelled import Labelled

metrics = Metrics(prefix="myapp")
logins = metrics.counter("logins_total", "Logins.", labels=["method"])
assert_type(logins, Labelled[Counter])
assert_type(logins.labels(method="oauth"), Counter)
assert_type(metrics.counter("hits_total", "Hits."), Counter)
assert_type(metrics.gauge("depth", "Depth.", workers="max"), Gauge)
assert_type(metrics.gauge("level", "Level.", labels=("room",)).labels(room="a"), Gauge)
assert_type(metrics.histogram("upload_bytes", "Uploads.", unit="bytes", buckets=(1e3, 1_000_000)), Histogram)
work = metrics.timer("work_seconds", "Work.", labels=["kind"])
assert_type(work, Labelled[Timer])


@work.labels(kind="sync").time()
def add(one: int, other: int = 2) -> int:
    return one + other


@work.labels(kind="async").time()
async def add_later(one: int) -> int:
    return one


async def main() -> None:
    assert_type(add(1), int)
    assert_type(await add_later(1), int)
    with work.labels(kind="block").time():
        number = 1
    print(number)


async def app(scope: object, receive: object, send: object) -> None: ...


async def test_a_room_is_empty(pagi_client: testing.StartClient) -> None:
    client = await pagi_client(app)
    assert client.state["rooms"]["tea"].members == []


remove = metrics.add_batch_callback(lambda: logins.labels(method="oauth").inc(2))
remove()
"""

WRONG = """
from pagi_trio.metrics import Metrics

metrics = Metrics(prefix="myapp")
logins = metrics.counter("logins_total", "Logins.", labels=["method"])
hits = metrics.counter("hits_total", "Hits.")
logins.inc()  # wrong
logins.labels(method=3)  # wrong
logins.labels("oauth")  # wrong
hits.labels(method="oauth")  # wrong
hits.set(3)  # wrong
hits.inc("1")  # wrong
metrics.gauge("depth", "Depth.", workers="all")  # wrong
metrics.add_batch_callback(3)  # wrong
"""


def check(tmp_path, text):
    """Check a module as a user would; return the numbers of the lines with errors, and all that is said."""
    file = tmp_path / "shop.py"
    file.write_text(text)
    command = (sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary", str(file))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if ": error: " in line]
    return {int(line.removeprefix(str(file)).split(":")[1]) for line in lines}, done.stdout + done.stderr


def test_right_use_has_no_error_and_wrong_use_has_one_on_each_line(tmp_path):
    """Takes seconds, in which mypy reads what is imported."""
    found, said = check(tmp_path, RIGHT)
    assert found == set(), said
    found, said = check(tmp_path, WRONG)
    assert found == {number for number, line in enumerate(WRONG.splitlines(), 1) if "# wrong" in line}, said
