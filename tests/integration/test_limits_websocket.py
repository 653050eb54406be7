"""What a WebSocket may have: just below a limit it is taken, just above it ends the session, as early as is certain."""

from __future__ import annotations

import struct
import zlib

import pytest
import trio

from .clock import HOUR_S, TICK_S, assert_within_a_tick, seconds_until
from .conftest import until
from .ledger import ended
from .test_closes_websocket import Teller, flood, see_close
from .test_websocket import echo, frame, open_websocket, read_frame

pytestmark = pytest.mark.trio

DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
MIB = 2**20


def deflated(payload):
    stream = zlib.compressobj(9, wbits=-15)
    return (stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]


def head_of(size):
    """Return what a frame of so many bytes begins with."""
    return struct.pack("!BBH", 0x82, 0x80 | 126, size) + bytes(4)


def zeros(size, *, end=True):
    """Return a compressed message of zeros, or all of it but its end; a thousand of them take one byte."""
    whole = deflated(bytes(size))
    return frame(2, whole, rsv1=True) if end else frame(2, whole[:-100], rsv1=True, fin=False)


def fragments(count, *, end=True):
    frames = [frame(2, b"x", fin=False)] + [frame(0, b"x", fin=False)] * (count - 2)
    return b"".join(frames) + frame(0, b"x", fin=end)


# What is limited, what is just within that, what is beyond it, and how little of that is enough.
LIMITS = {
    "size": ({"message_max_bytes": 1000}, frame(2, bytes(1000)), frame(2, bytes(1001)), head_of(1001)),
    "size in fragments": (
        {"message_max_bytes": 1000},
        frame(2, bytes(500), fin=False) + frame(0, bytes(500)),
        frame(2, bytes(500), fin=False) + frame(0, bytes(501)),
        frame(2, bytes(500), fin=False) + head_of(501).replace(b"\x82", b"\x00", 1),
    ),
    "size once inflated": (
        {"message_max_bytes": 100_000, "inflate_ratio": 10_000},
        zeros(100_000),
        zeros(100_001),
        zeros(1_000_000, end=False),
    ),
    # Of zeros, deflate makes a thousandth; what is below 1 MiB may be of any ratio.
    "ratio": ({"inflate_ratio": 100}, zeros(MIB + 100_000), zeros(2 * MIB), zeros(4 * MIB, end=False)),
    "ratio, wide": ({"inflate_ratio": 1100}, zeros(8 * MIB), zeros(17 * MIB), zeros(18 * MIB, end=False)),
    "fragments": ({"fragments": 10}, fragments(10), fragments(11), fragments(11, end=False)),
}


@pytest.mark.parametrize("limit", LIMITS)
async def test_messages_just_within_a_limit_are_taken(pagi_serve, raw, limit):
    settings, within, _beyond, _begun = LIMITS[limit]
    server = await pagi_serve(echo, lifespan="off", websocket=settings)
    async with raw(server) as client:
        await open_websocket(client, DEFLATE)
        for _ in range(2):
            await client.send(within)
            assert (await read_frame(client))[0] & 0x0F == 2
        await client.send(frame(8, struct.pack("!H", 1000)))
        assert (await read_frame(client))[0] == 0x88
    ledger = await ended(server)
    assert ledger.closes == {("1000", "client"): 1}
    assert ledger.value("pagi_websocket_messages_received_total") == 2


@pytest.mark.parametrize("enough", [False, True], ids=["whole", "without an end"])
@pytest.mark.parametrize("limit", LIMITS)
async def test_a_message_beyond_a_limit_is_a_1009_rfc6455_7_4_1(pagi_serve, raw, caplog, limit, enough):
    settings, _within, beyond, begun = LIMITS[limit]
    app = Teller()
    server = await pagi_serve(app, lifespan="off", websocket=settings)
    async with raw(server) as other:
        await open_websocket(other)
        async with raw(server) as client:
            await open_websocket(client, DEFLATE)
            await client.send(begun if enough else beyond)
            await see_close(client, 1009)
            assert await client.read_to_end() == b""
        # Nobody else notices.
        await other.send(frame(9, b"still there?"))
        assert await read_frame(other) == (0x8A, b"still there?")
        await other.send(frame(8, struct.pack("!H", 1000)))
        await read_frame(other)
        await until(lambda: server.metrics.value("pagi_websocket_connections_active") == 0)
    ledger = await ended(server)
    assert ledger.closes == {("1009", "server"): 1, ("1000", "client"): 1}
    assert ledger.closed == {"body_too_large": 1, "done": 1}
    assert ledger.value("pagi_websocket_messages_received_total") == 0
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


async def test_the_app_is_told_that_a_message_was_too_large(pagi_serve, raw):
    app = Teller()
    server = await pagi_serve(app, lifespan="off", websocket={"message_max_bytes": 1000})
    async with raw(server) as client:
        await open_websocket(client)
        await client.send(head_of(1001))
        await see_close(client, 1009)
    await until(lambda: app.told)
    assert app.told == (1009, "body_too_large")


async def test_every_message_has_a_ratio_of_its_own(pagi_serve, raw):
    server = await pagi_serve(echo, lifespan="off", websocket={"inflate_ratio": 1})
    async with raw(server) as client:
        await open_websocket(client, DEFLATE + b"")
        for _ in range(5):
            await client.send(zeros(MIB - 10_000))
            assert (await read_frame(client))[0] & 0x0F == 2


# Pings


@pytest.mark.parametrize("pings", [3, 4])
async def test_pings_of_a_client_that_reads_no_pong_are_a_1008(embed, raw, autojump_clock, pings):
    app = Teller(flood)
    server = await embed(app, lifespan="off", websocket={"pings_outstanding": 3}, timeouts={"write_stall_s": 3})
    async with raw(server) as client:
        await open_websocket(client)
        await trio.testing.wait_all_tasks_blocked()
        await client.send(b"".join(frame(9, b"%d" % n) for n in range(pings)))
        await trio.sleep(2 * TICK_S)
        if pings == 4:
            await see_close(client, 1008)
        else:
            await ended(server)
    ledger = await ended(server)
    assert ledger.closes == ({("1008", "server"): 1} if pings == 4 else {("1006", "none"): 1})
    assert ledger.closed == ({"queue_overflow": 1} if pings == 4 else {"write_timeout": 1})
    assert app.told == ((1008, "queue_overflow") if pings == 4 else (1006, "write_timeout"))


async def test_any_number_of_pings_may_come_that_are_answered(pagi_serve, raw):
    server = await pagi_serve(echo, lifespan="off", websocket={"pings_outstanding": 3})
    async with raw(server) as client:
        await open_websocket(client)
        for _ in range(10):
            await client.send(frame(9, b"x") * 100)
            for _ in range(100):
                assert await read_frame(client) == (0x8A, b"x")


async def test_a_client_that_reads_is_answered_however_busy_its_connection_is(embed, raw, autojump_clock):
    size = 5_000_000
    count = 6

    async def send_much(_receive, send):
        for _ in range(count):
            await send({"type": "websocket.send", "bytes": bytes(size)})

    app = Teller(send_much)
    server = await embed(app, lifespan="off", websocket={"pings_outstanding": 10})
    async with raw(server) as client:
        await open_websocket(client)
        pongs = []
        for turn in range(count):
            # There is always a message on its way, since the kernel takes no more than a part of one.
            await trio.testing.wait_all_tasks_blocked()
            await client.send(b"".join(frame(9, b"%d %d" % (turn, n)) for n in range(4)))
            await trio.sleep(2 * TICK_S)
            while len((got := await read_frame(client))[1]) != size:
                pongs.append(got)
        while pongs[-1:] != [(0x8A, b"5 3")]:
            pongs.append(await read_frame(client))
        # One for several, where they came while another was on its way.
        assert len(pongs) < 4 * count
        await client.send(frame(8))
        assert (await read_frame(client))[0] == 0x88
    assert app.told == (1005, "")
    assert (await ended(server)).closes == {("1005", "client"): 1}


# Silence


IDLE = {"idle_s": 5, "ping_interval_s": 1, "ping_timeout_s": 10}


async def test_a_session_with_pings_alone_is_idle(embed, raw, autojump_clock):
    app = Teller()
    server = await embed(app, lifespan="off", websocket={**IDLE, "idle_s": 3})
    async with raw(server) as client:
        await open_websocket(client)

        async def closed():
            while (got := await read_frame(client))[0] != 0x88:
                assert got == (0x89, b"")
                await client.send(frame(10) + frame(9, b"and you?"))
                assert await read_frame(client) == (0x8A, b"and you?")
            assert got == (0x88, struct.pack("!H", 1000) + b"idle")

        assert_within_a_tick(await seconds_until(closed), 3)
        await client.send(frame(8, struct.pack("!H", 1000)))
        assert await client.read_to_end() == b""
    ledger = await ended(server)
    assert ledger.closes == {("1000", "server"): 1}
    assert ledger.closed == {"idle_timeout": 1}
    assert app.told == (1000, "idle_timeout")


@pytest.mark.parametrize("sender", ["client", "server"])
async def test_a_session_with_messages_in_either_direction_is_not_idle(embed, connect, autojump_clock, sender):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while sender == "server":
            await send({"type": "websocket.send", "text": "hello"})
            await trio.sleep(4)
        while (await receive())["type"] == "websocket.receive":
            pass

    config, patient = connect
    settings = {**IDLE, "ping_interval_s": 0}
    server = await embed(app, lifespan="off", websocket=settings, timeouts={"graceful_s": 0}, **config)
    async with patient(server) as client:
        await open_websocket(client)
        for _ in range(10):
            if sender == "server":
                assert await read_frame(client) == (0x81, b"hello")
            else:
                await client.send(frame(1, b"hello"))
                await trio.sleep(4)
        assert server.metrics.value("pagi_websocket_connections_active") == 1


async def test_a_session_whose_messages_nobody_takes_is_not_idle(embed, connect, autojump_clock):
    received = []

    async def busy(receive, _send):
        await trio.sleep(60)
        received.extend([await receive() for _ in range(1000)])

    config, patient = connect
    server = await embed(Teller(busy), lifespan="off", websocket=IDLE, **config)
    async with patient(server) as client:
        await open_websocket(client)
        await client.send(frame(1, b"hello") * 1000)
        await until(lambda: server.metrics.value("pagi_websocket_messages_received_total") > 0)
        await trio.sleep(60)
        await until(lambda: len(received) == 1000)


async def test_zero_is_never_idle(embed, connect, autojump_clock):
    config, patient = connect
    server = await embed(echo, lifespan="off", websocket={"idle_s": 0, "ping_interval_s": 0}, **config)
    async with patient(server) as client:
        await open_websocket(client)
        await trio.sleep(HOUR_S - 1)
        await client.send(frame(1, b"hello"))
        assert await read_frame(client) == (0x81, b"hello")
