"""Signals to a supervisor and its workers, and the end of either.

Each test starts several interpreters, and so takes longer than a quarter second.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect, unix_connect

from tests.integration.command import LIMIT_S, get, read_to_end, request, scrape, until, wait_until_refused

# Where something is ended by force, it is waited for no longer than must be; where it must end by itself, for ever.
AT_ONCE = ("--graceful-timeout", "0", "--shutdown-timeout", "0")
PATIENT = ("--graceful-timeout", "1000", "--shutdown-timeout", "1000")
METRICS = ("--metrics-bind", "127.0.0.1:0")

STOPS = [signal.SIGTERM, signal.SIGINT]


def worries(program):
    """Return the lines that would worry somebody."""
    return [line for line in program.errors if re.search("Traceback|ERROR|Warning|Error", line)]


def ended(pid):
    """Whether a process is no more, or waits for nothing but whoever is its parent now."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


# The first


@pytest.mark.parametrize("number", STOPS)
@pytest.mark.parametrize("to", ["send_signal", "send_group"])
def test_a_signal_to_the_parent_or_to_all_lets_everything_finish(supervised, open_gate, number, to):
    with supervised("-w", "2", *PATIENT) as program:
        url = program.wait_for_url()
        pids = set(program.wait_ready(2).values())
        with connect(url.replace("http", "ws"), open_timeout=LIMIT_S) as websocket, request(url, "/gated") as sock:
            assert int(websocket.recv(LIMIT_S)) in pids
            program.wait_for("app: gated")
            getattr(program, to)(number)
            with pytest.raises(ConnectionClosed) as closed:
                websocket.recv(LIMIT_S)
            assert closed.value.rcvd.code in (1001, 1012)
            wait_until_refused(sock.getpeername())
            open_gate()
            assert read_to_end(sock).endswith(b"\r\n\r\ndone")
            with socket.socket() as again:
                again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                again.bind(sock.getpeername())
        assert program.finish() == (0, "")
    assert worries(program) == []
    assert {line for line in program.errors if "app: shutdown" in line} == {f"app: shutdown, {pid}" for pid in pids}
    assert len([line for line in program.errors if line.endswith("ended: clean")]) == 2


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_to_all_finds_interpreters_that_still_start(supervised, number):
    with supervised("-w", "2", *PATIENT) as program:
        program.wait_for_url()
        program.send_group(number)
        code = program.finish()
    assert (code, worries(program)) == ((0, ""), [])


@pytest.mark.parametrize("to", ["send_signal", "send_group"])
@pytest.mark.parametrize("app", ["importing", "starting"])
def test_a_signal_while_workers_import_or_start_ends_them_at_once(supervised, tmp_path, app, to):
    (tmp_path / "importing.py").write_text("import app, time; app.say('importing'); time.sleep(1000)")
    (tmp_path / "starting.py").write_text(
        "from app import *\nasync def app(scope, receive, send):\n    say('starting')\n    await trio.sleep_forever()\n"
    )
    with supervised("-w", "2", *PATIENT, app=app) as program:
        for _ in range(2):
            program.wait_for(f"app: {app}")
        getattr(program, to)(signal.SIGTERM)
        assert program.finish() == (0, "")
    assert worries(program) == []


@pytest.mark.parametrize("path", ["/busy", "/shielded", "/thread"])
def test_an_application_that_does_not_end_is_killed_at_the_bound(supervised, path):
    with supervised("-w", "2", *AT_ONCE) as program:
        url = program.wait_for_url()
        program.wait_ready(2)
        with request(url, path) as sock:
            program.wait_for(f"app: {path[1:]}")
            program.send_signal(signal.SIGTERM)
            assert read_to_end(sock) == b""
        assert program.finish() == (1, "")
    assert any("did not end in time; it is killed" in line for line in program.errors)


def fill_standard_error(pid):
    """Write to the pipe that a process logs to until it takes no more."""
    pipe = os.open(f"/proc/{pid}/fd/2", os.O_WRONLY | os.O_NONBLOCK)
    for size in (4096, 1):
        with suppress(BlockingIOError):
            while True:
                os.write(pipe, b"x" * size)
    os.close(pipe)


def test_a_parent_whose_log_nobody_reads_is_ended_at_the_bound_and_its_workers_with_it(supervised):
    with supervised("-w", "2", *AT_ONCE) as program:
        program.wait_for_url()
        pids = program.wait_ready(2).values()
        fill_standard_error(program.pid)
        # The parent logs that it has one worker more, and gets no further.
        program.send_signal(signal.SIGTTIN)
        program.send_signal(signal.SIGTERM)
        until(lambda: ended(program.pid) and all(map(ended, pids)))
        assert program.finish()[0] == 1


def test_a_worker_that_was_killed_before_does_not_make_the_end_a_failure(supervised):
    # Those that end by themselves have ten times what they need for it.
    with supervised("-w", "2", "--graceful-timeout", "0", "--shutdown-timeout", "3") as program:
        url = program.wait_for_url()
        program.wait_ready(2)
        with request(url, "/shielded"):
            program.wait_for("app: shielded")
            program.send_signal(signal.SIGHUP)
            program.wait_ready(2)
            program.wait_for("did not end in time; it is killed")
            program.wait_for("ended: killed")
        program.send_signal(signal.SIGTERM)
        assert program.finish() == (0, "")


SLOW = """
import pathlib, sys, trio

async def app(scope, receive, send):
    await receive()
    if pathlib.Path("slow").exists():
        print("app: starts slowly", file=sys.stderr, flush=True)
        await trio.sleep_forever()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
"""


def test_a_stop_while_workers_are_replaced_worries_nobody(supervised, tmp_path):
    (tmp_path / "slow_app.py").write_text(SLOW)
    with supervised("-w", "2", app="slow_app:app") as program:
        program.wait_for_url()
        program.wait_ready(2)
        (tmp_path / "slow").touch()
        program.send_signal(signal.SIGHUP)
        program.wait_for("app: starts slowly")
        program.send_signal(signal.SIGTERM)
        assert program.finish() == (0, "")
    assert worries(program) == []


def test_a_signal_that_comes_again_and_again_while_workers_end_is_no_error(supervised):
    with supervised("-w", "2", *PATIENT) as program:
        program.wait_for_url()
        pids = program.wait_ready(2).values()
        program.send_signal(signal.SIGTERM)
        for pid in pids:
            while not ended(pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
        assert program.finish() == (0, "")
    assert worries(program) == []


# The second, and the third


@pytest.mark.parametrize("path", ["/forever", "/busy"])
@pytest.mark.parametrize("times", [1, 2])
def test_another_signal_stops_at_once(supervised, path, times):
    with supervised("-w", "2", *PATIENT) as program:
        url = program.wait_for_url()
        program.wait_ready(2)
        with request(url, path) as sock:
            program.wait_for(f"app: {path[1:]}")
            program.send_signal(signal.SIGTERM)
            # Only once the first has been taken are there two; the parent has told the other worker.
            program.wait_for("app: shutdown")
            for _ in range(times):
                program.send_group(signal.SIGINT)
            assert read_to_end(sock) == b""
        assert program.finish() == (0, "")


# Others


def test_a_worker_that_is_told_by_somebody_else_ends_gracefully_and_is_replaced(supervised):
    pytest.importorskip("prometheus_client")
    with supervised("-w", "2", *METRICS) as program:
        url, page = program.wait_for_url(), program.wait_for_url("metrics")
        first, second = program.wait_ready(2).values()
        os.kill(first, signal.SIGTERM)
        program.wait_for(f"app: shutdown, {first}")
        [third] = program.wait_ready(1).values()
        assert third not in (first, second)
        assert scrape(page)['pagi_server_worker_exits_total{reason="clean"}'] == 1
        assert get(url)
    assert worries(program) == []


def test_terminal_signals_to_a_worker_are_ignored(supervised):
    with supervised("-w", "2") as program:
        url = program.wait_for_url()
        pids = program.wait_ready(2).values()
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU):
            for pid in pids:
                os.kill(pid, number)
        assert get(url)
        program.send_signal(signal.SIGTERM)
        assert program.finish() == (0, "")
    assert worries(program) == []
    assert sum("is ready" in line for line in program.errors) == 2


def test_all_processes_stopped_for_longer_than_the_worker_timeout_go_on(supervised):
    """As after Ctrl-Z and fg, or while a container is paused: a second of nothing is what this is about."""
    pytest.importorskip("prometheus_client")
    with supervised("-w", "2", "--worker-timeout", "1", *METRICS) as program:
        page = program.wait_for_url("metrics")
        before = program.wait_ready(2)
        for pid in (*before.values(), program.pid):
            os.kill(pid, signal.SIGSTOP)
        stopped = time.monotonic()
        until(lambda: time.monotonic() > stopped + 1.5)
        # The parent first, so that it finds workers that have stood still.
        program.send_signal(signal.SIGCONT)
        started = scrape(page)
        assert max(value for series, value in started.items() if "worker_blocked_seconds{" in series) > 0.9
        program.send_group(signal.SIGCONT)
        blocked = [f'pagi_server_worker_blocked_seconds{{worker="{number}"}}' for number in before]
        until(lambda: not any(scrape(page)[series] for series in blocked))
        program.send_signal(signal.SIGTERM)
        assert program.finish()[0] == 0
    assert worries(program) == []


# Without the parent


def test_when_the_parent_is_killed_every_worker_ends(supervised, tmp_path):
    path = tmp_path / "app.sock"
    limits = ("--graceful-timeout", "0", "--shutdown-timeout", "1")
    with supervised("-w", "3", "-b", f"unix:{path}", *limits) as program:
        url = program.wait_for_url()
        pids = set(program.wait_ready(3).values())
        with request(url, "/busy") as sock:
            busy = int(re.search(r"\d+$", program.wait_for("app: busy"))[0])
            address = sock.getpeername()
            with unix_connect(str(path), open_timeout=LIMIT_S) as websocket:
                assert int(websocket.recv(LIMIT_S)) in pids - {busy}
                program.send_signal(signal.SIGKILL)
                with pytest.raises(ConnectionClosed) as closed:
                    websocket.recv(LIMIT_S)
                assert closed.value.rcvd.code in (1001, 1012)
        # All that hold its pipes have ended.
        assert program.finish() == (-signal.SIGKILL, "")
        until(lambda: all(ended(pid) for pid in pids))
        assert not path.exists()
        with socket.create_server(address):
            pass
    shut_down = {int(re.search(r"\d+$", line)[0]) for line in program.errors if "app: shutdown" in line}
    assert shut_down == pids - {busy}


def test_when_the_parent_is_killed_the_port_of_idle_workers_is_free(supervised):
    with supervised("-w", "2", *PATIENT) as program:
        url = program.wait_for_url()
        program.wait_ready(2)
        with request(url, "/gated") as sock:
            program.wait_for("app: gated")
            program.send_signal(signal.SIGKILL)
            wait_until_refused(sock.getpeername())


@pytest.mark.parametrize("when", ["serving on", "app: importing"])
def test_when_the_parent_is_killed_workers_that_start_end(supervised, tmp_path, when):
    (tmp_path / "importing.py").write_text("import app, time; app.say('importing'); time.sleep(1000)")
    with supervised("-w", "2", app="importing") as program:
        program.wait_for(when)
        program.send_signal(signal.SIGKILL)
        assert program.finish() == (-signal.SIGKILL, "")
    assert worries(program) == []
