"""What workers and their parent find around them, or have done to them: closed files, ignored signals, terminals.

Each test starts several interpreters, and so takes longer than a quarter second.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.integration.command import LIMIT_S, TCP, fails, get, read_to_end, request, running
from tests.integration.test_workers import about, connect_http, connections
from tests.integration.test_workers_signals import PATIENT, ended, worries

ONE = ("-w", "1", "--max-requests", "1000")

# Has Python do something first, in the process that becomes the command.
FIRST = "import os, signal, sys; exec(sys.argv[1]); os.execv(sys.executable, [sys.executable, '-m', 'pagi_trio', *sys.argv[2:]])"

# The same, where the command itself has to go on in that interpreter.
WITHIN = "import os, signal, sys; exec(sys.argv.pop(1)); from pagi_trio.cli import main; sys.exit(main())"


def after(doing, *arguments, how=FIRST, **options):
    """Run the command in an environment that somebody else has made."""
    return running(sys.executable, "-c", how, doing, *arguments, **options)


def stop(program):
    program.send_signal(signal.SIGTERM)
    assert program.finish() == (0, "")


# What whoever starts the command has left


def test_ignored_ends_of_children_are_seen_all_the_same(supervised, tmp_path):
    assert supervised
    ignoring = "signal.signal(signal.SIGCHLD, signal.SIG_IGN)"
    with after(ignoring, "app", *TCP, "-w", "2", cwd=tmp_path) as program:
        first, _ = program.wait_ready(2).values()
        os.kill(first, signal.SIGKILL)
        program.wait_for(f"(pid {first}) ended: killed by SIGKILL")
        program.wait_ready(1)
        stop(program)
    assert not any("Traceback" in line for line in program.errors)


@pytest.mark.parametrize("closed", [[0], [2], [0, 2], [0, 1, 2]])
def test_standard_files_that_are_closed_are_not_missed(supervised, tmp_path, closed):
    """The application writes to standard error while it starts, so a file that has its number would get that."""
    assert supervised
    closing = "".join(f"os.close({file});" for file in closed)
    with socket.create_server(("127.0.0.1", 0)) as given:
        url = "http://{}:{}".format(*given.getsockname())
        bind = ("-b", f"fd://{given.fileno()}")
        with after(closing, "app", *bind, "-w", "2", cwd=tmp_path, pass_fds=[given.fileno()]) as program:
            given.close()
            assert get(url)
            # One that is started later has them as well.
            program.send_signal(signal.SIGHUP)
            assert get(url)
            stop(program)
    assert worries(program) == []


@pytest.mark.parametrize("call", ["pidfd_open", "memfd_create"])
def test_a_system_call_that_is_not_allowed_is_one_line_and_exit_code_2(supervised, tmp_path, call):
    """As under the seccomp profile of an old container runtime."""
    assert supervised
    denying = f"def deny(*_): raise OSError(38, 'Function not implemented')\nos.{call} = deny"
    with after(denying, "app", *TCP, "-w", "2", how=WITHIN, cwd=tmp_path) as program:
        assert "with pidfd_open and memfd_create allowed" in fails(program, 2)
    assert len(program.errors) == 1


# What the application does to its process


CLOSING = """
import os, socket
from app import app

for file in map(int, os.listdir("/proc/self/fd")):
    try:
        sock = socket.socket(fileno=file)
    except OSError:
        continue
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.close()
    else:
        sock.detach()
"""


def test_an_application_that_closes_files_of_ours_ends_its_worker_and_starts_no_second_server(supervised, tmp_path):
    """Libraries that make daemons close all files but the standard ones."""
    (tmp_path / "closing.py").write_text(CLOSING)
    with supervised("-w", "2", bind=TCP * 6, app="closing") as program:
        said = re.sub(r"worker \d \(pid \d+\)", "worker 1", fails(program, 3))
        assert said == "worker 1 ended before it was ready: exit code 1"
    assert sum("serving on" in line for line in program.errors) == 6


def test_an_end_by_a_signal_without_a_name_is_told_by_its_number(supervised):
    with supervised("-w", "2") as program:
        url = program.wait_for_url()
        program.wait_ready(2)
        with request(url, "/kill?36"):
            program.wait_for("ended: killed by signal 36")
        program.wait_ready(1)
        stop(program)
    assert not any("Traceback" in line for line in program.errors)


GARBAGE = """
import os, socket
from app import app as inner

async def app(scope, receive, send):
    if scope["type"] == "http":
        for file in map(int, os.listdir("/proc/self/fd")):
            try:
                sock = socket.socket(fileno=file)
            except OSError:
                continue
            if sock.type == socket.SOCK_SEQPACKET:
                for packet in (b"hello", b"[1]", b"{}", b"\\xff"):
                    sock.send(packet)
            sock.detach()
    await inner(scope, receive, send)
"""


def test_what_the_application_writes_to_our_socket_is_warned_of(supervised, tmp_path):
    (tmp_path / "garbage.py").write_text(GARBAGE)
    with supervised("-w", "2", app="garbage") as program:
        url = program.wait_for_url()
        program.wait_ready(2)
        assert get(url)
        program.wait_for("says what nobody understands")
        stop(program)
    assert not any("Traceback" in line for line in program.errors)
    assert sum("is ready" in line for line in program.errors) == 2


def test_a_worker_that_cannot_start_ends_though_a_thread_of_its_does_not(supervised, tmp_path):
    """It gets a second to end by itself."""
    (tmp_path / "threaded.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()\nraise KeyError('database')\n"
    )
    with supervised(*ONE, app="threaded") as program:
        assert fails(program, 3) == "threaded raised KeyError: 'database'"
    assert sum("Traceback" in line for line in program.errors) == 1


# What the application forks

FORKING = """
import json, os, signal, socket, time
from app import app as inner

def look():
    '''Return what this process has of the sockets that are ours: those that listen, and that of the parent.'''
    found = []
    for file in map(int, os.listdir("/proc/self/fd")):
        try:
            sock = socket.socket(fileno=file)
        except OSError:
            continue
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) or sock.type == socket.SOCK_SEQPACKET:
            found.append(repr(sock))
        sock.detach()
    return found

def fork(number):
    '''Send a child a signal; return what it has, and how it ended.'''
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(readable)
        signal.alarm(5)
        os.write(writable, json.dumps(look()).encode())
        os.close(writable)
        while True:
            time.sleep(1000)
    os.close(writable)
    with open(readable) as pipe:
        found = json.load(pipe)
    os.kill(child, number)
    return {"parent": look(), "child": found, "code": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}

async def app(scope, receive, send):
    if scope["type"] != "http":
        return await inner(scope, receive, send)
    body = json.dumps(fork(int(scope["query_string"]))).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""


def test_what_the_application_forks_ends_by_signals_and_has_none_of_our_sockets(supervised, tmp_path):
    (tmp_path / "forking.py").write_text(FORKING)
    with supervised(*ONE, app="forking") as program:
        url = program.wait_for_url()
        program.wait_ready(1)
        connection = connect_http(url)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            told = about(connection, f"/?{number}")
            assert (told["child"], told["code"]) == ([], -number)
            # It has found them where they are.
            assert len(told["parent"]) == 2
        connection.close()
        stop(program)


# Signals at the wrong time


WATCHING = """
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

def watch(*_, **__):
    print("begins to watch", file=sys.stderr)
    Path("gate").read_bytes()
    while True:
        yield set()
"""


@pytest.mark.parametrize("number", [signal.SIGTTIN, signal.SIGTTOU])
def test_ttin_and_ttou_before_the_workers_run_change_nothing(supervised, tmp_path, open_gate, number):
    (tmp_path / "watchfiles.py").write_text(WATCHING)
    with supervised("--reload") as program:
        program.wait_for("begins to watch")
        program.send_signal(number)
        program.send_signal(signal.SIGHUP)
        # Signals are taken one after the other.
        program.wait_for("replacing the workers")
        open_gate()
        program.wait_ready(1)
        stop(program)
    assert not any("wanted now" in line or "Traceback" in line for line in program.errors)


def test_another_term_right_at_the_end_is_no_failure(supervised):
    with supervised("-w", "2") as program:
        program.wait_ready(2)
        program.send_signal(signal.SIGTERM)
        program.wait_for_each({"ended: clean": 2})
        while not ended(program.pid):
            program.send_signal(signal.SIGTERM)
        assert program.finish() == (0, "")
    assert worries(program) == []


LOOKING_UP = """
import socket, time
def look_up(*_, **__):
    print("looks up", file=sys.stderr)
    time.sleep(5)
    raise socket.gaierror(-2, "it was not interrupted")
socket.getaddrinfo = look_up
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_signal_while_an_address_is_looked_up_ends_all(supervised, tmp_path, number, code):
    assert supervised
    with after(LOOKING_UP, "app", "-b", "localhost:0", "-w", "2", how=WITHIN, cwd=tmp_path) as program:
        program.wait_for("looks up")
        program.send_group(number)
        # All that hold its pipes have ended.
        assert program.finish() == (code, "")
    assert worries(program) == []


# An interpreter that ends has let go of its handlers when it takes the modules apart, which may take long.
ENDING = """
import os
from app import app

class Last:
    def __init__(self):
        self.gate = os.open("gate", os.O_RDONLY)

    def __del__(self, os=os, me=os.getpid):
        os.write(2, b"app: last, %d\\n" % me())
        os.read(self.gate, 1)

last = Last()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
def test_a_signal_to_a_worker_whose_interpreter_ends_does_not_make_it_crash(supervised, tmp_path, number):
    (tmp_path / "ending.py").write_text(ENDING)
    gate = os.open(tmp_path / "gate", os.O_RDWR)
    try:
        with supervised(*ONE, *PATIENT, app="ending") as program:
            [worker] = program.wait_ready(1).values()
            os.kill(worker, signal.SIGTERM)
            program.wait_for(f"app: last, {worker}")
            os.kill(worker, number)
            os.write(gate, b"x")
            program.wait_for(f"(pid {worker}) ended: clean")
            program.wait_ready(1)
            # It will find the gate open.
            os.write(gate, b"x")
            stop(program)
    finally:
        os.close(gate)
    assert worries(program) == []


def test_many_hups_make_one_round_more(supervised, open_gate):
    with supervised(*ONE, *PATIENT) as program:
        url = program.wait_for_url()
        program.wait_ready(1)
        with request(url, "/gated") as sock:
            program.wait_for("app: gated")
            program.send_signal(signal.SIGHUP)
            program.wait_ready(1)
            for _ in range(4):
                program.send_signal(signal.SIGHUP)
                # Signals are taken one after the other, and this one changes nothing.
                program.send_signal(signal.SIGTTOU)
                program.wait_for("the last worker stays")
            open_gate()
            assert read_to_end(sock).endswith(b"done")
        program.wait_for_each({"is ready": 1, "ended: clean": 2})
        assert sum("replacing the workers" in line for line in program.errors) == 2
        # They are heard again once all is done.
        program.send_signal(signal.SIGHUP)
        program.wait_for_each({"replacing the workers": 1, "is ready": 1, "ended: clean": 1})
        stop(program)
    assert sum("is ready" in line for line in program.errors) == 4


def test_ttou_answers_a_request_that_was_on_its_way_over_an_idle_connection(supervised):
    with supervised("-w", "2") as program:
        url = program.wait_for_url()
        pids = set(program.wait_ready(2).values())
        with connections(url, pids) as by_pid, ExitStack() as websockets:
            while pids:
                pids.discard(int(websockets.enter_context(connect(url.replace("http", "ws"))).recv(LIMIT_S)))
            program.send_signal(signal.SIGTTOU)
            # What is to be closed at once has been by then.
            left = int(re.search(r"\d+$", program.wait_for("app: websocket closed"))[0])
            assert about(by_pid[left])["pid"] == left
            program.wait_for(f"(pid {left}) ended: clean")
        stop(program)


# A terminal

# Makes a terminal that of this session, and its standard input; in the background, the command is not what it is for.
TERMINAL = """
import ctypes, fcntl, os, signal, sys, termios
terminal, where = int(sys.argv[1]), sys.argv[2]
fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
os.dup2(terminal, 0)
os.close(terminal)
if where == "nohup":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
if where == "background":
    if child := os.fork():
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    os.setpgid(0, 0)
os.execv(sys.executable, [sys.executable, "-m", "pagi_trio", *sys.argv[3:]])
"""


@pytest.fixture
def on_terminal(supervised, tmp_path):
    """``with on_terminal(where, *arguments) as (program, terminal)``: the command has a terminal, which can be closed."""
    assert supervised

    @contextmanager
    def start(where, *arguments, app="app"):
        ours, theirs = os.openpty()
        command = [sys.executable, "-c", TERMINAL, str(theirs), where, app, *TCP, *arguments]
        with (
            os.fdopen(ours, "rb", buffering=0) as terminal,
            running(*command, cwd=tmp_path, pass_fds=[theirs]) as program,
        ):
            os.close(theirs)
            yield program, terminal

    return start


@pytest.mark.parametrize("arguments", [["-w", "2"], ["--reload"]])
def test_closing_the_terminal_ends_all(on_terminal, arguments):
    if "--reload" in arguments:
        pytest.importorskip("watchfiles")
    with on_terminal("foreground", *arguments) as (program, terminal):
        program.wait_ready(2 if "-w" in arguments else 1)
        terminal.close()
        assert program.finish() == (0, "")
    assert worries(program) == []
    assert not any("replacing" in line for line in program.errors)


def test_a_hup_while_there_is_a_terminal_replaces_the_workers(on_terminal):
    with on_terminal("foreground", "-w", "2") as (program, _):
        program.wait_ready(2)
        program.send_signal(signal.SIGHUP)
        program.wait_for_each({"is ready": 2, "ended: clean": 2})
        stop(program)


def test_under_nohup_closing_the_terminal_ends_nothing(on_terminal):
    with on_terminal("nohup", "-w", "2") as (program, terminal):
        url = program.wait_for_url()
        program.wait_ready(2)
        terminal.close()
        program.wait_for_each({"replacing the workers": 1, "is ready": 2, "ended: clean": 2})
        assert get(url)
        stop(program)


READING = """
import os
from app import app as inner

async def app(scope, receive, send):
    if scope["type"] != "http":
        return await inner(scope, receive, send)
    try:
        body = os.read(0, 1)
    except OSError as error:
        body = os.strerror(error.errno).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""


def test_a_worker_in_the_background_that_reads_from_the_terminal_gets_an_error(on_terminal, tmp_path):
    (tmp_path / "reading.py").write_text(READING)
    with on_terminal("background", "-w", "2", app="reading") as (program, _):
        url = program.wait_for_url()
        program.wait_ready(2)
        assert get(url) == "Input/output error"
        [parent] = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
        os.kill(int(parent), signal.SIGTERM)
        assert program.finish() == (0, "")
    assert worries(program) == []
    # Only those that were there from the start.
    assert sum("is ready" in line for line in program.errors) == 2


# A directory that is watched


def test_a_watched_directory_that_is_removed_does_not_end_the_server(supervised, tmp_path):
    pytest.importorskip("watchfiles")
    watched = tmp_path / "watched"
    watched.mkdir()
    with supervised("--reload", "--reload-dir", str(watched)) as program:
        url = program.wait_for_url()
        program.wait_ready(1)
        # It is the end of watchfiles' watcher, which then cannot be made anew.
        (watched / os.fsdecode(b"latin-\xe9.txt")).touch()
        (watched / os.fsdecode(b"latin-\xe9.txt")).unlink()
        watched.rmdir()
        program.wait_for("changes may have been missed, watching anew")
        assert get(url)
        stop(program)
