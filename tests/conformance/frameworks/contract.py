"""What a client may expect of a framework on this server: one check for each, the same for all of them.

A check takes a server that serves an application of ``apps``, in this process or by the command.
"""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager

import httpx
import pytest
import trio
import trio_websocket

from .apps.notes import LIMIT_S

UPLOAD_BYTES = 5 * 1024 * 1024


def one_connection(server):
    """Return a client whose requests share one connection."""
    return httpx.AsyncClient(
        base_url=server.url, verify=False, trust_env=False, timeout=LIMIT_S, limits=httpx.Limits(max_connections=1)
    )


@asynccontextmanager
async def left_after(server, path, mark):
    """Ask for something, read up to a mark, and leave at the end of the block."""
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    async with stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        data = b""
        while mark not in data:
            part = await stream.receive_some(65536)
            assert part, f"the connection ended without {mark!r}"
            data += part
        yield


@asynccontextmanager
async def websocket(server, path):
    """Open a WebSocket, and close the stream of one that was refused or closed by the server, too."""
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    async with stream, trio.open_nursery() as nursery:
        yield await trio_websocket.wrap_client_stream(nursery, stream, "127.0.0.1", path, subprotocols=["echo"])


async def noted(server, name):
    """Wait until an application has noted something."""
    async with one_connection(server) as client:
        assert (await client.get(f"/notes/{name}")).status_code == 200


async def note(server, name):
    """Let an application go on."""
    async with one_connection(server) as client:
        assert (await client.post(f"/notes/{name}")).is_success


async def json_path_and_query(server):
    async with one_connection(server) as client:
        for number in range(3):
            response = await client.post(f"/items/{number}?q=ä", json={"sent": "ü"})
            assert response.json() == {"id": number, "q": "ä", "sent": "ü"}
        assert (await client.get("/nothing")).status_code == 404
        assert (await client.get("/items/1")).status_code == 405


async def a_stream_arrives_part_by_part(server):
    async with one_connection(server) as client:
        async with client.stream("GET", "/stream") as response:
            received = response.aiter_raw()
            assert await anext(received) == b"first"
            await note(server, "stream may go on")
            assert b"".join([part async for part in received]) == bytes(200_000)
        assert (await client.get("/nothing")).status_code == 404


async def an_upload_of_5_mib_arrives_whole(server):
    content = bytes(range(256)) * (UPLOAD_BYTES // 256)
    digest = hashlib.sha256(content).hexdigest()
    async with one_connection(server) as client:
        for _ in range(2):
            response = await client.post("/upload", data={"word": "ä"}, files={"file": ("name.bin", content)})
            assert response.json() == ["ä", "name.bin", UPLOAD_BYTES, digest]


async def background_work_holds_up_nobody(server):
    async with one_connection(server) as client:
        assert (await client.get("/order")).text == "ordered"
        await noted(server, "work begun")
        assert (await client.get("/nothing")).status_code == 404
        await note(server, "work may end")
        await noted(server, "work done")


async def an_error_has_a_handler(server):
    async with one_connection(server) as client:
        response = await client.get("/handled")
        assert (response.status_code, response.text) == (418, "handled: the reason")


async def an_error_without_handler_is_a_500_and_the_connection_goes_on(server):
    async with one_connection(server) as client:
        for _ in range(2):
            assert (await client.get("/crash")).status_code == 500


async def a_client_that_leaves_ends_its_stream(server):
    async with left_after(server, "/endless", bytes(50_000)):
        pass
    await noted(server, "endless ended")


async def a_client_that_leaves_is_noticed_by_who_asks(server):
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    async with stream:
        await stream.send_all(b"GET /watch HTTP/1.1\r\nHost: x\r\n\r\n")
        await noted(server, "watching")
    await noted(server, "client left")


async def events_arrive(server):
    async with one_connection(server) as client:
        response = await client.get("/events")
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.text.splitlines() if line and not line.startswith(":")]
        assert lines == ["event: tick", "data: 0", "event: tick", "data: 1", "event: tick", "data: 2"]


async def a_client_that_leaves_stops_its_events(server):
    async with left_after(server, "/clock", b"data: 0"):
        pass
    await noted(server, "clock stopped")


async def a_lifespan_has_a_state(server):
    async with one_connection(server) as client:
        assert (await client.get("/state")).text == "of the lifespan"


async def a_websocket_echoes_until_its_client_closes(server):
    async with websocket(server, "/echo") as client:
        assert client.subprotocol == "echo"
        for message in ("häuser", b"\x00\xff", "x" * 70_000, b"y" * 70_000):
            await client.send_message(message)
            assert await client.get_message() == message
        await client.aclose(4000, "enough")
    await noted(server, "closed with 4000")


async def a_websocket_closed_by_a_handler_that_is_not_told_the_code(server):
    async with websocket(server, "/echo") as client:
        await client.send_message("x")
        assert await client.get_message() == "x"
        await client.aclose(4000, "enough")
    await noted(server, "closed")


async def a_websocket_is_closed_with_a_code_and_a_reason(server):
    async with websocket(server, "/echo") as client:
        await client.send_message("close")
        with pytest.raises(trio_websocket.ConnectionClosed) as closed:
            await client.get_message()
        assert (closed.value.reason.code, closed.value.reason.reason) == (4001, "enough")


async def a_websocket_is_refused(server):
    with pytest.raises(BaseExceptionGroup) as refused:
        async with websocket(server, "/refused"):
            raise AssertionError("it was accepted")
    (error,) = refused.value.exceptions
    assert isinstance(error, trio_websocket.ConnectionRejected)
    assert error.status_code == 403


OF_ALL = (
    json_path_and_query,
    a_stream_arrives_part_by_part,
    an_upload_of_5_mib_arrives_whole,
    background_work_holds_up_nobody,
    an_error_has_a_handler,
    an_error_without_handler_is_a_500_and_the_connection_goes_on,
    a_client_that_leaves_ends_its_stream,
    events_arrive,
)
"""What WSGI has as well."""

OF_ASGI = (
    *OF_ALL,
    a_client_that_leaves_is_noticed_by_who_asks,
    a_client_that_leaves_stops_its_events,
    a_lifespan_has_a_state,
    a_websocket_echoes_until_its_client_closes,
    a_websocket_is_closed_with_a_code_and_a_reason,
    a_websocket_is_refused,
)

OF_QUART_TRIO = tuple(
    a_websocket_closed_by_a_handler_that_is_not_told_the_code
    if check is a_websocket_echoes_until_its_client_closes
    else check
    for check in OF_ASGI
)

CHECKS = {
    "starlette": OF_ASGI,
    "fastapi": OF_ASGI,
    "litestar": OF_ASGI,
    "quart_trio": OF_QUART_TRIO,
    "flask": OF_ALL,
}
