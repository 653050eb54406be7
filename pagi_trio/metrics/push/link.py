"""The way to a daemon that takes datagrams: where it is, and whether it is there."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from pagi_trio.bind import Bind

LOOKUP_S: Final = 5.0
"""How long is waited for a name's address before the one that it had is used again."""

FULL_S: Final = 0.1
"""How long a push waits in all for a daemon to take datagrams. A unix socket holds ten (net.unix.max_dgram_qlen),
so that a daemon has to run in between; one that has not by then is slow."""

ANSWER_S: Final = 0.3
"""How long is waited for the answer of a host where nobody was: once around the world and back."""

_NOT_SENT: Final = (errno.EPERM, errno.ENOBUFS, errno.ENOMEM)
"""What this machine says, a firewall of its own first of all, of a datagram that it does not let out."""

Address: TypeAlias = "str | tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]"


class Place(NamedTuple):
    """An address, and its family of sockets."""

    family: int
    address: Address


Lookup: TypeAlias = "Callable[[str, int, int], list[Place]]"
"""Finds the addresses of a host and a port; the third argument is flags of getaddrinfo. May raise OSError."""


def look_up(host: str, port: int, flags: int) -> list[Place]:
    """Ask the system."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=flags)
    return [Place(family, address) for family, _, _, _, address in found]


class Link:
    """A socket that is connected to a daemon, so that the kernel says when nobody is there.

    Args:
        daemon: Where the daemon is.
        look_up: Finds the addresses of a name; runs in a thread.
    """

    def __init__(self, daemon: Bind, look_up: Lookup = look_up) -> None:
        self._daemon = daemon
        self._look_up = look_up
        # One that hangs keeps its thread, and must not take those of the application.
        self._limiter = trio.CapacityLimiter(1)
        self._found: list[Place] = []
        self._place: Place | None = None
        self._socket: socket.socket | None = None
        self._patience_s = FULL_S

    def __str__(self) -> str:
        return self._daemon.path or f"{self._daemon.host}:{self._daemon.port}"

    def was_refused(self) -> bool:
        """Return whether it has turned out since that nobody took what was sent last."""
        return self._socket is not None and self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0

    async def places(self, wait_s: float) -> list[Place]:
        """Return where the daemon may be, the likeliest first.

        Args:
            wait_s: How long a name may be looked up, seconds; 0 is not at all. It takes `LOOKUP_S` at most.

        Raises:
            OSError: If that is not known, and never was.
        """
        self._patience_s = FULL_S
        if self._daemon.kind == "unix":
            return [Place(socket.AF_UNIX, self._daemon.path)]
        try:
            self._found = self._look_up(self._daemon.host, self._daemon.port, socket.AI_NUMERICHOST)
        except OSError:
            # A name, then.
            if wait_s:
                await self._find(min(wait_s, LOOKUP_S))
        if not self._found:
            raise TimeoutError(errno.ETIMEDOUT, "its address could not be found")
        return sorted(self._found, key=lambda place: place != self._place)

    async def _find(self, wait_s: float) -> None:
        with trio.move_on_after(wait_s):
            try:
                await trio.to_thread.run_sync(self._ask, abandon_on_cancel=True, limiter=self._limiter)
            except OSError:
                if not self._found:
                    raise

    def _ask(self) -> None:
        # Where nobody waits for it any more, the next push has it: a resolver that is dead makes every answer late.
        self._found = self._look_up(self._daemon.host, self._daemon.port, 0)

    def connect(self, place: Place) -> None:
        """Be connected to a place, if that is not so already.

        Raises:
            OSError: If nobody is there.
        """
        # Behind a path there may be another daemon by now, where the one that it led to has gone or is about to.
        if self._socket is not None and self._place == place and place.family != socket.AF_UNIX:
            return
        self.close()
        self._socket = socket.socket(place.family, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._place = place
        self._socket.connect(place.address)

    async def send(self, datagram: bytes) -> None:
        """Hand over one datagram; wait a moment for a daemon that has too many.

        Raises:
            BlockingIOError: If it still has, or this machine does not let it out; the datagrams before have been taken.
            OSError: If nobody is there; those before may be lost as well.

        Cancellation: the datagram was sent or it was not; where this raises Cancelled it was not.
        """
        assert self._socket is not None
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            try:
                self._socket.send(datagram)
            except BlockingIOError:
                if not await self._wait_for_room():
                    raise
            except OSError as error:
                if error.errno in _NOT_SENT:
                    raise BlockingIOError(error.errno, error.strerror) from None
                raise
            else:
                break
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def _wait_for_room(self) -> bool:
        """Wait for room within what is left of this push's patience; return whether there is some."""
        assert self._socket is not None
        since = trio.current_time()
        with trio.move_on_after(self._patience_s) as limit:
            await trio.lowlevel.wait_writable(self._socket)
        self._patience_s -= trio.current_time() - since
        return not limit.cancelled_caught

    async def hear(self) -> None:
        """Wait a moment for the answer that nobody is there, which over a network comes late."""
        assert self._socket is not None
        if self._socket.family != socket.AF_UNIX:
            with trio.move_on_after(ANSWER_S):
                await trio.lowlevel.wait_readable(self._socket)

    def check(self) -> None:
        """Ask whether somebody was there.

        Raises:
            OSError: If it is known already that nobody was.
        """
        assert self._socket is not None
        number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, os.strerror(number))

    def close(self) -> None:
        """Close the socket, if there is one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._place = None
