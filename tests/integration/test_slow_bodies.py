"""Bodies that come slowly, on Trio's autojump clock: at least 240 bytes a second, after a grace of five seconds."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio

from .clock import HOUR_S, assert_within_a_tick, seconds_until
from .conftest import respond
from .ledger import ended

pytestmark = pytest.mark.trio


class Upload:
    """An application that takes a body, and keeps what came of it.

    Args:
        busy_s: How long it is busy with something else after the first part.
    """

    def __init__(self, busy_s=0):
        self._busy_s = busy_s
        self.taken = 0
        self.told = ""

    async def __call__(self, scope, receive, send):
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.told = message["reason"]
                return
            if not self.taken:
                await trio.sleep(self._busy_s)
            self.taken += len(message["body"])
            if not message["more_body"]:
                await respond(send, b"thanks")
                return


POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%b\r\n"
RATE = 240
GRACE_S = 5


async def send_slowly(client, size, per_second):
    """Send a few bytes at a time, at an even speed, until the server closes."""
    step = max(per_second // 20, 1)
    with suppress(trio.BrokenResourceError):
        for _ in range(size // step):
            await client.send(b"x" * step)
            await trio.sleep(step / per_second)


@pytest.mark.parametrize("per_second", [1, 120, 200])
async def test_a_body_that_comes_too_slowly_is_a_408_rfc9110_15_5_9(embed, autojump_clock, connect, per_second):
    config, patient = connect
    app = Upload()
    server = await embed(app, lifespan="off", **config)
    async with patient(server) as client, trio.open_nursery() as nursery:
        await client.send(POST % (1_000_000, b""))
        nursery.start_soon(send_slowly, client, 1_000_000, per_second)

        async def refused():
            status, headers, body = await client.read_response()
            assert (status, headers[b"connection"]) == (408, b"close")
            assert body == b"the body comes slower than 240 bytes a second\n"

        # What is too slow by a sixth uses the grace up in six times as long; and so it does if it pauses that little.
        assert_within_a_tick(await seconds_until(refused), GRACE_S / (1 - per_second / RATE))
        assert await client.read_to_end() == b""
        nursery.cancel_scope.cancel()
    assert (await ended(server)).closed == {"client_timeout": 1}
    assert app.told == "client_timeout"
    assert server.metrics.value("pagi_server_app_errors_total", scope="http") == 0


async def test_a_body_that_comes_as_fast_as_it_must_is_taken(embed, autojump_clock, connect):
    config, patient = connect
    server = await embed(Upload(), lifespan="off", **config)
    async with patient(server) as client:
        await client.send(POST % (60 * 250, b""))
        await send_slowly(client, 60 * 250, 250)
        assert (await client.read_response())[2] == b"thanks"


@pytest.mark.parametrize(("pause_s", "status"), [(4, 200), (6, 408)])
async def test_the_100_that_a_body_waits_for_begins_its_time_rfc9110_10_1_1(
    embed, autojump_clock, connect, pause_s, status
):
    async def app(scope, receive, send):
        # Nobody waits for the body yet.
        await trio.sleep(60)
        await Upload()(scope, receive, send)

    config, patient = connect
    server = await embed(app, lifespan="off", **config)
    async with patient(server) as client:
        await client.send(POST % (10, b"Expect: 100-continue\r\n"))
        assert (await client.read_head())[0] == 100
        await trio.sleep(pause_s)
        with suppress(trio.BrokenResourceError):
            await client.send(bytes(10))
        assert (await client.read_response())[0] == status


async def test_a_body_is_cut_when_its_answer_has_begun(embed, autojump_clock, connect):
    told = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        while (message := await receive())["type"] == "http.request":
            pass
        told.append(message["reason"])

    config, patient = connect
    server = await embed(app, lifespan="off", **config)
    async with patient(server) as client:
        await client.send(POST % (10, b"") + b"12345")
        assert (await client.read_head())[0] == 200
        # No second answer, which the client would take for the rest of the first.
        assert await client.read_to_end() == b"half"
    assert told == ["client_timeout"]
    assert (await ended(server)).closed == {"client_timeout": 1}


async def test_a_body_that_nobody_waits_for_may_pause(embed, autojump_clock, connect):
    config, patient = connect
    app = Upload(busy_s=600)
    server = await embed(app, lifespan="off", **config)
    async with patient(server) as client:
        await client.send(POST % (10, b"") + b"12345")
        await trio.sleep(599)
        await client.send(b"67890")
        assert (await client.read_response())[2] == b"thanks"
    assert app.taken == 10


# A second for each 240 bytes, at most a minute, less what it took to send them; and the grace.
@pytest.mark.parametrize(
    ("size", "pause_s", "status"),
    [(20 * RATE, 24, 200), (20 * RATE, 26, 408), (1_000_000, 59, 200), (1_000_000, 61, 408)],
)
async def test_a_fast_body_may_pause_for_as_long_as_it_has_earned(
    embed, autojump_clock, connect, size, pause_s, status
):
    config, patient = connect
    server = await embed(Upload(), lifespan="off", **config)
    async with patient(server) as client:
        await client.send(POST % (size + 1, b"") + bytes(size))
        await trio.sleep(pause_s)
        with suppress(trio.BrokenResourceError):
            await client.send(b"x")
        assert (await client.read_response())[0] == status


@pytest.mark.parametrize(("pause_s", "status"), [(299, 200), (301, 408)])
async def test_a_long_grace_is_a_whole_one(embed, autojump_clock, connect, pause_s, status):
    config, patient = connect
    server = await embed(Upload(), lifespan="off", timeouts={"body_grace_s": 300}, **config)
    async with patient(server) as client:
        await client.send(POST % (1, b""))
        await trio.sleep(pause_s)
        with suppress(trio.BrokenResourceError):
            await client.send(b"x")
        assert (await client.read_response())[0] == status


async def test_a_rate_of_zero_is_any_speed(embed, autojump_clock, connect):
    config, patient = connect
    server = await embed(Upload(), lifespan="off", limits={"body_bytes_per_s": 0}, **config)
    async with patient(server) as client:
        await client.send(POST % (1, b""))
        await trio.sleep(HOUR_S - 1)
        await client.send(b"x")
        assert (await client.read_response())[2] == b"thanks"


async def test_a_body_that_is_left_unread_has_the_time_of_a_head(embed, autojump_clock, connect):
    async def app(scope, receive, send):
        await respond(send, b"no")

    config, patient = connect
    server = await embed(app, lifespan="off", timeouts={"head_s": 3}, **config)
    async with patient(server) as client, trio.open_nursery() as nursery:
        await client.send(POST % (10_000, b""))
        assert (await client.read_response())[2] == b"no"
        nursery.start_soon(send_slowly, client, 10_000, 10)

        async def closed():
            with suppress(trio.BrokenResourceError):
                assert await client.read_to_end() == b""

        assert_within_a_tick(await seconds_until(closed), 3)
        nursery.cancel_scope.cancel()
    assert (await ended(server)).closed == {"client_timeout": 1}
