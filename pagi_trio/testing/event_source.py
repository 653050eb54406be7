"""The event stream of a test: an EventSource that comes back only when it is asked to.

It speaks HTTP by itself. Through an HTTP client, a wait that is cancelled would end the stream, while a test often
gives an event only so much time.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

import h11
import trio

from pagi_trio.testing.event_stream import EventStream, EventStreamLostError, check_is_stream
from pagi_trio.testing.network import patience_s
from pagi_trio.testing.request_parts import encode_headers, encode_target

if TYPE_CHECKING:
    from types import TracebackType

    from pagi_trio.testing.event_parser import Event
    from pagi_trio.testing.network import Network
    from pagi_trio.testing.request_parts import GivenHeaders

RECONNECT_S: Final = 0.01
"""How long at least to wait before connecting again, seconds: nothing for a test, and no busy loop beside a server that
refuses. Browsers wait some seconds unless the stream says otherwise."""


class EventSource:
    """An event stream: ``async with`` it or iterate it directly, and close it in the end.

    A wait for an event may be cancelled, and nothing is lost. It raises `trio.TooSlowError` when nothing at all came
    for half a minute.

    Args:
        network: Where its connections come from.
        url: The server's address; ``https`` means TLS.
        path: What is asked for, with its query.
        method: The method of the request.
        headers: Further headers of the request.
        content: The body of the request.
        reconnect: Whether to connect again when a stream has ended or is lost, with the id of its last event, until the
            server answers with 204.
        last_event_id: The id to begin with.

    Attributes:
        last_event_id: The id of the last event, to come back with.
        retry_s: How long to wait before connecting again, as the stream says, seconds.
    """

    def __init__(  # noqa: PLR0913 - two are the handle's, the others the test's, by name
        self,
        network: Network,
        url: str,
        path: str = "/",
        *,
        method: str = "GET",
        headers: GivenHeaders = (),
        content: bytes = b"",
        reconnect: bool = False,
        last_event_id: str = "",
    ) -> None:
        self.last_event_id = last_event_id
        self.retry_s = RECONNECT_S
        self._network = network
        self._url = urlsplit(url)
        self._path = encode_target(path)
        self._method = method
        self._headers = encode_headers(headers)
        self._content = content
        self._reconnect = reconnect
        self._events: deque[Event] = deque()
        self._stream: EventStream | None = None
        self._has_tried = False
        self._is_over = False

    async def __aenter__(self) -> Self:
        await self._connect()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        wire = None if self._stream is None else self._stream.wire
        await self.aclose()
        # What the test itself found wrong goes before what the application raised.
        if exc is None and wire is not None:
            self._network.errors.check(wire.client)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Wait for the next event.

        Raises:
            NotAnEventStreamError: If the server answers with anything else.
            EventStreamLostError: If the connection ends before the stream does, and it does not reconnect.
            ConnectionRefusedError: If no connection can be made, and it does not reconnect.
            BaseException: Instead of these, and of the stream's end, what the application raised.
        """
        await trio.lowlevel.checkpoint()
        while not self._events:
            if self._stream is None:
                await self._connect()
            if self._stream is None:
                raise StopAsyncIteration
            await self._read(self._stream)
        event = self._events.popleft()
        self.last_event_id = event.id
        return event

    async def aclose(self) -> None:
        """Close the stream; there are no more events then."""
        self._is_over = True
        self._events.clear()
        if self._stream is not None:
            stream, self._stream = self._stream, None
            stream.wire.close()

    async def _connect(self) -> None:
        """Connect, as often as it takes; does nothing if there is nothing to come."""
        while not self._is_over and self._stream is None:
            if self._has_tried:
                await trio.sleep(max(self.retry_s, RECONNECT_S))
            self._has_tried = True
            await self._connect_once()

    async def _connect_once(self) -> None:
        try:
            wire = await self._network.connect()
        except OSError:
            if not self._reconnect:
                raise
            return
        stream = EventStream(wire, over_tls=self._url.scheme == "https", last_event_id=self.last_event_id)
        failure = response = None
        try:
            with trio.fail_after(patience_s()):
                response = await stream.request(self._request())
        except EventStreamLostError as error:
            failure = error
        except BaseException:
            wire.close()
            raise
        try:
            # Out of the handler, so that what the application raised does not seem to come of what was seen of it. And
            # what it has raised inside a stream already comes behind the events that it has sent.
            if response is None or response.status_code >= 500:
                self._network.errors.check(wire.client)
            if response is not None:
                self._take(stream, response)
            elif failure is not None and not self._reconnect:
                raise failure
        finally:
            if self._stream is None:
                wire.close()

    def _take(self, stream: EventStream, response: h11.Response) -> None:
        """Go on with a response, if it is one to go on with."""
        if response.status_code == 204 and self._reconnect:
            self._is_over = True
            return
        check_is_stream(response)
        entry = self._network.streams.add(f"sse {self._path.partition('?')[0]}")
        stream.wire.call_at_end(entry.close)
        self._stream = stream
        self._network.note_client(self, stream.wire)

    async def _read(self, stream: EventStream) -> None:
        """Wait for more of the stream, or its end."""
        failure = events = None
        try:
            with trio.fail_after(patience_s()):
                events = await stream.read()
        except EventStreamLostError as error:
            failure = error
        if events is not None:
            self._events.extend(events)
            return
        self._stream = None
        self._is_over = self._is_over or not self._reconnect
        self.last_event_id = stream.parser.last_event_id
        if stream.parser.retry_ms is not None:
            self.retry_s = stream.parser.retry_ms / 1000
        stream.wire.close()
        self._network.errors.check(stream.wire.client)
        if failure is not None and not self._reconnect:
            raise failure

    def _request(self) -> list[h11.Event]:
        headers = [("host", self._url.netloc), ("accept", "text/event-stream"), ("cache-control", "no-store")]
        if self.last_event_id:
            headers.append(("last-event-id", self.last_event_id))
        if self._content:
            headers.append(("content-length", str(len(self._content))))
        given = {name.lower() for name, _ in self._headers}
        ours = [pair for pair in encode_headers(headers) if pair[0] not in given]
        request = h11.Request(method=self._method, target=self._path, headers=ours + self._headers)
        return [request, h11.Data(data=self._content), h11.EndOfMessage()]
