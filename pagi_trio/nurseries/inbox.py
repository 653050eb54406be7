"""Messages that the reaper has read for a WebSocket application which does not receive."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pagi_trio.asgi import WebSocketReceive

BYTES: Final = 65536
"""High-water mark; above it, the socket is left unread."""

MESSAGES: Final = 256
"""The same in messages, since an empty one takes memory as well."""


class Inbox:
    """A queue up to a mark.

    Attributes:
        is_full: Whether the mark is reached.
    """

    __slots__ = ("_bytes", "_messages", "is_full")

    def __init__(self) -> None:
        self._messages: deque[WebSocketReceive] = deque()
        self._bytes = 0
        self.is_full = False

    def __len__(self) -> int:
        """How many messages wait."""
        return len(self._messages)

    def put(self, message: WebSocketReceive) -> None:
        """Add the message that has come last."""
        self._messages.append(message)
        self._bytes += len(message.get("text") or message.get("bytes") or b"")
        self.is_full = self._bytes >= BYTES or len(self._messages) >= MESSAGES

    def take(self) -> WebSocketReceive:
        """Return the message that has waited longest."""
        message = self._messages.popleft()
        # Once it has been full, reading waits until all of it is taken.
        if not self._messages:
            self._bytes = 0
            self.is_full = False
        return message
