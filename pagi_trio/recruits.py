"""Where worker processes come from.

Nothing about a worker takes as long as its imports. The first ones are forked, before Trio runs and before any thread
is started, by a parent that has imported all of the server and nothing of the application. Those that replace them
cannot be: they are started by a new interpreter. Either waits on a socket to hear what to serve.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn, Protocol, Self

from pagi_trio.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# The interpreter replaces its path by the parent's before it imports anything: a module of the application's could
# otherwise stand in front of one of the standard library's. Imports make no garbage, and looking for some would take
# a tenth of their time.
_BOOT: Final = (
    "import gc, sys; gc.disable(); sys.path[:] = sys.argv[4:]; from pagi_trio.worker_process import main; main()"
)


HELD_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU)
"""Signals that wait until a process has said how it takes them: Ctrl-C, or a service manager's SIGTERM for every
process, would otherwise find its interpreter still starting, and end it by a traceback or by force."""


def check_platform() -> None:
    """Refuse where the system lacks what workers need.

    Raises:
        ConfigError: It is not Linux, or older than 5.3, or does not let this process do it.
    """
    try:
        os.close(os.pidfd_open(os.getpid()))
        os.close(os.memfd_create("pagi-trio-test"))
    except (AttributeError, OSError) as error:
        raise ConfigError(
            "workers, max_requests and reload need Linux 5.3 or later, with pidfd_open and memfd_create allowed; "
            f"without them one process serves ({error})"
        ) from None


class Process(Protocol):
    """A child process, as `subprocess.Popen` has it."""

    pid: int

    def poll(self) -> int | None:
        """Return its exit code, or less the signal that ended it; None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait, with all the process, until it has ended."""

    def send_signal(self, sig: int) -> None:
        """Send it a signal; nothing happens if it has ended."""

    def kill(self) -> None:
        """Kill it."""


class Forked:
    """A child process that was forked."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return its exit code, or less the signal that ended it; None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Wait, with all the process, until it has ended.

        Raises:
            TimeoutError: If it has not by then.
        """
        if (code := self.poll()) is not None:
            return code
        pidfd = os.pidfd_open(self.pid)
        try:
            if not select.select([pidfd], [], [], timeout)[0]:
                raise TimeoutError
        finally:
            os.close(pidfd)
        code = self.poll()
        assert code is not None, "the kernel has said that it has ended"
        return code

    def send_signal(self, sig: int) -> None:
        """Send it a signal; nothing happens if it has ended."""
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)


class Recruit(NamedTuple):
    """A process that waits to hear what to serve.

    Attributes:
        process: The process.
        control: Our end of the socket on which it waits.
    """

    process: Process
    control: socket.socket


class Recruits:
    """Starts processes that wait to hear what to serve.

    In the main thread, and not by Trio, which would start them in a thread of its own: the kernel's notice of the
    parent's death (PR_SET_PDEATHSIG) goes by the thread that forked. Each starts with `HELD_SIGNALS` blocked, and
    unblocks them itself.

    Args:
        app: What they will serve, for whoever looks at the list of processes.

    Ownership: `close` ends those that nobody has taken; as a context manager, too.
    """

    def __init__(self, app: str) -> None:
        self._app = app
        self._waiting: list[Recruit] = []

    def __enter__(self) -> Self:
        # Whoever started this process may have children's ends ignored, and then there is nothing to wait for.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _fill_standard_files()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fork(self, count: int, serve: Callable[[int, socket.socket], NoReturn]) -> None:
        """Start processes ahead, as many as can be.

        Args:
            count: How many are wanted.
            serve: What each runs, with the pid of this process and its end of the socket; it raises SystemExit, so
                that all that was to be done at exit is done.
        """
        if threading.active_count() > 1:
            # A tracer's, perhaps: what it holds at this moment would be held for ever.
            return
        parent = os.getpid()
        # A collection would write to every object, and so copy what the processes share.
        gc.freeze()
        for _ in range(count):
            try:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            except OSError:
                # Whoever wants one will try again, and say what is wrong.
                return
            with _signals_held():
                try:
                    pid = os.fork()
                except OSError:
                    return
                if pid == 0:
                    self._forget()
                    ours.close()
                    serve(parent, theirs)
            theirs.close()
            self._waiting.append(Recruit(Forked(pid), ours))

    def take(self) -> Recruit:
        """Hand over a process, with its end of the socket.

        Raises:
            OSError: If none can be started, for want of files, processes or memory.
        """
        while self._waiting:
            recruit = self._waiting.pop(0)
            if recruit.process.poll() is None:
                return recruit
            recruit.control.close()
        return self._start()

    def close(self) -> None:
        """End those that nobody has taken."""
        for recruit in self._waiting:
            recruit.control.close()
            recruit.process.kill()
            recruit.process.wait()
        self._waiting.clear()

    def _forget(self) -> None:
        """Leave the others alone, in a process that is one of them itself."""
        for recruit in self._waiting:
            recruit.control.close()
        self._waiting.clear()

    def _start(self) -> Recruit:
        """Start an interpreter."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # what multiprocessing uses
        numbers = [str(os.getpid()), str(theirs.fileno())]
        arguments = [sys.executable, *flags, "-c", _BOOT, f"worker of {self._app}", *numbers, *sys.path]
        try:
            with theirs, _signals_held():
                process = subprocess.Popen(arguments, pass_fds=[theirs.fileno()])  # noqa: S603 - our own program
        except BaseException:
            ours.close()
            raise
        return Recruit(process, ours)


def _fill_standard_files() -> None:
    """Open what is closed of the standard files, or something else would get their numbers, and what is printed."""
    while (file := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(file, True)
    os.close(file)


@contextmanager
def _signals_held() -> Iterator[None]:
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
