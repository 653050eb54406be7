"""Where worker processes come from: what forking ahead leaves alone, and the state that the parent puts itself in.

Each test starts an interpreter of its own, since this one has threads and files that others have opened.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pagi_trio.errors import ConfigError
from pagi_trio.recruits import check_platform

LIMIT_S = 30


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process that starts with the signals and files of any other."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, env=environ, check=False, capture_output=True, text=True, timeout=LIMIT_S)


FAILING = """
import os
from pagi_trio.recruits import Recruits

def serve(parent, control):
    os.write(1, b"serves\\n")
    raise {error}

with Recruits("app") as recruits:
    recruits.fork(1, serve)
    os.write(1, b"goes on\\n")
    recruits.take().process.wait()
"""


@pytest.mark.parametrize("error", ["OSError(9, 'Bad file descriptor')", "ValueError()", "SystemExit(3)"])
def test_a_forked_process_never_goes_on_as_its_parent(error: str) -> None:
    done = run(FAILING.format(error=error))
    assert sorted(done.stdout.splitlines()) == ["goes on", "serves"]
    assert done.returncode == 0


AHEAD = """
import os, sys, threading
from pathlib import Path
from pagi_trio.recruits import Recruits

stopped = threading.Event()
for _ in range(int(sys.argv[1])):
    threading.Thread(target=stopped.wait).start()
with Recruits("app") as recruits:
    recruits.fork(2, lambda parent, control: os._exit(len(control.recv(1))))
    print(len(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))
stopped.set()
"""


@pytest.mark.parametrize(("threads", "children"), [(0, 2), (1, 0)])
def test_nothing_is_forked_while_there_are_threads(threads: int, children: int) -> None:
    """What another thread holds at the moment of a fork, its child would wait for without end."""
    done = run(AHEAD, str(threads))
    assert (done.stdout, done.stderr, done.returncode) == (f"{children}\n", "", 0)


IGNORING = """
import os, signal
from pagi_trio.recruits import Recruits

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
with Recruits("app") as recruits:
    recruits.fork(1, lambda parent, control: os._exit(7))
    control = recruits._waiting[0].control
    assert control.recv(1) == b""
    print(recruits._waiting[0].process.wait())
"""


def test_how_a_child_ends_is_known_though_the_signal_was_ignored() -> None:
    done = run(IGNORING)
    assert (done.stdout, done.stderr) == ("7\n", "")


CLOSED = """
import os, sys
from pagi_trio.recruits import Recruits

for file in map(int, sys.argv[2:]):
    os.close(file)
with Recruits("app"):
    told = [(os.readlink(f"/proc/self/fd/{file}"), os.get_inheritable(file)) for file in range(3)]
with open(sys.argv[1], "w") as file:
    print([told[int(file)] for file in sys.argv[2:]], len(os.listdir("/proc/self/fd")), file=file)
"""


@pytest.mark.parametrize("closed", ["", "0", "1", "2", "02", "012"])
def test_standard_files_that_are_closed_are_opened_and_no_more(closed: str, tmp_path: Path) -> None:
    told = tmp_path / "told"
    run(CLOSED, str(told), *closed)
    # Besides the three, there are the file that is written and that of the directory.
    assert told.read_text() == f"{[('/dev/null', True)] * len(closed)} 5\n"


@pytest.mark.parametrize("call", ["pidfd_open", "memfd_create"])
@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM])
def test_a_system_that_denies_the_means_is_refused_in_a_line(
    monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    def deny(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    check_platform()
    monkeypatch.setattr(os, call, deny)
    with pytest.raises(ConfigError, match=f"with pidfd_open and memfd_create allowed.*{os.strerror(code)}") as refused:
        check_platform()
    assert "\n" not in str(refused.value)


def test_looking_at_the_platform_leaves_no_file_open() -> None:
    files = Path("/proc/self/fd")
    before = sorted(files.iterdir())
    check_platform()
    assert sorted(files.iterdir()) == before
