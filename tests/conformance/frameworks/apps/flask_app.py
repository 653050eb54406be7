"""The application of the contract in Flask, which is WSGI: no WebSocket, no lifespan, no background task of its own."""

from __future__ import annotations

import hashlib
import threading

from flask import Flask, Response, request

from .notes import ThreadNotes


def make_app():
    notes = ThreadNotes()
    app = Flask(__name__)

    @app.post("/notes/<name>")
    def add_note(name):
        notes.add(name)
        return "noted"

    @app.get("/notes/<name>")
    def wait_for_note(name):
        notes.wait(name)
        return "noted"

    @app.post("/items/<int:number>")
    def item(number):
        return {"id": number, "q": request.args["q"], **request.get_json()}

    @app.get("/stream")
    def stream():
        def parts():
            yield b"first"
            notes.wait("stream may go on")
            yield bytes(200_000)

        return parts()

    @app.get("/endless")
    def endless():
        def parts():
            try:
                while True:
                    yield bytes(65536)
            finally:
                notes.add("endless ended")

        return parts()

    @app.post("/upload")
    def upload():
        content = request.files["file"].read()
        digest = hashlib.sha256(content).hexdigest()
        return [request.form["word"], request.files["file"].filename, len(content), digest]

    def work():
        notes.add("work begun")
        notes.wait("work may end")
        notes.add("work done")

    @app.get("/order")
    def order():
        threading.Thread(target=work).start()
        return "ordered"

    @app.get("/events")
    def events():
        return Response((f"event: tick\ndata: {number}\n\n" for number in range(3)), mimetype="text/event-stream")

    @app.get("/handled")
    def handled():
        raise LookupError("the reason")

    @app.errorhandler(LookupError)
    def on_lookup_error(error):
        return f"handled: {error}", 418

    @app.get("/crash")
    def crash():
        raise RuntimeError("the crash")

    return app
