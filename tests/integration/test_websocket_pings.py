"""Pings and pongs beside messages, in whatever way the application uses its socket; RFC 6455 sections 5.5.2 and 5.5.3."""

from __future__ import annotations

import socket

import pytest
import trio

from .raw_client import RawClient
from .test_websocket import frame, open_websocket, read_frame

pytestmark = pytest.mark.trio

PING, PONG = 0x89, 0x8A


async def test_a_client_that_reads_has_its_pongs_in_order_though_the_app_never_stops_sending(pagi_serve, raw):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            # More than the kernel takes, so that nearly always something waits to leave.
            await send({"type": "websocket.send", "bytes": bytes(4_000_000)})

    server = await pagi_serve(app, lifespan="off", websocket={"pings_outstanding": 3}, timeouts={"graceful_s": 0})
    async with raw(server) as client:
        await open_websocket(client)
        for number in range(5):
            await client.send(frame(9, b"%d" % number))
            messages = 0
            while (answer := await read_frame(client))[0] == 0x82:
                messages += 1
            assert answer == (PONG, b"%d" % number)
            # What had been queued before it, and what was sent until the reaper looked.
            assert messages < 200


async def test_an_app_that_takes_its_messages_slowly_does_not_cost_the_client_its_connection(pagi_serve, raw):
    count = 400
    taken = []

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        # Until the inbox is full, and a ping unanswered: the pong is behind the messages.
        await trio.sleep(1)
        while (message := await receive())["type"] == "websocket.receive":
            taken.append(message["text"])
            if len(taken) == count:
                await send({"type": "websocket.close"})
                return
            await trio.sleep(0.004)

    server = await pagi_serve(app, lifespan="off", websocket={"ping_interval_s": 0.3, "ping_timeout_s": 0.5})
    async with raw(server) as client:
        await open_websocket(client)
        await client.send(b"".join(frame(1, b"%d" % number) for number in range(count)))
        while (first := await read_frame(client)) == (PING, b""):
            await client.send(frame(0xA))
        assert first == (0x88, (1000).to_bytes(2, "big"))
    assert taken == [str(number) for number in range(count)]


async def test_every_ping_is_answered_at_once_though_the_app_neither_sends_nor_receives(pagi_serve, raw):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await trio.sleep_forever()

    count = 1000
    server = await pagi_serve(app, lifespan="off", timeouts={"graceful_s": 0})
    async with raw(server) as client:
        await open_websocket(client)
        await client.send(b"".join(frame(9, b"%d" % number) for number in range(count)))
        for number in range(count):
            assert await read_frame(client) == (PONG, b"%d" % number)


async def test_a_client_that_takes_a_long_message_steadily_is_not_cut_off_in_it(pagi_serve):
    size = 12_000_000

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "bytes": bytes(size)})
        await receive()

    server = await pagi_serve(app, lifespan="off", websocket={"ping_interval_s": 0.3, "ping_timeout_s": 0.9})
    with trio.fail_after(30), socket.socket() as sock:
        # So that the message stays with the server, and not in a buffer of the kernel's.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.connect(("127.0.0.1", server.port))
        sock.setblocking(False)
        client = RawClient(trio.SocketStream(trio.socket.from_stdlib_socket(sock)))
        await open_websocket(client)
        part = 60_000
        for number in range(size // part):
            await client.read_exactly(part)
            # For twice as long as a ping may go unanswered; the rest may be with the kernel already, ping and all.
            if number < size // part // 2:
                await trio.sleep(0.02)
