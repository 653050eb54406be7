"""The HTTP client of a test: that of httpx, over the test's own connections."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncGenerator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

import httpcore
import httpx
import trio

from pagi_trio.testing.network import patience_s
from pagi_trio.testing.tls import encrypt, make_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Iterable

    from pagi_trio.testing.network import Network
    from pagi_trio.testing.open_streams import OpenStream
    from pagi_trio.testing.wire import Wire

_SAME_NAMES: Final = (
    "ConnectError",
    "ConnectTimeout",
    "LocalProtocolError",
    "PoolTimeout",
    "ReadError",
    "ReadTimeout",
    "RemoteProtocolError",
    "UnsupportedProtocol",
    "WriteError",
    "WriteTimeout",
)

_ERRORS: Final[dict[type[BaseException], type[httpx.TransportError]]] = {
    getattr(httpcore, name): getattr(httpx, name) for name in _SAME_NAMES
}
"""What httpcore raises, and what httpx calls it."""

_FAILURES: Final = tuple(_ERRORS)


class _Call:
    """One request on its way to its response.

    Attributes:
        wire: The connection that it was last sent on.
    """

    def __init__(self) -> None:
        self.wire: Wire | None = None


# A pool does not say which connection it has chosen, but it sends in the task of the caller.
_CALL: Final[ContextVar[_Call | None]] = ContextVar("pagi_trio_testing_call", default=None)


class _Stream(httpcore.AsyncNetworkStream):
    """A connection as httpcore uses one."""

    def __init__(self, wire: Wire, stream: trio.abc.Stream) -> None:
        self._wire = wire
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - the base has it
        try:
            with trio.fail_after(_or_forever(timeout)):
                return bytes(await self._stream.receive_some(max_bytes))
        except trio.TooSlowError as error:
            raise httpcore.ReadTimeout(f"nothing came for {timeout} seconds") from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore.ReadError(str(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the base has it
        call = _CALL.get()
        if call is not None:
            call.wire = self._wire
        if not buffer:
            return
        try:
            with trio.fail_after(_or_forever(timeout)):
                await self._stream.send_all(buffer)
        except trio.TooSlowError as error:
            raise httpcore.WriteTimeout(f"the server took nothing for {timeout} seconds") from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore.WriteError(str(error)) from error

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the base has it
    ) -> httpcore.AsyncNetworkStream:
        stream = encrypt(self._wire, ssl_context, server_hostname)
        try:
            with trio.fail_after(_or_forever(timeout)):
                await stream.do_handshake()
        except trio.TooSlowError as error:
            await trio.aclose_forcefully(self._wire)
            raise httpcore.ConnectTimeout(f"no TLS handshake for {timeout} seconds") from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            await trio.aclose_forcefully(self._wire)
            raise httpcore.ConnectError(f"{error}: {error.__cause__}") from error
        except BaseException:
            await trio.aclose_forcefully(self._wire)
            raise
        return _Stream(self._wire, stream)

    def get_extra_info(self, info: str) -> object:
        if info == "wire":
            return self._wire
        # By this a pool learns that the server has closed a connection that it keeps.
        return self._wire.is_readable if info == "is_readable" else None


class _Backend(httpcore.AsyncNetworkBackend):
    """Connects to the one server of a network, whatever host is asked for."""

    def __init__(self, network: Network) -> None:
        self._network = network

    async def connect_tcp(
        self,
        host: str,  # noqa: ARG002 - the base has it
        port: int,  # noqa: ARG002 - the same
        timeout: float | None = None,  # noqa: ASYNC109 - the same
        local_address: str | None = None,  # noqa: ARG002 - the same
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002 - the same
    ) -> httpcore.AsyncNetworkStream:
        try:
            with trio.fail_after(_or_forever(timeout)):
                wire = await self._network.connect()
        except trio.TooSlowError as error:
            raise httpcore.ConnectTimeout(f"no connection for {timeout} seconds") from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        return _Stream(wire, wire)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


class _Upload:
    """The body of a request, which can be closed when it was not sent whole.

    What iterates inside is a generator, and Trio warns of those that are left to the garbage collector.
    """

    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._parts = aiter(stream)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._parts

    async def aclose(self) -> None:
        if isinstance(self._parts, AsyncGenerator):
            await self._parts.aclose()


class _Body(httpx.AsyncByteStream):
    """The body of a response, which tells of what the application raises while it comes."""

    def __init__(self, response: httpcore.Response, network: Network, wire: Wire | None, entry: OpenStream) -> None:
        self._response = response
        self._network = network
        self._wire = wire
        self._entry = entry
        self._parts: AsyncIterator[bytes] | None = None
        self._has_ended = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        failure = None
        try:
            if self._parts is None:
                self._parts = aiter(self._response.stream)  # type: ignore[arg-type]  # or an iterable, of clients that do not await
            return await anext(self._parts)
        except StopAsyncIteration:
            self._has_ended = True
        except _FAILURES as error:
            self._has_ended = True
            failure = error
        if self._wire is not None:
            self._network.errors.check(self._wire.client)
        if failure is not None:
            raise _translate(failure) from failure
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._entry.close()
        if self._parts is not None and not self._has_ended:
            # Left in the middle. What iterates inside is brought to its end by an error, since Trio warns of
            # generators that are left to the garbage collector.
            if self._wire is not None:
                await trio.aclose_forcefully(self._wire)
            with contextlib.suppress(*_FAILURES):
                async for _part in self._parts:
                    pass
            self._has_ended = True
        await self._response.aclose()


class _Transport(httpx.AsyncBaseTransport):
    """Sends requests over a network."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=make_context(), max_connections=None, network_backend=_Backend(network)
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        assert isinstance(request.stream, httpx.AsyncByteStream)
        upload = _Upload(request.stream)
        core_request = httpcore.Request(
            request.method,
            httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=upload,
            extensions=request.extensions,
        )
        call = _Call()
        token = _CALL.set(call)
        failure = response = None
        try:
            response = await self._pool.handle_async_request(core_request)
        except _FAILURES as error:
            failure = error
        finally:
            _CALL.reset(token)
            await upload.aclose()
        # Out of the handler, so that what the application raised does not seem to come of what the client saw of it.
        # And what it has raised inside a response already comes behind what it has sent of it.
        try:
            if call.wire is not None and (response is None or response.status >= 500):
                self._network.errors.check(call.wire.client)
        except BaseException:
            if response is not None:
                await response.aclose()
            raise
        if response is None:
            assert failure is not None
            raise _translate(failure) from failure
        entry = self._network.streams.add(f"{request.method} {url.path}")
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_Body(response, self._network, call.wire, entry),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        await self._pool.aclose()


def make_client(network: Network, url: str) -> httpx.AsyncClient:
    """Make a client of the one server, whatever host its requests name.

    It verifies no certificate, reads nothing of the environment, and keeps as many connections as it needs. It raises
    what the application raises for a request: with the response's head, or with the part of the body that it fails in.

    Args:
        network: Where its connections come from.
        url: What relative addresses are relative to.
    """
    patience = patience_s()
    timeout = None if math.isinf(patience) else patience
    return httpx.AsyncClient(transport=_Transport(network), base_url=url, timeout=timeout, trust_env=False)


def _translate(error: BaseException) -> httpx.TransportError:
    return _ERRORS[type(error)](str(error))


def _or_forever(timeout: float | None) -> float:
    return math.inf if timeout is None else timeout
