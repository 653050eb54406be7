"""A gallery that counts what its server cannot know: the example of docs/how-to/metrics.md.

Run ``pagi-trio -w 2 docs/examples/metrics/gallery.py --metrics-bind 127.0.0.1:9100``, and read
http://127.0.0.1:9100/metrics.
"""

from __future__ import annotations

import zlib
from contextlib import asynccontextmanager

import trio
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute

from pagi_trio.metrics import Metrics

metrics = Metrics(prefix="gallery")

logins = metrics.counter("logins_total", "Logins.", labels=["method"])
sizes = metrics.histogram("upload_bytes", "Sizes of uploads.", unit="bytes", buckets=(1e3, 1e5, 1e7))
packing = metrics.gauge("packing_ratio", "What is left of the last upload, packed.", unit="ratio", workers="latest")
depth = metrics.gauge("queue_depth", "Uploads that wait for their thumbnail.", workers="sum")
work = metrics.timer("work_seconds", "How long a step takes.", labels=["step"])
moves = metrics.counter("moves_total", "Moves of pointers that were passed on.")

# Bound once: they are on the page with 0 from the start, and nothing is looked up where they count.
LOGINS = {method: logins.labels(method=method) for method in ("password", "passkey")}


async def login(request):
    """Count by method. What clients choose freely is no label: each of its values would be a series."""
    counter = LOGINS.get(request.path_params["method"])
    if counter is None:
        return PlainTextResponse("there is no such method\n", 404)
    counter.inc()
    return PlainTextResponse("welcome\n")


async def upload(request):
    """Take a picture, and leave the rest to another task."""
    picture = await request.body()
    sizes.observe(len(picture))
    if metrics:
        # This takes a while: it is done only where somebody counts.
        packing.set(len(zlib.compress(picture)) / max(len(picture), 1))
    if not is_picture(picture):
        return PlainTextResponse("this is no picture\n", 415)
    try:
        request.state.queue.send_nowait(picture)
    except trio.WouldBlock:
        return PlainTextResponse("too many wait already\n", 503)
    return PlainTextResponse("thank you\n", 202)


@work.labels(step="check").time()
def is_picture(data):
    """Look at the data: each call is timed."""
    return data.startswith(b"\x89PNG")


@work.labels(step="shrink").time()
def shrink(picture):
    """Make it small, in a thread, where counting is the same."""
    return picture[::8]


async def make_thumbnails(pictures):
    """Be the task that works the queue off; a block is timed here, with its waiting."""
    async for picture in pictures:
        with work.labels(step="thumbnail").time():
            await trio.to_thread.run_sync(shrink, picture)


async def point(websocket):
    """Pass moves on. The path is hot, so it counts in a plain integer."""
    pointers = websocket.state.pointers
    await websocket.accept()
    async for move in websocket.iter_text():
        pointers.moves += 1
        await websocket.send_text(move)


class Pointers:
    """What the hot path counts in.

    Attributes:
        moves: Those that are not yet counted in the metric.
    """

    def __init__(self):
        self.moves = 0


@asynccontextmanager
async def lifespan(_app):
    queue, pictures = trio.open_memory_channel(100)
    pointers = Pointers()

    def bring_up_to_date():
        depth.set(pictures.statistics().current_buffer_used)
        moves.inc(pointers.moves)
        pointers.moves = 0

    metrics.add_batch_callback(bring_up_to_date)
    async with trio.open_nursery() as nursery, queue:
        nursery.start_soon(make_thumbnails, pictures)
        yield {"queue": queue, "pointers": pointers}


app = Starlette(
    routes=[
        Route("/login/{method}", login, methods=["POST"]),
        Route("/upload", upload, methods=["POST"]),
        WebSocketRoute("/pointer", point),
    ],
    lifespan=lifespan,
)
