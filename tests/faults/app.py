"""The application that is put through faults: it counts what it does, and can be told to misbehave.

It says in every answer which worker has given it.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import trio
from prometheus_client import Counter, Gauge, Histogram

from pagi_trio import MetricsApp, URLMap

# While this file exists, an import fails, and takes the file away: so one of several workers does.
STUMBLE = Path(os.environ.get("STUMBLE_FILE", "/nonexistent"))

ORDERS = Counter("orders", "What was asked for.", ["kind"])
SIZES = Histogram("order_size", "How much of it; quarters, so that their sum has no rounding.", buckets=(0.5, 1, 2))
OPEN = Gauge("orders_open", "What is being done.", multiprocess_mode="livesum")

FILES = []

if STUMBLE.exists():
    STUMBLE.unlink(missing_ok=True)
    raise RuntimeError("this worker stumbles")


def headers_of(scope):
    return [(b"x-worker", b"%d" % scope["extensions"]["pagi.worker"]["number"])]


async def lifespan(receive, send):
    for phase in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{phase}.complete"})


async def order(scope, send):
    """Answer with as many bytes as the query says."""
    size = int(scope["query_string"] or 0)
    ORDERS.labels("http").inc()
    SIZES.observe(size / 4)
    with OPEN.track_inprogress():
        headers = [*headers_of(scope), (b"content-length", b"%d" % size)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x" * size})


async def events(scope, send):
    """Send as many events as the query says."""
    ORDERS.labels("events").inc()
    headers = [*headers_of(scope), (b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for number in range(int(scope["query_string"])):
        await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def echo(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept", "headers": headers_of(scope)})
    while (message := await receive())["type"] == "websocket.receive":
        ORDERS.labels("message").inc()
        await send({"type": "websocket.send", "bytes": message["bytes"]})


async def slow(send):
    """Begin an answer, and end it once the process gets SIGUSR1."""
    with trio.open_signal_receiver(signal.SIGUSR1) as signals:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"o", "more_body": True})
        async for _ in signals:
            break
    await send({"type": "http.response.body", "body": b"k"})


def open_files():
    """Open files until the process may not open another."""
    while True:
        try:
            FILES.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            return


def close_files():
    while FILES:
        os.close(FILES.pop())


async def shop(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await echo(scope, receive, send)
    elif scope["path"] == "/slow":
        await slow(send)
    elif scope["path"] == "/events":
        await events(scope, send)
    else:
        if scope["path"] == "/hang":
            while True:
                pass
        if scope["path"] == "/open-files":
            open_files()
        if scope["path"] == "/close-files":
            close_files()
        await order(scope, send)


app = URLMap({"/metrics": MetricsApp(), "/": shop})
