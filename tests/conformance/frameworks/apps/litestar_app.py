"""The application of the contract in Litestar."""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

import trio
from litestar import Litestar, MediaType, Request, Response, WebSocket, get, post, websocket
from litestar.background_tasks import BackgroundTask
from litestar.datastructures import UploadFile
from litestar.enums import RequestEncodingType
from litestar.exceptions import WebSocketDisconnect
from litestar.params import Body, FromPath, FromQuery, JSONBody
from litestar.response import ServerSentEvent, ServerSentEventMessage, Stream

from .notes import Notes


@dataclass
class Sent:
    sent: str


@dataclass
class Upload:
    word: str
    file: UploadFile


@asynccontextmanager
async def lifespan(app):
    app.state.word = "of the lifespan"
    yield
    print("stopped")  # what whoever runs the command sees


def on_lookup_error(request: Request, error: LookupError) -> Response[str]:
    return Response(f"handled: {error}", status_code=418, media_type=MediaType.TEXT)


def make_app():
    notes = Notes()

    @post("/notes/{name:str}")
    async def add_note(name: FromPath[str]) -> None:
        notes.add(name)

    @get("/notes/{name:str}")
    async def wait_for_note(name: FromPath[str]) -> str:
        await notes.wait(name)
        return "noted"

    @post("/items/{number:int}", status_code=200)
    async def item(number: FromPath[int], q: FromQuery[str], data: JSONBody[Sent]) -> dict[str, object]:
        return {"id": number, "q": q, "sent": data.sent}

    @get("/stream")
    async def stream() -> Stream:
        async def parts():
            yield b"first"
            await notes.wait("stream may go on")
            yield bytes(200_000)

        return Stream(parts())

    @get("/endless")
    async def endless() -> Stream:
        async def parts():
            while True:
                yield bytes(65536)

        return Stream(parts())

    def noting_the_end(app):
        # Of the call: the generator is left to the garbage collector.
        async def middleware(scope, receive, send):
            try:
                await app(scope, receive, send)
            finally:
                if scope["path"] == "/endless":
                    notes.add("endless ended")

        return middleware

    @post("/upload", status_code=200)
    async def upload(
        data: Annotated[Upload, Body(media_type=RequestEncodingType.MULTI_PART)],
    ) -> list[object]:
        content = await data.file.read()
        return [data.word, data.file.filename, len(content), hashlib.sha256(content).hexdigest()]

    async def work() -> None:
        notes.add("work begun")
        await notes.wait("work may end")
        notes.add("work done")

    @get("/order", media_type=MediaType.TEXT)
    async def order() -> Response[str]:
        return Response("ordered", background=BackgroundTask(work))

    @get("/watch")
    async def watch(request: Request) -> None:
        notes.add("watching")
        while (await request.receive())["type"] != "http.disconnect":
            pass
        notes.add("client left")

    @get("/events")
    async def events() -> ServerSentEvent:
        async def ticks():
            for number in range(3):
                yield ServerSentEventMessage(event="tick", data=number)

        return ServerSentEvent(ticks())

    @get("/clock")
    async def clock() -> ServerSentEvent:
        async def ticks():
            try:
                yield ServerSentEventMessage(data=0)
                await trio.sleep_forever()
            finally:
                notes.add("clock stopped")

        return ServerSentEvent(ticks())

    @get("/handled")
    async def handled() -> None:
        raise LookupError("the reason")

    @get("/crash")
    async def crash() -> None:
        raise RuntimeError("the crash")

    @get("/state", media_type=MediaType.TEXT)
    async def state(request: Request) -> str:
        return request.app.state.word

    @websocket("/echo")
    async def echo(socket: WebSocket) -> None:
        await socket.accept(subprotocols="echo")
        try:
            while True:
                message = await socket.receive()
                if message["type"] == "websocket.disconnect":
                    notes.add(f"closed with {message['code']}")
                    return
                if message.get("text") == "close":
                    await socket.close(4001, "enough")
                    return
                if message.get("text") is not None:
                    await socket.send_text(message["text"])
                else:
                    await socket.send_bytes(message["bytes"])
        except WebSocketDisconnect as left:
            notes.add(f"closed with {left.code}")

    @websocket("/refused")
    async def refused(socket: WebSocket) -> None:
        await socket.close()

    return Litestar(
        [
            *(add_note, wait_for_note, item, stream, endless, upload, order, watch, events, clock),
            *(handled, crash, state, echo, refused),
        ],
        lifespan=[lifespan],
        middleware=[noting_the_end],
        # It would set up the logging of the whole process.
        logging_config=None,
        exception_handlers={LookupError: on_lookup_error},
    )
