"""HTTP/1.1 as a client of a test speaks it, on one connection."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import h11
import trio

from pagi_trio.testing.tls import encrypt, make_context

if TYPE_CHECKING:
    from pagi_trio.testing.wire import Wire

READ_BYTES: Final = 65536


class HTTP1:
    """One connection, and what is being asked on it.

    Args:
        wire: The connection; whoever has opened it closes it.
        over_tls: Whether it is encrypted.

    Attributes:
        wire: The same.
    """

    def __init__(self, wire: Wire, *, over_tls: bool) -> None:
        self.wire = wire
        self._tls = encrypt(wire, make_context()) if over_tls else None
        self._stream: trio.abc.Stream = self._tls or wire
        self._http = h11.Connection(h11.CLIENT)

    async def handshake(self) -> None:
        """Do the TLS handshake, if it is encrypted.

        Raises:
            trio.BrokenResourceError: If it fails.
        """
        if self._tls is not None:
            await self._tls.do_handshake()

    async def send(self, *parts: h11.Event) -> None:
        """Send parts of a request in one go.

        Raises:
            h11.LocalProtocolError: If they are none; nothing of them is sent.
            trio.BrokenResourceError: If the connection has ended.
        """
        data = b"".join([self._http.send(part) or b"" for part in parts])
        if data:
            await self._stream.send_all(data)

    async def next_event(self, limit_s: float = math.inf) -> h11.Event:
        """Return the next part of the response.

        Args:
            limit_s: How long to wait for each piece that comes.

        Raises:
            trio.TooSlowError: If nothing came for that long.
            h11.RemoteProtocolError: If it is none, or the connection has ended too early.
            trio.BrokenResourceError: If it has been reset.

        Cancellation: nothing is lost.
        """
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.Event):
                return event
            with trio.fail_after(limit_s):
                data = await self._stream.receive_some(READ_BYTES)
            self._http.receive_data(bytes(data))

    def start_again(self) -> bool:
        """Be ready for another request, and return whether that can be."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True
