"""The application every server under attack runs: plain ASGI, the same for all, by the path that is asked for.

Some of it is written as applications should not be: it swallows every error, or receives for ever.
"""

from __future__ import annotations

import os
from time import monotonic

import anyio

GREETING = b"hello"
CHUNK = bytes(65536)
DOWNLOAD_BYTES = 512 * 1024 * 1024

STUBBORN_S = float(os.environ.get("STUBBORN_S", "1"))
"""How long an application goes on that does not want to hear of its client's leaving: by default it ends in a test."""

DEAF_S = 1.0
"""How long an application is busy with other things before it answers."""


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    else:
        await PATHS[scope["type"], scope["path"]](receive, send)


async def lifespan(receive, send):
    while True:
        phase = (await receive())["type"]
        await send({"type": f"{phase}.complete"})
        if phase == "lifespan.shutdown":
            return


async def start(send, *headers):
    await send({"type": "http.response.start", "status": 200, "headers": list(headers)})


async def answer(send, body):
    await start(send, (b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.body", "body": body})


def stubborn():
    """Go on for a while, whatever happens."""
    end = monotonic() + STUBBORN_S
    while monotonic() < end:
        yield


# HTTP


async def hello(receive, send):
    """Answer at once, whatever body may follow."""
    await answer(send, GREETING)


async def upload(receive, send):
    taken, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        taken += len(message["body"])
        more = message["more_body"]
    await answer(send, b"%d" % taken)


async def download(receive, send):
    await start(send, (b"content-length", b"%d" % DOWNLOAD_BYTES))
    left = DOWNLOAD_BYTES
    while left:
        left -= len(CHUNK)
        await send({"type": "http.response.body", "body": CHUNK, "more_body": left > 0})


async def events(receive, send):
    await start(send, (b"content-type", b"text/event-stream"))
    while True:
        await send({"type": "http.response.body", "body": b"data: 1234567\n\n" * 64, "more_body": True})


async def deaf(receive, send):
    """Be busy with other things than what the client sends."""
    await anyio.sleep(DEAF_S)
    await answer(send, GREETING)


async def send_stubbornly(receive, send):
    await start(send)
    for _ in stubborn():
        try:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        except Exception:
            continue


async def receive_stubbornly(receive, send):
    for _ in stubborn():
        await receive()


# WebSocket


async def accept(receive, send):
    await receive()
    await send({"type": "websocket.accept"})


async def echo(receive, send):
    await accept(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "bytes": message.get("bytes") or message["text"].encode()})


async def swallow(receive, send):
    """Take every message and send none."""
    await accept(receive, send)
    while (await receive())["type"] == "websocket.receive":
        pass


async def publish(receive, send):
    await accept(receive, send)
    while True:
        await send({"type": "websocket.send", "bytes": CHUNK})


async def deaf_session(receive, send):
    await accept(receive, send)
    await anyio.sleep(DEAF_S)


async def absent(receive, send):
    """Neither send nor receive for a while."""
    await accept(receive, send)
    await anyio.sleep(STUBBORN_S)


async def goodbye(receive, send):
    await accept(receive, send)
    await send({"type": "websocket.close"})


async def publish_stubbornly(receive, send):
    await accept(receive, send)
    for _ in stubborn():
        try:
            await send({"type": "websocket.send", "text": "x"})
        except Exception:
            continue


async def listen_stubbornly(receive, send):
    await accept(receive, send)
    for _ in stubborn():
        await receive()


PATHS = {
    ("http", "/"): hello,
    ("http", "/upload"): upload,
    ("http", "/download"): download,
    ("http", "/events"): events,
    ("http", "/deaf"): deaf,
    ("http", "/send-stubbornly"): send_stubbornly,
    ("http", "/receive-stubbornly"): receive_stubbornly,
    ("websocket", "/echo"): echo,
    ("websocket", "/swallow"): swallow,
    ("websocket", "/publish"): publish,
    ("websocket", "/deaf"): deaf_session,
    ("websocket", "/absent"): absent,
    ("websocket", "/goodbye"): goodbye,
    ("websocket", "/publish-stubbornly"): publish_stubbornly,
    ("websocket", "/listen-stubbornly"): listen_stubbornly,
}
