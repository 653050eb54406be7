"""All that one test serves, from the first start to the last shutdown."""

from __future__ import annotations

from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final
from urllib.parse import urlsplit

import trio
import trio.testing

from pagi_trio.config import Config
from pagi_trio.errors import ConfigError, LifespanFailedError
from pagi_trio.server import Handle, serve_at
from pagi_trio.testing.app_errors import set_context, unwrap
from pagi_trio.testing.autojump import is_autojump, keep_time_for_threads, let_time_go_on
from pagi_trio.testing.lifetime import Lifetime
from pagi_trio.testing.memory import ADDRESS, MemoryListener
from pagi_trio.testing.network import Network
from pagi_trio.testing.served import Client, Served, naming_the_extra

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from pagi_trio.asgi import App
    from pagi_trio.testing.lifetime import Run

GRACEFUL_S: Final = 5.0
"""How long the end of a test waits for what its application is still doing, unless the test's settings say."""

# Where to reach what listens everywhere.
_LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound here


class Servers:
    """What one test serves.

    Args:
        nursery: Where servers and their clients run.

    Attributes:
        made: How many of these there have been in this process; so pytest is told that a test has served.
    """

    made: ClassVar[int] = 0

    def __init__(self, nursery: trio.Nursery) -> None:
        Servers.made += 1
        self._nursery = nursery
        self._resources = ExitStack()
        self._lifetimes: list[Lifetime] = []
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
        one = Lifetime(raise_app_exceptions=raise_app_exceptions, allow_open_streams=allow_open_streams)
        handle = await self._start(one, partial(serve_at, settings.bind, app, settings, watch=one.watch))
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
        one = Lifetime(raise_app_exceptions=raise_app_exceptions, allow_open_streams=allow_open_streams)
        handle = await self._start(one, partial(serve_at, (), app, settings, watch=one.watch))
        network = Network(MemoryListener(handle.server).connect, one.errors)
        return one.present(Client(handle, f"http://{ADDRESS[0]}", self._nursery, network, one.log))

    async def _start(self, one: Lifetime, run: Run) -> Handle:
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
        self._lifetimes.append(one)
        return one.handle

    async def finish(self) -> None:
        """Close all clients, shut all servers down, and tell what went wrong.

        Raises:
            OpenStreamError: If the test left something open.
            BaseException: What an application raised and no call of the test has told; a group, if there are several.
        """
        self._is_over = True
        with self._resources:
            errors = [error for one in self._lifetimes for error in await one.finish()]
        self._nursery.cancel_scope.cancel()
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise BaseExceptionGroup("errors of what this test served", errors)

    def abandon(self) -> None:
        """Stop at once, since the test has failed already."""
        self._is_over = True
        for one in self._lifetimes:
            one.cut_clients()
        self._resources.close()
        self._nursery.cancel_scope.cancel()


_DEFAULTS: Final = Config().replace(timeouts={"graceful_s": GRACEFUL_S})


def _settings(changes: Mapping[str, object]) -> Config:
    # Most tests change nothing, and then the checks of 60 settings are most of what a start takes.
    return _DEFAULTS.replace(**changes) if changes else _DEFAULTS


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
async def open_servers() -> AsyncIterator[Servers]:
    """Serve whatever a block serves, for its length.

    Raises:
        RuntimeError: If Trio does not run, but asyncio.
    """
    if not trio.lowlevel.in_trio_run():
        raise RuntimeError(
            "pagi_trio.testing runs on Trio, and this does not: with the plugin of AnyIO, let the fixture "
            'anyio_backend return "trio"'
        )
    with unwrapping(), ExitStack() as ending:
        async with trio.open_nursery() as nursery:
            servers = Servers(nursery)
            try:
                yield servers
            except BaseException:
                servers.abandon()
                raise
            finally:
                ending.enter_context(let_time_go_on())
            await servers.finish()


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
