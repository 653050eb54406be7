"""What each of these tests has: a server in processes of its own, clients, and scrapers that watch the totals.

They start interpreters and kill them, and so take seconds where a test should take a quarter of one.
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager

import pytest
import trio

from .clients import Crowd
from .page import Watch
from .server import serving

pytest.importorskip("prometheus_client")

if not hasattr(os, "pidfd_open"):
    # Several workers are for Linux alone; elsewhere the command says so, which tests/unit proves.
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture
def start():
    """``async with start(*arguments, workers=N) as server``: the command, with so many workers ready."""
    return serving


@pytest.fixture
def watched():
    """``async with watched(server) as (crowd, watch)``: scrapers over both doors; what they see is checked at the end."""

    @asynccontextmanager
    async def watch(server, rest_s=0.0):
        crowd, watch = Crowd(server.port, rest_s), Watch(server)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch.through_parent)
            nursery.start_soon(watch.through_workers)
            yield crowd, watch
            nursery.cancel_scope.cancel()
        watch.check()

    return watch
