"""What a test says of a request, as it is sent."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias
from urllib.parse import quote

_URL: Final = re.compile("(https?|wss?)://", re.IGNORECASE)

GivenHeaders: TypeAlias = Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]
"""A mapping, or pairs where a name comes more than once."""


def encode_headers(headers: GivenHeaders) -> list[tuple[bytes, bytes]]:
    """Return headers as they are sent; text is UTF-8."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return [(_to_bytes(name), _to_bytes(value)) for name, value in pairs]


def encode_target(path: str) -> str:
    """Return a path, with its query, in ASCII; what is quoted already stays as it is.

    As with httpx, it may be a whole URL, and need not begin with a slash; there is only one server to go to. A fragment
    is not sent.
    """
    path = path.partition("#")[0]
    if _URL.match(path):
        path = path.partition("://")[2]
        path = path[len(path.split("/", 1)[0].split("?", 1)[0]) :]
    return quote(path if path.startswith("/") else f"/{path}", safe=string.punctuation)


def _to_bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text
