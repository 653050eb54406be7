"""What systemd and a service tell each other: sockets on the way in, readiness and signs of life on the way out.

The variables are taken out of the environment whether or not they are meant for this process, so that no child
takes them for its own. Only the command line looks at the environment: a server embedded in a program leaves this
to the program.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import trio

from pagi_trio.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import MutableMapping

# SD_LISTEN_FDS_START of sd_listen_fds(3).
_FIRST_FD: Final = 3

# The name that a socket unit gives by FileDescriptorName= to the socket of the metrics page.
_METRICS: Final = "metrics"

# As long as an unsigned number of 64 bits gets; Python would take signs, blanks and foreign digits too.
_NUMBER: Final = re.compile(r"[0-9]{1,20}")

# systemd drops a message of more than 4,096 bytes (PIPE_BUF); a character takes up to four.
_STATUS_MAX_CHARS: Final = 1000

_log = logging.getLogger("pagi_trio")


@dataclass(frozen=True, slots=True)
class Inherited:
    """Listening sockets that this process was started with, as addresses to bind.

    Ownership: the files are open, and belong to whoever listens on the addresses.

    Attributes:
        binds: For the application.
        metrics_bind: For the metrics page; None if there is none for it.
    """

    binds: tuple[str, ...] = ()
    metrics_bind: str | None = None


def take_sockets(environ: MutableMapping[str, str], pid: int) -> Inherited:
    """Find the sockets that systemd has opened for this process, and keep its children from inheriting them.

    Args:
        environ: The environment; loses the variables.
        pid: This process.

    Raises:
        ConfigError: The variables are meant for this process and make no sense.

    Source: sd_listen_fds(3).
    """
    addressee = environ.pop("LISTEN_PID", None)
    environ.pop("LISTEN_PIDFDID", None)
    count = environ.pop("LISTEN_FDS", None)
    names = environ.pop("LISTEN_FDNAMES", None)
    if count is None or _number(addressee) != pid:
        return Inherited()
    fds = range(_FIRST_FD, _FIRST_FD + (_number(count) or 0))
    if not fds:
        raise ConfigError(f"LISTEN_FDS={count!r} is not a number of sockets; start the server by its socket unit")
    for fd in fds:
        _keep_from_children(fd, count)
    return _sort_out(fds, names)


def _keep_from_children(fd: int, count: str) -> None:
    try:
        os.set_inheritable(fd, False)
    except OSError as error:
        raise ConfigError(
            f"LISTEN_FDS={count} counts file {fd}, which cannot be used: {error.strerror}; "
            "start the server by its socket unit"
        ) from None


def _sort_out(fds: range, names: str | None) -> Inherited:
    """Tell the socket of the metrics page from the others, by its name."""
    by_fd = names.split(":") if names is not None else [""] * len(fds)
    if len(by_fd) != len(fds):
        raise ConfigError(f"LISTEN_FDNAMES={names!r} does not name {len(fds)} sockets; remove it or complete it")
    binds = [f"fd://{fd}" for fd, name in zip(fds, by_fd, strict=True) if name != _METRICS]
    metrics = [f"fd://{fd}" for fd, name in zip(fds, by_fd, strict=True) if name == _METRICS]
    if len(metrics) > 1:
        raise ConfigError(
            f"systemd passes {len(metrics)} sockets named {_METRICS!r}, but there is one metrics page; keep one of them"
        )
    return Inherited(tuple(binds), metrics[0] if metrics else None)


class Notifier:
    """Tells systemd how the service is; without a socket to tell it by, does nothing.

    No method waits or raises: a message that cannot be sent is lost, which is logged once.

    Args:
        address: Of systemd's socket; None if nobody listens.
        keep_alive_s: Between two signs of life; None if nobody waits for them.

    Source: sd_notify(3).
    """

    __slots__ = ("_address", "_failed", "_keep_alive_s")

    def __init__(self, address: str | None = None, keep_alive_s: float | None = None) -> None:
        self._address = address
        self._keep_alive_s = keep_alive_s
        self._failed = False

    @classmethod
    def take(cls, environ: MutableMapping[str, str], pid: int) -> Self:
        """Find out from the environment where systemd listens, and how often it wants a sign of life.

        Args:
            environ: The environment; loses the variables.
            pid: This process.

        Source: sd_notify(3), sd_watchdog_enabled(3).
        """
        path = environ.pop("NOTIFY_SOCKET", None)
        watchdog_us = _number(environ.pop("WATCHDOG_USEC", None))
        watched = environ.pop("WATCHDOG_PID", None)
        if not path:
            return cls()
        if path[0] not in "/@":
            _log.warning("NOTIFY_SOCKET=%r is neither an absolute path nor @NAME: systemd is not notified", path)
            return cls()
        is_watched = watchdog_us and (watched is None or _number(watched) == pid)
        # Twice as often as it must be, as sd_watchdog_enabled(3) advises.
        keep_alive_s = watchdog_us / 2e6 if watchdog_us and is_watched else None
        return cls("\0" + path[1:] if path[0] == "@" else path, keep_alive_s)

    def ready(self, status: str) -> None:
        """Say that the service serves, for the first time or again after `reloading`.

        Args:
            status: One line for ``systemctl status``.
        """
        self._send("READY=1", _status(status))

    def reloading(self) -> None:
        """Say that the service changes its workers or settings; `ready` ends it."""
        # With Type=notify-reload, the time tells systemd that this reload is not an earlier one.
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Say that the service is shutting down."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Say how the service is, in one line for ``systemctl status``."""
        self._send(_status(text))

    async def run(self) -> None:
        """Give signs of life for ever; return at once if nobody waits for them."""
        if self._keep_alive_s is None:
            await trio.lowlevel.checkpoint()
            return
        while True:
            self._send("WATCHDOG=1")
            await trio.sleep(self._keep_alive_s)

    def _send(self, *assignments: str) -> None:
        if self._address is None:
            return
        try:
            # A socket for each message costs 10 us and nothing in between.
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(assignments).encode(), self._address)
        except OSError as error:
            if not self._failed:
                self._failed = True
                _log.warning("cannot notify systemd, which may think the service hangs: %s", error.strerror or error)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and _NUMBER.fullmatch(text) else None


def _status(text: str) -> str:
    """Write an assignment that stays one line: a line break in the text would start another."""
    line = "".join(one if one.isprintable() else " " for one in text)
    return f"STATUS={line[:_STATUS_MAX_CHARS]}"
