"""The application of the contract in FastAPI."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterable
from contextlib import asynccontextmanager
from typing import Annotated

import trio
from fastapi import BackgroundTasks, FastAPI, Form, Request, UploadFile, WebSocket
from fastapi.responses import PlainTextResponse, StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel

from .notes import Notes


class Sent(BaseModel):
    sent: str


@asynccontextmanager
async def lifespan(app):
    yield {"word": "of the lifespan"}
    print("stopped")  # what whoever runs the command sees


def make_app():
    notes = Notes()
    app = FastAPI(lifespan=lifespan)

    @app.post("/notes/{name}")
    async def add_note(name: str):
        notes.add(name)

    @app.get("/notes/{name}")
    async def wait_for_note(name: str):
        await notes.wait(name)

    @app.post("/items/{number}")
    async def item(number: int, q: str, data: Sent):
        return {"id": number, "q": q, "sent": data.sent}

    @app.get("/stream")
    async def stream():
        async def parts():
            yield b"first"
            await notes.wait("stream may go on")
            yield bytes(200_000)

        return StreamingResponse(parts())

    @app.get("/endless")
    async def endless():
        async def parts():
            try:
                while True:
                    yield bytes(65536)
            finally:
                notes.add("endless ended")

        return StreamingResponse(parts())

    @app.post("/upload")
    async def upload(file: UploadFile, word: Annotated[str, Form()]):
        content = await file.read()
        return [word, file.filename, len(content), hashlib.sha256(content).hexdigest()]

    async def work():
        notes.add("work begun")
        await notes.wait("work may end")
        notes.add("work done")

    @app.get("/order", response_class=PlainTextResponse)
    async def order(tasks: BackgroundTasks):
        tasks.add_task(work)
        return "ordered"

    @app.get("/watch")
    async def watch(request: Request):
        notes.add("watching")
        while not await request.is_disconnected():
            await trio.sleep(0.01)
        notes.add("client left")

    @app.get("/events", response_class=EventSourceResponse)
    async def events() -> AsyncIterable[ServerSentEvent]:
        for number in range(3):
            yield ServerSentEvent(event="tick", raw_data=str(number))

    @app.get("/clock", response_class=EventSourceResponse)
    async def clock() -> AsyncIterable[ServerSentEvent]:
        try:
            yield ServerSentEvent(data=0)
            await trio.sleep_forever()
        finally:
            notes.add("clock stopped")

    @app.get("/handled")
    async def handled():
        raise LookupError("the reason")

    @app.exception_handler(LookupError)
    async def on_lookup_error(request, error):
        return PlainTextResponse(f"handled: {error}", 418)

    @app.get("/crash")
    async def crash():
        raise RuntimeError("the crash")

    @app.get("/state", response_class=PlainTextResponse)
    async def state(request: Request):
        return request.state.word

    @app.websocket("/echo")
    async def echo(websocket: WebSocket):
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

    @app.websocket("/refused")
    async def refused(websocket: WebSocket):
        await websocket.close()

    return app
