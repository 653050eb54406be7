"""What processes cost: proc_pid_stat(5), and the same numbers as prometheus_client's own collector."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from pagi_trio.metrics.processes import PROCESS_METRICS, read_process


@pytest.fixture
def start(tmp_path):
    """Start a process that stands still; ``start(name)`` calls its program something."""
    children = []

    def start_child(name="still", **options):
        program = tmp_path / name
        program.symlink_to(shutil.which("cat"))
        child = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)
        children.append(child)
        # It has started once it answers, and no number moves once it is stopped.
        child.stdin.write(b"\n")
        child.stdin.flush()
        child.stdout.readline()
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        return child

    yield start_child
    for child in children:
        child.kill()
        child.communicate()


@pytest.fixture
def kernel_tells(monkeypatch):
    """Choose what the kernel tells as the number of open files; before Linux 6.2 that is 0."""

    def tell(count):
        real = os.stat

        def stat(path, *args, **kwargs):
            is_asked = str(path).startswith("/proc/") and str(path).endswith("/fd")
            return SimpleNamespace(st_size=count) if is_asked else real(path, *args, **kwargs)

        monkeypatch.setattr(os, "stat", stat)

    return tell


@pytest.fixture
def old_kernel(kernel_tells):
    kernel_tells(0)


def as_prometheus_client_has_it(pid):
    """Return the values of its collector by name."""
    prometheus_client = pytest.importorskip("prometheus_client")
    collector = prometheus_client.ProcessCollector(pid=lambda: pid, registry=None)
    return {sample.name: sample.value for family in collector.collect() for sample in family.samples}


def as_we_have_it(pid):
    process = read_process(pid)
    return {metric.name: getattr(process, metric.attribute) for metric in PROCESS_METRICS}


def nearly(numbers):
    """Allow for sums of floats in another order, and no more."""
    return pytest.approx(numbers, rel=1e-12, abs=1e-12)


def in_ticks(seconds):
    return round(seconds * os.sysconf("SC_CLK_TCK"))


def test_a_child_has_the_numbers_that_prometheus_client_reports(start):
    child = start()
    assert as_we_have_it(child.pid) == nearly(as_prometheus_client_has_it(child.pid))


def test_this_process_has_the_numbers_that_prometheus_client_reports():
    before = as_prometheus_client_has_it(os.getpid())
    ours = as_we_have_it(os.getpid())
    after = as_prometheus_client_has_it(os.getpid())
    for name in ("process_start_time_seconds", "process_max_fds"):
        assert ours[name] == before[name]
    ticks = [in_ticks(numbers["process_cpu_seconds_total"]) for numbers in (before, ours, after)]
    assert ticks == sorted(ticks)
    # It counts the directory that it reads them from.
    assert ours["process_open_fds"] == before["process_open_fds"] - 1


def test_the_families_are_those_of_prometheus_client():
    prometheus_client = pytest.importorskip("prometheus_client")
    collector = prometheus_client.ProcessCollector(pid=os.getpid, registry=None)
    theirs = {(sample.name, family.type) for family in collector.collect() for sample in family.samples}
    assert {(metric.name, metric.kind) for metric in PROCESS_METRICS} == theirs


def test_processor_time_is_that_of_user_and_kernel():
    before = os.times()
    process = read_process(os.getpid())
    after = os.times()
    ticks = [in_ticks(seconds) for seconds in (sum(before[:2]), process.cpu_seconds, sum(after[:2]))]
    assert ticks == sorted(ticks)


def test_open_files_and_their_limit_are_those_of_the_process(start):
    before = read_process(start("few").pid)
    soft, hard = before.max_fds - 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(5)]
    child = start("many", pass_fds=files)
    resource.prlimit(child.pid, resource.RLIMIT_NOFILE, (soft, hard))
    for file in files:
        os.close(file)
    process = read_process(child.pid)
    assert (process.open_fds, process.max_fds) == (before.open_fds + 5, soft)


@pytest.mark.parametrize("name", ["two words", "a) Z (", ") Z 1 1 1", "(((", "\n"])
def test_proc_pid_stat_a_program_may_have_any_name(start, name):
    pid = start(name).pid
    assert read_process(pid).virtual_bytes == as_prometheus_client_has_it(pid)["process_virtual_memory_bytes"]


def test_proc_pid_stat_a_process_that_was_not_waited_for_has_ended(start):
    child = start()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{child.pid}/stat").exists()
    assert read_process(child.pid) is None


def test_a_process_that_is_gone_is_none(start):
    child = start()
    child.kill()
    child.wait()
    assert read_process(child.pid) is None


@pytest.mark.parametrize(("module", "name"), [(os, "read"), (os, "stat"), (resource, "prlimit")])
def test_a_process_that_ends_while_it_is_read_is_none(start, monkeypatch, module, name):
    child = start()
    real = getattr(module, name)

    def end_it_first(*args):
        monkeypatch.undo()
        child.kill()
        child.wait()
        return real(*args)

    monkeypatch.setattr(module, name, end_it_first)
    assert read_process(child.pid) is None
    assert child.returncode is not None


@pytest.mark.usefixtures("old_kernel")
def test_an_old_kernel_has_the_open_files_counted(start):
    child = start()
    assert as_we_have_it(child.pid) == nearly(as_prometheus_client_has_it(child.pid))
    assert read_process(os.getpid()).open_fds == len(list(Path("/proc/self/fd").iterdir())) - 1


@pytest.mark.usefixtures("old_kernel")
def test_a_count_of_open_files_holds_for_seconds(start, monkeypatch):
    child = start()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    counted = []
    real = os.listdir

    def listdir(path):
        counted.append(path)
        return real(path)

    monkeypatch.setattr(os, "listdir", listdir)
    first = read_process(child.pid).open_fds
    assert [read_process(child.pid).open_fds for _ in range(3)] == [first] * 3
    assert len(counted) == 1
    now += 10
    read_process(child.pid)
    assert len(counted) == 2


@pytest.mark.usefixtures("old_kernel")
def test_what_may_not_be_looked_at_is_left_out(start, monkeypatch):
    def refuse(*args):
        raise PermissionError

    child = start()
    monkeypatch.setattr(os, "listdir", refuse)
    monkeypatch.setattr(resource, "prlimit", refuse)
    process = read_process(child.pid)
    assert (process.open_fds, process.max_fds) == (None, None)
    assert process.virtual_bytes > 0


def test_open_files_are_not_counted_where_the_kernel_tells_their_number(start, monkeypatch, kernel_tells):
    def refuse(path):
        raise AssertionError(path)

    child = start()
    monkeypatch.setattr(os, "listdir", refuse)
    kernel_tells(1_000_000)
    assert read_process(child.pid).open_fds == 1_000_000
