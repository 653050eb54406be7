"""One application that is served for a test: how the test reaches it, and what can be asked of it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar  # Any is what applications put into their state
from urllib.parse import urlsplit

from pagi_trio.testing.network import Connecting
from pagi_trio.testing.readings import Readings
from pagi_trio.testing.request_parts import encode_headers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import httpx
    import trio

    from pagi_trio.server import Handle
    from pagi_trio.testing.event_source import EventSource
    from pagi_trio.testing.log import ServerLog
    from pagi_trio.testing.network import Network
    from pagi_trio.testing.request_parts import GivenHeaders
    from pagi_trio.testing.websocket_client import WebSocketClient

M = TypeVar("M")

_PORTS: Final = {"http": 80, "https": 443}
"""Of a URL that names none: RFC 9110, sections 4.2.1 and 4.2.2."""


class Served:
    """An application that is served over sockets for a test.

    Attributes:
        handle: What `pagi_trio.serve` started with.
        url: Where it is served, without a slash at the end.
        network: The connections of this object's own clients, and what can go wrong with them.
        log: What this server has logged.
    """

    def __init__(self, handle: Handle, url: str, nursery: trio.Nursery, network: Network, log: ServerLog) -> None:
        self.handle = handle
        self.url = url
        self.network = network
        self.log = log
        self._nursery = nursery
        self._http: httpx.AsyncClient | None = None

    @property
    def ws_url(self) -> str:
        """The same for WebSockets."""
        return "ws" + self.url.removeprefix("http")

    @property
    def port(self) -> int:
        """The TCP port it listens on; where it listens on none, the one that its URL stands for."""
        parts = urlsplit(self.url)
        return parts.port or _PORTS[parts.scheme]

    @property
    def state(self) -> dict[str, Any]:  # type: ignore[explicit-any]  # a test knows what it is
        """What the application's lifespan has put into its state."""
        return self.handle.state

    @property
    def metrics(self) -> Readings:
        """Its numbers; reading them folds first, so that no test ever waits for them.

        Raises:
            RuntimeError: If the server runs with metrics off.
        """
        if self.handle.metrics is None:
            raise RuntimeError("this server has no metrics: it was started with metrics.enabled = False")
        return Readings(self.handle.metrics)

    @property
    def http(self) -> httpx.AsyncClient:
        """A client of httpx, made on first use, whose base URL is the server's.

        Raises:
            ModuleNotFoundError: If httpx is not installed.
        """
        if self._http is None:
            with naming_the_extra():
                from pagi_trio.testing.http_client import make_client  # noqa: PLC0415 - httpx takes 200 ms
            self._http = make_client(self.network, self.url)
        return self._http

    def websocket(
        self, path: str = "/", *, subprotocols: Iterable[str] = (), headers: GivenHeaders = ()
    ) -> WebSocketClient:
        """Open a WebSocket: ``async with server.websocket("/chat") as ws``, or ``ws = await ...`` and a close.

        Args:
            path: Its path, with a query if need be; a whole URL is taken for its path.
            subprotocols: What the client offers to speak.
            headers: Further header fields of the handshake.

        Returns:
            What gives a `trio_websocket.WebSocketConnection`.

        Raises:
            ModuleNotFoundError: If trio-websocket is not installed.
        """
        with naming_the_extra():
            from pagi_trio.testing.websocket_client import WebSocketClient  # noqa: PLC0415 - as above
        headers = self._with_cookies(path, headers)
        return WebSocketClient(self.network, self.url, self._nursery, path, subprotocols=subprotocols, headers=headers)

    def sse(  # noqa: PLR0913 - what an EventSource takes, by name
        self,
        path: str = "/",
        *,
        method: str = "GET",
        headers: GivenHeaders = (),
        content: bytes = b"",
        reconnect: bool = False,
        last_event_id: str = "",
    ) -> EventSource:
        """Follow an event stream: ``async with server.sse("/events") as events``, then ``async for event in events``.

        Args:
            path: Its path, with a query if need be; a whole URL is taken for its path.
            method: The method of the request.
            headers: Further header fields of the request.
            content: The body of the request.
            reconnect: Whether to connect again after its end, as browsers do; else the iteration ends with it.
            last_event_id: The id of the event after which to begin.
        """
        from pagi_trio.testing.event_source import EventSource  # noqa: PLC0415 - as above

        return EventSource(
            self.network,
            self.url,
            path,
            method=method,
            headers=self._with_cookies(path, headers),
            content=content,
            reconnect=reconnect,
            last_event_id=last_event_id,
        )

    def _with_cookies(self, path: str, headers: GivenHeaders) -> GivenHeaders:
        """Add the cookies that the HTTP client has been given for a path, unless there are others."""
        if self._http is None or not self._http.cookies:
            return headers
        given = encode_headers(headers)
        cookies = self._http.build_request("GET", path).headers.get("cookie")
        if cookies is None or any(name.lower() == b"cookie" for name, _ in given):
            return given
        return [("cookie", cookies), *given]

    def connect(self) -> Connecting:
        """Open a connection, for what no client would say.

        ``async with server.connect() as wire``, or ``wire = await server.connect()`` and a close.
        """
        return Connecting(self.network)

    async def close_clients(self) -> list[str]:
        """Close what its clients have open.

        Returns:
            What the test should have closed itself, by name.
        """
        left = list(self.network.streams)
        if self._http is not None:
            await self._http.aclose()
        for wire in list(self.network.wires):
            await wire.aclose()
        return left


class _OfHTTP(Generic[M]):
    """A method of the HTTP client, which is made at its first use: a test of WebSockets needs none."""

    def __init__(self, pick: Callable[[httpx.AsyncClient], M]) -> None:
        self._pick = pick

    def __get__(self, client: Client, _owner: type[Client]) -> M:
        return self._pick(client.http)


class Client(Served):
    """An application that is served in memory: the requests of `httpx.AsyncClient` are its own methods."""

    request = _OfHTTP(lambda http: http.request)
    stream = _OfHTTP(lambda http: http.stream)
    get = _OfHTTP(lambda http: http.get)
    head = _OfHTTP(lambda http: http.head)
    options = _OfHTTP(lambda http: http.options)
    post = _OfHTTP(lambda http: http.post)
    put = _OfHTTP(lambda http: http.put)
    patch = _OfHTTP(lambda http: http.patch)
    delete = _OfHTTP(lambda http: http.delete)

    @property
    def cookies(self) -> httpx.Cookies:
        """The cookies of its HTTP client, which its WebSockets and event streams send as well."""
        return self.http.cookies

    @property
    def headers(self) -> httpx.Headers:
        """What its HTTP client sends with each request."""
        return self.http.headers


@contextmanager
def naming_the_extra() -> Iterator[None]:
    """Say of a module that is missing how to get it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is not installed; pip install 'pagi-trio[pytest]' brings it", name=error.name
        ) from None
