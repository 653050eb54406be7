"""One server of a test, from its start to its end: what it is asked at the end, and what is told of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import trio
import trio.testing

from pagi_trio.errors import PagiError
from pagi_trio.nurseries.connection import Connection
from pagi_trio.nurseries.service import SSE
from pagi_trio.testing.app_errors import AppErrors
from pagi_trio.testing.log import ServerLog
from pagi_trio.testing.served import Served

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pagi_trio.server import Handle, Server

S = TypeVar("S", bound=Served)

SETTLE_S: Final = 1.0
"""How long the end of a test waits at most for the server to see which clients have left."""

ABANDONED_S: Final = 0.5
"""How long it waits for an application whose client has left before it got all."""


class OpenStreamError(PagiError):
    """A test left something open that it should have closed; the message names it."""


class Run(Protocol):
    """A server that is ready to be started."""

    async def __call__(self, *, task_status: trio.TaskStatus[Handle]) -> None:
        """Serve until told to stop."""
        ...


class Lifetime:
    """One server of a test, from its start to its end.

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

    async def run(self, run: Run, task_status: trio.TaskStatus[Handle]) -> None:
        """Be the task of the server."""
        try:
            await run(task_status=task_status)
        finally:
            self._ended.set()

    def watch(self, server: Server) -> None:
        """Learn of the server before it runs: an application may fail as soon as it has started."""
        service = server.service
        self.errors.listen(service)
        if isinstance(trio.lowlevel.current_clock(), trio.testing.MockClock):
            # Time that a test lets pass in one go has passed for every deadline.
            service.standstill_s = math.inf

    def present(self, served: S) -> S:
        """Take what the test gets of the server, now that it has started."""
        self._served = served
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
            await self._ended.wait()
        else:
            await self._end_abandoned()
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
        """Wait for the server's end, and end what is still being answered to clients that have left.

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
        if connections:
            with trio.move_on_after(ABANDONED_S):
                await self._ended.wait()
            _cancel_abandoned(connections)
        await self._ended.wait()


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
