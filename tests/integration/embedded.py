"""A server embedded in a nursery, as programs do it: real sockets, whatever the clock, and nothing of the fixtures."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from pagi_trio.config import Config
from pagi_trio.server import Handle, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pagi_trio.asgi import App
    from pagi_trio.metrics.server_metrics import ServerMetrics


class ServedApp:
    """A server that runs for a test.

    Attributes:
        handle: What `serve` started with.
        url: Where it listens, without a slash at the end.
    """

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.url = handle[0]

    @property
    def ws_url(self) -> str:
        """The same for WebSockets."""
        return "ws" + self.url.removeprefix("http")

    @property
    def port(self) -> int:
        """The TCP port it listens on."""
        return int(self.url.rpartition(":")[2])

    @property
    def metrics(self) -> ServerMetrics:
        """Its numbers; reading them folds first, so that no test ever waits for them.

        Raises:
            RuntimeError: If the server runs with metrics off.
        """
        if self.handle.metrics is None:
            raise RuntimeError("this server has no metrics: it was started with metrics.enabled = False")
        return self.handle.metrics


async def start_server(nursery: trio.Nursery, app: App, config: dict[str, object]) -> ServedApp:
    """Start a server in a nursery; returns once connections are accepted.

    Args:
        nursery: Where it runs until it is shut down or cancelled.
        app: The application.
        config: Settings by name, as `Config.replace` takes them; the default bind is a free port of 127.0.0.1.

    Raises:
        ConfigError: If a setting is wrong.
        LifespanFailedError: If the application refuses to start.
    """
    settings = Config().replace(**{"bind": ("127.0.0.1:0",), **config})
    handle: Handle = await nursery.start(partial(serve, app, settings))
    return ServedApp(handle)


@asynccontextmanager
async def serving(app: App, **config: object) -> AsyncIterator[ServedApp]:
    """Serve an application for the length of a block, then shut it down with its lifespan."""
    async with trio.open_nursery() as nursery:
        server = await start_server(nursery, app, config)
        yield server
        server.handle.shutdown()
