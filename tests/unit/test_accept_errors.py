"""Accepting that fails: an error that does not go away must not keep a process busy."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
import trio

from pagi_trio.config import Config
from pagi_trio.metrics import catalog
from pagi_trio.metrics.meter import Meter
from pagi_trio.nurseries.listeners import ACCEPT_PAUSE_S
from pagi_trio.nurseries.sockets import Listener, open_listeners
from pagi_trio.server import Server

if TYPE_CHECKING:
    from pagi_trio.asgi import Receive, Scope, Send

pytestmark = pytest.mark.trio

METRIC = "pagi_server_accept_errors_total"


class Noting(socket.socket):
    """A listening socket that notes when it was asked for a connection, and may have errors to tell before it has one.

    Attributes:
        asked: When that was.
        errors: What it tells first.
    """

    asked: list[float]
    errors: list[int]

    def accept(self) -> tuple[socket.socket, object]:
        self.asked.append(trio.current_time())
        if self.errors:
            code = self.errors.pop(0)
            raise OSError(code, os.strerror(code))
        return super().accept()


async def hello(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


def listen(*errors: int) -> tuple[Noting, Listener]:
    [opened] = open_listeners(["127.0.0.1:0"], 10)
    sock = Noting(fileno=opened.sock.detach())
    sock.setblocking(False)
    sock.asked, sock.errors = [], [*errors]
    return sock, Listener(sock=sock, bind=opened.bind, url=opened.url, server=opened.server)


async def serve(listener: Listener, resources: ExitStack, nursery: trio.Nursery) -> tuple[Server, Meter]:
    meter = Meter.create()
    server = Server(hello, Config(lifespan="off"), None, resources, meter=meter, listeners=[listener])
    await nursery.start(server.run, None)
    return server, meter


def errors(meter: Meter) -> dict[str, float]:
    """Return how often accepting has failed, by kind."""
    snapshot = meter.snapshot()
    kinds = catalog.by_label(METRIC)
    return {kind: value for kind in kinds if (value := snapshot.value(METRIC, kind=kind))}


async def test_accepting_from_a_socket_that_was_shut_down_pauses(caplog: pytest.LogCaptureFixture) -> None:
    sock, listener = listen()
    with sock, ExitStack() as resources, trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            server, meter = await serve(listener, resources, nursery)
            sock.shutdown(socket.SHUT_RDWR)
            while len(sock.asked) < 3:
                await trio.lowlevel.checkpoint()
            counted = errors(meter)
            server.stop()
        assert counted == {"other": 3}
        assert sock.asked[2] - sock.asked[0] >= 2 * ACCEPT_PAUSE_S
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        f"cannot accept on {listener.url}: {os.strerror(errno.EINVAL)}; trying again"
    ]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.EMFILE, "emfile"),
        (errno.ENFILE, "enfile"),
        (errno.EBADF, "other"),
        (errno.ENOTSOCK, "other"),
        (errno.ENOMEM, "other"),
    ],
)
async def test_after_an_error_that_has_gone_connections_are_accepted(code: int, kind: str) -> None:
    await check_accepts(code, kind)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ECONNABORTED, "econnaborted"),
        (errno.EPROTO, "other"),
        (errno.EPERM, "other"),
        (errno.EHOSTUNREACH, "other"),
    ],
)
async def test_an_error_of_one_connection_is_not_said_to_be_one_of_accepting(
    caplog: pytest.LogCaptureFixture, code: int, kind: str
) -> None:
    """accept(2): what happened to a connection before it was accepted is told as if it were accept's own."""
    await check_accepts(code, kind)
    assert not any("cannot accept" in record.getMessage() for record in caplog.records)


async def check_accepts(code: int, kind: str) -> None:
    """Serve a client whose connection can only be had at the second attempt."""
    sock, listener = listen(code)
    with sock, ExitStack() as resources, trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            server, meter = await serve(listener, resources, nursery)
            async with await trio.open_tcp_stream("127.0.0.1", listener.server[1]) as client:
                await client.send_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                answer = b"".join([part async for part in client])
            server.stop()
    assert answer.endswith(b"hello")
    assert errors(meter) == {kind: 1}
    assert sock.errors == []
