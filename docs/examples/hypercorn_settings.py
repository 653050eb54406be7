"""A program that embedded hypercorn, after its one changed import."""

from __future__ import annotations

import trio
from hypercorn.config import Config

from pagi_trio import serve


async def app(scope, receive, send):  # noqa: ARG001 - ASGI calls with it
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"hello\n"})


config = Config()
config.bind = ["127.0.0.1:8000"]
config.graceful_timeout = 10

if __name__ == "__main__":
    trio.run(serve, app, config)
