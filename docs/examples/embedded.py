"""A server as one task among others; run it with ``python docs/examples/embedded.py``."""

from __future__ import annotations

import httpx
import trio

from pagi_trio import Config, serve


async def app(scope, receive, send):  # noqa: ARG001 - ASGI calls with it
    """Greet."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"hello\n"})


async def main():
    """Serve, be one's own client, and stop."""
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, app, Config(bind=("127.0.0.1:0",)))
        print("serving on", server[0])
        async with httpx.AsyncClient() as client:
            print("it says", (await client.get(server[0])).text.strip())
        print("connections so far:", int(server.metrics.value("pagi_server_connections_total")))
        server.shutdown()


if __name__ == "__main__":
    trio.run(main)
