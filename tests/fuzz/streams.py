"""What must hold of event streams, however they are written: `wire.sse`, against the standard read word by word."""

from __future__ import annotations

import re

from pagi_trio.wire.sse import EventCounter
from tests.fuzz.cutting import read_alike


def check_events(data: bytes) -> None:
    """Check that as many events are counted as a browser would dispatch, however the stream is written; and comments."""

    def read(pieces: list[bytes]) -> tuple[int, int]:
        comments: list[int] = []
        counter = EventCounter(comments.append)
        count = 0
        for piece in pieces:
            count += counter.feed(piece)
            assert len(counter._line) <= 8
        return count, sum(comments)

    assert read_alike(read, data) == _interpreted(data)


def _interpreted(stream: bytes) -> tuple[int, int]:
    """Count the events dispatched and the comments (WHATWG HTML section 9.2.6)."""
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    *lines, _unfinished = re.split("\r\n|\n|\r", text)
    events = comments = 0
    buffer = ""
    for line in lines:
        if line == "":
            events += buffer != ""
            buffer = ""
        elif line.startswith(":"):
            comments += 1
        else:
            field, _, value = line.partition(":")
            if field == "data":
                buffer += value.removeprefix(" ") + "\n"
    return events, comments
