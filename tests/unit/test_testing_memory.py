"""A client's end of a connection in memory, held to what Trio asks of its streams."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from pagi_trio.testing.memory import MemoryStream
from pagi_trio.testing.pipes import CAPACITY_BYTES, MemorySocket, Pipe

pytestmark = pytest.mark.trio


async def make_pair():
    one, two = Pipe(), Pipe()
    ends = MemorySocket(one, two), MemorySocket(two, one)
    return MemoryStream(ends[0], ("127.0.0.1", 1)), MemoryStream(ends[1], ("127.0.0.1", 2))


async def make_full_pair():
    pair = await make_pair()
    for stream in pair:
        await stream.send_all(bytes(CAPACITY_BYTES))
    return pair


async def test_it_is_a_stream_as_trio_defines_one():
    with trio.fail_after(10):
        await trio.testing.check_half_closeable_stream(make_pair, make_full_pair)


async def test_a_reset_is_seen_behind_an_end_that_nobody_has_read_yet():
    near, far = await make_pair()
    await near.send_all(b"x")
    await near.send_eof()
    near.reset()
    assert await far.receive_some() == b"x"
    with pytest.raises(trio.BrokenResourceError):
        await far.receive_some()
