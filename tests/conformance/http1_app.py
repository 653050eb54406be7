"""The application under the cases: plain ASGI, which records what it is called with and answers by its path.

Any server can run it, and nothing but ``/-/calls?PORT`` is needed to learn what reached it: the calls made for the
connection that a client had from this port, as JSON. Each answer says in ``x-call`` which of them it is for.
"""

from __future__ import annotations

import json

CALLS: dict[int, list[dict]] = {}
"""The calls not asked for yet, by the client's port."""


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for phase in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{phase}.complete"})
        return
    if scope["path"] == "/-/calls":
        calls = CALLS.pop(int(scope["query_string"]), [])
        await answer(send, [], json.dumps(calls).encode())
        return
    calls = CALLS.setdefault(scope["client"][1], [])
    headers = [(b"x-call", b"%d" % len(calls))]
    call = describe(scope)
    calls.append(call)
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept", "headers": headers})
        while (await receive())["type"] != "websocket.disconnect":
            pass
    elif scope["path"] == "/error":
        raise RuntimeError("this is what is asked for")
    elif scope["path"] == "/unread" or await read(call, receive):
        await respond(scope["path"], headers, send)


def describe(scope):
    """Put what came with a call into JSON; bytes become the characters of their numbers."""
    return {
        "type": scope["type"],
        "method": scope.get("method", "GET"),
        "path": scope["path"],
        "query": scope["query_string"].decode("latin-1"),
        "version": scope["http_version"],
        "fields": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
        "body": "",
        "whole": False,
    }


async def read(call, receive):
    """Read the body into the record of its call; return whether it came to its end."""
    while not call["whole"]:
        message = await receive()
        if message["type"] == "http.disconnect":
            return False
        call["body"] += message.get("body", b"").decode("latin-1")
        call["whole"] = not message.get("more_body", False)
    return True


async def respond(path, headers, send):
    _, _, kind = path.partition("/")
    if kind == "stream":
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for part in (b"one", b"two"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    elif kind == "close":
        await answer(send, [*headers, (b"connection", b"close")], b"seen")
    elif kind in ("204", "205", "304"):
        await send({"type": "http.response.start", "status": int(kind), "headers": headers})
        await send({"type": "http.response.body", "body": b""})
    else:
        await answer(send, headers, b"seen")


async def answer(send, headers, body):
    headers = [*headers, (b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
