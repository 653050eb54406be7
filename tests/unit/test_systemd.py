"""What systemd and a service tell each other: sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3)."""

from __future__ import annotations

import logging
import os
import socket
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from pagi_trio.errors import ConfigError
from pagi_trio.systemd import Inherited, Notifier, take_sockets

US = 4711


@pytest.fixture(autouse=True)
def low_places():
    """Fill the lowest places, so that no file of a test is where `files_from_3` puts its own."""
    fillers = [os.open(os.devnull, os.O_RDONLY)]
    while fillers[-1] < 10:
        fillers.append(os.open(os.devnull, os.O_RDONLY))
    yield
    for filler in fillers:
        os.close(filler)


@contextmanager
def files_from_3(count):
    """Put sockets where systemd puts them, and back what was there."""
    with socket.socket(socket.AF_UNIX) as passed:
        before = {place: os.dup(place) for place in range(3, 3 + count)}
        for place in before:
            os.dup2(passed.fileno(), place, inheritable=True)
        try:
            yield
        finally:
            for place, copy in before.items():
                os.dup2(copy, place, inheritable=False)
                os.close(copy)


def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def listen_environ(pid=US, **variables):
    return {"LISTEN_PID": str(pid), "PATH": "/bin", **variables}


def test_sd_listen_fds_the_sockets_start_at_3():
    with files_from_3(2):
        assert take_sockets(listen_environ(LISTEN_FDS="2"), US) == Inherited(("fd://3", "fd://4"), None)


def test_sd_listen_fds_children_do_not_inherit_the_sockets():
    with files_from_3(3):
        assert os.get_inheritable(3)
        take_sockets(listen_environ(LISTEN_FDS="2"), US)
        assert [os.get_inheritable(fd) for fd in (3, 4, 5)] == [False, False, True]


def test_sd_listen_fds_a_socket_named_metrics_is_for_the_page():
    environ = listen_environ(LISTEN_FDS="3", LISTEN_FDNAMES="web.socket:metrics:web.socket")
    with files_from_3(3):
        assert take_sockets(environ, US) == Inherited(("fd://3", "fd://5"), "fd://4")


def test_sd_listen_fds_the_socket_for_the_page_may_be_the_only_one():
    with files_from_3(1):
        environ = listen_environ(LISTEN_FDS="1", LISTEN_FDNAMES="metrics")
        assert take_sockets(environ, US) == Inherited((), "fd://3")


@pytest.mark.parametrize("pid", [US, US + 1, "x"])
def test_sd_listen_fds_the_variables_are_taken_whomever_they_are_for(pid):
    environ = listen_environ(pid, LISTEN_FDS="1", LISTEN_FDNAMES="a", LISTEN_PIDFDID="12")
    with files_from_3(1):
        take_sockets(environ, US)
    assert environ == {"PATH": "/bin"}


def test_the_variables_are_taken_even_if_they_make_no_sense():
    environ = listen_environ(LISTEN_FDS="x", LISTEN_FDNAMES="a")
    with pytest.raises(ConfigError):
        take_sockets(environ, US)
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize("pid", [US + 1, "", "x", "-1", f" {US}", f"{US}.0", "9" * 5000])
@pytest.mark.parametrize("count", ["1", "x"])
def test_sd_listen_fds_what_is_for_another_process_is_not_inherited(pid, count):
    with files_from_3(1):
        assert take_sockets(listen_environ(pid, LISTEN_FDS=count), US) == Inherited()
        assert os.get_inheritable(3)


@pytest.mark.parametrize("environ", [{}, {"LISTEN_FDS": "1"}, {"LISTEN_PID": str(US)}])
def test_sd_listen_fds_half_of_the_variables_pass_nothing(environ):
    assert take_sockets(environ, US) == Inherited()


@pytest.mark.parametrize("count", ["", "x", "0", "-1", "1.5", "+1", "٣", "9" * 5000])
def test_a_count_that_is_none_is_refused(count):
    with pytest.raises(ConfigError, match="is not a number of sockets; start the server by its socket unit"):
        take_sockets(listen_environ(LISTEN_FDS=count), US)


@pytest.mark.parametrize("count", ["1000000", "9" * 20])
def test_a_file_that_is_not_open_is_refused_by_number(count):
    with files_from_3(1):
        closed = next(fd for fd in range(3, 1000) if not is_open(fd))
        with pytest.raises(ConfigError, match=f"counts file {closed}, which cannot be used: Bad file desc") as caught:
            take_sockets(listen_environ(LISTEN_FDS=count), US)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("names", ["a", "a:b:c", ""])
def test_names_that_are_not_as_many_as_the_sockets_are_refused(names):
    with files_from_3(2), pytest.raises(ConfigError, match="does not name 2 sockets"):
        take_sockets(listen_environ(LISTEN_FDS="2", LISTEN_FDNAMES=names), US)


def test_two_sockets_for_the_page_are_refused():
    with files_from_3(2), pytest.raises(ConfigError, match="2 sockets named 'metrics'"):
        take_sockets(listen_environ(LISTEN_FDS="2", LISTEN_FDNAMES="metrics:metrics"), US)


@pytest.fixture
def systemd(tmp_path):
    """Systemd's end: a datagram socket with a path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        yield sock


def received(sock):
    """Return all messages that have come, each as its lines."""
    messages = []
    while True:
        try:
            messages.append(sock.recv(65536).decode().split("\n"))
        except BlockingIOError:
            return messages


def notify_environ(sock, **variables):
    return {"NOTIFY_SOCKET": sock.getsockname(), "PATH": "/bin", **variables}


def test_sd_notify_ready_says_so_with_a_status(systemd):
    Notifier.take(notify_environ(systemd), US).ready("serving on http://127.0.0.1:8000")
    assert received(systemd) == [["READY=1", "STATUS=serving on http://127.0.0.1:8000"]]


def test_sd_notify_reloading_gives_the_monotonic_time(systemd):
    notifier = Notifier.take(notify_environ(systemd), US)
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    [[reloading, moment]] = received(systemd)
    assert reloading == "RELOADING=1"
    assert before <= int(moment.removeprefix("MONOTONIC_USEC=")) <= after


def test_sd_notify_stopping_and_status(systemd):
    notifier = Notifier.take(notify_environ(systemd), US)
    notifier.status("4 workers")
    notifier.stopping()
    assert received(systemd) == [["STATUS=4 workers"], ["STOPPING=1"]]


@pytest.mark.parametrize("line_break", ["\n", "\r", "\r\n", "\0", "\x85", "\u2028", "\udc80"])
def test_sd_notify_a_status_stays_one_line(systemd, line_break):
    notifier = Notifier.take(notify_environ(systemd), US)
    notifier.status(f"fine{line_break}MAINPID=1")
    notifier.ready(f"fine{line_break}MAINPID=1")
    plain = "STATUS=fine" + " " * len(line_break) + "MAINPID=1"
    assert received(systemd) == [[plain], ["READY=1", plain]]


def test_sd_notify_a_message_is_no_longer_than_systemd_takes(systemd):
    Notifier.take(notify_environ(systemd), US).ready("\N{SNAKE}" * 5000)
    [message] = received(systemd)
    assert message[1].startswith("STATUS=\N{SNAKE}")
    assert len("\n".join(message).encode()) <= 4096


def test_sd_notify_the_socket_may_be_abstract():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("")  # the kernel chooses a free name
        sock.setblocking(False)
        name = sock.getsockname().removeprefix(b"\0").decode()
        Notifier.take({"NOTIFY_SOCKET": f"@{name}"}, US).stopping()
        assert received(sock) == [["STOPPING=1"]]


@pytest.mark.parametrize("pid", [str(US), str(US + 1), "x"])
def test_sd_notify_the_variables_are_taken_whomever_they_are_for(systemd, pid):
    environ = notify_environ(systemd, WATCHDOG_USEC="1000000", WATCHDOG_PID=pid)
    Notifier.take(environ, US)
    assert environ == {"PATH": "/bin"}


@pytest.mark.trio
@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": "", "WATCHDOG_USEC": "1000000"}])
async def test_sd_notify_without_a_socket_nothing_happens(environ, caplog):
    notifier = Notifier.take(environ, US)
    notifier.ready("")
    notifier.reloading()
    notifier.status("")
    notifier.stopping()
    with trio.fail_after(1):
        await notifier.run()
    assert caplog.records == []


@pytest.mark.parametrize("path", ["run/notify", "vsock:2:1234"])
def test_sd_notify_another_kind_of_socket_is_named_once(path, caplog):
    notifier = Notifier.take({"NOTIFY_SOCKET": path}, US)
    notifier.stopping()
    assert [record.getMessage() for record in caplog.records] == [
        f"NOTIFY_SOCKET={path!r} is neither an absolute path nor @NAME: systemd is not notified"
    ]


@pytest.mark.parametrize(("path", "reason"), [("gone", "No such file or directory"), ("x" * 200, "path too long")])
def test_a_failure_is_logged_once_and_raises_nothing(tmp_path, caplog, path, reason):
    notifier = Notifier.take({"NOTIFY_SOCKET": str(tmp_path / path)}, US)
    notifier.ready("")
    notifier.stopping()
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert reason in record.getMessage()


def test_a_systemd_that_does_not_read_holds_up_nobody(systemd, caplog):
    notifier = Notifier.take(notify_environ(systemd), US)
    room = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
    for _ in range(room + 2):
        notifier.stopping()
    [record] = caplog.records
    assert "Resource temporarily unavailable" in record.getMessage()


@pytest.mark.trio
@pytest.mark.parametrize("addressee", [{}, {"WATCHDOG_PID": str(US)}])
async def test_sd_watchdog_enabled_signs_of_life_come_twice_as_often(systemd, autojump_clock, addressee):
    notifier = Notifier.take(notify_environ(systemd, WATCHDOG_USEC="5000000", **addressee), US)
    with trio.move_on_after(10.1) as scope:
        await notifier.run()
    assert scope.cancelled_caught
    # At 0, 2.5, 5, 7.5 and 10 seconds.
    assert received(systemd) == [["WATCHDOG=1"]] * 5


@pytest.mark.trio
@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"WATCHDOG_PID": str(US)},
        {"WATCHDOG_USEC": "5000000", "WATCHDOG_PID": str(US + 1)},
        {"WATCHDOG_USEC": "5000000", "WATCHDOG_PID": "x"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "-5"},
        {"WATCHDOG_USEC": "soon"},
    ],
)
async def test_sd_watchdog_enabled_nobody_waits_for_signs_of_life(systemd, variables):
    notifier = Notifier.take(notify_environ(systemd, **variables), US)
    with trio.fail_after(1):
        await notifier.run()
    assert received(systemd) == []


@pytest.mark.trio
async def test_signs_of_life_go_on_after_a_failure(tmp_path, autojump_clock, caplog):
    path = str(tmp_path / "notify")
    notifier = Notifier.take({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "2000000"}, US)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notifier.run)
        await trio.sleep(1.5)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as late:
            late.bind(path)
            late.setblocking(False)
            await trio.sleep(1)
            assert received(late) == [["WATCHDOG=1"]]
        nursery.cancel_scope.cancel()
    assert len(caplog.records) == 1
