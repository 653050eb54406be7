"""All that one test serves, from the first start to the last shutdown."""

from __future__ import annotations

import math
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeVar
from urllib.parse import urlsplit

import trio
import trio.testing

from pagi_trio.config import Config
from pagi_trio.errors import ConfigError, LifespanFailedError, PagiError
from pagi_trio.nurseries.connection import Connection
from pagi_trio.nurseries.service import SSE
from pagi_trio.server import Handle, serve, serve_at
from pagi_trio.testing.app_errors import AppErrors, set_context, unwrap
from pagi_trio.testing.autojump import is_autojump, keep_time_for_threads
from pagi_trio.testing.log import ServerLog
from pagi_trio.testing.memory import ADDRESS, MemoryListener
from pagi_trio.testing.network import Network
from pagi_trio.testing.served import Client, Served, naming_the_extra

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping

    from pagi_trio.asgi import App

S = TypeVar("S", bound=Served)

GRACEFUL_S: Final = 5.0
"""How long the end of a test waits for what its application is still doing, unless the test's settings say."""

SETTLE_S: Final = 1.0
"""How long the end of a test waits at most for the server to see which clients have left."""

ABANDONED_S: Final = 0.5
"""How long it waits for an application whose client has left before it got all."""

# Where to reach what listens everywhere.
_LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound here


class OpenStreamError(PagiError):
    """A test left something open that it should have closed; the message names it."""


class Stage:
    """What one test serves.

    Args:
        nursery: Where servers and their clients run.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._resources = ExitStack()
        self._performances: list[_Performance] = []
        self._is_over = False

    async def serve(
        self, app: App, /, *, raise_app_exceptions: bool = True, allow_open_streams: bool = False, **config: object
    ) -> Served:
        """Serve an application over sockets, on a free port unless the settings say; returns once it can be reached.

        Args:
            app: The application.
            raise_app_exceptions: Whether what it raises is raised in the test: by the call of the test that it
                answers, or else at the end. Otherwise clients see what they would see of any server.
            allow_open_streams: Whether the test may end while a client of its server has something open.
            config: Settings by name, as `Config.replace` takes them.

        Raises:
            ConfigError: If a setting is wrong.
            LifespanFailedError: If the application refuses to start.
            RuntimeError: If time is virtual and jumps.
        """
        if is_autojump():
            raise RuntimeError(
                "an autojump clock expires every timeout of real sockets, which it does not wait for: "
                "use pagi_client, which serves in memory"
            )
        settings = _settings({"bind": "127.0.0.1:0", **config})
        one = _Performance(raise_app_exceptions=raise_app_exceptions, allow_open_streams=allow_open_streams)
        handle = await self._start(one, partial(serve, app, settings))
        url = handle[0]
        network = Network(partial(_open_socket, url), one.errors)
        if url.startswith("unix:"):
            url = f"{settings.scheme}://localhost"
        return one.present(Served(handle, url, self._nursery, network, one.log))

    async def client(
        self, app: App, /, *, raise_app_exceptions: bool = True, allow_open_streams: bool = False, **config: object
    ) -> Client:
        """Serve an application in memory; the arguments are those of `serve`.

        Where Trio's clock is virtual and jumps, it does not jump while a thread is at work.

        Raises:
            ConfigError: If a setting is wrong.
            LifespanFailedError: If the application refuses to start.
        """
        settings = _settings(config)
        if settings.scheme == "https":
            raise ConfigError("nothing is encrypted in memory: use pagi_serve for tls")
        with naming_the_extra():
            import pagi_trio.testing.http_client  # noqa: F401, PLC0415 - before anything has started
        self._resources.enter_context(keep_time_for_threads())
        one = _Performance(raise_app_exceptions=raise_app_exceptions, allow_open_streams=allow_open_streams)
        handle = await self._start(one, partial(serve_at, (), app, settings))
        network = Network(MemoryListener(handle.server).connect, one.errors)
        return one.present(Client(handle, f"http://{ADDRESS[0]}", self._nursery, network, one.log))

    async def _start(self, one: _Performance, run: _Run) -> Handle:
        if self._is_over:
            raise RuntimeError(
                "the test that this serves for has ended; with @given of Hypothesis, where pytest-trio may pass on the "
                "fixtures of an earlier example, use async with pagi_trio.testing.client(app)"
            )
        self._resources.enter_context(one.log)
        with one.log.owned():
            try:
                one.handle = await self._nursery.start(one.run, run)
            except LifespanFailedError as error:
                error.add_note("Mend its startup, or serve it without: lifespan='off'.")
                raise
        self._performances.append(one)
        return one.handle

    async def finish(self) -> None:
        """Close all clients, shut all servers down, and tell what went wrong.

        Raises:
            OpenStreamError: If the test left something open.
            BaseException: What an application raised and no call of the test has told; a group, if there are several.
        """
        self._is_over = True
        with self._resources:
            errors = [error for one in self._performances for error in await one.finish()]
        self._nursery.cancel_scope.cancel()
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise BaseExceptionGroup("errors of what this test served", errors)

    def abandon(self) -> None:
        """Stop at once, since the test has failed already."""
        self._is_over = True
        for one in self._performances:
            one.cut_clients()
        self._resources.close()
        self._nursery.cancel_scope.cancel()


class _Run(Protocol):
    """A server that is ready to be started."""

    async def __call__(self, *, task_status: trio.TaskStatus[Handle]) -> None: ...


class _Performance:
    """One server of a stage, from its start to its end.

    Attributes:
        errors: What its application raises.
        log: What it logs.
        handle: What it started with.
    """

    handle: Handle

    def __init__(self, *, raise_app_exceptions: bool, allow_open_streams: bool) -> None:
        self.errors = AppErrors(is_raising=raise_app_exceptions)
        self.log = ServerLog()
        self._allow_open_streams = allow_open_streams
        self._served: Served | None = None
        self._ended = trio.Event()

    async def run(self, run: _Run, task_status: trio.TaskStatus[Handle]) -> None:
        """Be the task of the server."""
        try:
            await run(task_status=task_status)
        finally:
            self._ended.set()

    def present(self, served: S) -> S:
        """Take what the test gets of the server, now that it has started."""
        self._served = served
        service = self.handle.server.service
        self.errors.listen(service)
        if isinstance(trio.lowlevel.current_clock(), trio.testing.MockClock):
            # Time that a test lets pass in one go has passed for every deadline.
            service.standstill_s = math.inf
        return served

    def cut_clients(self) -> None:
        """Close what its clients have open, without a farewell."""
        if self._served is not None:
            self._served.network.cut()

    async def finish(self) -> list[BaseException]:
        """Shut it down, and return what went wrong."""
        handle = self.handle
        was_stopped = handle.server.public.stopping.is_set()
        left = [] if self._served is None else await self._served.close_clients()
        await _settle()
        left = [] if was_stopped or self._allow_open_streams else left or _in_flight(handle)
        handle.shutdown()
        if left:
            handle.server.public.abort()
        else:
            await self._end_abandoned()
        await self._ended.wait()
        errors = self.errors.take_all()
        if left and not errors:
            errors.append(
                OpenStreamError(
                    f"the test left open: {', '.join(left)}; close it, best by async with, or serve with "
                    "allow_open_streams=True"
                )
            )
        return errors

    async def _end_abandoned(self) -> None:
        """End what is still being answered to clients that have left.

        In production the application of an event stream has half a second to act on that, and any other as long as it
        likes; but nobody waits there.
        """
        service = self.handle.server.service
        connections = [one for one in service.connections if isinstance(one, Connection)]
        streams = [one for one in connections if one.state == SSE]
        if streams:
            for one in streams:
                one.tick(service.now)
            await _settle()
            _cancel_abandoned(streams)
        with trio.move_on_after(ABANDONED_S):
            await self._ended.wait()
        _cancel_abandoned(connections)


_DEFAULTS: Final = Config().replace(timeouts={"graceful_s": GRACEFUL_S})


def _settings(changes: Mapping[str, object]) -> Config:
    # Most tests change nothing, and then the checks of 60 settings are most of what a start takes.
    return _DEFAULTS.replace(**changes) if changes else _DEFAULTS


def _in_flight(handle: Handle) -> list[str]:
    """Name what is being answered to clients that have not left."""
    left = []
    for one in handle.server.service.connections:
        exchange = one.current if isinstance(one, Connection) and not one.transport.hangup else None
        if exchange is not None and not exchange.complete and not exchange.client_left:
            left.append(str(exchange).rpartition(", ")[0])
    return left


def _cancel_abandoned(connections: Iterable[Connection]) -> None:
    for one in connections:
        exchange = one.current
        if exchange is not None and not exchange.complete and (exchange.client_left or one.transport.hangup):
            one.cancel_scope.cancel()


async def _settle() -> None:
    """Wait until nobody has anything more to do at once: what clients have just done is known to the server then."""
    with trio.move_on_after(SETTLE_S):
        await trio.testing.wait_all_tasks_blocked()


async def _open_socket(url: str) -> trio.SocketStream:
    if url.startswith("unix:"):
        return await trio.open_unix_socket(url.removeprefix("unix:"))
    parts = urlsplit(url)
    assert parts.hostname is not None, "the server has made this URL"
    assert parts.port is not None, "with its port"
    try:
        return await trio.open_tcp_stream(_LOOPBACK.get(parts.hostname, parts.hostname), parts.port)
    except OSError as error:
        # Trio tries all addresses of a name, and tells why each has failed in a group; here there is one.
        group = error.__cause__
        raise unwrap(group) if isinstance(group, ExceptionGroup) else error from None


@asynccontextmanager
async def open_stage() -> AsyncIterator[Stage]:
    """Serve whatever a block serves, for its length.

    Raises:
        RuntimeError: If Trio does not run, but asyncio.
    """
    if not trio.lowlevel.in_trio_run():
        raise RuntimeError(
            "pagi_trio.testing runs on Trio, and this does not: with the plugin of AnyIO, let the fixture "
            'anyio_backend return "trio"'
        )
    with unwrapping():
        async with trio.open_nursery() as nursery:
            stage = Stage(nursery)
            try:
                yield stage
            except BaseException:
                stage.abandon()
                raise
            await stage.finish()


@contextmanager
def unwrapping() -> Iterator[None]:
    """Let a group that holds one error, however deep, be that error."""
    try:
        yield
    except BaseExceptionGroup as group:
        error = unwrap(group)
        if error is group:
            raise
        context = error.__context__
        try:
            raise error
        finally:
            # It was not raised while the group was being handled.
            set_context(error, context)
