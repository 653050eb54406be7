"""The HTTP client of a test: that of httpx, over the test's own connections.

httpx has a connection pool of its own, which takes a third of the time of a request, and does not tell on which
connection it was sent; so its requests are sent here.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Final, Self

import h11
import httpx
import trio

from pagi_trio.testing.http1 import HTTP1
from pagi_trio.testing.network import patience_s
from pagi_trio.testing.response import Response

if TYPE_CHECKING:
    from collections.abc import Iterator

    from httpx._types import CookieTypes

    from pagi_trio.testing.network import Network
    from pagi_trio.testing.open_streams import OpenStream


class _Transport(httpx.AsyncBaseTransport):
    """Sends requests over a network, each on a connection that nobody else uses at the time."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._idle: list[HTTP1] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        limits = _Limits(request)
        http = await self._connect(request.url, limits)
        began_s = perf_counter()
        try:
            failure = None
            try:
                head = await self._exchange(http, request, limits)
            except httpx.TransportError as error:
                failure = error
            # Out of the handler, so that what the application raised does not seem to come of what the client saw of
            # it. And what it has raised inside a response already comes behind what it has sent of it.
            if failure is not None or head.status_code >= 500:
                self.check(http, began_s)
            if failure is not None:
                raise failure
        except BaseException:
            http.wire.close()
            raise
        entry = self._network.streams.add(f"{request.method} {request.url.path}")
        response = Response(
            head.status_code,
            headers=head.headers.raw_items(),
            stream=_Body(self, http, began_s, limits, entry),
            extensions={"http_version": b"HTTP/" + head.http_version, "reason_phrase": bytes(head.reason)},
        )
        self._network.note_client(response, http.wire)
        return response

    async def _connect(self, url: httpx.URL, limits: _Limits) -> HTTP1:
        """Take a connection that is open, or open one."""
        while self._idle:
            http = self._idle.pop()
            if not http.wire.is_readable:
                return http
            # The server has closed it.
            http.wire.close()
        with limits.named("connect"), trio.fail_after(limits.seconds("connect")):
            wire = await self._network.connect()
            try:
                http = HTTP1(wire, over_tls=url.scheme == "https")
                await http.handshake()
            except BaseException:
                wire.close()
                raise
        return http

    async def _exchange(self, http: HTTP1, request: httpx.Request, limits: _Limits) -> h11.Response:
        """Send a request, and wait for the head of its response."""
        lost: httpx.TransportError | None = None
        try:
            await self._upload(http, request, limits)
        except httpx.WriteError as error:
            # The server may have answered before it stopped reading.
            lost = error
        with limits.named("read"):
            while True:
                try:
                    event = await http.next_event(limits.seconds("read"))
                except (trio.BrokenResourceError, h11.RemoteProtocolError):
                    if lost is not None:
                        raise lost from None
                    raise
                if isinstance(event, h11.Response):
                    return event

    async def _upload(self, http: HTTP1, request: httpx.Request, limits: _Limits) -> None:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        try:
            start = h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
        except h11.LocalProtocolError as error:
            raise httpx.LocalProtocolError(str(error)) from error
        parts: list[h11.Event] = [start]
        body = aiter(request.stream)
        try:
            async for data in body:
                if data:
                    parts.append(h11.Data(data=data))
                    with limits.named("write"), trio.fail_after(limits.seconds("write")):
                        await http.send(*parts)
                    parts = []
        finally:
            # Trio warns of generators that are left to the garbage collector, and httpx's does not close the test's.
            for reader in (body, getattr(request.stream, "_stream", None)):
                if isinstance(reader, AsyncGenerator):
                    await reader.aclose()
        with limits.named("write"), trio.fail_after(limits.seconds("write")):
            await http.send(*parts, h11.EndOfMessage())

    async def release(self, http: HTTP1) -> None:
        """Keep a connection whose response has ended, if another request may follow."""
        if http.start_again():
            self._idle.append(http)
        else:
            http.wire.close()

    def check(self, http: HTTP1, began_s: float) -> None:
        """Raise what the application has raised for a request that began then, by `perf_counter`."""
        self._network.errors.check(http.wire.client, began_s)

    async def aclose(self) -> None:
        while self._idle:
            self._idle.pop().wire.close()


class _Body(httpx.AsyncByteStream):
    """The body of a response, which tells of what the application raises while it comes."""

    def __init__(self, transport: _Transport, http: HTTP1, began_s: float, limits: _Limits, entry: OpenStream) -> None:
        self._transport = transport
        self._http = http
        self._began_s = began_s
        self._limits = limits
        self._entry = entry
        self._has_ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._has_ended:
            raise StopAsyncIteration
        failure = None
        try:
            with self._limits.named("read"):
                event = await self._http.next_event(self._limits.seconds("read"))
        except httpx.TransportError as error:
            failure = error
        else:
            if isinstance(event, h11.Data):
                return bytes(event.data)
        self._has_ended = True
        await self._transport.release(self._http)
        self._transport.check(self._http, self._began_s)
        if failure is not None:
            raise failure
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._entry.close()
        if not self._has_ended:
            self._has_ended = True
            self._http.wire.close()


_NAMES: Final[dict[str, tuple[type[httpx.TransportError], type[httpx.TransportError]]]] = {
    "connect": (httpx.ConnectTimeout, httpx.ConnectError),
    "write": (httpx.WriteTimeout, httpx.WriteError),
    "read": (httpx.ReadTimeout, httpx.ReadError),
}
"""How httpx calls each step of a request, and what it raises if that takes too long, or fails."""


class _Limits:
    """How long each step of a request may take, as httpx is told, and what it raises when one fails."""

    def __init__(self, request: httpx.Request) -> None:
        self._seconds: dict[str, float | None] = request.extensions.get("timeout", {})

    def seconds(self, step: str) -> float:
        """Return how long a step may take."""
        limit = self._seconds.get(step)
        return math.inf if limit is None else limit

    @contextmanager
    def named(self, step: str) -> Iterator[None]:
        """Raise what happens to a step in a block by the names that it has in httpx."""
        too_slow, failed = _NAMES[step]
        try:
            yield
        except trio.TooSlowError as error:
            raise too_slow(f"nothing happened for {self._seconds[step]} seconds") from error
        except h11.RemoteProtocolError as error:
            raise httpx.RemoteProtocolError(str(error)) from error
        except h11.LocalProtocolError as error:
            raise httpx.LocalProtocolError(str(error)) from error
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            because = f": {error.__cause__}" if error.__cause__ is not None else ""
            raise failed(f"{error}{because}") from error


class _Cookies(httpx.Cookies):
    """As those of httpx, which make a request and a message of the standard library to look for cookies in them."""

    def extract_cookies(self, response: httpx.Response) -> None:
        """Take the cookies that a response sets; most set none."""
        if "set-cookie" in response.headers:
            super().extract_cookies(response)


class _Client(httpx.AsyncClient):
    """As that of httpx, with the cookies above."""

    def __init__(self, transport: _Transport, url: str, timeout_s: float | None) -> None:
        self._jar = _Cookies()
        super().__init__(transport=transport, base_url=url, timeout=timeout_s, trust_env=False)

    @property
    def cookies(self) -> httpx.Cookies:
        """What the client has been given, and sends."""
        return self._jar

    @cookies.setter
    def cookies(self, cookies: CookieTypes) -> None:
        self._jar = _Cookies(cookies)


def make_client(network: Network, url: str) -> httpx.AsyncClient:
    """Make a client of the one server, whatever host its requests name.

    It verifies no certificate, reads nothing of the environment, and keeps as many connections as it needs. It raises
    what the application raises for a request: with the response's head, or with the part of the body that it fails in.

    Args:
        network: Where its connections come from.
        url: What relative addresses are relative to.
    """
    patience = patience_s()
    return _Client(_Transport(network), url, None if math.isinf(patience) else patience)
