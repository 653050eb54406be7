"""A response of httpx whose body may be left in the middle.

httpx reads a body through generators, one in the other, and leaves those that a test breaks out of to the garbage
collector, of which Trio warns: each of them is closed here with the response.
"""

from __future__ import annotations

from types import AsyncGeneratorType
from typing import TYPE_CHECKING, TypeVar

import httpx

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

T = TypeVar("T")


class Response(httpx.Response):
    """As `httpx.Response`."""

    # An attribute there, which the client sets once more.
    @property
    def stream(self) -> httpx.SyncByteStream | httpx.AsyncByteStream:
        """The body as it comes."""
        return self._stream

    @stream.setter
    def stream(self, stream: httpx.SyncByteStream | httpx.AsyncByteStream) -> None:
        self._stream = _Kept(stream) if isinstance(stream, httpx.AsyncByteStream) else stream

    def aiter_raw(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        """As of `httpx.Response`."""
        return self._keep(super().aiter_raw(chunk_size))

    def aiter_bytes(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        """As of `httpx.Response`."""
        return self._keep(super().aiter_bytes(chunk_size))

    def aiter_text(self, chunk_size: int | None = None) -> AsyncIterator[str]:
        """As of `httpx.Response`."""
        return self._keep(super().aiter_text(chunk_size))

    def aiter_lines(self) -> AsyncIterator[str]:
        """As of `httpx.Response`."""
        return self._keep(super().aiter_lines())

    def _keep(self, parts: AsyncIterator[T]) -> AsyncIterator[T]:
        if isinstance(self._stream, _Kept):
            self._stream.keep(parts)
        return parts


class _Kept(httpx.AsyncByteStream):
    """A body that closes what reads it."""

    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream
        self._readers: list[AsyncGeneratorType[object, None]] = []

    def keep(self, parts: AsyncIterator[object]) -> None:
        if isinstance(parts, AsyncGeneratorType):
            self._readers.append(parts)

    def __aiter__(self) -> AsyncIterator[bytes]:
        parts = aiter(self._stream)
        self.keep(parts)
        return parts

    async def aclose(self) -> None:
        for reader in self._readers:
            # The one that has come to the end closes the response itself.
            if not reader.ag_running:
                await reader.aclose()
        self._readers.clear()
        # The response itself is one of those that refer to it: so neither it nor the server waits to be collected.
        stream, self._stream = self._stream, httpx.ByteStream(b"")
        await stream.aclose()
