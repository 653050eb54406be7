"""HTTP, a WebSocket and a lifespan in one application; run it with ``pagi-trio docs/examples/hello.py``."""

from __future__ import annotations

import trio

from pagi_trio import MetricsApp, URLMap, serve


async def hello(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"hello\n"})
    elif scope["type"] == "websocket":
        await echo(receive, send)
    elif scope["type"] == "lifespan":
        await live(receive, send)


async def echo(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


async def live(receive, send):
    await receive()
    print("open the database here")
    await send({"type": "lifespan.startup.complete"})
    await receive()
    print("and close it here")
    await send({"type": "lifespan.shutdown.complete"})


app = URLMap({"/metrics": MetricsApp(), "/": hello})

if __name__ == "__main__":
    trio.run(serve, app)
