"""FastAPI, beyond what all frameworks have in common: dependencies, background tasks, threads, files, streams and WebSockets."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated

import pytest
import trio
import trio_websocket
from fastapi import BackgroundTasks, Depends, FastAPI, File, Form, HTTPException, Request, UploadFile, WebSocket
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from .observe import app_errors, one_connection

pytestmark = pytest.mark.trio


class Item(BaseModel):
    name: str
    price: float = 1.5


class Log(list[str]):
    """What happened, in order, and an event for its end."""

    def __init__(self):
        self.ended = trio.Event()

    async def wait(self):
        with trio.fail_after(5):
            await self.ended.wait()


async def test_bodies_and_parameters_are_validated_on_one_connection(pagi_serve):
    app = FastAPI()

    @app.post("/items/{number}", status_code=201)
    async def create(number: int, item: Item, word: str = "none") -> dict[str, object]:
        return {"number": number, "word": word, **item.model_dump()}

    server = await pagi_serve(app)
    async with one_connection(server) as client:
        response = await client.post("/items/3?word=ü", json={"name": "n"})
        assert (response.status_code, response.json()) == (
            201,
            {"number": 3, "word": "ü", "name": "n", "price": 1.5},
        )
        assert (await client.post("/items/x", json={"name": "n"})).status_code == 422
        assert (await client.post("/items/3", json={})).status_code == 422
        assert (await client.get("/openapi.json")).json()["paths"].keys() == {"/items/{number}"}
    assert server.metrics.value("pagi_server_connections_total") == 1


async def test_def_endpoints_run_in_threads_beside_each_other(pagi_serve):
    app = FastAPI()
    both = threading.Barrier(2, timeout=5)

    @app.get("/")
    def wait_for_the_other() -> bool:
        both.wait()
        return threading.current_thread() is threading.main_thread()

    server = await pagi_serve(app)
    answers = []

    async def ask():
        async with one_connection(server) as client:
            answers.append((await client.get("/")).json())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(ask)
    assert answers == [False, False]


async def test_dependencies_are_entered_and_left_around_the_endpoint(pagi_serve, caplog):
    app = FastAPI()
    log = Log()

    async def session() -> AsyncIterator[str]:
        log.append("enter")
        try:
            yield "session"
        except Exception as error:
            log.append(type(error).__name__)
            raise
        finally:
            log.append("leave")
            log.ended.set()

    def threaded(outer: str = Depends(session)) -> Iterator[str]:
        log.append("enter thread")
        yield f"{outer} in thread"
        log.append("leave thread")

    @app.get("/fine")
    async def fine(dependency: str = Depends(threaded)) -> str:
        log.append("endpoint")
        return dependency

    @app.get("/refused")
    async def refused(dependency: str = Depends(session)) -> None:
        raise HTTPException(418, "tea")

    @app.get("/broken")
    async def broken(dependency: str = Depends(session)) -> None:
        raise ValueError("broken")

    server = await pagi_serve(app)
    expected = [
        ("/fine", 200, ["enter", "enter thread", "endpoint", "leave thread", "leave"]),
        ("/refused", 418, ["enter", "HTTPException", "leave"]),
        ("/broken", 500, ["enter", "ValueError", "leave"]),
    ]
    async with one_connection(server) as client:
        for path, status, phases in expected:
            assert (await client.get(path)).status_code == status
            # They may be left after the response, beside the next request.
            await log.wait()
            assert log == phases
            log.clear()
            log.ended = trio.Event()
    assert app_errors(server) == 1


async def test_the_next_request_is_answered_while_background_tasks_run(pagi_serve):
    app = FastAPI()
    log = Log()
    go_on = trio.Event()

    async def work(word):
        log.append(f"{word} starts")
        await go_on.wait()
        log.append(f"{word} ends")

    def work_in_thread(word):
        log.append(word)
        trio.from_thread.run_sync(log.ended.set)

    @app.get("/order")
    async def order(tasks: BackgroundTasks) -> str:
        tasks.add_task(work, "task")
        tasks.add_task(work_in_thread, "thread")
        return "ordered"

    @app.get("/plain")
    async def plain() -> str:
        return "plain"

    server = await pagi_serve(app)
    async with one_connection(server) as client:
        assert (await client.get("/order")).json() == "ordered"
        for _ in range(3):
            assert (await client.get("/plain")).json() == "plain"
        assert log == ["task starts"]
        go_on.set()
        await log.wait()
    assert log == ["task starts", "task ends", "thread"]
    assert server.metrics.value("pagi_server_connections_total") == 1


async def test_files_and_forms_are_uploaded(pagi_serve):
    app = FastAPI()

    @app.post("/")
    async def upload(file: UploadFile, small: Annotated[bytes, File()], word: Annotated[str, Form()]) -> list[object]:
        return [file.filename, len(await file.read()), len(small), word]

    @app.post("/thread")
    def upload_in_thread(file: UploadFile) -> int:
        return len(file.file.read())

    server = await pagi_serve(app)
    # Beyond one megabyte the file is kept on disk, which is written and read in threads.
    files = {"file": ("big.bin", bytes(1_200_000)), "small": ("s", b"small")}
    async with one_connection(server) as client:
        response = await client.post("/", files=files, data={"word": "ä"})
        assert response.json() == ["big.bin", 1_200_000, 5, "ä"]
        response = await client.post("/thread", files={"file": ("f", bytes(70_000))})
        assert response.json() == 70_000
    assert server.metrics.value("pagi_server_connections_total") == 1


async def test_a_stream_of_a_thread_or_of_a_task_arrives_whole(pagi_serve):
    app = FastAPI()

    async def parts():
        for number in range(50):
            yield f"{number}\n"

    def parts_of_a_thread():
        yield from (f"{number}\n" for number in range(50))

    @app.get("/task")
    async def task() -> StreamingResponse:
        return StreamingResponse(parts())

    @app.get("/thread")
    def thread() -> StreamingResponse:
        return StreamingResponse(parts_of_a_thread())

    server = await pagi_serve(app)
    expected = "".join(f"{number}\n" for number in range(50))
    async with one_connection(server) as client:
        for path in ("/task", "/thread", "/task"):
            response = await client.get(path)
            assert response.headers["transfer-encoding"] == "chunked"
            assert response.text == expected
    assert server.metrics.value("pagi_server_connections_total") == 1


async def test_an_event_stream_of_bytes_counts_its_events_and_ends_with_its_client(pagi_serve, raw):
    app = FastAPI()
    log = Log()

    async def ticks(request):
        try:
            for number in range(5):
                yield f"data: {number}\n\n"
            while not await request.is_disconnected():
                yield ": waiting\n\n"
                await trio.sleep(0.001)
        finally:
            log.ended.set()

    @app.get("/")
    async def stream(request: Request) -> StreamingResponse:
        return StreamingResponse(ticks(request), media_type="text/event-stream")

    server = await pagi_serve(app)
    async with raw(server) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await client.read_head()
        received = await client.read_until(b": waiting")
        assert server.metrics.value("pagi_sse_events_sent_total") == received.count(b"data: ") == 5
        assert server.metrics.value("pagi_sse_connections_active") == 1
    await log.wait()
    await trio.testing.wait_all_tasks_blocked()
    assert server.metrics.value("pagi_sse_events_sent_total") == 5
    assert server.metrics.value("pagi_sse_connections_active") == 0
    assert app_errors(server) == 0


async def test_a_websocket_has_dependencies_and_counts_what_its_client_counts(pagi_serve):
    app = FastAPI()
    log = Log()

    async def session() -> AsyncIterator[str]:
        yield "session"
        log.append("leave")
        log.ended.set()

    @app.websocket("/ws/{room}")
    async def echo(websocket: WebSocket, room: int, word: str = Depends(session)):
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(f"{room} {word} {text}")
        log.append("ended")

    server = await pagi_serve(app)
    answers = []
    async with trio_websocket.open_websocket_url(server.ws_url + "/ws/7") as client:
        for number in range(20):
            await client.send_message(f"ä{number}")
            answers.append(await client.get_message())
    await log.wait()
    assert answers == [f"7 session ä{number}" for number in range(20)]
    assert log == ["ended", "leave"]
    assert server.metrics.value("pagi_websocket_messages_received_total") == 20
    assert server.metrics.value("pagi_websocket_messages_sent_total") == 20
    assert server.metrics.value("pagi_websocket_bytes_sent_total") == sum(len(text.encode()) for text in answers)
    assert app_errors(server) == 0


async def test_a_lifespan_gives_its_state_to_endpoints_and_websockets(pagi_serve):
    @asynccontextmanager
    async def lifespan(app):
        yield {"word": "of the lifespan"}

    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    async def show(request: Request) -> str:
        return request.state.word

    @app.websocket("/")
    async def show_once(websocket: WebSocket):
        await websocket.accept()
        await websocket.send_text(websocket.state.word)
        await websocket.receive()

    server = await pagi_serve(app)
    async with one_connection(server) as client:
        assert (await client.get("/")).json() == "of the lifespan"
    async with trio_websocket.open_websocket_url(server.ws_url) as client:
        assert await client.get_message() == "of the lifespan"
