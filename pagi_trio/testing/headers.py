"""Headers as a test gives them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

GivenHeaders: TypeAlias = Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]
"""A mapping, or pairs where a name comes more than once."""


def encode(headers: GivenHeaders) -> list[tuple[bytes, bytes]]:
    """Return headers as they are sent; text is UTF-8."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return [(_to_bytes(name), _to_bytes(value)) for name, value in pairs]


def _to_bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text
