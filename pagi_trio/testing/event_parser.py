"""Bytes into server-sent events.

Source: WHATWG HTML section 9.2.6, "Interpreting an event stream".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final  # Any is that of `json.loads`

_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Event:
    """One event.

    Attributes:
        event: Its type; ``message`` where none was sent.
        data: Its lines of data, joined by line feeds.
        id: The last id that the stream has sent up to here; empty if there was none.
        retry: The time to wait before reconnecting that was sent with it, milliseconds; None if there was none.
    """

    event: str = "message"
    data: str = ""
    id: str = ""
    retry: int | None = None

    def json(self) -> Any:  # type: ignore[explicit-any]  # a test knows what it is
        """Return what the data says as JSON."""
        return json.loads(self.data)


class EventParser:
    """Takes one stream apart, however its bytes are cut.

    An event is there with the very byte that ends it.

    Args:
        last_event_id: The id that the stream before it has left: as in browsers, it stays until another is sent.

    Attributes:
        last_event_id: The id to come back with.
        retry_ms: The last time to wait before reconnecting, milliseconds; None if none was sent.
    """

    def __init__(self, last_event_id: str = "") -> None:
        self.last_event_id = last_event_id
        self.retry_ms: int | None = None
        self._line = bytearray()
        self._is_first_line = True
        self._is_after_cr = False
        self._id = last_event_id
        self._event = ""
        self._data: list[str] = []
        self._retry: int | None = None

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes, and return the events that they complete."""
        events = []
        if self._is_after_cr and data:
            self._is_after_cr = False
            data = data.removeprefix(b"\n")
        for line in data.splitlines(keepends=True):
            # Nothing else ends a line of bytes.
            content = line.rstrip(b"\r\n")
            self._line += content
            self._is_after_cr = line.endswith(b"\r")
            if len(content) < len(line):
                event = self._take_line()
                if event is not None:
                    events.append(event)
        return events

    def _take_line(self) -> Event | None:
        line = bytes(self._line)
        self._line.clear()
        if self._is_first_line:
            self._is_first_line = False
            line = line.removeprefix(_BOM)
        if not line:
            return self._dispatch()
        name, _, value = line.decode(errors="replace").partition(":")
        self._take_field(name, value.removeprefix(" "))
        return None

    def _take_field(self, name: str, value: str) -> None:
        """Take a field; those of other names, the empty one of a comment among them, say nothing."""
        if name == "event":
            self._event = value
        elif name == "data":
            self._data.append(value)
        elif name == "id":
            if "\0" not in value:
                self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_ms = self._retry = int(value)

    def _dispatch(self) -> Event | None:
        self.last_event_id = self._id
        event = Event(self._event or "message", "\n".join(self._data), self._id, self._retry) if self._data else None
        self._event = ""
        self._data.clear()
        self._retry = None
        return event
