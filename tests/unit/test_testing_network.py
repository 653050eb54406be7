"""Faults of a test's connections in virtual time, over pipes in memory."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from pagi_trio.testing.network import PATIENCE_S, Network, patience_s
from pagi_trio.testing.open_streams import OpenStreams

pytestmark = pytest.mark.trio


class Pipe:
    """A client's end in memory."""

    client = ("127.0.0.1", 1)

    def __init__(self):
        self._near, self.far = trio.testing.memory_stream_pair()
        self.is_reset = False
        self.is_closed = False
        self.is_readable = False
        self.send_all = self._near.send_all
        self.wait_send_all_might_not_block = self._near.wait_send_all_might_not_block
        self.send_eof = self._near.send_eof
        self.receive_some = self._near.receive_some

    def reset(self):
        self.is_reset = True
        self.close()

    async def aclose(self):
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self):
        self.is_closed = True
        self._near.send_stream.close()
        self._near.receive_stream.close()


class NoErrors:
    def check(self, client, began_s=0.0):
        pass


@pytest.fixture
def pipes():
    return []


@pytest.fixture
def network(pipes):
    async def open_stream():
        pipes.append(Pipe())
        return pipes[-1]

    return Network(open_stream, NoErrors())


# Without faults


async def test_bytes_go_both_ways_and_the_end_comes_after_them(network, pipes):
    wire = await network.connect()
    await wire.send_all(b"ping")
    assert await pipes[0].far.receive_some() == b"ping"
    await pipes[0].far.send_all(b"pong")
    assert await wire.receive_some(2) == b"po"
    assert await wire.receive_some() == b"ng"
    await pipes[0].far.send_eof()
    assert await wire.receive_some() == b""
    assert await wire.receive_some() == b""
    await wire.send_eof()
    assert await pipes[0].far.receive_some() == b""


async def test_open_wires_are_listed_oldest_first_until_they_are_closed_or_cut(network, pipes):
    first, second, third = [await network.connect() for _ in range(3)]
    assert network.wires == [first, second, third]
    await second.aclose()
    assert network.wires == [first, third]
    first.cut()
    assert network.wires == [third]
    network.cut()
    assert network.wires == []
    assert [pipe.is_reset for pipe in pipes] == [True, False, True]


async def test_a_wire_knows_its_own_address(network):
    assert (await network.connect()).client == ("127.0.0.1", 1)


async def test_a_closed_wire_is_closed_for_its_client_even_after_a_half_close(network):
    wire = await network.connect()
    await wire.half_close()
    await wire.aclose()
    await wire.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await wire.receive_some()
    with pytest.raises(trio.ClosedResourceError):
        await wire.send_all(b"x")
    await wire.half_close()


async def test_closing_at_once_needs_no_wait_and_wakes_whoever_receives(network, pipes):
    wire = await network.connect()

    async def receive():
        with pytest.raises(trio.ClosedResourceError):
            await wire.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        wire.close()
        wire.close()
        assert network.wires == []
        assert pipes[0].is_closed
        assert await pipes[0].far.receive_some() == b""


async def test_a_wire_is_readable_when_a_receive_would_not_wait(network, pipes):
    wire = await network.connect()
    assert not wire.is_readable
    pipes[0].is_readable = True
    assert wire.is_readable
    pipes[0].is_readable = False
    wire.cut()
    assert wire.is_readable


# Cut


@pytest.mark.parametrize("waiting", ["receive", "stopped", "delayed", "kept"])
async def test_a_cut_wakes_a_receive_wherever_it_waits(network, pipes, autojump_clock, waiting):
    wire = await network.connect()
    if waiting == "stopped":
        wire.stop_reading()
    if waiting == "delayed":
        wire.delay(3600)
    if waiting in ("delayed", "kept"):
        await pipes[0].far.send_all(b"lost")
    errors = []

    async def receive():
        with pytest.raises(trio.BrokenResourceError) as caught:
            await wire.receive_some()
        errors.append(caught.value)

    async with trio.open_nursery() as nursery:
        if waiting == "kept":
            wire.delay(1)
            with trio.move_on_after(0.5):
                await wire.receive_some()
            wire.stop_reading()
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        wire.cut()
    assert len(errors) == 1
    assert trio.current_time() < 3600


async def test_a_cut_wakes_a_send_that_is_delayed(network, autojump_clock):
    wire = await network.connect()
    wire.delay(3600)

    async def send():
        with pytest.raises(trio.BrokenResourceError):
            await wire.send_all(b"x")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        wire.cut()
    assert trio.current_time() < 3600


async def test_after_a_cut_everything_is_broken_and_closing_is_no_error(network):
    wire = await network.connect()
    wire.cut()
    wire.cut()
    for call in (wire.receive_some, wire.send_eof, wire.wait_send_all_might_not_block):
        with pytest.raises(trio.BrokenResourceError, match="the test has cut"):
            await call()
    with pytest.raises(trio.BrokenResourceError, match="the test has cut"):
        await wire.send_all(b"x")
    await wire.half_close()
    await wire.aclose()


# Stop reading


async def test_what_a_waiting_receive_gets_is_kept_until_reading_goes_on(network, pipes):
    wire = await network.connect()
    got = []

    async def receive():
        got.append(await wire.receive_some())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        network.stop_reading()
        network.go_on_reading()
        network.stop_reading()
        network.stop_reading()
        await pipes[0].far.send_all(b"held")
        await trio.testing.wait_all_tasks_blocked()
        assert got == []
        assert wire.is_readable
        network.go_on_reading()
    assert got == [b"held"]


async def test_a_receive_that_is_cancelled_meanwhile_loses_nothing(network, pipes, autojump_clock):
    wire = await network.connect()
    wire.delay(2)
    await pipes[0].far.send_all(b"abc")
    with trio.move_on_after(1):
        await wire.receive_some()
    wire.stop_reading()
    with trio.move_on_after(5):
        await wire.receive_some()
    wire.go_on_reading()
    assert await wire.receive_some(1) == b"a"
    assert await wire.receive_some() == b"bc"


async def test_nothing_is_taken_from_the_network_once_reading_is_stopped(network, pipes, autojump_clock):
    network.stop_reading()
    wire = await network.connect()
    await pipes[0].far.send_all(b"abc")
    with trio.move_on_after(1):
        await wire.receive_some()
    assert not wire.is_readable
    wire.go_on_reading()
    assert await wire.receive_some() == b"abc"


# Delay


async def test_each_send_and_each_receive_comes_that_much_later(network, pipes, autojump_clock):
    first = await network.connect()
    network.delay(2)
    second = await network.connect()
    for wire, pipe in zip((first, second), pipes, strict=True):
        start = trio.current_time()
        await wire.send_all(b"x")
        assert trio.current_time() - start == pytest.approx(2)
        await pipe.far.send_all(b"y")
        assert await wire.receive_some() == b"y"
        assert trio.current_time() - start == pytest.approx(4)
    network.delay(0)
    start = trio.current_time()
    await first.send_all(b"x")
    assert trio.current_time() == start


# Half-close


async def test_after_a_half_close_the_client_still_receives_and_its_sends_find_nobody(network, pipes):
    wire = await network.connect()
    await network.half_close()
    assert await pipes[0].far.receive_some() == b""
    await pipes[0].far.send_all(b"all the same")
    assert await wire.receive_some() == b"all the same"
    with pytest.raises(trio.BrokenResourceError):
        await wire.send_all(b"x")


async def test_a_half_close_comes_behind_what_is_being_sent(network, pipes, autojump_clock):
    wire = await network.connect()
    wire.delay(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.send_all, b"first")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(wire.half_close)
        assert await pipes[0].far.receive_some() == b"first"
        assert await pipes[0].far.receive_some() == b""


# Refuse


async def test_connections_are_refused_in_a_block_and_nowhere_else(network, pipes):
    before = await network.connect()
    with network.refuse():
        with network.refuse(), pytest.raises(ConnectionRefusedError):
            await network.connect()
        with pytest.raises(ConnectionRefusedError):
            await network.connect()
        await before.send_all(b"x")
    await network.connect()
    assert len(pipes) == 2


# What is open, and for how long one waits


async def test_what_is_open_has_its_name_until_it_is_closed():
    streams = OpenStreams()
    feed, chat = streams.add("GET /feed"), streams.add("websocket /chat")
    again = streams.add("GET /feed")
    assert list(streams) == ["GET /feed", "websocket /chat", "GET /feed"]
    feed.close()
    feed.close()
    assert list(streams) == ["websocket /chat", "GET /feed"]
    chat.close()
    again.close()
    assert len(streams) == 0


async def test_a_client_waits_for_half_a_minute():
    assert patience_s() == PATIENCE_S


async def test_in_virtual_time_a_client_waits_forever(mock_clock):
    assert patience_s() == float("inf")
