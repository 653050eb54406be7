"""The parts of a test's clients under the handle that has them all: over sockets, and in memory."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from pagi_trio.testing.app_errors import AppErrors
from pagi_trio.testing.memory import MemoryListener
from pagi_trio.testing.network import Network
from tests.integration.embedded import serving


class Link:
    """A server, the connections to it, what its application has raised, and a nursery for what clients do."""

    def __init__(self, server, network, errors, nursery):
        self.server = server
        self.network = network
        self.errors = errors
        self.nursery = nursery


@asynccontextmanager
async def linked(app, *, in_memory=False, patience_s=10, **config):
    """Serve an application for clients that have some seconds."""
    with trio.fail_after(patience_s):
        async with serving(app, lifespan="off", **config) as server, trio.open_nursery() as nursery:
            errors = AppErrors(is_raising=True)
            errors.listen(server.handle.server.service)
            over_tcp = partial(trio.open_tcp_stream, "127.0.0.1", server.port)
            open_stream = MemoryListener(server.handle.server).connect if in_memory else over_tcp
            yield Link(server, Network(open_stream, errors), errors, nursery)
            nursery.cancel_scope.cancel()


@pytest.fixture(params=["sockets", "memory"])
def link(request):
    """``async with link(app, **config) as link``: once over sockets and once in memory."""
    return partial(linked, in_memory=request.param == "memory")
