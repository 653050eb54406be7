"""One connection's bytes over TLS: the same transport, with a non-blocking `ssl.SSLSocket` in place of the socket.

`trio.SSLStream` would do it too, at the price of a lock, a task switch and a copy for each read and write.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import TYPE_CHECKING, Final

import trio

from pagi_trio.errors import ClientDisconnected
from pagi_trio.nurseries.transport import WRITE_BYTES, Transport

if TYPE_CHECKING:
    from pagi_trio.nurseries.readiness import EpollPoller

RECORD_BYTES: Final = 16384
"""Bytes given to TLS in one call: one record (RFC 8446 section 5.1). Of a longer write, OpenSSL would not say how many
of its records the kernel has taken, and the client could have read more than was counted."""


class TLSTransport(Transport):
    """A TLS connection over a non-blocking `ssl.SSLSocket`; `handshake` comes first.

    Attributes:
        failure: What OpenSSL says of a handshake that failed.
    """

    __slots__ = ("_tls", "failure")

    def __init__(self, sock: socket.socket, poller: EpollPoller | None, context: ssl.SSLContext) -> None:
        try:
            # wrap_socket would take the socket over and lose it, if the client is gone already.
            sock.getpeername()
        except OSError:
            sock.close()
            raise
        tls = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        super().__init__(tls, poller)
        self._tls = tls
        self.failure = ""
        self._recv = self._recv_tls
        self._send = self._send_tls
        # Records are shorter than READ_BYTES, so a short read says nothing; only WantRead tells that all is read.
        self._after_short_read = True

    def _recv_tls(self, size: int) -> bytes:
        try:
            return self._tls.recv(size)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def _send_tls(self, data: bytes | memoryview) -> int:
        view = memoryview(data)[:WRITE_BYTES]
        sent = 0
        try:
            while sent < len(view):
                sent += self._tls.send(view[sent : sent + RECORD_BYTES])
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            if not sent:
                raise BlockingIOError from None
        except ssl.SSLEOFError:
            # What Python makes of the EPIPE or ECONNRESET that OpenSSL got.
            raise BrokenPipeError from None
        return sent

    async def handshake(self) -> None:
        """Do the TLS handshake.

        Raises:
            ClientDisconnected: If it fails, for whatever reason.
        """
        await self._wait_begun()
        while not self.closed:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self.ready = self.emptied
                await self.wait_turn()
            except ssl.SSLWantWriteError:
                self._writing = True
                try:
                    await trio.lowlevel.wait_writable(self._tls)
                except trio.ClosedResourceError:
                    pass
                finally:
                    self._writing = False
            except (ssl.SSLEOFError, ConnectionError):
                self.lose("client_closed")
                break
            except (OSError, ValueError) as error:
                self.failure = (isinstance(error, ssl.SSLError) and error.reason) or str(error)
                self.lose("protocol_error")
                break
            else:
                return
        raise ClientDisconnected(self.lost)

    async def _wait_begun(self) -> None:
        """Wait for the first byte: OpenSSL takes 40 KiB to begin a handshake, too much for one who says nothing."""
        while not self.closed:
            try:
                # The method of the plain socket: that of TLS takes no flags.
                socket.socket.recv(self._tls, 1, socket.MSG_PEEK)
            except BlockingIOError:
                self.ready = self.emptied
                await self.wait_turn()
            except OSError:
                # The handshake will say.
                return
            else:
                return

    @property
    def tls(self) -> ssl.SSLSocket:
        """The socket, to ask about the handshake."""
        return self._tls

    def finish_writing(self, reason: str) -> None:
        """Send close_notify, then half-close."""
        with contextlib.suppress(OSError, ValueError):
            self._tls.unwrap()
        super().finish_writing(reason)

    def close(self, reason: str) -> None:
        """Send close_notify if everything before it has been sent, then close."""
        if not self.closed and self.is_drained and not self.lost:
            with contextlib.suppress(OSError, ValueError):
                self._tls.unwrap()
        super().close(reason)
