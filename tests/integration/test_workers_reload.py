"""Changing a running server: new code by HUP and by --reload, more and fewer workers, workers that have served enough.

Each test starts several interpreters, and so takes longer than a quarter second.
"""

from __future__ import annotations

import json
import os
import re
import signal

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.integration.command import LIMIT_S, fails, get, request, scrape, until
from tests.integration.load import Load

METRICS = ("--metrics-bind", "127.0.0.1:0")
PATIENT = ("--graceful-timeout", "1000", "--shutdown-timeout", "1000")


def write(tmp_path, version, more=""):
    """Change the application."""
    file = tmp_path / "app.py"
    text = re.sub("^VERSION = .*$", f"VERSION = {version}", file.read_text(), flags=re.MULTILINE)
    # In one step, as editors do: a worker that starts meanwhile must not find half of it.
    new = tmp_path / "app.py.new"
    new.write_text(text + more)
    os.utime(new, (version, version))
    new.replace(file)


def stop(program):
    program.send_signal(signal.SIGTERM)
    assert program.finish()[0] == 0


def version(url):
    return json.loads(get(url))["version"]


# HUP


def test_hup_serves_new_code_and_fails_no_request_under_load(supervised, tmp_path):
    with supervised("-w", "2") as program:
        url = program.wait_for_url()
        program.wait_ready(2)
        load = Load(url)
        with load.running(load.one_connection_each, load.connect_ahead, load.connect_ahead, load.keep_alive):
            for number in (2, 3, 4):
                write(tmp_path, number)
                program.send_signal(signal.SIGHUP)
                program.wait_for_each({"is ready": 2, "ended: clean": 2})
                # Both that are left have the new code.
                assert version(url) == number
        stop(program)
    assert load.failures == []
    assert load.versions == {1, 2, 3, 4}
    assert load.answers > 20


def test_hup_closes_websockets_gracefully_and_lets_requests_finish(supervised, open_gate):
    with supervised("-w", "2", *PATIENT) as program:
        url = program.wait_for_url()
        program.wait_ready(2)
        with connect(url.replace("http", "ws"), open_timeout=LIMIT_S) as websocket, request(url, "/gated") as sock:
            assert websocket.recv(LIMIT_S)
            program.wait_for("app: gated")
            program.send_signal(signal.SIGHUP)
            with pytest.raises(ConnectionClosed) as closed:
                websocket.recv(LIMIT_S)
            assert closed.value.rcvd.code in (1001, 1012)
            open_gate()
            assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
        program.wait_for_each({"is ready": 2, "ended: clean": 2})
        stop(program)


def test_a_second_hup_waits_for_the_first(supervised, tmp_path, open_gate):
    pytest.importorskip("prometheus_client")
    with supervised("-w", "1", "--max-requests", "1000", *PATIENT, *METRICS) as program:
        url, page = program.wait_for_url(), program.wait_for_url("metrics")
        program.wait_ready(1)
        spawns, alive = "pagi_server_worker_spawns_total", "pagi_server_workers_active"
        with request(url, "/gated") as sock:
            program.wait_for("app: gated")
            program.send_signal(signal.SIGHUP)
            program.wait_ready(1)
            write(tmp_path, 2)
            program.send_signal(signal.SIGHUP)
            program.wait_for("replacing the workers")
            # The first is not over while an old worker has something to finish.
            assert (scrape(page)[spawns], scrape(page)[alive]) == (2, 2)
            assert version(url) == 1
            open_gate()
            assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
        program.wait_ready(1)
        until(lambda: version(url) == 2)
        until(lambda: scrape(page)[alive] == 1)
        assert scrape(page)[spawns] == 3
        stop(program)


def test_hup_with_an_application_that_cannot_be_imported_keeps_the_workers(supervised, tmp_path):
    with supervised("-w", "2") as program:
        url = program.wait_for_url()
        before = set(program.wait_ready(2).values())
        good = (tmp_path / "app.py").read_text()
        write(tmp_path, 2, "\nraise RuntimeError('half done')\n")
        program.send_signal(signal.SIGHUP)
        program.wait_for("RuntimeError: half done")
        program.wait_for_each({"stays, since its successor could not start": 2})
        assert json.loads(get(url))["pid"] in before
        (tmp_path / "app.py").write_text(good)
        write(tmp_path, 3)
        program.send_signal(signal.SIGHUP)
        program.wait_for_each({"is ready": 2, "ended: clean": 2})
        assert version(url) == 3
        stop(program)


def test_hup_ends_workers_that_still_import_the_old_code(supervised, tmp_path):
    (tmp_path / "slow.py").write_text(
        "from app import *\nif not Path('fast').exists():\n    say('importing')\n    time.sleep(1000)\n"
    )
    with supervised("-w", "2", *PATIENT, app="slow") as program:
        program.wait_for_each({"app: importing": 2})
        (tmp_path / "fast").touch()
        program.send_signal(signal.SIGHUP)
        program.wait_for_each({"is ready": 2, "ended: clean": 2})
        stop(program)


def test_hup_replaces_a_successor_with_the_old_code_whose_worker_has_ended(supervised, tmp_path):
    (tmp_path / "slow.py").write_text(
        "from app import *\nif Path('slow').exists():\n    say('importing')\n    while Path('slow').exists():\n"
        "        time.sleep(0.01)\n"
    )
    with supervised("-w", "1", "--max-requests", "1000", app="slow") as program:
        url = program.wait_for_url()
        [first] = program.wait_ready(1).values()
        (tmp_path / "slow").touch()
        program.send_signal(signal.SIGHUP)
        program.wait_for("app: importing")
        os.kill(first, signal.SIGKILL)
        program.wait_for("killed by SIGKILL")
        write(tmp_path, 2)
        program.send_signal(signal.SIGHUP)
        program.wait_for("replacing the workers")
        (tmp_path / "slow").unlink()
        program.wait_ready(2)
        program.wait_for("ended: clean")
        assert version(url) == 2
        stop(program)


def test_hup_ends_the_pause_after_a_worker_that_could_not_start(supervised, tmp_path):
    pytest.importorskip("watchfiles")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "broken.py").write_text("from app import *\nassert Path('mended').exists()\n")
    with supervised("--reload", "--reload-dir", "elsewhere", app="broken") as program:
        program.wait_for("waiting for a change")
        (tmp_path / "mended").touch()
        program.send_signal(signal.SIGHUP)
        program.wait_ready(1)
        stop(program)


def test_hup_while_stopping_starts_nothing(supervised):
    with supervised("-w", "2", *PATIENT) as program:
        url = program.wait_for_url()
        program.wait_ready(2)
        with request(url, "/forever"):
            program.wait_for("app: forever")
            program.send_signal(signal.SIGTERM)
            program.wait_for("ended: clean")
            for number in (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU):
                program.send_signal(number)
        stop(program)
    assert sum("is ready" in line for line in program.errors) == 2
    assert not any("replacing" in line for line in program.errors)


# TTIN and TTOU


def test_ttin_and_ttou_change_the_number_of_workers_within_limits(supervised):
    pytest.importorskip("prometheus_client")
    with supervised("-w", "2", *METRICS) as program:
        page = program.wait_for_url("metrics")
        program.wait_ready(2)

        def counts():
            told = scrape(page)
            return told["pagi_server_workers_configured"], told["pagi_server_workers_active"]

        program.send_signal(signal.SIGTTIN)
        program.wait_ready(1)
        assert counts() == (3, 3)
        for left in (2, 1):
            program.send_signal(signal.SIGTTOU)
            program.wait_for("ended: clean")
            until(lambda left=left: counts() == (left, left))
        program.send_signal(signal.SIGTTOU)
        program.wait_for("the last worker stays")
        assert counts() == (1, 1)
        stop(program)


def test_ttin_stops_where_there_is_room_for_no_more(supervised, tmp_path):
    """The workers need not be ready: that would take some seconds."""
    (tmp_path / "importing.py").write_text("import app, time; time.sleep(1000)")
    with supervised("-w", "1", "--max-requests", "1000", app="importing") as program:
        program.wait_for_url()
        wanted = 1
        while True:
            program.send_signal(signal.SIGTTIN)
            line = program.wait_for(" workers")
            if "there is no room for more" in line:
                break
            wanted += 1
            assert f"{wanted} workers are wanted now" in line
        assert wanted == 9
        stop(program)


# max_requests


@pytest.mark.parametrize("kind", ["http", "websocket", "events"])
def test_every_kind_of_request_counts_for_max_requests(supervised, kind):
    pytest.importorskip("prometheus_client")
    with supervised("-w", "1", "--max-requests", "4", *METRICS) as program:
        url, page = program.wait_for_url(), program.wait_for_url("metrics")
        [first] = program.wait_ready(1).values()
        for number in range(4):
            assert f"(pid {first})" in program.errors[-1] or number
            if kind == "http":
                assert get(url)
            elif kind == "websocket":
                with connect(url.replace("http", "ws"), open_timeout=LIMIT_S) as websocket:
                    assert int(websocket.recv(LIMIT_S)) == first
            else:
                assert get(url + "/events").count("data: ") == 2
        [second] = program.wait_ready(1).values()
        program.wait_for(f"(pid {first}) ended: recycled")
        assert json.loads(get(url))["pid"] == second
        assert scrape(page)['pagi_server_worker_exits_total{reason="recycled"}'] == 1
        stop(program)


def test_workers_that_are_recycled_under_load_fail_no_request(supervised):
    pytest.importorskip("prometheus_client")
    with supervised("-w", "2", "--max-requests", "20", "--max-requests-jitter", "20", *METRICS) as program:
        url, page = program.wait_for_url(), program.wait_for_url("metrics")
        program.wait_ready(2)
        load = Load(url)
        with load.running(load.connect_ahead, load.keep_alive):
            program.wait_for_each({"ended: recycled": 4})
        exits = 'pagi_server_worker_exits_total{reason="%s"}'
        told = scrape(page)
        assert told[exits % "recycled"] >= 4
        assert sum(told[exits % reason] for reason in ("crashed", "killed", "hung", "startup_failed")) == 0
        stop(program)
    assert load.failures == []


# --reload


@pytest.fixture
def reloading(supervised):
    pytest.importorskip("watchfiles")

    def start(*arguments):
        return supervised("--reload", *arguments)

    return start


def test_a_change_restarts_with_the_new_code_on_the_same_port(reloading, tmp_path):
    with reloading() as program:
        url = program.wait_for_url()
        program.wait_ready(1)
        assert version(url) == 1
        write(tmp_path, 2)
        assert str(tmp_path / "app.py") in program.wait_for("changed, restarting")
        program.wait_ready(1)
        assert version(url) == 2
        stop(program)
    assert sum("serving on" in line for line in program.errors) == 1


def test_a_broken_file_is_shown_and_a_mended_one_served(reloading, tmp_path):
    with reloading() as program:
        url = program.wait_for_url()
        program.wait_ready(1)
        good = (tmp_path / "app.py").read_text()
        write(tmp_path, 2, "\nraise RuntimeError('half done')\n")
        program.wait_for("RuntimeError: half done")
        program.wait_for("waiting for a change")
        (tmp_path / "app.py").write_text(good)
        write(tmp_path, 3)
        program.wait_ready(1)
        assert version(url) == 3
        stop(program)


def test_an_application_that_is_broken_from_the_start_can_be_mended(reloading, tmp_path):
    good = (tmp_path / "app.py").read_text()
    write(tmp_path, 2, "\nraise RuntimeError('half done')\n")
    with reloading() as program:
        url = program.wait_for_url()
        program.wait_for("waiting for a change")
        (tmp_path / "app.py").write_text(good)
        write(tmp_path, 3)
        program.wait_ready(1)
        assert version(url) == 3
        stop(program)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_while_the_application_is_broken(reloading, tmp_path, number):
    write(tmp_path, 2, "\nraise RuntimeError('half done')\n")
    with reloading() as program:
        program.wait_for("waiting for a change")
        program.send_group(number)
        assert program.finish() == (0, "")


def test_a_directory_that_is_not_there_is_one_line_and_exit_code_2(reloading):
    with reloading("--reload-dir", "/nothing/here") as program:
        assert "/nothing/here" in fails(program, 2)
    assert len(program.errors) == 1
