"""The command as a user has it: a process that is started, listened to, and never left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager, suppress

# Long enough for a machine that is busy with other things; nothing waits for it unless something is wrong.
LIMIT_S = 30

TCP = ("--bind", "127.0.0.1:0")


def _as_from_a_shell():
    """Take signals as a command in the foreground does, however these tests were started: nohup ignores some."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


class Program:
    """A running program: what it prints can be waited for, and everything about it has a time limit.

    It leads a process group of its own, as a command does that a shell has started.
    """

    def __init__(self, *command, cwd=None, pass_fds=(), environ=()):
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            pass_fds=pass_fds,
            start_new_session=True,
            preexec_fn=_as_from_a_shell,  # noqa: PLW1509 - it takes no lock
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "PYTHONWARNINGS": "default",
                **dict(environ),
            },
        )
        self.pid = self._process.pid
        self._timer = threading.Timer(LIMIT_S, self._kill_all)
        self._timer.start()
        self.errors = []

    def wait_for(self, text):
        """Read standard error up to the line that has the text in it, and return that."""
        return self.wait_for_each({text: 1})[0]

    def wait_for_each(self, counts):
        """Read standard error until there were as many lines for each text, in any order; return the lines."""
        left = dict(counts)
        found = []
        for line in self._process.stderr:
            self.errors.append(line.rstrip("\n"))
            for text in left:
                if text in line:
                    left[text] -= 1
                    found.append(self.errors[-1])
            if max(left.values()) <= 0:
                return found
        raise AssertionError(f"it ended without saying {left}, but: {self.errors}")

    def wait_for_url(self, what="serving"):
        return re.search(r" on (\S+)", self.wait_for(f"{what} on "))[1]

    def wait_ready(self, count):
        """Wait until as many more workers are ready; return their process ids by their numbers."""
        lines = [self.wait_for(" is ready") for _ in range(count)]
        found = [re.search(r"worker (\d+) \(pid (\d+)\) is ready", line) for line in lines]
        return {int(one[1]): int(one[2]) for one in found}

    def send_signal(self, number):
        self._process.send_signal(number)

    def send_group(self, number):
        """Send a signal to every process, as a terminal does, and a service manager."""
        os.killpg(self.pid, number)

    def send_line(self):
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def finish(self):
        """Wait for its end, and that of all it has started; return the exit code and what was printed."""
        out, errors = self._process.communicate()
        self.errors += errors.splitlines()
        return self._process.returncode, out

    def close(self):
        self._timer.cancel()
        self._timer.join()
        self._kill_all()
        self._process.communicate()

    def _kill_all(self):
        with suppress(ProcessLookupError):
            self.send_group(signal.SIGKILL)


@contextmanager
def running(*command, **options):
    program = Program(*command, **options)
    try:
        yield program
    finally:
        program.close()


def fails(program, code):
    """Check that it failed as it should, and return the one line that says why."""
    assert program.finish() == (code, "")
    [line] = [line for line in program.errors if line.startswith("pagi-trio: error: ")]
    assert line == program.errors[-1]
    return line.removeprefix("pagi-trio: error: ")


def until(condition):
    """Wait until something is so, and return it."""
    deadline = time.monotonic() + LIMIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)
    return found


# Clients


def get(url):
    with urllib.request.urlopen(url, timeout=LIMIT_S) as response:
        return response.read().decode()


def request(url, path, headers=""):
    """Send a request without waiting for its answer; return the socket."""
    host, port = url.removeprefix("http://").split(":")
    sock = socket.create_connection((host, int(port)), timeout=LIMIT_S)
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
    return sock


def wait_until_refused(address):
    """Wait until nothing listens on an address any more."""
    while True:
        try:
            socket.create_connection(address, timeout=LIMIT_S).close()
        except ConnectionResetError:
            # It was in the backlog when the listener closed.
            continue
        except ConnectionRefusedError:
            return


def read_to_end(sock):
    data = b""
    while more := sock.recv(65536):
        data += more
    return data


def scrape(url):
    """Return the values of a metrics page, by series as they stand there."""
    lines = get(url).splitlines()
    return {series: float(value) for series, _, value in (line.rpartition(" ") for line in lines) if "#" not in series}
