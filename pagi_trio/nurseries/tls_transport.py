"""One connection's bytes over TLS: the same transport, with a TLS engine between the socket and those who use it.

The engine is `ssl.SSLObject`, which is given what has been received, and not `ssl.SSLSocket`, which reads by itself:
what carries no data, as the key updates of TLS 1.3, it reads on and on in one call for as long as more arrives, and 2
MiB of them a second would keep the loop for ever. `trio.SSLStream` has the same engine, at the price of a lock, a task
switch and a copy for each read and write.
"""

from __future__ import annotations

import contextlib
import ssl
from typing import TYPE_CHECKING, Final

import trio

from pagi_trio.errors import ClientDisconnected
from pagi_trio.nurseries.transport import WRITE_BYTES, Transport

if TYPE_CHECKING:
    import socket

    from pagi_trio.nurseries.readiness import EpollPoller

RECORD_BYTES: Final = 16384
"""Bytes given to TLS in one call: one record (RFC 8446 section 5.1), so that no more is counted as sent than is."""

# What is received and handed to TLS at once: the longest record with what goes around it (RFC 8446 section 5.2).
_RECEIVE_BYTES: Final = RECORD_BYTES + 256 + 5

IDLE_BYTES: Final = 2 * _RECEIVE_BYTES
"""How much may be received that carries no data, once a handshake is done. Whatever a client has to say of the
connection itself is much shorter; as much as this, which is 1,200 key updates, takes 15 ms."""

HELLO_BYTES: Final = 16384
"""How much a client may say before TLS first answers: those of today say 2 KiB, with keys that withstand quantum
computers. Of a hello of 64 KiB, OpenSSL 3.0 looks each of 6,000 keys up in a list of 16,000 groups, for 25 ms; of this
much, for two."""

UNREAD_BYTES: Final = 4 * RECORD_BYTES
"""How much of TLS's own answers may wait for a client that does not read them, behind a record that waits as well."""


class TLSTransport(Transport):
    """A TLS connection over a non-blocking socket; `handshake` comes first.

    Attributes:
        failure: What OpenSSL says of a handshake that failed.
        tls: The engine, to ask about the handshake; made when that begins.
    """

    __slots__ = (
        *("_ciphertext", "_context", "_has_answered", "_has_begun", "_idle_bytes", "_incoming", "_outgoing"),
        *("_sealed_bytes", "failure", "tls"),
    )
    tls: ssl.SSLObject

    def __init__(self, sock: socket.socket, poller: EpollPoller | None, context: ssl.SSLContext) -> None:
        super().__init__(sock, poller)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._context = context
        self._has_begun = self._has_answered = False
        self.failure = ""
        # What TLS has made and the kernel not taken, and how many bytes of the sender's the last record in it holds.
        self._ciphertext = b""
        self._sealed_bytes = 0
        # Received since there was data last.
        self._idle_bytes = 0
        self._recv_into = self._recv_tls
        self._send = self._send_tls
        # Records are shorter than READ_BYTES, so a short read says nothing; only the socket tells that all is read.
        self._after_short_read = True

    def _recv_tls(self, buffer: memoryview) -> int:
        while True:
            # TLS takes one record after another out of what it was given, so nothing there is nothing to read.
            if not self._incoming.pending:
                self._feed()
            size: int | None = None
            try:
                size = self.tls.read(len(buffer), buffer)  # type: ignore[assignment]  # typeshed has bytes alone
            except ssl.SSLWantReadError:
                pass
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                size = 0
            except ssl.SSLError:
                # The client is told why (RFC 8446 sections 5.2 and 6.2), if the kernel takes it.
                with contextlib.suppress(OSError):
                    self._send_ciphertext()
                raise
            if self._outgoing.pending:
                self._answer()
            if size is not None:
                # What brought nothing took its time as well: 10 microseconds for a key update of 27 bytes.
                if self._idle_bytes > size:
                    self.budget -= (self._idle_bytes - size) >> 7
                self._idle_bytes = 0
                return size
            if self._idle_bytes > IDLE_BYTES:
                self._give_up()

    def _feed(self) -> None:
        """Hand what has arrived to TLS.

        Raises:
            BlockingIOError: If nothing has.
        """
        size = self.sock.recv_into(self._view, _RECEIVE_BYTES)
        if size:
            self._idle_bytes += size
            self._incoming.write(self._view[:size])
        else:
            self._incoming.write_eof()

    def _answer(self) -> None:
        """Send what TLS itself says to what it has read."""
        with contextlib.suppress(BlockingIOError):
            self._send_ciphertext()
        if len(self._ciphertext) + self._outgoing.pending > UNREAD_BYTES:
            self._give_up()

    def _give_up(self) -> None:
        self.lose("protocol_error")
        raise OSError("the client speaks TLS, and says nothing")

    def _send_ciphertext(self) -> None:
        """Give the kernel what TLS has made.

        Raises:
            BlockingIOError: If it does not take all.
        """
        while self._ciphertext or self._outgoing.pending:
            if not self._ciphertext:
                self._ciphertext = self._outgoing.read()
            taken = self.sock.send(self._ciphertext)
            self._ciphertext = b"" if taken == len(self._ciphertext) else self._ciphertext[taken:]

    def _send_tls(self, data: bytes | memoryview) -> int:
        view = memoryview(data)[:WRITE_BYTES]
        sent = 0
        try:
            if self._ciphertext or self._outgoing.pending:
                self._send_ciphertext()
            # A record that was made before is the beginning of the same bytes, which are given again.
            sent = self._sealed_bytes
            self._sealed_bytes = 0
            while sent < len(view):
                self._sealed_bytes = self.tls.write(view[sent : sent + RECORD_BYTES])
                self._send_ciphertext()
                sent += self._sealed_bytes
                self._sealed_bytes = 0
        except BlockingIOError:
            if not sent:
                raise
        return sent

    async def wait_turn(self) -> None:
        """Wait as any transport, unless TLS has something already: the socket would not tell."""
        if self._incoming.pending and not self.closed:
            await trio.lowlevel.checkpoint()
        else:
            await super().wait_turn()

    async def handshake(self, turns: trio.Semaphore) -> None:
        """Do the TLS handshake.

        Args:
            turns: Of how many handshakes each turn of the event loop does a step.

        Raises:
            ClientDisconnected: If it fails, for whatever reason.
        """
        try:
            await self._wait_fed()
            while not self.closed:
                if await self._shake(turns):
                    self._idle_bytes = 0
                    return
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError):
            # An end in the middle of a record is the second to Python 3.11.2, and the first to later ones.
            self.lose("client_closed")
        except (OSError, ValueError) as error:
            self.failure = (isinstance(error, ssl.SSLError) and error.reason) or str(error)
            self.lose("protocol_error")
            # The client is told why, if the kernel takes it.
            with contextlib.suppress(OSError):
                self._send_ciphertext()
        raise ClientDisconnected(self.lost)

    async def _shake(self, turns: trio.Semaphore) -> bool:
        """Take the handshake as far as it goes with what has arrived; return whether it is done."""
        try:
            # To wait for what is free would be a turn of the loop all the same.
            turns.acquire_nowait()
        except trio.WouldBlock:
            await turns.acquire()
        try:
            if self.closed:
                return False
            done = self._step()
            with contextlib.suppress(BlockingIOError):
                self._send_ciphertext()
            # Those who wait for their turn come after all others.
            await trio.lowlevel.checkpoint()
        finally:
            turns.release()
        while not self.closed:
            try:
                self._send_ciphertext()
                break
            except BlockingIOError:
                await self._wait_writable()
        if not done:
            await self._wait_fed()
        return done and not self.closed

    def _step(self) -> bool:
        """Let TLS read what has arrived of the handshake; return whether it is done.

        Raises:
            ssl.SSLError: If it fails.
            ValueError: If the client says more than any would.
        """
        if self._idle_bytes > HELLO_BYTES and not self._has_answered:
            raise ValueError("the ClientHello is too long")
        if not self._has_begun:
            self._has_begun = True
            self.tls = self._context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            self._has_answered = self._has_answered or self._outgoing.pending > 0
        return True

    async def _wait_writable(self) -> None:
        self._writing = True
        try:
            await trio.lowlevel.wait_writable(self.sock)
        except trio.ClosedResourceError:
            pass
        finally:
            self._writing = False

    async def _wait_fed(self) -> None:
        """Wait until TLS has been given what has arrived; the first time, before there is an engine.

        OpenSSL takes 40 KiB to begin a handshake, too much for one who says nothing.
        """
        while not self.closed:
            try:
                self._feed()
            except BlockingIOError:
                self.ready = self.emptied
                await self.wait_turn()
            else:
                await trio.lowlevel.checkpoint()
                return

    def finish_writing(self, reason: str) -> None:
        """Send close_notify, then half-close."""
        self._say_goodbye()
        # What still comes is dropped, so it need not be decrypted. So is what is here: while TLS has any of it, nobody
        # waits for the socket.
        self._recv_into = self.sock.recv_into
        self._incoming.read()
        super().finish_writing(reason)

    def close(self, reason: str) -> None:
        """Send close_notify if everything before it has been sent, then close."""
        if not self.closed and self.is_drained and not self.lost:
            self._say_goodbye()
        super().close(reason)
        # Its own methods would keep it, and the 40 KiB of a handshake that has begun, until the next collection of all
        # garbage: thousands of connections later.
        self._recv_into, self._send = self.sock.recv_into, self.sock.send

    def _let_go(self) -> None:
        super()._let_go()
        self._recv_into = self.sock.recv_into
        self._send = self.sock.send

    def _say_goodbye(self) -> None:
        if not self._has_begun:
            return
        with contextlib.suppress(OSError, ValueError):
            self.tls.unwrap()
        with contextlib.suppress(OSError):
            self._send_ciphertext()
