"""The tables of opening handshakes and first frames, each case whole and byte by byte."""

from __future__ import annotations

import re
import zlib
from contextlib import asynccontextmanager

import pytest
import trio

from pagi_trio.nurseries import service
from tests.integration.conftest import RawClient, respond

from . import websocket_frames, websocket_openings
from .websocket_frames import CLOSE, FIN, MESSAGE_MAX_BYTES, RSV1, Failed, frame
from .websocket_openings import ACCEPT, Plain, Refused, ask

pytestmark = pytest.mark.trio

DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate"


@pytest.fixture
def called():
    return []


@pytest.fixture
async def server(pagi_serve, called, monkeypatch):
    """Serves an echo that knows one subprotocol, and whatever is no WebSocket; waits long for its clients to leave."""

    async def app(scope, receive, send):
        called.append(scope["type"])
        if scope["type"] == "http":
            await respond(send, b"plain")
            return
        await receive()
        chosen = "known" if "known" in scope["subprotocols"] else None
        await send({"type": "websocket.accept", "subprotocol": chosen})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})

    # So that a connection that ends has been ended, and not given up.
    monkeypatch.setattr(service, "LINGER_S", 3600)
    return await pagi_serve(app, lifespan="off", websocket={"message_max_bytes": MESSAGE_MAX_BYTES})


@asynccontextmanager
async def connected(server):
    """Connect to it; a case takes some milliseconds, and has ten seconds."""
    with trio.fail_after(10):
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            yield RawClient(stream)


@pytest.fixture(params=["whole", "cut"])
def put(request):
    """``await put(client, data)``: send all at once, or byte by byte."""

    async def send(client, data):
        for piece in [data] if request.param == "whole" else [data[at : at + 1] for at in range(len(data))]:
            await client.send(piece)

    return send


@pytest.mark.parametrize("case", websocket_openings.CASES, ids=str)
async def test_an_opening(server, called, put, case):
    async with connected(server) as client:
        await put(client, case.sent)
        status, fields, _ = await client.read_response()
        complaints = [complaint(outcome, status, fields, called) for outcome in case.allowed]
        assert "" in complaints, f"{status} {fields}: {'; or '.join(complaints)}"
        if status == 101:
            await client.send(frame(FIN | CLOSE))
            assert await read_frame(client) == (FIN | CLOSE, b"")
        if status != 200:
            assert await client.read_to_end() == b""


def complaint(outcome, status, fields, called):
    """Say what is wrong with a response; nothing if it is this outcome."""
    if isinstance(outcome, Plain):
        return "" if (status, called) == (200, ["http"]) else "not what the application answers"
    if isinstance(outcome, Refused):
        if (status, called) != (outcome.status, []):
            return f"not a {outcome.status} before the application"
        # RFC 9110 sections 15.5.22 and 7.8; RFC 6455 section 4.4.
        wanted = {b"upgrade": b"websocket", b"sec-websocket-version": b"13", b"connection": b"close, upgrade"}
        return "" if status != 426 or wanted.items() <= fields.items() else "a 426 that does not say what to upgrade to"
    if (status, called) != (101, ["websocket"]):
        return "not opened"
    if (fields[b"upgrade"], fields[b"connection"], fields[b"sec-websocket-accept"]) != (
        b"websocket",
        b"Upgrade",
        ACCEPT,
    ):
        return "a 101 without what every 101 has"
    if fields.get(b"sec-websocket-protocol", b"").decode() != (outcome.subprotocol or ""):
        return f"not the subprotocol {outcome.subprotocol}"
    extensions = fields.get(b"sec-websocket-extensions", b"").decode()
    return "" if re.fullmatch(outcome.extensions or "", extensions) else f"not the extensions {outcome.extensions}"


@pytest.mark.parametrize("case", websocket_frames.CASES, ids=str)
async def test_frames_behind_an_opening(server, put, case):
    async with connected(server) as client:
        await put(client, ask(*[DEFLATE] * case.deflated) + case.sent)
        status, fields = await client.read_head()
        assert (status, b"sec-websocket-extensions" in fields) == (101, case.deflated)
        inflater = zlib.decompressobj(wbits=-15)
        for answer in case.answers:
            first, payload = await read_frame(client)
            if isinstance(answer, Failed):
                assert (first, int.from_bytes(payload[:2], "big")) in {(FIN | CLOSE, code) for code in answer.codes}
            else:
                if first & RSV1:
                    payload = inflater.decompress(payload + b"\x00\x00\xff\xff")
                assert (first & ~(RSV1 if case.deflated else 0), payload) == (FIN | answer[0], answer[1])
        if first != FIN | CLOSE:
            await client.send(frame(FIN | CLOSE))
            assert await read_frame(client) == (FIN | CLOSE, b"")
        assert await client.read_to_end() == b""


async def read_frame(client):
    """Return the first byte of a frame and its payload."""
    first, size = await client.read_exactly(2)
    # A server masks nothing: RFC 6455 section 5.1.
    assert size < 128
    if size > 125:
        size = int.from_bytes(await client.read_exactly(2 if size == 126 else 8), "big")
    return first, await client.read_exactly(size)
