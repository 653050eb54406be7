"""The application of the contract in Quart-Trio."""

from __future__ import annotations

import hashlib

import trio
from quart import abort, request, websocket
from quart_trio import QuartTrio

from .notes import Notes


def make_app():
    notes = Notes()
    app = QuartTrio(__name__)

    @app.post("/notes/<name>")
    async def add_note(name):
        notes.add(name)
        return "noted"

    @app.get("/notes/<name>")
    async def wait_for_note(name):
        await notes.wait(name)
        return "noted"

    @app.post("/items/<int:number>")
    async def item(number):
        return {"id": number, "q": request.args["q"], **await request.get_json()}

    @app.get("/stream")
    async def stream():
        async def parts():
            yield b"first"
            await notes.wait("stream may go on")
            yield bytes(200_000)

        return parts()

    @app.get("/endless")
    async def endless():
        async def parts():
            try:
                while True:
                    yield bytes(65536)
            finally:
                notes.add("endless ended")

        return parts()

    @app.post("/upload")
    async def upload():
        file = (await request.files)["file"]
        content = file.read()
        word = (await request.form)["word"]
        return [word, file.filename, len(content), hashlib.sha256(content).hexdigest()]

    async def work():
        notes.add("work begun")
        await notes.wait("work may end")
        notes.add("work done")

    @app.get("/order")
    async def order():
        app.add_background_task(work)
        return "ordered"

    @app.get("/watch")
    async def watch():
        notes.add("watching")
        try:
            await trio.sleep_forever()
        finally:
            notes.add("client left")

    @app.get("/events")
    async def events():
        async def ticks():
            for number in range(3):
                yield f"event: tick\ndata: {number}\n\n".encode()

        return ticks(), {"Content-Type": "text/event-stream"}

    @app.get("/clock")
    async def clock():
        async def ticks():
            try:
                yield b"data: 0\n\n"
                await trio.sleep_forever()
            finally:
                notes.add("clock stopped")

        return ticks(), {"Content-Type": "text/event-stream"}

    @app.get("/handled")
    async def handled():
        raise LookupError("the reason")

    @app.errorhandler(LookupError)
    async def on_lookup_error(error):
        return f"handled: {error}", 418

    @app.get("/crash")
    async def crash():
        raise RuntimeError("the crash")

    @app.before_serving
    async def begin():
        app.config["WORD"] = "of the lifespan"

    @app.after_serving
    async def end():
        print("stopped")  # what whoever runs the command sees

    @app.get("/state")
    async def state():
        return app.config["WORD"]

    @app.websocket("/echo")
    async def echo():
        await websocket.accept(subprotocol="echo")
        try:
            while True:
                data = await websocket.receive()
                if data == "close":
                    await websocket.close(4001, "enough")
                    return
                await websocket.send(data)
        finally:
            # A client that leaves cancels the handler, which is not told the code.
            notes.add("closed")

    @app.websocket("/refused")
    async def refused():
        abort(403)

    return app
