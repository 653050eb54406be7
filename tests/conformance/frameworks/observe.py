"""What the tests of single frameworks look at."""

from __future__ import annotations

import trio

from .contract import one_connection

__all__ = ["app_errors", "one_connection", "wait", "watched"]


def app_errors(server):
    """Return how many errors the server counted that the application let out."""
    return sum(server.metrics.value("pagi_server_app_errors_total", scope=s) for s in ("http", "websocket", "sse"))


async def wait(event):
    with trio.fail_after(5):
        await event.wait()


def watched(app):
    """Return the application, and an event that is set when a call of it for a request has ended."""
    ended = trio.Event()

    async def watch(scope, receive, send):
        try:
            await app(scope, receive, send)
        finally:
            if scope["type"] != "lifespan" and scope["path"] != "/plain":
                ended.set()

    return watch, ended
