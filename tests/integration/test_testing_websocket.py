"""The WebSocket client of a test, over sockets and in memory."""

from __future__ import annotations

import re
from functools import partial

import pytest
import trio
import trio.testing
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    ConnectionTimeout,
    DisconnectionTimeout,
    HandshakeError,
    WebSocketConnection,
)

from pagi_trio.testing.app_errors import AppErrors
from pagi_trio.testing.network import Network
from pagi_trio.testing.websocket_client import WebSocketClient
from pagi_trio.wire.close_frame import encode_close
from pagi_trio.wire.frames import PING, encode
from pagi_trio.wire.handshake import accept_key

from .conftest import RawClient, hello, until
from .linked import link, linked

__all__ = ["link"]

pytestmark = pytest.mark.trio


class Boom(Exception):
    pass


class Echo:
    """Echo messages, and keep what is told at the end.

    ``close`` closes with 4000, ``boom`` raises; a path of ``/denied`` is denied, one of ``/boom`` raises.
    """

    def __init__(self):
        self.error = Boom("in the application")
        self.context = KeyError("of its own")
        self.told = []
        self.scopes = []

    async def __call__(self, scope, receive, send):
        self.scopes.append(scope)
        assert (await receive())["type"] == "websocket.connect"
        if scope["path"] == "/boom":
            raise self.error
        if scope["path"] == "/denied":
            await send({"type": "websocket.http.response.start", "status": 418, "headers": []})
            await send({"type": "websocket.http.response.body", "body": b"tea"})
            return
        if scope["path"] == "/closed":
            await send({"type": "websocket.close"})
            return
        await send({"type": "websocket.accept", "subprotocol": next(iter(scope["subprotocols"]), None)})
        while (message := await receive())["type"] == "websocket.receive":
            if message.get("text") == "close":
                await send({"type": "websocket.close", "code": 4000, "reason": "enough"})
            elif message.get("text") == "boom":
                try:
                    raise self.context
                except KeyError:
                    raise self.error  # noqa: B904 - its context is what a test is about
            else:
                await send({**message, "type": "websocket.send"})
        self.told.append((message["code"], message["reason"]))


def websocket(link, path="/", **options):
    return WebSocketClient(link.network, link.server.url, link.nursery, path, **options)


async def test_messages_go_both_ways_in_a_block(link):
    app = Echo()
    async with link(app) as link:
        async with websocket(link) as ws:
            assert isinstance(ws, WebSocketConnection)
            for message in ("text", b"bytes", "", "x" * (3 << 20)):
                await ws.send_message(message)
                assert await ws.get_message() == message
            assert list(link.network.streams) == ["websocket /"]
        assert link.network.wires == []
        assert len(link.network.streams) == 0
        await until(lambda: app.told)
    assert app.told == [(1000, "")]


async def test_it_can_be_awaited_and_closed_by_the_test(link):
    app = Echo()
    async with link(app) as link:
        ws = await websocket(link, "/chat?room=1")
        await ws.send_message("x")
        assert await ws.get_message() == "x"
        assert list(link.network.streams) == ["websocket /chat"]
        await ws.aclose(3000, "bye")
        assert len(link.network.streams) == 0
        assert link.network.wires == []
        await until(lambda: app.told)
    assert app.told == [(3000, "bye")]
    assert app.scopes[0]["query_string"] == b"room=1"


@pytest.mark.parametrize("headers", [{"x-a": "1", "x-b": "ü"}, [(b"x-a", b"1"), ("x-b", "ü")]])
async def test_subprotocols_and_headers_are_sent(link, headers):
    app = Echo()
    async with link(app) as link, websocket(link, subprotocols=["one", "two"], headers=headers) as ws:
        assert ws.subprotocol == "one"
    assert app.scopes[0]["subprotocols"] == ["one", "two"]
    sent = dict(app.scopes[0]["headers"])
    assert (sent[b"x-a"], sent[b"x-b"]) == (b"1", "ü".encode())
    assert sent[b"host"].startswith(b"127.0.0.1:")


# How it ends


@pytest.mark.parametrize("read", [True, False])
async def test_when_the_server_closes_first_nothing_is_left_open(link, read):
    app = Echo()
    async with link(app) as link:
        async with websocket(link) as ws:
            await ws.send_message("close")
            if read:
                with pytest.raises(ConnectionClosed):
                    await ws.get_message()
                assert (ws.closed.code, ws.closed.reason) == (4000, "enough")
        assert link.network.wires == []
        ws = await websocket(link)
        await ws.send_message("close")
        await until(lambda: not link.network.wires)
        assert len(link.network.streams) == 0
        await until(lambda: len(app.told) == 2)
        assert link.server.metrics.value("pagi_server_connections_total") == 2
    assert app.told == [(4000, "enough")] * 2


async def test_the_close_of_the_server_is_answered_before_the_client_leaves(autojump_clock):
    app = Echo()
    async with linked(app, in_memory=True, patience_s=100) as link:
        async with websocket(link) as ws:
            await ws.send_message("close")
            link.network.delay(1)
            # Known before the answer has left.
            await until(lambda: ws.closed)
        await until(lambda: not link.server.metrics.value("pagi_server_connections_active"))
        assert link.server.metrics.value("pagi_server_connections_closed_total", reason="done") == 1


async def test_a_ping_that_crosses_the_close_of_the_client_ends_the_connection_only():
    async def serve(stream):
        head = await RawClient(stream).read_until(b"\r\n\r\n")
        key = re.search(rb"(?i)sec-websocket-key: (\S+)", head)[1]
        await stream.send_all(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept_key(key) + b"\r\n\r\n"
        )
        # Its Close frame.
        await stream.receive_some()
        await stream.send_all(encode(PING, b"") + encode_close(1000))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
            port = listener.socket.getsockname()[1]
            network = Network(partial(trio.open_tcp_stream, "127.0.0.1", port), AppErrors(is_raising=True))
            async with WebSocketClient(network, f"http://127.0.0.1:{port}", nursery):
                pass
            assert network.wires == []
            nursery.cancel_scope.cancel()


async def test_messages_are_taken_before_the_test_asks_for_them(link):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        for number in range(100):
            await send({"type": "websocket.send", "text": f"{number:1000}"})
        await send({"type": "websocket.close"})

    async with link(app) as link:
        async with websocket(link) as ws:
            await until(lambda: ws.closed)
            assert [int(await ws.get_message()) for _ in range(100)] == list(range(100))
        async with websocket(link):
            pass
        await websocket(link)
        await until(lambda: not link.nursery.child_tasks)


async def test_messages_that_came_before_a_cut_are_still_there(link):
    async with link(Echo()) as link, websocket(link) as ws:
        for message in ("1", "2", "3"):
            await ws.send_message(message)
        await trio.testing.wait_all_tasks_blocked(0.01)
        link.network.cut()
        await until(lambda: not link.nursery.child_tasks)
        assert [await ws.get_message() for _ in range(3)] == ["1", "2", "3"]
        with pytest.raises(ConnectionClosed):
            await ws.get_message()


async def test_what_the_test_raises_is_raised(link):
    async with link(Echo()) as link:
        with pytest.raises(ZeroDivisionError):
            async with websocket(link) as ws:
                await ws.send_message("boom")
                with pytest.raises(ConnectionClosed):
                    await ws.get_message()
                raise ZeroDivisionError
        # And what the application raised is kept for the end.
        assert len(link.errors.take_all()) == 1


async def test_a_cancelled_test_leaves_nothing_open(link):
    async with link(Echo()) as link:
        with trio.CancelScope() as scope:
            async with websocket(link):
                scope.cancel()
                await trio.sleep_forever()
        assert link.network.wires == []


# Without a handshake


async def test_a_denial_has_its_status_and_body(link):
    async with link(Echo()) as link:
        for path, status, body in (("/denied", 418, b"tea"), ("/closed", 403, b"")):
            with pytest.raises(ConnectionRejected) as caught:
                await websocket(link, path)
            assert (caught.value.status_code, caught.value.body or b"") == (status, body)
            with pytest.raises(ConnectionRejected):
                async with websocket(link, path):
                    pass
        assert link.network.wires == []
        assert len(link.network.streams) == 0


async def test_a_refused_connection_is_a_failed_handshake(link):
    async with link(Echo()) as link:
        with link.network.refuse(), pytest.raises(HandshakeError, match="refused"):
            await websocket(link)
        async with websocket(link):
            pass


async def test_a_connection_that_ends_before_the_answer_is_a_failed_handshake(link):
    async def app(scope, receive, send):
        await receive()
        link.network.cut()
        await receive()

    async with link(app) as link:
        with pytest.raises(HandshakeError, match="before the server had answered"):
            await websocket(link)


async def test_an_answer_that_does_not_come_is_a_timeout(monkeypatch):
    monkeypatch.setattr("pagi_trio.testing.websocket_client.patience_s", lambda: 0.05)

    async def app(scope, receive, send):
        await receive()
        await receive()

    async with linked(app) as link:
        with pytest.raises(ConnectionTimeout, match=r"for 0\.05 seconds"):
            await websocket(link)
        assert link.network.wires == []


async def test_a_close_that_is_not_answered_in_time_is_an_error(autojump_clock, monkeypatch):
    monkeypatch.setattr("pagi_trio.testing.websocket_client.patience_s", lambda: 30)
    async with linked(Echo(), in_memory=True, patience_s=1000) as link:
        with pytest.raises(DisconnectionTimeout, match="closing handshake for 30 seconds"):
            async with websocket(link):
                link.network.delay(20)
                start = trio.current_time()
        assert trio.current_time() - start == pytest.approx(30)
        assert link.network.wires == []


async def test_a_cancelled_opening_leaves_nothing_open(link):
    async def app(scope, receive, send):
        await receive()
        await receive()

    async with link(app) as link:
        with trio.move_on_after(0.05) as scope:
            await websocket(link)
        assert scope.cancelled_caught
        assert link.network.wires == []


# What the application raises


async def test_what_is_raised_before_accepting_is_raised_in_the_test(link):
    app = Echo()
    async with link(app) as link:
        with pytest.raises(Boom) as caught:
            await websocket(link, "/boom")
        assert caught.value is app.error
        assert app.error.__context__ is None
        with pytest.raises(Boom):
            async with websocket(link, "/boom"):
                pass


@pytest.mark.parametrize("waits", [True, False])
async def test_what_is_raised_in_a_session_is_raised_by_the_block(link, waits):
    app = Echo()
    async with link(app) as link:
        with pytest.raises(Boom) as caught:
            async with websocket(link) as ws:
                await ws.send_message("boom")
                if waits:
                    await ws.get_message()
                await until(lambda: ws.closed)
        assert caught.value is app.error
        assert app.error.__context__ is app.context
        assert link.network.wires == []


async def test_where_errors_are_not_asked_for_the_close_code_is_1011(link):
    async with link(Echo()) as link:
        link.errors.is_raising = False
        async with websocket(link) as ws:
            await ws.send_message("boom")
            with pytest.raises(ConnectionClosed) as caught:
                await ws.get_message()
            assert caught.value.reason.code == 1011


# Faults


async def test_a_cut_is_1006_at_both_ends(link):
    app = Echo()
    async with link(app) as link:
        async with websocket(link) as ws:
            link.network.cut()
            with pytest.raises(ConnectionClosed):
                await ws.get_message()
            assert ws.closed.code == 1006
        await until(lambda: app.told)
    assert [code for code, _ in app.told] == [1006]


async def test_a_client_that_has_stopped_reading_leaves_without_a_handshake(link):
    app = Echo()
    async with link(app) as link:
        async with websocket(link):
            link.network.stop_reading()
        assert link.network.wires == []
        await until(lambda: app.told)
    assert [code for code, _ in app.told] == [1006]


async def test_a_session_waits_in_virtual_time_for_nothing(autojump_clock):
    async def app(scope, receive, send):
        await receive()
        await trio.sleep(100)
        await send({"type": "websocket.accept"})
        await trio.sleep(100)
        await send({"type": "websocket.send", "text": "late"})
        await receive()

    async with linked(app, in_memory=True, patience_s=10**5) as link, websocket(link) as ws:
        assert await ws.get_message() == "late"


# TLS


async def test_tls_is_spoken_without_verifying(authority):
    app = Echo()
    async with linked(app, tls=authority.files) as link:
        async with websocket(link) as ws:
            await ws.send_message("x" * 100_000)
            assert await ws.get_message() == "x" * 100_000
        await until(lambda: app.told)
        assert link.network.wires == []
        assert app.told == [(1000, "")]
        assert app.scopes[0]["scheme"] == "wss"
        ws = await websocket(link)
        await ws.aclose()


async def test_a_server_that_speaks_no_tls_is_a_failed_handshake():
    async with linked(hello) as link:
        with pytest.raises(HandshakeError):
            await WebSocketClient(link.network, "https://127.0.0.1", link.nursery)
        assert link.network.wires == []
