"""A program that is nothing but a server, and stops as gracefully by SIGTERM as by Ctrl-C."""

from __future__ import annotations

import logging
import signal
import sys
from functools import partial

import trio

from pagi_trio import Config, serve


async def app(scope, receive, send):  # noqa: ARG001 - ASGI calls with it
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"hello\n"})


async def main(bind="127.0.0.1:8000"):
    """Serve until a signal comes."""
    config = Config(bind=(bind,))
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        await serve(app, config, shutdown_trigger=partial(anext, signals))


if __name__ == "__main__":
    logging.basicConfig(level="INFO")
    trio.run(main, *sys.argv[1:2])
