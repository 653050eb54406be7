"""The applications every server under measurement runs: plain ASGI, no framework, the same for all."""

from __future__ import annotations

GREETING = b"Hello, World!"
EVENTS = 100
EVENT = b'data: {"tick": 1234567, "price": "101.25"}\n\n'
CHUNK = bytes(range(256)) * 256  # 64 KiB
DOWNLOAD_BYTES = 10 * 1024 * 1024
UPLOAD_BYTES = 1024 * 1024


async def lifespan(receive, send):
    while True:
        phase = (await receive())["type"]
        await send({"type": f"{phase}.complete"})
        if phase == "lifespan.shutdown":
            return


async def hello(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    # Literals, so that each response is made of new objects, as those of real applications are.
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"text/plain"), (b"content-length", b"13")],
        }
    )
    await send({"type": "http.response.body", "body": GREETING})


async def echo(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        if (data := message.get("bytes")) is not None:
            await send({"type": "websocket.send", "bytes": data})
        else:
            await send({"type": "websocket.send", "text": message["text"]})


async def events(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for _ in range(EVENTS):
        await send({"type": "http.response.body", "body": EVENT, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def download(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    length = str(DOWNLOAD_BYTES).encode()
    headers = [(b"content-type", b"application/octet-stream"), (b"content-length", length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    left = DOWNLOAD_BYTES
    while left:
        left -= len(CHUNK)
        await send({"type": "http.response.body", "body": CHUNK, "more_body": left > 0})


async def upload(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    taken, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        taken += len(message["body"])
        more = message["more_body"]
    answer = str(taken).encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


async def worker(scope, receive, send):
    """Say which worker answers."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    number = scope["extensions"]["pagi.worker"]["number"]
    headers = [(b"content-length", b"0"), (b"x-worker", b"%d" % number)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
