"""Event streams on the wire: which responses are one, and how many events their bytes complete.

Source: the WHATWG HTML standard, sections 9.2.5 and 9.2.6 (parsing and interpreting an event stream).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_BOM: Final = b"\xef\xbb\xbf"
_COLON: Final = ord(":")

# Of an unfinished line only its beginning tells what it is; the longest that matters is a BOM and ``data:``.
_LINE_START_BYTES: Final = 8


def is_event_stream(content_type: bytes) -> bool:
    """Tell whether a Content-Type is text/event-stream, whatever its case and parameters."""
    return content_type.partition(b";")[0].strip(b" \t").lower() == b"text/event-stream"


class EventCounter:
    """Counts the events that a browser dispatches, blocks with a data field, ended by a blank line; and comment lines.

    Holds a few bytes, whatever it is fed.

    Args:
        commented: Told how many comment lines some bytes have completed, if any: most bytes have none, and events alone
            are on the direct path.
    """

    __slots__ = ("_after_cr", "_at_rest", "_commented", "_has_data", "_line", "_started")

    def __init__(self, commented: Callable[[int], object]) -> None:
        self._commented = commented
        self._started = False
        self._line = b""
        self._has_data = False
        # The last byte was a CR: an LF to come belongs to the same line end.
        self._after_cr = False
        # Between two blocks, after the first line. An LF that belongs to a CR is then one blank line more, which is
        # nothing, so that there is only this one test on the direct path.
        self._at_rest = False

    def feed(self, chunk: bytes | memoryview) -> int:
        """Return how many events these bytes complete."""
        data = chunk if isinstance(chunk, bytes) else bytes(chunk)
        if self._at_rest:
            lines = data.splitlines()
            # The usual chunk is one event of one data line.
            if len(lines) == 2 and not lines[1] and lines[0][:5] == b"data:":
                return 1
            return self._count(data, lines) if data else 0
        if self._after_cr and data:
            data = data.removeprefix(b"\n")
            self._after_cr = False
        return self._count(data, (self._line + data).splitlines()) if data else 0

    def _count(self, data: bytes, lines: list[bytes]) -> int:
        self._after_cr = data.endswith(b"\r")
        self._line = b"" if data.endswith((b"\r", b"\n")) else lines.pop()[:_LINE_START_BYTES]
        if lines and not self._started:
            self._started = True
            lines[0] = lines[0].removeprefix(_BOM)
        events = comments = 0
        has_data = self._has_data
        for line in lines:
            if not line:
                events += has_data
                has_data = False
            elif line[:5] in (b"data:", b"data"):
                has_data = True
            elif line[0] == _COLON:
                comments += 1
        if comments:
            self._commented(comments)
        self._has_data = has_data
        self._at_rest = self._started and not (has_data or self._line)
        return events
