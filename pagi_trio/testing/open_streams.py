"""What a test has opened and not closed yet, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class OpenStream:
    """One entry of `OpenStreams`."""

    def __init__(self, streams: OpenStreams, name: str) -> None:
        self.name = name
        self._streams = streams

    def close(self) -> None:
        """Take it off the list; does nothing the second time."""
        self._streams.discard(self)


class OpenStreams:
    """The responses, WebSockets and event streams of one server's clients that are open, oldest first.

    Iterating gives their names, such as ``GET /feed``, ``websocket /chat`` or ``sse /events``.
    """

    def __init__(self) -> None:
        # A dictionary, since it keeps the order.
        self._open: dict[OpenStream, None] = {}

    def __iter__(self) -> Iterator[str]:
        return iter([stream.name for stream in self._open])

    def __len__(self) -> int:
        return len(self._open)

    def add(self, name: str) -> OpenStream:
        """Put one on the list, until it is closed."""
        stream = OpenStream(self, name)
        self._open[stream] = None
        return stream

    def discard(self, stream: OpenStream) -> None:
        """Take one off the list, if it is there."""
        self._open.pop(stream, None)
