"""Cut what a client sends, since the network may cut it anywhere, and read programs out of arbitrary bytes."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TypeVar
from zlib import crc32

T = TypeVar("T")

_PIECES_MAX = 8
_STEPS_MAX = 2000


def cuttings(data: bytes) -> list[list[bytes]]:
    """Cut in three ways: not at all, after every byte, and at random places that depend on the bytes alone.

    Long data is cut into a few thousand pieces, not after every byte.
    """
    random = Random(crc32(data))
    places = sorted(random.randint(0, len(data)) for _ in range(random.randrange(_PIECES_MAX)))
    pieces = [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]
    step = 1 + len(data) // _STEPS_MAX
    return [[data], [data[i : i + step] for i in range(0, len(data), step)], pieces]


def read_alike(read: Callable[[list[bytes]], T], data: bytes) -> T:
    """Return what `read` makes of the bytes, which must be the same however they are cut."""
    whole, *others = [read(pieces) for pieces in cuttings(data)]
    for other in others:
        assert other == whole, f"cut it gives {other}, whole {whole}"
    return whole


class Program:
    """Arbitrary bytes as a sequence of choices, so that whatever makes bytes makes structures; zeros at the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def __bool__(self) -> bool:
        """Whether there are choices left."""
        return self._position < len(self._data)

    def take(self, count: int) -> bytes:
        """Return the next bytes, fewer at the end."""
        start = self._position
        self._position = min(start + count, len(self._data))
        return self._data[start : self._position]

    def number(self, count: int) -> int:
        """Return a number below a count of at most 256."""
        return int.from_bytes(self.take(1)) % count

    def choose(self, *options: T) -> T:
        """Return one of at most 256 options."""
        return options[self.number(len(options))]

    def rest(self) -> bytes:
        """Return all that is left."""
        return self.take(len(self._data))
