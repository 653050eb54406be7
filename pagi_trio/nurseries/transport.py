"""One connection's bytes: non-blocking reads, and one ordered queue for what the kernel would not take at once.

Reading and waiting are apart (`read_nowait`, `wait_turn`), so that what has arrived is handed out before any
cancellation point. Writing first tries the kernel: most writes end there, and no buffer exists. What is left is
queued as views of the sender's own bytes, and later writers queue behind it; a cancelled writer leaves the rest of
its bytes in the queue, so that the next ones never land inside them.

Whoever counts what was sent passes an observer with queued bytes: it is told of them only once the kernel has taken
them.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import socket
import struct
import sys
import termios
from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from pagi_trio.errors import ClientDisconnected
from pagi_trio.nurseries.read_buffer import OF_THREAD, READ_BYTES
from pagi_trio.nurseries.readiness import BUDGET, Readable
from pagi_trio.nurseries.stall import Stall

if TYPE_CHECKING:
    from collections.abc import Callable

    from pagi_trio.nurseries.readiness import EpollPoller

    Observer: TypeAlias = Callable[[memoryview, bool], None]
    """Told which bytes the kernel took, and whether they were the last of what was queued together."""

WRITE_BYTES: Final = 131072
"""Bytes given to the kernel or to TLS at once, so that a long queue does not keep the loop.

More than 64 KiB, so that the usual chunk of a download still leaves in one piece with its framing.
"""

FLUSH_WRITES: Final = 16
"""Writes of one flush, so that a fast reader of a long queue does not keep the loop: 1 MiB of TLS takes about 1 ms."""

# Of SO_LINGER: to close is to reset at once, whatever has not been delivered (socket(7)).
_RESET: Final = struct.pack("ii", 1, 0)


class Transport(Readable):
    """A plain TCP or unix connection.

    Attributes:
        closed: Whether the socket is closed; nothing may wait on it then.
        lost: Why nothing can be sent any more, as a token of the disconnect reasons; empty while it can.
        eof: Whether the end of what the peer sends has been read.
        is_abandoned: Whether a writer was cancelled in `drain`, and what was queued then has not all left. Whoever has
            bytes that need not leave drains first: else each writer that is cancelled would leave some more.
    """

    __slots__ = (
        "_after_short_read",
        "_is_bulk",
        "_poller",
        "_queue",
        "_readers",
        "_recv_into",
        "_releases",
        "_send",
        "_stall",
        "_view",
        "_writers",
        "_writing",
        "closed",
        "eof",
        "is_abandoned",
        "lost",
    )

    def __init__(self, sock: socket.socket, poller: EpollPoller | None) -> None:
        super().__init__(sock, poller)
        self._poller = poller
        self._recv_into: Callable[[memoryview], int] = sock.recv_into
        self._view = OF_THREAD.view
        self._is_bulk = False
        self._send: Callable[[bytes | memoryview], int] = sock.send
        self._after_short_read = self.emptied
        self._queue: deque[tuple[memoryview, Observer | None]] | None = None
        self._readers: trio.lowlevel.ParkingLot | None = None
        self._writers: trio.lowlevel.ParkingLot | None = None
        self._writing = False
        self._releases = 0
        self.closed = False
        self.eof = False
        self.is_abandoned = False
        self.lost = ""
        # Made with the queue, and gone with it.
        self._stall: Stall | None = None
        if poller is not None:
            poller.register(self)

    def read_nowait(self) -> bytes | None:
        """Return what has arrived: bytes, ``b""`` at the end, or None when there is nothing yet."""
        if self.closed:
            return b""
        try:
            view = self._view
            data = self.sock.recv(READ_BYTES) if self._is_bulk else view[: self._recv_into(view)].tobytes()
        except BlockingIOError:
            self.ready = self.emptied
            return None
        except OSError as error:
            self.eof = True
            self.lose("client_closed" if isinstance(error, ConnectionError) else "read_error")
            return b""
        if len(data) < READ_BYTES:
            self._is_bulk = False
            if not data:
                self.eof = True
                if self._readers:
                    self._readers.unpark_all()
            elif not self.hangup:
                self.ready = self._after_short_read
        else:
            # Much of the same is to come: it need not be copied.
            self._is_bulk = True
        return data

    async def wait_turn(self) -> None:
        """Wait for the socket, or behind another task that waits for it already; the caller looks again after.

        Cancellation: nothing is lost, and another waiter takes over.
        """
        if self.closed or (self.ready and not self.emptied):
            # Parking now would wait for an edge that has been already.
            await trio.lowlevel.checkpoint()
        elif self.task is None:
            try:
                if self.emptied:
                    await self.wait_portably()
                else:
                    await self.wait()
            except trio.ClosedResourceError:
                pass
            finally:
                # All, since each of them may find a message, and one must be left to wait here.
                if self._readers:
                    self._readers.unpark_all()
        else:
            if self._readers is None:
                self._readers = trio.lowlevel.ParkingLot()
            await self._readers.park()

    async def wait_woken(self) -> None:
        """Wait for `wake_readers` alone, whatever arrives: the way to leave the socket unread."""
        if self._readers is None:
            self._readers = trio.lowlevel.ParkingLot()
        await self._readers.park()

    def wake_readers(self) -> None:
        """Let every task that waits for the socket look again."""
        self.wake()
        if self._readers:
            self._readers.unpark_all()

    def write_nowait(self, data: bytes) -> int:
        """Give bytes to the kernel.

        Returns:
            How many it took: none while others are queued. The caller must `enqueue` the rest.

        Raises:
            ClientDisconnected: If the client has left.
        """
        if self.lost:
            raise ClientDisconnected(self.lost)
        if self._queue is not None:
            return 0
        try:
            return self._send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._lose_writing(error)
            raise ClientDisconnected(self.lost) from None

    def enqueue(self, data: memoryview, observer: Observer | None = None) -> None:
        """Queue bytes behind those that wait already; they leave by `drain`, or by anybody's `flush_nowait`.

        All that is left of one write must come in one piece: TLS wants to see the same bytes again.
        """
        if self._queue is None:
            self._queue = deque()
            self._stall = Stall()
        self._queue.append((data, observer))

    @property
    def is_drained(self) -> bool:
        """Whether the kernel has taken everything that was written."""
        return self._queue is None

    @property
    def stalled_s(self) -> float:
        """How long the kernel has taken no bytes while some are queued; below zero while none are."""
        return -math.inf if self._stall is None else self._stall.seconds

    def is_stuck(self, longest_s: float) -> bool:
        """Tell whether the client has taken nothing of what is queued for too long, in seconds, as `Stall` has it."""
        return self._stall is not None and self._stall.is_too_long(longest_s, self._count_undelivered)

    def flush_nowait(self) -> None:
        """Give the kernel as much of the queue as it takes."""
        queue, stall = self._queue, self._stall
        if not queue or stall is None or self.lost:
            return
        for _ in range(FLUSH_WRITES):
            view, observer = queue[0]
            part = view[:WRITE_BYTES] if len(view) > WRITE_BYTES else view
            try:
                taken = self._send(part)
            except BlockingIOError:
                return
            except OSError as error:
                self._lose_writing(error)
                return
            stall.restart()
            finished = taken == len(view)
            if observer is not None:
                observer(view[:taken], finished)
            if not finished:
                queue[0] = view[taken:], observer
                if taken < len(part):
                    return
            else:
                queue.popleft()
                if not queue:
                    self._queue = self._stall = None
                    self.is_abandoned = False
                    return

    def flush_for_nobody(self) -> None:
        """Flush what a cancelled sender has left; where one waits, it flushes, and must be the one to see the end."""
        if not self._writing:
            self.flush_nowait()

    @property
    def is_undelivered(self) -> bool:
        """Whether the peer has not acknowledged all that the kernel took, as far as the platform tells."""
        return self._count_undelivered() > 0

    def _count_undelivered(self) -> int:
        if self.closed:
            return 0
        try:
            waiting = fcntl.ioctl(self.sock.fileno(), termios.TIOCOUTQ, bytes(4))
        except OSError:
            return 0
        return int.from_bytes(waiting, sys.byteorder)

    async def drain(self) -> None:
        """Wait until the kernel has taken everything that is queued.

        Raises:
            ClientDisconnected: If the client leaves first, or `release_writers` ends the wait.

        Cancellation: the queue stays as it is, and leaves with the next flush; until then it `is_abandoned`.
        """
        releases = self._releases
        try:
            while self._queue is not None:
                if self.lost or releases != self._releases:
                    raise ClientDisconnected(self.lost or "client_closed")
                if self._writing:
                    if self._writers is None:
                        self._writers = trio.lowlevel.ParkingLot()
                    await self._writers.park()
                else:
                    await self._drain_some()
        except trio.Cancelled:
            self.is_abandoned = self._queue is not None
            raise
        self.budget = BUDGET

    async def _drain_some(self) -> None:
        """Wait until the kernel takes more of the queue, and give it that; meanwhile others wait for this."""
        self._writing = True
        try:
            await self._until_writable()
            self.flush_nowait()
        except trio.ClosedResourceError:
            pass
        finally:
            self._writing = False
            if self._writers:
                self._writers.unpark_all()

    async def _until_writable(self) -> None:
        """Wait until the kernel takes more; `_wake_writer` ends it with a `trio.ClosedResourceError`."""
        await trio.lowlevel.wait_writable(self.sock)

    def _wake_writer(self) -> None:
        trio.lowlevel.notify_closing(self.sock)

    def release_writers(self) -> None:
        """End the wait of those in `drain` now, with an error; what is queued still leaves."""
        self._releases += 1
        if self._writing:
            self._wake_writer()
        if self._writers:
            self._writers.unpark_all()

    def post(self, data: bytes, observer: Observer | None = None) -> bool:
        """Write bytes that nobody waits for; if the client has left, they are dropped.

        Returns:
            Whether none of them had to be queued; else the observer is told of those that were.
        """
        if not self.lost:
            with contextlib.suppress(ClientDisconnected):
                taken = self.write_nowait(data)
                if taken != len(data):
                    self.enqueue(memoryview(data)[taken:], observer)
                    return False
        return True

    def lose(self, reason: str) -> None:
        """Note that nothing can be sent any more, and why; the first reason stands."""
        if not self.lost:
            self.lost = reason
            if self._writing and not self.closed:
                self._wake_writer()

    def _lose_writing(self, error: OSError) -> None:
        self.lose("client_closed" if isinstance(error, ConnectionError) else "write_error")

    def finish_writing(self, reason: str) -> None:
        """Tell the peer that nothing more comes, and why; go on reading (a half-close)."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
        self.lose(reason)

    def reset(self, reason: str) -> None:
        """Close so that the peer sees an error, where an ordinary end would tell it that it has everything.

        Between unix sockets there is no reset, and the peer sees an ordinary end.
        """
        self._make_close_reset()
        # Before the close, which TLS would otherwise announce as the end of what is sent.
        self.lose(reason)
        self.close(reason)

    def _make_close_reset(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def close(self, reason: str) -> None:
        """Close the socket, wake whoever waits for it, and drop what is queued."""
        if self.closed:
            return
        if self._queue is not None or (reason == "keepalive_timeout" and self.is_undelivered):
            # The peer shall not take what it got for the whole, and the kernel would keep megabytes for one that does
            # not read, which cannot see the end behind them.
            self._make_close_reset()
        self.closed = self.eof = True
        self.lose(reason)
        if self._queue is not None:
            self._queue.clear()
        if self._poller is not None:
            self._poller.unregister(self)
        if self._writing or self.emptied:
            # Only then may a task wait in Trio for this very socket; readers wait for the poller.
            self._wake_writer()
        self.sock.close()
        self.wake_readers()
        if self._writers:
            self._writers.unpark_all()
        self._let_go()

    def _let_go(self) -> None:
        """Drop what refers back to this, so that it is freed when its connection is and not with the garbage.

        That is collected when there is much of it by number, and 40 KiB of TLS each would be a great deal of memory.
        """
        self._trap = None
