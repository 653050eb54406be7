"""What a test may need beside the everyday: one short test for each. Run it with ``pytest``.

The everyday is in ``testing/``, the sample project.
"""

from __future__ import annotations

import time
from contextlib import asynccontextmanager

import httpx
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from pagi_trio import testing


async def hello(_request):
    return PlainTextResponse("hello\n")


async def order(_request):
    raise RuntimeError("out of tea")


async def feed(_request):
    async def ticks():
        for _ in range(3):
            await trio.sleep(10)
            yield b"tick\n"

    return StreamingResponse(ticks())


def report(_request):
    # Starlette calls what is a plain def in a thread.
    time.sleep(0.02)
    return PlainTextResponse("done\n")


app = Starlette(routes=[Route("/", hello), Route("/order", order), Route("/feed", feed), Route("/report", report)])


@pytest.mark.trio
async def test_what_a_real_client_would_see_of_an_error(pagi_client):
    client = await pagi_client(app, raise_app_exceptions=False)
    response = await client.get("/order")
    assert response.status_code == 500
    assert "out of tea" in client.log


@pytest.mark.trio
async def test_a_response_as_it_comes(pagi_client, autojump_clock):
    client = await pagi_client(app)
    async with client.stream("GET", "/feed") as response:
        times = [round(trio.current_time()) async for _tick in response.aiter_lines()]
    assert times == [10, 20, 30]


@pytest.mark.trio
async def test_a_thread_under_a_jumping_clock(pagi_client, autojump_clock):
    client = await pagi_client(app)
    with trio.fail_after(5):
        response = await client.get("/report")
    assert response.text == "done\n"


@pytest.mark.trio
async def test_a_server_that_is_away_for_a_while(pagi_client):
    client = await pagi_client(app)
    client.network.cut()
    with client.network.refuse(), pytest.raises(httpx.ConnectError):
        await client.get("/")
    assert (await client.get("/")).text == "hello\n"


@pytest.mark.trio
async def test_a_slow_line(pagi_client, autojump_clock):
    client = await pagi_client(app)
    client.network.delay(0.2)
    assert (await client.get("/")).text == "hello\n"
    assert trio.current_time() >= 0.4


@pytest.mark.trio
async def test_bytes_that_no_client_would_send(pagi_client):
    client = await pagi_client(app)
    async with client.connect() as wire:
        await wire.send_all(b"NONSENSE\r\n\r\n")
        assert (await wire.receive_some()).startswith(b"HTTP/1.1 400 ")


@pytest.mark.trio
async def test_a_number_that_comes_later(pagi_client):
    client = await pagi_client(app)
    async with client.connect():
        await client.metrics.wait_for("pagi_server_connections_active", 1)
    await client.metrics.wait_for("pagi_server_connections_active", 0)


@pytest.mark.trio
async def test_with_types(pagi_client: testing.StartClient) -> None:
    client = await pagi_client(app)
    response = await client.get("/")
    assert response.text == "hello\n"


class Database:
    def __init__(self):
        self.is_open = True
        self.sold = []

    async def save(self, what):
        await trio.lowlevel.checkpoint()
        assert self.is_open
        self.sold.append(what)


def make_shop(database):
    @asynccontextmanager
    async def lifespan(_app):
        yield
        await database.save("the till")

    async def buy(_request):
        await database.save("tea")
        return PlainTextResponse("sold\n")

    return Starlette(routes=[Route("/buy", buy, methods=["POST"])], lifespan=lifespan)


@pytest.fixture
async def database():
    database = Database()
    yield database
    database.is_open = False
    assert database.sold == ["tea", "the till"]


@pytest.fixture
async def shop(database):
    async with testing.client(make_shop(database)) as client:
        yield client


@pytest.mark.trio
async def test_a_shop_shuts_down_before_its_database(shop):
    assert (await shop.post("/buy")).text == "sold\n"


@pytest.mark.trio
@given(query=st.text())
@settings(deadline=None)
async def test_whatever_is_asked_is_answered(query):
    async with testing.client(app) as client:
        response = await client.get("/", params={"q": query})
        assert response.status_code == 200


@pytest.fixture
def anyio_backend():
    return "trio"


@pytest.mark.anyio
async def test_with_the_plugin_of_anyio():
    async with testing.serve(app) as server:
        response = await server.http.get("/")
        assert response.text == "hello\n"


def test_without_any_plugin():
    async def main():
        async with testing.client(app) as client:
            response = await client.get("/")
            assert response.text == "hello\n"

    trio.run(main)
