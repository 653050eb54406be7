"""The Date field, formatted once a second.

Source: RFC 9110 sections 5.6.7 and 6.6.1.
"""

from __future__ import annotations

from email.utils import formatdate
from time import time


class DateCache:
    """Keeps the field line of the current second."""

    __slots__ = ("_line", "_until")

    def __init__(self) -> None:
        self._until = 0.0
        self._line = b""

    def line(self) -> bytes:
        """Return ``date: ...`` with its line end, for now."""
        now = time()
        if not self._until - 1 <= now < self._until:
            second = int(now)
            self._until = second + 1.0
            self._line = b"date: %s\r\n" % formatdate(second, usegmt=True).encode("ascii")
        return self._line
