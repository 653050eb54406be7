"""The application that tests of worker processes serve: each path has its process do something.

A test gets a copy of this file, which it may change.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import trio

VERSION = 1


def say(what):
    """Write a line in one piece, since many processes write."""
    os.write(2, f"app: {what}, {os.getpid()}\n".encode())


async def lifespan(receive, send):
    await receive()
    say("startup")
    await send({"type": "lifespan.startup.complete"})
    await receive()
    say("shutdown")
    await send({"type": "lifespan.shutdown.complete"})


async def websocket(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": str(os.getpid())})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})
    say(f"websocket closed by {message['code']}")


async def events(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    await send({"type": "http.response.body", "body": b"data: one\n\n", "more_body": True})
    await send({"type": "http.response.body", "body": b"data: two\n\n"})


async def gated(scope):
    """Go on once somebody has opened the gate, and closed it."""
    await trio.to_thread.run_sync(Path("gate").read_bytes)


async def forever(scope):
    await trio.sleep_forever()


async def busy(scope):
    while True:
        pass


async def shielded(scope):
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()


async def thread(scope):
    await trio.to_thread.run_sync(time.sleep, 1000)


async def leave(scope):
    os._exit(7)


async def kill(scope):
    os.kill(os.getpid(), int(scope["query_string"]))
    await trio.sleep_forever()


# Its files, and the signals that it blocks and ignores: but for the terminal's job control, which workers leave alone,
# and SIGHUP, which nohup may have ignored before.
CHILD = """
import os, signal
print(os.listdir("/proc/self/fd"), signal.pthread_sigmask(signal.SIG_BLOCK, []))
terminal = {signal.SIGTTIN, signal.SIGTTOU, signal.SIGHUP}
print([n for n in signal.valid_signals() - terminal if signal.getsignal(n) is signal.SIG_IGN])
"""


async def child(scope):
    """Tell what a program that the application starts gets from this process."""
    return subprocess.run([sys.executable, "-Sc", CHILD], check=True, capture_output=True, text=True).stdout


async def about(scope):
    told = {"version": VERSION, "pid": os.getpid(), "worker": scope["extensions"]["pagi.worker"]}
    return json.dumps({**told, "root_path": scope["root_path"], "argv": sys.argv, "path": sys.path})


PATHS = {"/": about} | {f"/{one.__name__}": one for one in (gated, forever, busy, shielded, thread, leave, kill, child)}


async def http(scope, receive, send):
    path = scope["path"].removeprefix(scope["root_path"])
    if path != "/":
        say(path[1:])
    body = await PATHS[path](scope) or "done"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body.encode()})


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await websocket(scope, receive, send)
    elif scope["path"].endswith("/events"):
        await events(scope, receive, send)
    else:
        await http(scope, receive, send)


def make():
    return app


def wsgi(environ, start_response):
    start_response("200 OK", [("content-type", "text/plain")])
    return [f"multiprocess: {environ['wsgi.multiprocess']}".encode()]
