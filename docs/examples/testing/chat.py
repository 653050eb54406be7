"""A chat: rooms over WebSockets, all that was said as server-sent events, and a page that lists who is there.

Run it with ``pagi-trio chat:app``; ``test_chat.py`` has its tests.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from contextlib import asynccontextmanager, contextmanager, suppress

import trio
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocketDisconnect

ANNOUNCE_S = 30


class Room:
    """What was said in a room, and who is there to hear it."""

    def __init__(self):
        self.lines = []
        self.members = []
        self._said = trio.Event()

    def say(self, line):
        """Add a line, and wake whoever waits for it. Nobody is waited for: the slow read later what they missed."""
        self.lines.append(line)
        self._said.set()
        self._said = trio.Event()

    async def line(self, number):
        """Return a line by its number, once it has been said."""
        while number >= len(self.lines):
            await self._said.wait()
        return self.lines[number]

    @contextmanager
    def member(self, name):
        """Have somebody in the room for the length of a block."""
        self.members.append(name)
        self.say(f"{name} is here")
        try:
            yield
        finally:
            self.members.remove(name)
            self.say(f"{name} has left")


class Events:
    """The lines of a room as events, from one line on and for ever. The id of each is the number of the next."""

    def __init__(self, room, number):
        self.room = room
        self.number = number

    def __aiter__(self):
        return self

    async def __anext__(self):
        line = await self.room.line(self.number)
        self.number += 1
        return f"id: {self.number}\ndata: {json.dumps(line)}\n\n"


async def who_is_there(request):
    rooms = request.state.rooms.items()
    return PlainTextResponse("".join(f"{name}: {', '.join(room.members)}\n" for name, room in rooms))


async def history(request):
    room = request.state.rooms[request.path_params["room"]]
    number = int(request.headers.get("last-event-id", 0))
    return StreamingResponse(Events(room, number), media_type="text/event-stream")


async def talk(websocket):
    room = websocket.state.rooms[websocket.path_params["room"]]
    name = websocket.query_params["name"]
    await websocket.accept()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, websocket, room, len(room.lines))
        with room.member(name), suppress(WebSocketDisconnect):
            while True:
                text = await websocket.receive_text()
                if text.startswith("/roll "):
                    text = f"rolls {random.randint(1, int(text.removeprefix('/roll ')))}"
                room.say(f"{name}: {text}")
        nursery.cancel_scope.cancel()


async def listen(websocket, room, number):
    with suppress(WebSocketDisconnect):
        while True:
            await websocket.send_text(await room.line(number))
            number += 1


async def announce(rooms):
    while True:
        await trio.sleep(ANNOUNCE_S)
        for room in rooms.values():
            room.say(f"in this room: {', '.join(room.members)}")


@asynccontextmanager
async def lifespan(_app):
    rooms = defaultdict(Room)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(announce, rooms)
        yield {"rooms": rooms}
        nursery.cancel_scope.cancel()


app = Starlette(
    routes=[
        Route("/", who_is_there),
        Route("/{room}/history", history),
        WebSocketRoute("/{room}", talk),
    ],
    lifespan=lifespan,
)
