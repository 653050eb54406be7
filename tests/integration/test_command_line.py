"""The command line as a user has it: a process, its exit code, and what it prints.

Each test starts an interpreter, and so takes longer than a quarter second.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import tomllib
import urllib.error
import urllib.request

import pytest

from pagi_trio.config import Config
from tests.integration.command import (
    LIMIT_S,
    TCP,
    fails,
    get,
    read_to_end,
    request,
    running,
    wait_until_refused,
)

APP = """
import os, signal, socket, sys, threading, time, trio

# What is gated goes on once a line comes on standard input.

def say(what):
    print(what, file=sys.stderr, flush=True)

def listens(file):
    try:
        sock = socket.socket(fileno=int(file))
    except OSError:
        return False
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    finally:
        sock.detach()

async def lifespan(receive, send):
    await receive()
    say("app: startup")
    await send({"type": "lifespan.startup.complete"})
    await receive()
    say("app: shutdown")
    await send({"type": "lifespan.shutdown.complete"})

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    if scope["path"] == "/gated":
        say("app: gated")
        await trio.to_thread.run_sync(sys.stdin.readline)
    if scope["path"] == "/shielded":
        say("app: shielded")
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()
    if scope["path"] == "/busy":
        say("app: busy")
        while True:
            pass
    if scope["path"] == "/thread":
        threading.Thread(target=threading.Event().wait).start()
    if scope["path"] == "/fork":
        readable, writable = os.pipe()
        child = os.fork()
        if child == 0:
            signal.alarm(5)
            # Now Python is ready for signals.
            os.write(writable, b"%d" % sum(map(listens, os.listdir("/proc/self/fd"))))
            while True:
                time.sleep(1000)
        listening = int(os.read(readable, 9))
        os.kill(child, signal.SIGTERM)
        say(f"app: it listened on {listening} and ended by {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}")
    if scope["path"] == "/forever":
        say("app: forever")
        await trio.sleep_forever()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})

async def refusing(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})

async def stuck(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})
    await trio.to_thread.run_sync(threading.Event().wait)

async def hanging(scope, receive, send):
    say("app: hanging")
    await trio.sleep_forever()

async def gated(scope, receive, send):
    if scope["type"] != "lifespan":
        return await app(scope, receive, send)
    for phase in ("startup", "shutdown"):
        await receive()
        say("app: in " + phase)
        await trio.to_thread.run_sync(sys.stdin.readline)
        await send({"type": f"lifespan.{phase}.complete"})
"""


@pytest.fixture
def cli(tmp_path):
    """``with cli(*arguments) as program``: the command, started in a directory that holds an application."""
    (tmp_path / "cmd_app.py").write_text(APP)
    (tmp_path / "cmd_broken.py").write_text("def connect():\n    raise KeyError('database')\n\nconnect()\n")

    def start(*arguments, **options):
        return running(sys.executable, "-m", "pagi_trio", *arguments, cwd=tmp_path, **options)

    return start


# Stopping


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_what_is_in_flight_finish_and_exits_with_0(cli, number):
    with cli("cmd_app", *TCP) as program:
        url = program.wait_for_url()
        assert get(url) == "hello"
        with request(url, "/") as idle, request(url, "/gated") as busy:
            program.wait_for("app: gated")
            program.send_signal(number)
            wait_until_refused(busy.getpeername())
            program.send_line()
            answer = read_to_end(busy)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"\r\nconnection: close\r\n" in answer
            assert answer.endswith(b"\r\n\r\nhello")
            assert read_to_end(idle).endswith(b"hello")
        assert program.finish() == (0, "")
    assert "app: shutdown" in program.errors
    assert not any("Traceback" in line or "Warning" in line for line in program.errors)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_stops_at_once(cli, second):
    with cli("cmd_app", *TCP, "--graceful-timeout", "1000") as program:
        with request(program.wait_for_url(), "/forever") as sock:
            program.wait_for("app: forever")
            program.send_signal(signal.SIGTERM)
            # Only once the first has been taken are there two.
            wait_until_refused(sock.getpeername())
            program.send_signal(second)
            assert read_to_end(sock) == b""
        assert program.finish() == (0, "")
    assert not any("Traceback" in line for line in program.errors)


# It takes the second that is allowed beyond the two timeouts.
@pytest.mark.parametrize("path", ["/shielded", "/busy"])
def test_an_application_that_cannot_be_cancelled_is_left_behind_at_the_bound(cli, path):
    with cli("cmd_app", *TCP, "--graceful-timeout", "0", "--shutdown-timeout", "0") as program:
        with request(program.wait_for_url(), path) as sock:
            program.wait_for("app: " + path[1:])
            program.send_signal(signal.SIGTERM)
            assert read_to_end(sock) == b""
        assert program.finish() == (1, "")
    assert "did not end within 1 s" in program.errors[-1]


def test_a_thread_that_python_waits_for_is_left_behind_at_the_bound(cli):
    with cli("cmd_app", *TCP, "--graceful-timeout", "0", "--shutdown-timeout", "0") as program:
        assert get(f"{program.wait_for_url()}/thread") == "hello"
        program.send_signal(signal.SIGTERM)
        assert program.finish() == (1, "")


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
def test_what_the_application_forks_ends_by_sigterm_and_listens_nowhere(cli):
    with cli("cmd_app", *TCP, "--metrics-bind", "127.0.0.1:0") as program:
        assert get(f"{program.wait_for_url()}/fork") == "hello"
        assert program.wait_for("app: it listened") == f"app: it listened on 0 and ended by {-signal.SIGTERM}"
        program.send_signal(signal.SIGTERM)
        assert program.finish() == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_startup_ends_it(cli, number):
    with cli("cmd_app:hanging", *TCP) as program:
        program.wait_for("app: hanging")
        program.send_signal(number)
        assert program.finish() == (0, "")
    assert not any("Traceback" in line or "serving on" in line for line in program.errors)


# Refusing to start


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["cmd_app", "--no-such-flag"],
        ["cmd_app", "--keep-alive", "soon"],
        ["cmd_app", "-b", "127.0.0.1:http"],
        ["cmd_app", "-k", "asyncio"],
        ["cmd_app", "-c", "nothing.toml"],
        ["cmd_app", "-b", "unix:/nothing/here"],
        ["cmd_app", "--certfile", "cmd_app.py", "--keyfile", "cmd_app.py"],
        ["cmd_app", "--certfile", "nothing.pem", "--keyfile", "nothing.pem"],
        ["cmd_app", "--certfile", "cmd_app.py"],
        ["cmd_app", "--access-logfile", "/nothing/here"],
        ["cmd_app", "--metrics-bind", "127.0.0.1:1", "--no-metrics"],
        ["cmd_app", *TCP, "--metrics-bind", "unix:/nothing/here"],
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(cli, arguments):
    with cli(*arguments) as program:
        assert fails(program, 2)
    assert len(program.errors) == 1


def test_a_busy_port_is_named_and_exit_code_2(cli):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = "{}:{}".format(*taken.getsockname())
        with cli("cmd_app", "-b", bind) as program:
            assert fails(program, 2).startswith(f"cannot listen on {bind}: address in use")
        assert len(program.errors) == 1


def test_a_second_server_on_a_unix_path_is_refused_and_the_first_goes_on(cli, tmp_path):
    bind = f"unix:{tmp_path}/app.sock"
    with cli("cmd_app", "-b", bind) as first:
        assert first.wait_for_url() == bind
        with cli("cmd_app", "-b", bind) as second:
            assert fails(second, 2).startswith(f"cannot listen on {bind}: address in use")
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(LIMIT_S)
            client.connect(f"{tmp_path}/app.sock")
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert read_to_end(client).endswith(b"hello")
        first.send_signal(signal.SIGTERM)
        assert first.finish()[0] == 0
    assert not (tmp_path / "app.sock").exists()


def test_the_unix_path_of_a_killed_server_is_replaced(cli, tmp_path):
    bind = f"unix:{tmp_path}/app.sock"
    with cli("cmd_app", "-b", bind) as killed:
        killed.wait_for_url()
        killed.send_signal(signal.SIGKILL)
        assert killed.finish()[0] == -signal.SIGKILL
    assert (tmp_path / "app.sock").exists()
    with cli("cmd_app", "-b", bind) as program:
        program.wait_for_url()
        program.send_signal(signal.SIGTERM)
        assert program.finish()[0] == 0


@pytest.mark.parametrize("app", ["cmd_nothing", "cmd_app:nothing", "nothing.py", "cmd_app:sys"])
def test_an_application_that_is_not_there_is_one_line_and_exit_code_3(cli, app):
    with cli(app, *TCP) as program:
        assert app.partition(":")[0] in fails(program, 3)
    assert len(program.errors) == 1


def test_an_application_that_cannot_be_imported_shows_its_own_traceback_alone(cli, tmp_path):
    with cli("cmd_broken", *TCP) as program:
        assert fails(program, 3) == "cmd_broken raised KeyError: 'database'"
    assert program.errors[0] == "Traceback (most recent call last):"
    frames = [line.split('"')[1] for line in program.errors if line.startswith("  File ")]
    assert frames == [str(tmp_path / "cmd_broken.py")] * 2


def test_an_application_that_refuses_to_start_is_one_line_and_exit_code_3(cli):
    with cli("cmd_app:refusing", *TCP) as program:
        assert fails(program, 3) == "the application failed to start: no database"
    assert not any("Traceback" in line or "serving on" in line for line in program.errors)


def test_an_application_that_does_not_start_in_time_is_one_line_and_exit_code_3(cli):
    with cli("cmd_app:hanging", *TCP, "--startup-timeout", "0.1") as program:
        assert fails(program, 3) == "the application failed to start: it did not answer within 0.1 s"


# What is printed


def test_an_application_that_refuses_to_start_and_sits_in_a_thread_is_left_there_at_the_bound(cli):
    with cli("cmd_app:stuck", *TCP, "--graceful-timeout", "0", "--shutdown-timeout", "0") as program:
        assert program.finish() == (1, "")
    assert "ERROR the application failed to start: no database; it did not end within 1 s" in program.errors[-1]


def test_version(cli):
    with cli("--version") as program:
        code, out = program.finish()
    assert (code, program.errors) == (0, [])
    assert re.fullmatch(r"pagi-trio \S.* \(Python [0-9.]+\S*, Trio [0-9.]+\S*\)\n", out)


def test_the_printed_config_is_one_that_can_be_given(cli, tmp_path):
    file = tmp_path / "server.toml"
    with cli("--keep-alive", "7", "-b", "[::1]:9", "--print-config") as program:
        code, out = program.finish()
    assert (code, program.errors) == (0, [])
    file.write_text(out)
    assert Config.from_mapping(tomllib.loads(out)) == Config(bind=("[::1]:9",)).replace(timeouts={"keep_alive_s": 7})
    with cli("-c", str(file), "--print-config") as program:
        assert program.finish() == (0, out)


def test_worker_class_trio_is_taken(cli):
    with cli("-k", "trio", "cmd_app:app", *TCP) as program:
        assert get(program.wait_for_url()) == "hello"
        program.send_signal(signal.SIGTERM)
        assert program.finish() == (0, "")


ACCESS_LINE = r'127\.0\.0\.1 - - \[[^]]+\] "GET /%s HTTP/1\.1" 200 5 [0-9.]+'


@pytest.mark.parametrize("target", ["-", "access.log"])
def test_each_response_is_a_line_of_the_access_log(cli, tmp_path, target):
    with cli("cmd_app", *TCP, "--access-logfile", target) as program:
        url = program.wait_for_url()
        for path in ("a", "b?c=%22d"):
            get(f"{url}/{path}")
        program.send_signal(signal.SIGTERM)
        code, out = program.finish()
    assert code == 0
    if target != "-":
        assert out == ""
        out = (tmp_path / target).read_text()
    first, second = out.splitlines()
    assert re.fullmatch(ACCESS_LINE % "a", first)
    assert re.fullmatch(ACCESS_LINE % r"b\?c=%22d", second)


def test_the_access_log_is_written_while_the_server_runs(cli, tmp_path):
    log = tmp_path / "access.log"
    os.mkfifo(log)
    with cli("cmd_app", *TCP, "--access-logfile", str(log)) as program, log.open() as lines:
        get(program.wait_for_url() + "/a")
        assert re.fullmatch(ACCESS_LINE % "a", lines.readline().rstrip())
        program.send_signal(signal.SIGTERM)
        assert program.finish()[0] == 0


def test_a_log_level_hides_what_is_below_it(cli):
    with cli("cmd_app", *TCP, "--log-level", "warning") as program:
        program.wait_for("app: startup")
        program.send_signal(signal.SIGTERM)
        assert program.finish()[0] == 0
    assert {line for line in program.errors if not line.startswith("app: ")} == set()


# The metrics page


def listening():
    """Return a socket for a program to adopt, which is known before the program runs, and its URL."""
    given = socket.create_server(("127.0.0.1", 0))
    return given, "http://{}:{}".format(*given.getsockname())


def metrics_on(given):
    return "--metrics-bind", f"fd://{given.fileno()}"


def test_the_page_answers_during_startup_service_drain_and_lifespan_shutdown(cli):
    pytest.importorskip("prometheus_client")
    given, page = listening()
    waiting = ("--graceful-timeout", "1000", "--shutdown-timeout", "1000")
    with given, cli("cmd_app:gated", *TCP, *waiting, *metrics_on(given), pass_fds=[given.fileno()]) as program:
        given.close()
        program.wait_for("app: in startup")
        assert "\npagi_server_connections_active 0.0\n" in get(page)
        program.send_line()

        url = program.wait_for_url()
        assert get(url) == "hello"
        assert get(f"{page}/metrics").count("\npagi_server_connections_total 1.0\n") == 1
        with request(url, "/gated") as sock:
            program.wait_for("app: gated")
            program.send_signal(signal.SIGTERM)
            wait_until_refused(sock.getpeername())
            assert "\npagi_server_connections_active 1.0\n" in get(page)
            program.send_line()
            assert read_to_end(sock).endswith(b"hello")

        program.wait_for("app: in shutdown")
        assert "\npagi_server_connections_active 0.0\n" in get(f"{page}/metrics")
        program.send_line()
        assert program.finish()[0] == 0
    with pytest.raises(urllib.error.URLError, match="refused"):
        get(page)


def test_the_page_has_nothing_else(cli):
    given, page = listening()
    with given, cli("cmd_app", *TCP, *metrics_on(given), pass_fds=[given.fileno()]) as program:
        program.wait_for_url()
        with pytest.raises(urllib.error.HTTPError, match="404") as caught:
            get(f"{page}/hello")
        caught.value.close()
        program.send_signal(signal.SIGTERM)
        assert program.finish()[0] == 0


def test_without_metrics_it_serves_all_the_same(cli):
    with cli("cmd_app", *TCP, "--no-metrics") as program:
        assert get(program.wait_for_url()) == "hello"
        program.send_signal(signal.SIGTERM)
        assert program.finish() == (0, "")
