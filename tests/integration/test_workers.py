"""Worker processes: how they start and fail to, what reaches them, and what becomes of those that crash or hang.

Each test starts several interpreters, and so takes longer than a quarter second.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import sys
import urllib.request
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest
import trustme
from websockets.sync.client import connect

from pagi_trio.errors import ConfigError
from pagi_trio.recruits import check_platform
from tests.integration.command import LIMIT_S, TCP, fails, get, request, running, scrape, until, wait_until_refused

METRICS = ("--metrics-bind", "127.0.0.1:0")


def series(name, **labels):
    inner = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return f"pagi_{name}" + f"{{{inner}}}" * bool(inner)


def about(connection, path="/"):
    connection.request("GET", path)
    return json.loads(connection.getresponse().read())


def connect_http(url):
    return HTTPConnection(url.removeprefix("http://"), timeout=LIMIT_S)


@contextmanager
def connections(url, pids, path="/"):
    """Hold a connection to each of some processes, by process id."""
    with ExitStack() as stack:
        found = {}
        while set(pids) - set(found):
            connection = connect_http(url)
            stack.callback(connection.close)
            found.setdefault(about(connection, path)["pid"], connection)
        yield found


def stop(program):
    program.send_signal(signal.SIGTERM)
    assert program.finish()[0] == 0


# Serving


def test_both_workers_serve_and_every_page_tells_the_same(supervised, tmp_path):
    pytest.importorskip("prometheus_client")
    (tmp_path / "paged.py").write_text(
        "from app import app as inner\n"
        "from pagi_trio import MetricsApp, URLMap\n"
        "app = URLMap({'/metrics': MetricsApp(), '/': inner})\n"
    )
    with supervised("-w", "2", *METRICS, app="paged") as program:
        url, page = program.wait_for_url(), program.wait_for_url("metrics")
        workers = program.wait_ready(2)
        assert set(workers) == {1, 2}
        with connections(url, workers.values()) as by_pid:
            for number, pid in workers.items():
                assert about(by_pid[pid])["worker"] == {"is_worker": True, "number": number}
            seen = set()
            while seen != set(workers.values()):
                with connect(url.replace("http", "ws"), open_timeout=LIMIT_S) as websocket:
                    seen.add(int(websocket.recv(LIMIT_S)))
                    websocket.send("hello")
                    assert websocket.recv(LIMIT_S) == "hello"
            opened, received = series("websocket_connections_total"), series("websocket_messages_received_total")
            # Another worker lags by a flush interval.
            total = until(lambda: (now := scrape(page))[received] == now[opened] and now)
            assert total[received] >= 2
            expected = {one: value for one, value in total.items() if one.startswith(("pagi_websocket", "pagi_sse"))}
            for connection in by_pid.values():
                connection.request("GET", "/metrics")
                told = scrape_text(connection.getresponse().read().decode())
                assert {one: told[one] for one in expected} == expected
                assert told[series("server_worker_spawns_total")] == 2
                assert told[series("server_workers_active")] == told[series("server_workers_configured")] == 2
                assert told[series("server_worker_up", worker=1)] == told[series("server_worker_up", worker=2)] == 1
        stop(program)


def scrape_text(text):
    lines = [line for line in text.splitlines() if "#" not in line]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_without_metrics_workers_serve_and_one_that_hangs_is_replaced(supervised):
    with supervised("-w", "2", "--no-metrics", "--worker-timeout", "1") as program:
        url = program.wait_for_url()
        program.wait_ready(2)
        with request(url, "/busy"):
            program.wait_for("hangs: its event loop has stood still for 1 s")
            program.wait_ready(1)
        assert get(url)
        stop(program)


def test_a_worker_that_hangs_shows_on_the_page_says_where_and_is_replaced(supervised):
    pytest.importorskip("prometheus_client")
    with supervised("-w", "2", "--worker-timeout", "1", *METRICS) as program:
        url, page = program.wait_for_url(), program.wait_for_url("metrics")
        workers = program.wait_ready(2)
        with request(url, "/busy"):
            hung = int(re.search(r"\d+$", program.wait_for("app: busy"))[0])
            [number] = [number for number, pid in workers.items() if pid == hung]
            [other] = set(workers.values()) - {hung}
            blocked = series("server_worker_blocked_seconds", worker=number)
            assert until(lambda: scrape(page)[blocked]) < 1
            with connections(url, [other]) as by_pid:
                program.wait_for(f"worker {number} (pid {hung}) hangs")
                program.wait_for("in busy")
                assert about(by_pid[other])["pid"] == other
                program.wait_for("ended: hung")
                [third] = program.wait_ready(1).values()
                assert about(by_pid[other])["pid"] == other
            with connections(url, [third]):
                assert scrape(page)[series("server_worker_exits_total", reason="hung")] == 1
        stop(program)


def test_workers_that_crash_are_replaced_and_the_others_notice_nothing(supervised):
    pytest.importorskip("prometheus_client")
    with supervised("-w", "2", *METRICS) as program:
        url, page = program.wait_for_url(), program.wait_for_url("metrics")
        pids = set(program.wait_ready(2).values())
        with connect(url.replace("http", "ws"), open_timeout=LIMIT_S) as websocket:
            survivor = int(websocket.recv(LIMIT_S))
            for path, ending in [
                ("/leave", "exit code 7"),
                ("/kill?11", "killed by SIGSEGV"),
                ("/kill?9", "killed by SIGKILL"),
            ]:
                [victim] = pids - {survivor}
                with connections(url, [victim]) as by_pid:
                    by_pid[victim].request("GET", path)
                    assert f"(pid {victim}) ended: {ending}" in program.wait_for("ended:")
                    pids = {survivor, *program.wait_ready(1).values()}
                websocket.send(path)
                assert websocket.recv(LIMIT_S) == path
        told = scrape(page)
        assert told[series("server_worker_exits_total", reason="crashed")] == 2
        assert told[series("server_worker_exits_total", reason="killed")] == 1
        assert told[series("server_worker_spawns_total")] == 5
        assert told[series("server_workers_active")] == 2
        stop(program)


def test_twenty_workers_later_no_file_and_no_process_is_left_behind(supervised):
    """It takes as long as twenty interpreters take to start."""
    with supervised("-w", "3") as program:
        program.wait_for_url()
        program.wait_ready(3)
        files = Path(f"/proc/{program.pid}/fd")
        before = len(list(files.iterdir()))
        for _ in range(7):
            program.send_signal(signal.SIGHUP)
            program.wait_for_each({"is ready": 3, "ended: clean": 3})
        # A zombie is a child, too.
        children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
        assert len(children) == 3
        assert len(list(files.iterdir())) == before
        stop(program)


# Starting, and failing to


BROKEN = {
    "raising": (
        "def connect():\n    raise KeyError('database')\nconnect()\n",
        "raising raised KeyError: 'database'",
        1,
    ),
    "syntax": ("def app(:\n", "syntax raised SyntaxError: ", 0),
    "leaving": ("import sys\nsys.exit(5)\n", "leaving raised SystemExit: 5", 1),
    "leaving_at_once": ("import os\nos._exit(5)\n", "worker 1 ended before it was ready: exit code 5", 0),
    "talkative": ("raise ValueError('x' * 1_000_000)\n", "talkative raised ValueError: xxx", 1),
    "refusing": (
        "async def app(scope, receive, send): await send({'type': 'lifespan.startup.failed', 'message': 'no database'})",
        "the application failed to start: no database",
        0,
    ),
    "empty": ("", "empty: there is no 'app'", 0),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_application_that_no_worker_can_start_is_told_of_once_and_exit_code_3(supervised, tmp_path, name):
    code, message, tracebacks = BROKEN[name]
    (tmp_path / f"{name}.py").write_text(code)
    with supervised("-w", "2", app=name) as program:
        said = re.sub(r"worker \d \(pid \d+\)", "worker 1", fails(program, 3))
        assert said.startswith(message)
    assert sum("Traceback" in line for line in program.errors) == tracebacks
    assert len(program.errors) < 20
    assert len("".join(program.errors)) < 20_000


def test_an_application_that_is_not_there_is_one_line_and_exit_code_3(supervised):
    with supervised("-w", "2", app="nothing") as program:
        assert "nothing" in fails(program, 3)


def test_an_application_that_refuses_to_start_and_sits_in_a_thread_is_killed_and_its_reason_told(supervised, tmp_path):
    (tmp_path / "stuck.py").write_text(
        "import threading, trio\n"
        "async def app(scope, receive, send):\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': 'no database'})\n"
        "    await trio.to_thread.run_sync(threading.Event().wait)\n"
    )
    with supervised("-w", "2", "--worker-start-timeout", "5", "--startup-timeout", "5", app="stuck") as program:
        assert fails(program, 3) == "the application failed to start: no database"
    assert "Current thread" in " ".join(program.errors)


def test_workers_that_are_not_ready_in_time_are_killed_and_say_where_they_stand(supervised, tmp_path):
    (tmp_path / "slow.py").write_text("def slow():\n    import time; time.sleep(1000)\nslow()\n")
    with supervised("-w", "2", "--worker-start-timeout", "5", "--startup-timeout", "5", app="slow") as program:
        assert "was not ready within 5 s" in fails(program, 3)
    assert any("in slow" in line for line in program.errors)


def test_one_worker_that_cannot_start_is_tried_again_while_the_others_serve(supervised, tmp_path):
    pytest.importorskip("prometheus_client")
    (tmp_path / "picky.py").write_text(
        "from pathlib import Path\n"
        "from app import app as inner\n"
        "async def app(scope, receive, send):\n"
        "    number = scope['extensions']['pagi.worker']['number']\n"
        "    if scope['type'] == 'lifespan' and number == 2 and not Path('mended').exists():\n"
        "        return await send({'type': 'lifespan.startup.failed', 'message': 'not me'})\n"
        "    await inner(scope, receive, send)\n"
    )
    with supervised("-w", "3", *METRICS, app="picky") as program:
        url, page = program.wait_for_url(), program.wait_for_url("metrics")
        program.wait_for_each({"is ready": 2, "could not start": 1})
        failed = series("server_worker_exits_total", reason="startup_failed")
        until(lambda: scrape(page)[failed] >= 2)
        assert json.loads(get(url))["worker"]["number"] in (1, 3)
        (tmp_path / "mended").touch()
        up = series("server_worker_up", worker=2)
        until(lambda: scrape(page).get(up) == 1)
        assert scrape(page)[series("server_workers_active")] == 3
        stop(program)
    assert any("could not start: the application failed to start: not me" in line for line in program.errors)


@pytest.mark.parametrize(
    "arguments",
    [
        ["-w", "0"],
        ["-w", "x"],
        ["-w", "1000"],
        ["-w", "2", "--reload"],
        ["-w", "2", "--certfile", "nothing.pem", "--keyfile", "nothing.pem"],
        ["-w", "2", "--access-logfile", "/nothing/here"],
        ["-w", "2", "--metrics-bind", "unix:/nothing/here"],
        ["--reload", "--reload-dir", "/nothing/here"],
        ["--max-requests", "0"],
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(supervised, arguments):
    if "--reload-dir" in arguments:
        pytest.importorskip("watchfiles")
    with supervised(*arguments) as program:
        assert fails(program, 2)
    assert [line for line in program.errors if "serving on" not in line] == program.errors[-1:]


def test_a_busy_port_is_one_line_and_exit_code_2(supervised):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = "{}:{}".format(*taken.getsockname())
        with supervised("-w", "2", bind=("-b", bind)) as program:
            assert fails(program, 2).startswith(f"cannot listen on {bind}: address in use")
    assert len(program.errors) == 1


def test_reload_without_watchfiles_is_one_line_and_exit_code_2(supervised, tmp_path):
    (tmp_path / "watchfiles.py").write_text("raise ImportError('as if it were not installed')")
    with supervised("--reload") as program:
        assert "pip install 'pagi-trio[reload]'" in fails(program, 2)
    assert len(program.errors) == 1


@pytest.mark.parametrize("missing", ["pidfd_open", "memfd_create"])
def test_a_platform_that_lacks_the_means_is_refused(monkeypatch, missing):
    check_platform()
    monkeypatch.delattr(os, missing)
    with pytest.raises(ConfigError, match="need Linux"):
        check_platform()


# What reaches a worker


def test_an_application_finds_in_a_worker_what_it_finds_in_a_single_process(supervised):
    told = []
    for arguments in ([], ["-w", "1", "--max-requests", "1000"]):
        with supervised(*arguments, "--root-path", "/x") as program:
            url = program.wait_for_url()
            here = json.loads(get(url + "/x/"))
            told.append((here["argv"][0], here["path"], here["root_path"], get(url + "/x/child")))
            assert here["argv"][1:] == ["app", *TCP, *arguments, "--root-path", "/x"]
            assert here["worker"]["is_worker"] == bool(arguments)
            stop(program)
    assert told[0] == told[1]


def test_settings_reach_every_worker(supervised, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as given, ExitStack() as stack:
        url = "http://{}:{}".format(*given.getsockname())
        arguments = ["-w", "2", "--factory", "--root-path", "/x", "--limit-request-line", "100", "--keep-alive", "0"]
        logs = ["--log-level", "warning", "--access-logfile", "access.log"]
        bind = ("-b", f"fd://{given.fileno()}")
        program = stack.enter_context(
            supervised(*arguments, *logs, app="app:make", bind=bind, pass_fds=[given.fileno()])
        )
        given.close()
        pids = {int(re.search(r"\d+$", program.wait_for("app: startup"))[0]) for _ in range(2)}
        seen = {}
        while set(seen) != pids:
            connection = connect_http(url)
            connection.request("GET", "/x/")
            response = connection.getresponse()
            assert response.getheader("connection") == "close"
            here = json.loads(response.read())
            assert here["root_path"] == "/x"
            seen[here["pid"]] = here["worker"]["number"]
        with request(url, "/" + "x" * 100) as sock:
            assert sock.recv(100).startswith(b"HTTP/1.1 414 ")
        stop(program)
    assert sorted(seen.values()) == [1, 2]
    assert all(line.startswith("app: ") for line in program.errors)
    lines = (tmp_path / "access.log").read_text().splitlines()
    assert len(lines) >= 3
    assert all(re.fullmatch(r'127\.0\.0\.1 - - \[[^]]+\] ".*" \d{3} \d+ [0-9.]+', line) for line in lines)


def test_tls_is_spoken_by_workers(supervised, tmp_path):
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with supervised("-w", "2", "--certfile", "server.pem", "--keyfile", "server.pem") as program:
        url = program.wait_for_url()
        assert url.startswith("https://")
        with urllib.request.urlopen(url, timeout=LIMIT_S, context=context) as response:
            assert json.loads(response.read())["worker"]["is_worker"]
        stop(program)


def test_wsgi_is_served_by_workers_on_a_unix_socket(supervised, tmp_path):
    path = tmp_path / "app.sock"
    with supervised("-w", "2", app="app:wsgi", bind=("-b", f"unix:{path}")) as program:
        assert program.wait_for_url() == f"unix:{path}"
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(LIMIT_S)
            client.connect(str(path))
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert client.makefile("rb").read().endswith(b"multiprocess: True")
        stop(program)
    assert not path.exists()


# A service manager

# systemd passes sockets as files from 3 on, to a process that it knows.
SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.executable, [sys.executable, "-m", "pagi_trio", *sys.argv[2:]])
"""


@pytest.mark.parametrize("workers", [[], ["-w", "2"]])
def test_a_socket_that_was_handed_over_refuses_connections_once_it_stops(supervised, open_gate, workers):
    with socket.create_server(("127.0.0.1", 0)) as given:
        bind = ("-b", f"fd://{given.fileno()}")
        with supervised(*workers, bind=bind, pass_fds=[given.fileno()]) as program:
            given.close()
            url = program.wait_for_url()
            with request(url, "/gated") as sock:
                program.wait_for("app: gated")
                program.send_signal(signal.SIGTERM)
                wait_until_refused(sock.getpeername())
                open_gate()
                assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
            assert program.finish()[0] == 0


@pytest.mark.parametrize("workers", [[], ["-w", "2"]])
def test_sockets_of_a_service_manager_are_served(supervised, tmp_path, workers):
    assert supervised
    with socket.create_server(("127.0.0.1", 0)) as given:
        command = [sys.executable, "-c", SYSTEMD, str(given.fileno()), "app", *workers]
        with running(*command, cwd=tmp_path, pass_fds=[given.fileno()]) as program:
            url = program.wait_for_url()
            assert url == "http://{}:{}".format(*given.getsockname())
            assert json.loads(get(url))["worker"]["is_worker"] == bool(workers)
            stop(program)
        # It stays open there, and what comes meanwhile waits.
        with socket.create_connection(given.getsockname()):
            given.accept()[0].close()


def test_an_address_beside_the_sockets_of_a_service_manager_is_refused(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as given:
        command = [sys.executable, "-c", SYSTEMD, str(given.fileno()), "app", *TCP]
        with running(*command, cwd=tmp_path, pass_fds=[given.fileno()]) as program:
            assert "--bind contradicts the sockets that systemd has opened" in fails(program, 2)


def test_a_service_manager_is_told_how_it_goes(supervised, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(LIMIT_S)
        told = []

        def wait_for(assignment):
            while assignment not in told:
                told.extend(manager.recv(4096).decode().splitlines())

        with supervised("-w", "2", environ={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as program:
            wait_for("STATUS=2 workers are ready, 2 are wanted")
            program.send_signal(signal.SIGHUP)
            wait_for("RELOADING=1")
            program.wait_ready(4)
            before = len(told)
            while "READY=1" not in told[before:]:
                told.extend(manager.recv(4096).decode().splitlines())
            stop(program)
        wait_for("STOPPING=1")
    states = [one for one in told if not one.startswith(("STATUS=", "MONOTONIC_USEC="))]
    assert states == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]
