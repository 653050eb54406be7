"""Serve an application for a test: over sockets (`serve`) or in memory (`client`), in a nursery of the test's own.

The fixtures ``pagi_serve`` and ``pagi_client`` are these two; both give the same handle.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from pagi_trio.testing.event_parser import Event
from pagi_trio.testing.event_source import EventSource
from pagi_trio.testing.event_stream import EventStreamLostError, NotAnEventStreamError
from pagi_trio.testing.lifetime import OpenStreamError
from pagi_trio.testing.log import ServerLog
from pagi_trio.testing.network import Network
from pagi_trio.testing.readings import Delta, Readings
from pagi_trio.testing.served import Client, Served
from pagi_trio.testing.servers import Servers, open_servers
from pagi_trio.testing.wire import Wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pagi_trio.asgi import App

__all__ = [
    "Client",
    "Delta",
    "Event",
    "EventSource",
    "EventStreamLostError",
    "Network",
    "NotAnEventStreamError",
    "OpenStreamError",
    "Readings",
    "Served",
    "ServerLog",
    "Servers",
    "StartClient",
    "StartServer",
    "Wire",
    "client",
    "open_servers",
    "serve",
]


class StartServer(Protocol):
    """The type of the fixture ``pagi_serve``."""

    async def __call__(
        self, app: App, /, *, raise_app_exceptions: bool = True, allow_open_streams: bool = False, **config: object
    ) -> Served:
        """As `Servers.serve`."""
        ...


class StartClient(Protocol):
    """The type of the fixture ``pagi_client``."""

    async def __call__(
        self, app: App, /, *, raise_app_exceptions: bool = True, allow_open_streams: bool = False, **config: object
    ) -> Client:
        """As `Servers.client`."""
        ...


@asynccontextmanager
async def serve(
    app: App, /, *, raise_app_exceptions: bool = True, allow_open_streams: bool = False, **config: object
) -> AsyncIterator[Served]:
    """Serve an application over sockets for the length of a block, then shut it down with its lifespan.

    The arguments, and what may be raised, are those of `Servers.serve`, and at the block's end `Servers.finish`.
    """
    async with open_servers() as servers:
        yield await servers.serve(
            app, raise_app_exceptions=raise_app_exceptions, allow_open_streams=allow_open_streams, **config
        )


@asynccontextmanager
async def client(
    app: App, /, *, raise_app_exceptions: bool = True, allow_open_streams: bool = False, **config: object
) -> AsyncIterator[Client]:
    """Serve an application in memory for the length of a block, then shut it down with its lifespan.

    The arguments, and what may be raised, are those of `Servers.client`, and at the block's end `Servers.finish`.
    """
    async with open_servers() as servers:
        yield await servers.client(
            app, raise_app_exceptions=raise_app_exceptions, allow_open_streams=allow_open_streams, **config
        )
