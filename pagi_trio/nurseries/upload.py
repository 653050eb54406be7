"""A request body on its way in: taken out of its framing, and held to its limits.

Source: RFC 9112 sections 6 and 7; RFC 9110 sections 10.1.1 and 15.5.9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pagi_trio.errors import RequestError
from pagi_trio.wire.body import ChunkedBody, LengthBody
from pagi_trio.wire.head import CHUNKED, EXPECT_CONTINUE

if TYPE_CHECKING:
    from pagi_trio.nurseries.connection import Connection
    from pagi_trio.wire.head import Head

PAUSE_S: Final = 60.0
"""The longest pause that a client can earn by having been fast; nginx allows as much between two reads."""


class Upload:
    """The body of one request.

    Args:
        connection: Where it comes from.
        head: The head in front of it.

    Attributes:
        expects_continue: Whether the client waits for a 100 before it sends the body.
        taken: Bytes of body so far.

    Raises:
        RequestError: 413 if more is announced than is allowed.
    """

    __slots__ = ("_connection", "_credit_s", "_framing", "_paid", "_ticked", "expects_continue", "taken")

    def __init__(self, connection: Connection, head: Head) -> None:
        config = connection.service.config
        limits = config.limits
        if limits.body_bytes is not None and head.content_length > limits.body_bytes:
            raise _too_large(limits.body_bytes)
        self._connection = connection
        self._framing = (
            ChunkedBody(limits.chunk_extension_bytes, limits.trailer_bytes)
            if head.flags & CHUNKED
            else LengthBody(head.content_length)
        )
        self.expects_continue = head.flags & EXPECT_CONTINUE != 0 and head.line.version == "1.1"
        self.taken = 0
        # Seconds that the client may still be slower than allowed, and what the bytes taken have brought of them.
        self._credit_s = config.timeouts.body_grace_s
        self._paid = 0
        self._ticked = connection.service.now

    @property
    def done(self) -> bool:
        """Whether the last byte has been taken."""
        return self._framing.done

    def take(self) -> bytes | None:
        """Return more of the body, None when there is nothing yet; may return no bytes at its end.

        Raises:
            RequestError: If its framing is broken or it is longer than allowed.
        """
        connection = self._connection
        transport = connection.transport
        data: bytes | None = connection.buffer
        while True:
            if not data:
                data = transport.read_nowait() if transport.ready else None
                if not data:
                    return None
            self.expects_continue = False
            payload, used = self._framing.feed(data)
            connection.buffer = data[used:]
            # Framing costs time, and is worth none: a body of tiny chunks must not keep the loop.
            transport.budget -= (used - len(payload)) >> 3
            if payload or self._framing.done:
                break
            # Not all of it may have been used, where it is very many lines.
            data = connection.buffer
        self.taken += len(payload)
        limit = connection.service.config.limits.body_bytes
        if limit is not None and self.taken > limit:
            raise _too_large(limit)
        return payload

    def tick(self, now: float, *, awaited: bool) -> None:
        """Hold the client to its least speed, while somebody waits for what it sends.

        A second of waiting costs a second of credit; bytes bring as much as they may take at the least speed.

        Args:
            now: The reaper's clock, seconds.
            awaited: Whether the body is waited for now.

        Raises:
            RequestError: 408 if the credit is used up.
        """
        elapsed = now - self._ticked
        self._ticked = now
        rate = self._connection.service.config.limits.body_bytes_per_s
        if not awaited or not rate:
            return
        earned = (self.taken - self._paid) / rate
        self._paid = self.taken
        # What there was to begin with may be more than can be earned.
        self._credit_s = min(self._credit_s + earned, max(self._credit_s, PAUSE_S)) - elapsed
        if self._credit_s < 0:
            raise RequestError(408, f"the body comes slower than {rate} bytes a second")


def _too_large(most: int) -> RequestError:
    return RequestError(413, f"the body is longer than {most} bytes")
