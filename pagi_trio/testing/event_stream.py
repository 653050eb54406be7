"""One response that is an event stream, over a test's own connection."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import h11
import trio

from pagi_trio.errors import PagiError
from pagi_trio.testing.event_parser import EventParser
from pagi_trio.testing.http1 import HTTP1

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pagi_trio.testing.event_parser import Event
    from pagi_trio.testing.wire import Wire


class NotAnEventStreamError(PagiError):
    """What came is no event stream; the message says what it is.

    Attributes:
        status: Its HTTP status.
        content_type: Its media type as it was sent; empty if there was none.
    """

    def __init__(self, status: int, content_type: str) -> None:
        super().__init__(f"this is no event stream: status {status}, content-type {content_type or 'missing'!r}")
        self.status = status
        self.content_type = content_type


class EventStreamLostError(PagiError, ConnectionError):
    """The connection ended before the stream had."""


class EventStream:
    """A request and its response.

    Args:
        wire: Its connection, which is for nothing else; whoever has opened it closes it.
        over_tls: Whether it is encrypted.
        last_event_id: The id that the stream before it has left.

    Attributes:
        wire: The same.
        parser: What takes the stream apart.
    """

    def __init__(self, wire: Wire, *, over_tls: bool, last_event_id: str) -> None:
        self.wire = wire
        self.parser = EventParser(last_event_id)
        self._http = HTTP1(wire, over_tls=over_tls)

    async def request(self, parts: Iterable[h11.Event]) -> h11.Response:
        """Send the request, and wait for the head of the response.

        Raises:
            EventStreamLostError: If the connection ends before.
        """
        with _loss_told():
            await self._http.send(*parts)
            while not isinstance(event := await self._http.next_event(), h11.Response):
                pass
            return event

    async def read(self) -> list[Event] | None:
        """Wait for the next bytes of the stream.

        Returns:
            The events that they complete, or None at the end of the stream.

        Raises:
            EventStreamLostError: If the connection ends before the stream does.

        Cancellation: nothing is lost.
        """
        with _loss_told():
            event = await self._http.next_event()
        return self.parser.feed(bytes(event.data)) if isinstance(event, h11.Data) else None


def check_is_stream(response: h11.Response) -> None:
    """Check that a response is an event stream.

    Raises:
        NotAnEventStreamError: If it is not.
    """
    content_type = dict(response.headers).get(b"content-type", b"").decode("latin-1")
    if response.status_code != 200 or content_type.partition(";")[0].strip().lower() != "text/event-stream":
        raise NotAnEventStreamError(response.status_code, content_type)


@contextmanager
def _loss_told() -> Iterator[None]:
    try:
        yield
    except (trio.BrokenResourceError, h11.RemoteProtocolError) as error:
        raise EventStreamLostError(str(error)) from error
