"""An application that sends what a table says, right or wrong, and notes what it is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Whole(NamedTuple):
    """The client gets a valid response of this status and body."""

    status: int
    body: bytes


ERROR = Whole(500, b"Internal Server Error\n")
"""Nothing of what the application sent: a valid response that says so."""

CUT = "cut"
"""The head and a part of the body, and a connection that visibly ends too early."""


@dataclass(frozen=True)
class Case:
    """What an application does wrong.

    Attributes:
        events: What it sends, one after another; an exception is raised there.
        client: What the client gets.
        words: What the first error says, if a send fails; that is then the last of the events.
        head_is_fine: Whether nothing is wrong with it as the answer to a HEAD.
        ends: Whether the application ends its response; the connection stays only then.
    """

    events: tuple[object, ...]
    client: Whole | str
    words: str | None = None
    head_is_fine: bool = False
    ends: bool = True


def start(*headers, status=200):
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data, *, more=False):
    return {"type": "http.response.body", "body": data, "more_body": more}


class Player:
    """An application that plays the events of a case at ``/case``, and answers well anywhere else.

    Attributes:
        errors: What its sends raised.
    """

    def __init__(self, events, *, before=None):
        self._events = events
        self._before = before
        self.errors = []

    async def __call__(self, scope, receive, send):
        if scope["path"] != "/case":
            await send(start((b"content-type", b"text/plain")))
            await send(body(b"fine"))
            return
        if self._before is not None:
            await self._before(receive, send)
        for event in self._events:
            if isinstance(event, Exception):
                raise event
            try:
                await send(event)
            except Exception as error:
                self.errors.append(error)
                raise
