"""What a test says of a request, as it is sent."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping
from typing import TypeAlias
from urllib.parse import quote

GivenHeaders: TypeAlias = Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]
"""A mapping, or pairs where a name comes more than once."""


def encode_headers(headers: GivenHeaders) -> list[tuple[bytes, bytes]]:
    """Return headers as they are sent; text is UTF-8."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return [(_to_bytes(name), _to_bytes(value)) for name, value in pairs]


def encode_target(path: str) -> str:
    """Return a path, with its query, in ASCII; what is quoted already stays as it is."""
    return quote(path, safe=string.punctuation)


def _to_bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text
