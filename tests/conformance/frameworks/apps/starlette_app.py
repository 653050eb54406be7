"""The application of the contract in Starlette, its events by sse-starlette."""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager

import trio
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute

from .notes import Notes


def make_app():
    notes = Notes()

    async def note(request):
        if request.method == "POST":
            notes.add(request.path_params["name"])
        else:
            await notes.wait(request.path_params["name"])
        return PlainTextResponse("noted")

    async def item(request):
        sent = await request.json()
        return JSONResponse({"id": request.path_params["id"], "q": request.query_params["q"], **sent})

    async def stream(request):
        async def parts():
            yield b"first"
            await notes.wait("stream may go on")
            yield bytes(200_000)

        return StreamingResponse(parts())

    async def endless(request):
        async def parts():
            try:
                while True:
                    yield bytes(65536)
            finally:
                notes.add("endless ended")

        return StreamingResponse(parts())

    async def upload(request):
        async with request.form() as form:
            content = await form["file"].read()
            digest = hashlib.sha256(content).hexdigest()
            return JSONResponse([form["word"], form["file"].filename, len(content), digest])

    async def order(request):
        async def work():
            notes.add("work begun")
            await notes.wait("work may end")
            notes.add("work done")

        return PlainTextResponse("ordered", background=BackgroundTask(work))

    async def watch(request):
        notes.add("watching")
        while not await request.is_disconnected():
            await trio.sleep(0.01)
        notes.add("client left")
        return PlainTextResponse("too late")

    async def events(request):
        async def ticks():
            for number in range(3):
                yield {"event": "tick", "data": str(number)}

        return EventSourceResponse(ticks())

    async def clock(request):
        async def ticks():
            try:
                yield {"data": "0"}
                await trio.sleep_forever()
            finally:
                notes.add("clock stopped")

        return EventSourceResponse(ticks())

    async def handled(request):
        raise LookupError("the reason")

    async def crash(request):
        raise RuntimeError("the crash")

    async def state(request):
        return PlainTextResponse(request.state.word)

    async def echo(websocket):
        await websocket.accept(subprotocol="echo")
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                notes.add(f"closed with {message['code']}")
                return
            if message.get("text") == "close":
                await websocket.close(4001, "enough")
                return
            if message.get("text") is not None:
                await websocket.send_text(message["text"])
            else:
                await websocket.send_bytes(message["bytes"])

    async def refused(websocket):
        await websocket.close()

    async def on_lookup_error(request, error):
        return PlainTextResponse(f"handled: {error}", 418)

    @asynccontextmanager
    async def lifespan(app):
        yield {"word": "of the lifespan"}
        print("stopped")  # what whoever runs the command sees

    routes = [
        Route("/notes/{name}", note, methods=["GET", "POST"]),
        Route("/items/{id:int}", item, methods=["POST"]),
        Route("/stream", stream),
        Route("/endless", endless),
        Route("/upload", upload, methods=["POST"]),
        Route("/order", order),
        Route("/watch", watch),
        Route("/events", events),
        Route("/clock", clock),
        Route("/handled", handled),
        Route("/crash", crash),
        Route("/state", state),
        WebSocketRoute("/echo", echo),
        WebSocketRoute("/refused", refused),
    ]
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers={LookupError: on_lookup_error})
