"""What the tests over real sockets share: a raw client, and applications of a few lines."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.integration.command import TCP, running


class RawClient:
    """A TCP client that sends bytes as they are and reads responses one at a time."""

    def __init__(self, stream):
        self.stream = stream
        self._buffer = bytearray()

    async def send(self, data):
        await self.stream.send_all(data)

    async def read_until(self, mark):
        while mark not in self._buffer:
            data = await self.stream.receive_some(65536)
            assert data, f"the connection ended before {mark!r}; it had sent {bytes(self._buffer)!r}"
            self._buffer += data
        return self._take(self._buffer.index(mark), len(mark))

    async def read_exactly(self, count):
        while len(self._buffer) < count:
            data = await self.stream.receive_some(65536)
            assert data, f"the connection ended {count - len(self._buffer)} bytes early"
            self._buffer += data
        return self._take(count)

    def _take(self, count, skip=0):
        data = bytes(self._buffer[:count])
        del self._buffer[: count + skip]
        return data

    async def read_head(self):
        """Return status and headers of the next response."""
        lines = (await self.read_until(b"\r\n\r\n")).split(b"\r\n")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(b": ")
            assert name not in headers, f"{name!r} is there twice"
            headers[name] = value
        return int(lines[0].split(b" ")[1]), headers

    async def read_response(self, *, head_only=False):
        """Return status, headers and body of the next response, taken out of its framing."""
        status, headers = await self.read_head()
        if head_only or status in (204, 304) or status < 200:
            return status, headers, b""
        if b"content-length" in headers:
            return status, headers, await self.read_exactly(int(headers[b"content-length"]))
        if headers.get(b"transfer-encoding") == b"chunked":
            body = bytearray()
            while True:
                size = int(await self.read_until(b"\r\n"), 16)
                body += await self.read_exactly(size)
                assert await self.read_exactly(2) == b"\r\n"
                if size == 0:
                    return status, headers, bytes(body)
        return status, headers, await self.read_to_end()

    async def read_to_end(self):
        """Return what comes until the server closes."""
        while data := await self.stream.receive_some(65536):
            self._buffer += data
        return self._take(len(self._buffer))

    async def aclose(self):
        await self.stream.aclose()


@pytest.fixture
def raw():
    """``async with raw(server) as client``: a raw connection; everything in it has five seconds."""

    @asynccontextmanager
    async def connect(server):
        with trio.fail_after(5):
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            async with stream:
                yield RawClient(stream)

    return connect


async def hello(scope, receive, send):
    """Answer everything with five bytes."""
    if scope["type"] != "http":
        raise RuntimeError("only http")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"hello"})


async def read_body(receive):
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return body, False
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return body, True


async def respond(send, body=b"", status=200, headers=()):
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


async def until(condition):
    """Wait until something is so; ten times as long as the second that anything here may take."""
    with trio.fail_after(10):
        while not condition():
            await trio.sleep(0.01)


@pytest.fixture
def supervised(tmp_path):
    """``with supervised(*arguments) as program``: the command serves worker_app, of which it has a copy."""
    shutil.copy(Path(__file__).with_name("worker_app.py"), tmp_path / "app.py")
    os.mkfifo(tmp_path / "gate")

    def start(*arguments, app="app", bind=TCP, **options):
        return running(sys.executable, "-m", "pagi_trio", app, *bind, *arguments, cwd=tmp_path, **options)

    return start


@pytest.fixture
def open_gate(tmp_path):
    """``open_gate()``: let one request to ``/gated`` go on; waits for it."""

    def let_in():
        (tmp_path / "gate").write_bytes(b"")

    return let_in
