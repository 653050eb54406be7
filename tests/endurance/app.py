"""The application of the long run: every way to be called, every way to misbehave, and a count of what is alive."""

from __future__ import annotations

import gc
import json
from collections import Counter

import trio

CHUNK = bytes(range(256)) * 32  # 8 KiB
BACKGROUND_S = 0.05
EVENT_S = 0.02
TYPES_SHOWN = 25


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await echo(receive, send)
    else:
        await PAGES[scope["path"].split("/")[1]](scope, receive, send)


async def lifespan(receive, send):
    while True:
        phase = (await receive())["type"]
        await send({"type": f"{phase}.complete"})
        if phase == "lifespan.shutdown":
            return


async def answer(send, body, status=200, kind=b"text/plain"):
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def plain(scope, receive, send):
    """Say what was asked for."""
    await answer(send, scope["raw_path"] + b"?" + scope["query_string"])


async def download(scope, receive, send):
    """Send as many chunks as the query says, one after the other."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(int(scope["query_string"])):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def upload(scope, receive, send):
    """Read a body and say how long it was."""
    size = 0
    while (message := await receive())["type"] == "http.request":
        size += len(message["body"])
        if not message["more_body"]:
            await answer(send, b"%d" % size)
            return


async def unread(scope, receive, send):
    """Answer without a look at the body."""
    await answer(send, b"unread")


async def events(scope, receive, send):
    """Send as many events as the query says, at a pace, unless the client leaves."""
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for number in range(int(scope["query_string"])):
        await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
        await trio.sleep(EVENT_S)
    await send({"type": "http.response.body", "body": b""})


async def background(scope, receive, send):
    """Go on after the response, as background tasks of frameworks do."""
    await answer(send, b"later")
    await trio.sleep(BACKGROUND_S)


async def watched(scope, receive, send):
    """Stream while another task waits for the disconnect, as frameworks do."""
    async with trio.open_nursery() as nursery:

        async def watch():
            while (await receive())["type"] != "http.disconnect":
                pass
            nursery.cancel_scope.cancel()

        nursery.start_soon(watch)
        await download(scope, receive, send)
        nursery.cancel_scope.cancel()


async def error(scope, receive, send):
    raise LookupError("an error on purpose, before the response")


async def error_inside(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    raise LookupError("an error on purpose, inside the response")


async def echo(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") == "raise":
            raise LookupError("an error on purpose, inside a WebSocket")
        await send({**message, "type": "websocket.send"})


async def alive(scope, receive, send):
    """Say how many tasks there are, and objects of which types that the collector knows."""
    gc.collect()
    objects = Counter(type(one).__qualname__ for one in gc.get_objects())
    report = {"tasks": count_tasks(), "objects": objects.total(), "types": dict(objects.most_common(TYPES_SHOWN))}
    await answer(send, json.dumps(report).encode(), kind=b"application/json")


def count_tasks():
    count = 0
    waiting = [trio.lowlevel.current_root_task()]
    while waiting:
        count += 1
        for nursery in waiting.pop().child_nurseries:
            waiting.extend(nursery.child_tasks)
    return count


PAGES = {
    "plain": plain,
    "download": download,
    "upload": upload,
    "unread": unread,
    "events": events,
    "background": background,
    "watched": watched,
    "error": error,
    "error-inside": error_inside,
    "alive": alive,
}
