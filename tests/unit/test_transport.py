"""Transports over real socket pairs: what is observed is what the kernel took, in order, and once."""

from __future__ import annotations

import random
import socket

import pytest
import trio

from pagi_trio.errors import ClientDisconnected
from pagi_trio.nurseries.transport import FLUSH_WRITES, WRITE_BYTES, Transport

pytestmark = pytest.mark.trio


@pytest.fixture
def pair():
    """A transport without a poller over a pair of sockets with the smallest buffers, and its peer."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for sock in (ours, theirs):
            sock.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        yield Transport(ours, None), theirs


def read_all(peer) -> bytes:
    data = b""
    while True:
        try:
            part = peer.recv(1 << 20)
        except BlockingIOError:
            return data
        if not part:
            return data
        data += part


def fill(transport) -> bytes:
    """Write until the kernel takes no more; return what it took."""
    data = b""
    while taken := transport.write_nowait(b"f" * 1000):
        data += b"f" * taken
    return data


async def test_bytes_leave_in_order_and_an_observer_sees_those_the_kernel_took(pair):
    transport, peer = pair
    rng = random.Random(2)
    observed = bytearray()
    finished = []
    written = bytearray()
    read = bytearray()
    counted_parts = counted_bytes = direct = 0
    for _ in range(2000):
        data = rng.randbytes(rng.randrange(1, 4000))
        counted = rng.random() < 0.7
        taken = transport.write_nowait(data)
        if counted:
            direct += taken
            counted_bytes += len(data)
        if taken != len(data):

            def observer(view, is_last):
                observed.extend(view)
                finished.append(is_last)

            counted_parts += counted
            transport.enqueue(memoryview(data)[taken:], observer if counted else None)
        written += data
        for _ in range(rng.randrange(3)):
            try:
                read += peer.recv(rng.randrange(1, 3000))
            except BlockingIOError:
                break
        transport.flush_nowait()
    # Never more observed than written, and once all is read exactly as much.
    assert finished.count(True) < counted_parts
    assert direct + len(observed) < counted_bytes
    while not transport.is_drained:
        read += read_all(peer)
        transport.flush_nowait()
    read += read_all(peer)
    assert read == written
    assert direct + len(observed) == counted_bytes
    assert finished.count(True) == counted_parts


async def test_what_is_observed_is_never_less_than_what_the_peer_has(pair):
    transport, peer = pair
    seen = len(fill(transport))
    got = 0
    observed = 0

    def observe(view, is_last):
        nonlocal observed
        observed += len(view)

    transport.enqueue(memoryview(bytes(300_000)), observe)
    while not transport.is_drained:
        transport.flush_nowait()
        got += len(peer.recv(777))
        assert got <= seen + observed
    assert observed == 300_000


async def test_a_flush_is_bounded(pair):
    transport, _ = pair
    transport.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
    parts = []
    for _ in range(FLUSH_WRITES + 4):
        transport.enqueue(memoryview(b"x"), lambda view, is_last: parts.append(len(view)))
    transport.flush_nowait()
    assert (len(parts), transport.is_drained) == (FLUSH_WRITES, False)
    transport.flush_nowait()
    assert (len(parts), transport.is_drained) == (FLUSH_WRITES + 4, True)


async def test_a_long_part_leaves_in_slices(pair):
    transport, peer = pair
    fill(transport)
    views = []
    transport.enqueue(memoryview(bytes(3 * WRITE_BYTES)), lambda view, is_last: views.append((len(view), is_last)))
    while not transport.is_drained:
        read_all(peer)
        transport.flush_nowait()
    assert sum(size for size, _ in views) == 3 * WRITE_BYTES
    assert max(size for size, _ in views) <= WRITE_BYTES
    assert [is_last for _, is_last in views] == [False] * (len(views) - 1) + [True]


async def test_a_cancelled_drain_leaves_its_bytes_and_the_next_come_after_them(pair):
    transport, peer = pair
    sent = fill(transport)
    with trio.CancelScope() as scope:
        scope.cancel()
        transport.post(b"first" * 1000)
        await transport.drain()
    assert scope.cancelled_caught
    transport.post(b"second")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.drain)
        nursery.start_soon(transport.drain)
        await trio.testing.wait_all_tasks_blocked()
        read = read_all(peer)
        while not transport.is_drained:
            await trio.testing.wait_all_tasks_blocked()
            read += read_all(peer)
    assert read + read_all(peer) == sent + b"first" * 1000 + b"second"


async def test_a_cancelled_writer_hands_the_waiting_to_the_next(pair):
    transport, peer = pair
    fill(transport)
    transport.enqueue(memoryview(b"queued"))
    first = trio.CancelScope()

    async def drain_first():
        with first:
            await transport.drain()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain_first)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(transport.drain)
            await trio.testing.wait_all_tasks_blocked()
            first.cancel()
            await trio.testing.wait_all_tasks_blocked()
            read_all(peer)
    assert transport.is_drained


async def test_how_long_nothing_has_left_is_known_while_something_waits(pair, autojump_clock):
    transport, peer = pair
    assert transport.stalled_s < 0
    fill(transport)
    transport.enqueue(memoryview(bytes(100_000)))
    assert transport.stalled_s == 0
    await trio.sleep(10)
    transport.flush_nowait()
    assert transport.stalled_s == 10
    read_all(peer)
    transport.flush_nowait()
    assert transport.stalled_s == 0
    while not transport.is_drained:
        read_all(peer)
        transport.flush_nowait()
    assert transport.stalled_s < 0


async def test_a_peer_that_left_fails_the_write_and_the_drain(pair):
    transport, peer = pair
    fill(transport)
    transport.enqueue(memoryview(b"x"))
    failed = []

    async def drain():
        with pytest.raises(ClientDisconnected, match="client_closed"):
            await transport.drain()
        failed.append(True)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain)
            await trio.testing.wait_all_tasks_blocked()
            assert failed == []
            peer.close()
    assert failed == [True]
    with pytest.raises(ClientDisconnected, match="client_closed"):
        transport.write_nowait(b"x")
    transport.post(b"dropped in silence")


async def test_closing_wakes_whoever_waits_and_keeps_the_first_reason(pair):
    transport, _ = pair
    fill(transport)
    transport.enqueue(memoryview(b"x"))
    reasons = []

    async def drain():
        with pytest.raises(ClientDisconnected) as caught:
            await transport.drain()
        reasons.append(caught.value.reason)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain)
            nursery.start_soon(drain)
            nursery.start_soon(transport.wait_turn)
            nursery.start_soon(transport.wait_turn)
            nursery.start_soon(transport.wait_woken)
            await trio.testing.wait_all_tasks_blocked()
            transport.close("write_timeout")
            transport.close("done")
    assert reasons == ["write_timeout"] * 2
    assert transport.read_nowait() == b""


async def test_one_task_waits_for_the_socket_and_the_others_take_over(pair):
    transport, peer = pair
    data = []

    async def read():
        while (part := transport.read_nowait()) is None:
            await transport.wait_turn()
        data.append(part)

    first = trio.CancelScope()

    async def give_up():
        with first:
            await read()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(give_up)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            first.cancel()
            await trio.testing.wait_all_tasks_blocked()
            peer.send(b"here")
    assert data == [b"here"]


async def test_the_end_of_what_the_peer_sends_is_told_to_all(pair):
    transport, peer = pair
    ended = []

    async def read():
        while not transport.eof:
            if transport.read_nowait() is None:
                await transport.wait_turn()
        ended.append(True)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            peer.shutdown(socket.SHUT_WR)
    assert len(ended) == 3
    assert transport.lost == ""


async def test_a_closed_transport_has_nothing_to_deliver(pair):
    transport, _ = pair
    transport.close("write_timeout")
    assert not transport.is_undelivered


@pytest.mark.parametrize(("reason", "is_reset"), [("keepalive_timeout", True), ("done", False)])
async def test_a_peer_that_does_not_read_is_reset_once_it_is_given_up(reason, is_reset):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    with peer, ours:
        ours.setblocking(False)
        transport = Transport(ours, None)
        sent = fill(transport)
        assert transport.is_drained
        assert transport.is_undelivered
        transport.close(reason)
        peer.settimeout(10)
        if is_reset:
            with pytest.raises(ConnectionResetError):
                while peer.recv(1 << 20):
                    pass
        else:
            taken = 0
            while part := peer.recv(1 << 20):
                taken += len(part)
            assert taken == len(sent)
