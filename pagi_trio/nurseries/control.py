"""What the parent and a worker say to each other: small messages, each a packet on a socket that only they share.

The parent sends what to serve, then perhaps ``stop`` or ``abort``; a worker sends ``ready``, or ``failing`` and
``failed``, and what else the parent must know. That the other side has ended is told by the kernel, as the end of the
socket.
"""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import trio

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Message: TypeAlias = "Mapping[str, object]"

_MESSAGE_BYTES: Final = 1 << 18
"""More than the kernel takes in one packet."""

_FILES: Final = 253
"""As many as the kernel takes in one packet (SCM_MAX_FD)."""


class Control:
    """One end of the socket between the parent and a worker.

    Args:
        sock: A socket of packets; its end is non-blocking.

    Ownership: closes the socket, by `close`.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.setblocking(False)

    def post(self, message: Message, files: Sequence[int] = ()) -> bool:
        """Send a message without waiting.

        Args:
            message: What JSON can hold.
            files: Open files that go with it; the other side gets copies.

        Returns:
            Whether it has been sent: not if the other side has ended, or stands still and its packets pile up.
        """
        try:
            socket.send_fds(self._sock, [json.dumps(message).encode()], files)
        except OSError:
            return False
        return True

    async def receive(self) -> Message | None:
        """Return the next message; None once the other side has ended.

        Cancellation: loses nothing.
        """
        while True:
            await trio.lowlevel.checkpoint()
            try:
                return self.receive_nowait()
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._sock)

    def receive_nowait(self) -> Message | None:
        """Return a message that is here; None once the other side has ended.

        Raises:
            BlockingIOError: If there is none yet.
        """
        try:
            packet = self._sock.recv(_MESSAGE_BYTES)
        except ConnectionError:
            return None
        return _read(packet)

    def abandon(self) -> None:
        """Let go of it in a process that was forked, and has no event loop of its own."""
        self._sock.close()

    def close(self) -> None:
        """Hang up."""
        trio.lowlevel.notify_closing(self._sock)
        self._sock.close()


def receive_first(sock: socket.socket) -> tuple[Message | None, list[int]]:
    """Wait, with all the process, for the first message and the files that go with it; None if the parent has ended."""
    sock.setblocking(True)
    packet, files, _flags, _address = socket.recv_fds(sock, _MESSAGE_BYTES, _FILES)
    for file in files:
        # Not by MSG_CMSG_CLOEXEC: recv_fds takes flags, but ignores them.
        os.set_inheritable(file, False)
    return _read(packet), files


def _read(packet: bytes) -> Message | None:
    """Return what a packet says; that nothing says anything is the end."""
    if not packet:
        return None
    try:
        message = json.loads(packet)
    except (ValueError, RecursionError):
        message = None
    # The socket is open in a process with code that is not ours, and closes files that are not its own perhaps.
    return cast("Message", message if isinstance(message, dict) and "type" in message else {"type": "garbage"})
