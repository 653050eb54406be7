"""The socket between the parent and a worker: whole messages in order, an end that is heard, and no waiting to send."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from pagi_trio.nurseries.control import Control, receive_first

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pagi_trio.nurseries.control import Message

pytestmark = pytest.mark.trio


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def ends(sockets: tuple[socket.socket, socket.socket]) -> tuple[Control, Control]:
    return Control(sockets[0]), Control(sockets[1])


async def receive(control: Control) -> Message | None:
    with trio.fail_after(5):
        return await control.receive()


async def test_messages_arrive_whole_and_in_order_both_ways(ends: tuple[Control, Control]) -> None:
    ours, theirs = ends
    messages: list[Message] = [{"type": "ready"}, {"type": "failed", "message": "é\n\ud800\0", "code": 3}, {"type": ""}]
    for message in messages:
        assert ours.post(message)
    assert theirs.post({"type": "stop"})
    assert [await receive(theirs) for _ in messages] == messages
    assert await receive(ours) == {"type": "stop"}


async def test_receiving_waits_for_the_next_message(ends: tuple[Control, Control]) -> None:
    ours, theirs = ends
    received: list[Message | None] = []

    async def wait() -> None:
        received.append(await receive(theirs))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert received == []
        ours.post({"type": "abort"})
    assert received == [{"type": "abort"}]


async def test_a_receive_that_is_cancelled_loses_nothing(ends: tuple[Control, Control]) -> None:
    ours, theirs = ends
    received: list[Message | None] = []

    async def wait() -> None:
        received.append(await theirs.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        # It may or may not be taken before the cancellation.
        ours.post({"type": "stop"})
        nursery.cancel_scope.cancel()
    ours.post({"type": "abort"})
    while received[-1:] != [{"type": "abort"}]:
        received.append(theirs.receive_nowait())
    assert received == [{"type": "stop"}, {"type": "abort"}]


@pytest.mark.parametrize("packet", [b"hello", b"[1]", b"{}", b"\xff", b'{"type":'])
async def test_a_packet_that_says_nothing_is_said_to(packet: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.send(packet)
        assert Control(theirs).receive_nowait() == {"type": "garbage"}


async def test_there_is_nothing_to_receive_without_waiting(ends: tuple[Control, Control]) -> None:
    ours, theirs = ends
    with pytest.raises(BlockingIOError):
        theirs.receive_nowait()
    ours.post({"type": "ready"})
    assert theirs.receive_nowait() == {"type": "ready"}


async def test_the_last_words_come_before_the_end(ends: tuple[Control, Control]) -> None:
    ours, theirs = ends
    theirs.post({"type": "failed"})
    theirs.close()
    assert await receive(ours) == {"type": "failed"}
    assert await receive(ours) is None
    assert ours.receive_nowait() is None


async def test_an_end_that_left_messages_unread_is_an_end_too(ends: tuple[Control, Control]) -> None:
    ours, theirs = ends
    ours.post({"type": "stop"})
    theirs.close()
    # The kernel calls it a connection that was reset.
    assert await receive(ours) is None


async def test_an_end_is_heard_while_waiting(ends: tuple[Control, Control]) -> None:
    ours, theirs = ends
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            assert await receive(ours) is None
            nursery.cancel_scope.cancel()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        theirs.close()
        await trio.sleep_forever()


async def test_nothing_is_sent_to_one_that_has_ended(ends: tuple[Control, Control]) -> None:
    ours, theirs = ends
    theirs.close()
    assert not ours.post({"type": "stop"})
    ours.close()
    assert not ours.post({"type": "stop"})


async def test_a_side_that_stands_still_is_told_no_more_until_it_goes_on(ends: tuple[Control, Control]) -> None:
    ours, theirs = ends
    sent = 0
    while ours.post({"type": "number", "number": sent, "filling": "x" * 1000}):
        sent += 1
        assert sent < 10_000
    assert sent > 10
    received = [await receive(theirs) for _ in range(sent)]
    assert [message and message["number"] for message in received] == list(range(sent))
    # The one that found no room is not there in part either.
    with pytest.raises(BlockingIOError):
        theirs.receive_nowait()
    assert ours.post({"type": "stop"})
    assert await receive(theirs) == {"type": "stop"}


async def test_a_long_message_arrives_whole_and_one_that_is_too_long_not_at_all(ends: tuple[Control, Control]) -> None:
    ours, theirs = ends
    # A traceback may well have this many.
    message = {"type": "failed", "details": "x" * 100_000}
    assert ours.post(message)
    assert await receive(theirs) == message
    assert not ours.post({"type": "failed", "details": "x" * (1 << 18)})
    assert ours.post({"type": "ready"})
    assert await receive(theirs) == {"type": "ready"}


async def test_closing_wakes_who_waits(ends: tuple[Control, Control]) -> None:
    ours, _ = ends
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await receive(ours)

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        ours.close()


async def test_the_first_message_brings_files(sockets: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = sockets
    reading, writing = os.pipe()
    try:
        assert Control(ours).post({"type": "orders"}, [writing])
        os.close(writing)
        message, [copy] = receive_first(theirs)
        assert message == {"type": "orders"}
        # What the application starts has no business with it.
        assert not os.get_inheritable(copy)
        os.write(copy, b"through the copy")
        os.close(copy)
        assert os.read(reading, 100) == b"through the copy"
        assert os.read(reading, 100) == b""
    finally:
        os.close(reading)


async def test_a_first_message_of_many_files(sockets: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = sockets
    assert Control(ours).post({"type": "orders"}, [0] * 253)
    message, copies = receive_first(theirs)
    for copy in copies:
        os.close(copy)
    assert (message, len(copies)) == ({"type": "orders"}, 253)
    # More than the kernel passes on at once.
    assert not Control(ours).post({"type": "orders"}, [0] * 254)


async def test_without_a_parent_there_is_no_first_message(sockets: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = sockets
    ours.close()
    assert receive_first(theirs) == (None, [])
