"""Every way a WebSocket ends: by which code, whose Close frame came first, and what its connection is counted as.

Code ``other`` is not provoked: what is no code of RFC 6455 or its registry is refused from a client with 1002, and from
an application with an error.
"""

from __future__ import annotations

import struct

import pytest
import trio

from tests.integration.embedded import serving

from .conftest import respond
from .ledger import ended
from .test_closes import reset, settle
from .test_websocket import HANDSHAKE, echo, frame, open_websocket, read_frame

pytestmark = pytest.mark.trio

CODES = [*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999]


def label_of(code):
    return f"{code // 1000}xxx" if code >= 3000 else str(code)


def close(code):
    return frame(8, struct.pack("!H", code))


async def accept(receive, send):
    await receive()
    await send({"type": "websocket.accept"})


class Teller:
    """An application that accepts, may do something, and keeps what it is told at the end."""

    def __init__(self, act=None):
        self.told = None
        self._act = act

    async def __call__(self, scope, receive, send):
        await accept(receive, send)
        if self._act is not None:
            await self._act(receive, send)
        while (message := await receive())["type"] != "websocket.disconnect":
            pass
        self.told = message["code"], message["reason"]


def closing(code=1000, *, cleanup_s=0):
    """Return what closes, and then takes its time."""

    async def act(_receive, send):
        await send({"type": "websocket.close", "code": code, "reason": "bye"})
        await trio.sleep(cleanup_s)

    return act


async def flood(_receive, send):
    while True:
        try:
            await send({"type": "websocket.send", "bytes": bytes(1_000_000)})
        except OSError:
            return


async def fail(_receive, _send):
    raise ValueError("broken")


async def check(raw, app, client, *, closes, reason, handshakes=None, **config):
    """Have one client do what it does, and check how all of it was counted."""
    with trio.fail_after(60):
        async with serving(app, lifespan="off", **config) as server:
            async with raw(server) as connection:
                await client(connection, server)
            ledger = await ended(server)
    assert ledger.closes == closes
    assert ledger.closed == {reason: 1}
    assert ledger.handshakes == ({"accepted": 1} if handshakes is None else handshakes)


# Codes


@pytest.mark.parametrize("code", [*CODES, 1005])
async def test_a_close_of_the_client_counts_by_its_code(raw, autojump_clock, code):
    async def client(connection, server):
        await open_websocket(connection)
        await connection.send(frame(8) if code == 1005 else close(code))
        assert (await read_frame(connection))[0] == 0x88
        assert await connection.read_to_end() == b""

    app = Teller()
    await check(raw, app, client, closes={(label_of(code), "client"): 1}, reason="done")
    assert app.told == (code, "")


@pytest.mark.parametrize("code", CODES)
async def test_a_close_of_the_application_counts_by_its_code(raw, autojump_clock, code):
    async def client(connection, server):
        await open_websocket(connection)
        assert await read_frame(connection) == (0x88, struct.pack("!H", code) + b"bye")
        await connection.send(close(code))
        assert await connection.read_to_end() == b""

    app = Teller(closing(code))
    await check(raw, app, client, closes={(label_of(code), "server"): 1}, reason="done")
    assert app.told == (code, "bye")


# Ways

WAYS = []


def way(code, side, reason, *, act=None, told="", **config):
    """Add a way to end a WebSocket: what the client does once it is open, and how that is counted.

    Args:
        code: As on the page.
        side: As on the page.
        reason: What the connection is counted as.
        act: What the application does before it waits for its disconnect.
        told: The reason in that; ``reason`` if left out, None for an application that is told nothing.
        config: Settings that are not the defaults.
    """

    def add(client):
        # Another application for each run.
        WAYS.append(
            pytest.param(code, side, reason, act, reason if told == "" else told, config, client, id=client.__name__)
        )
        return client

    return add


@pytest.mark.parametrize(("code", "side", "reason", "act", "told", "config", "client"), WAYS)
async def test_a_websocket_is_counted_by_how_it_ended(
    raw, autojump_clock, code, side, reason, act, told, config, client
):
    async def opened(connection, server):
        await open_websocket(connection)
        await client(connection, server)

    app = Teller(act)
    await check(raw, app, opened, closes={(code, side): 1}, reason=reason, **config)
    assert app.told == (told if told is None else (int(code), told))


async def see_close(connection, code):
    """Read up to the server's Close frame, and check its code."""
    while (got := await read_frame(connection))[0] != 0x88:
        pass
    assert got[1][:2] == struct.pack("!H", code)


@way("1002", "server", "protocol_error")
async def breaks_the_protocol(client, server):
    await client.send(frame(3))
    await see_close(client, 1002)


@way("1007", "server", "protocol_error")
async def sends_text_that_is_none(client, server):
    await client.send(frame(1, b"\xff"))
    await see_close(client, 1007)


@way("1009", "server", "body_too_large", websocket={"message_max_bytes": 10})
async def sends_too_large_a_message(client, server):
    await client.send(frame(2, bytes(11)))
    await see_close(client, 1009)


@way("1008", "server", "queue_overflow", act=flood, websocket={"pings_outstanding": 3})
async def pings_and_does_not_read(client, server):
    await settle()
    await client.send(frame(9) * 4)
    # The server reads for an application that does not, a few times a second.
    await trio.sleep(1)
    await see_close(client, 1008)


@way("1000", "server", "idle_timeout", websocket={"idle_s": 1})
async def is_idle(client, server):
    await see_close(client, 1000)
    await client.send(close(1000))


@way("1000", "server", "idle_timeout", websocket={"idle_s": 1})
async def is_idle_and_does_not_answer(client, server):
    await see_close(client, 1000)
    await ended(server)


@way("1001", "server", "server_shutdown")
async def is_open_when_the_server_stops(client, server):
    server.handle.shutdown()
    await see_close(client, 1001)
    await client.send(close(1001))
    assert await client.read_to_end() == b""


@way("1006", "none", "server_shutdown", told=None)
async def is_open_when_the_server_is_aborted(client, server):
    server.handle.abort()
    assert await client.read_to_end() == b""


@way("1011", "server", "server_error", act=fail, told=None)
async def has_an_application_that_fails(client, server):
    await see_close(client, 1011)
    await client.send(close(1011))


@way("1006", "none", "client_closed")
async def is_cut(client, server):
    await settle()


@way("1006", "none", "client_closed")
async def is_reset(client, server):
    reset(client)


@way("1006", "none", "client_closed", act=flood)
async def is_cut_under_a_flood(client, server):
    await client.read_exactly(1)


@way("1006", "none", "keepalive_timeout", websocket={"ping_interval_s": 1, "ping_timeout_s": 1})
async def answers_no_ping(client, server):
    assert await read_frame(client) == (0x89, b"")
    await ended(server)


@way("1006", "none", "write_timeout", act=flood, timeouts={"write_stall_s": 1})
async def does_not_read(client, server):
    await ended(server)


# The application closes; it is told by its own code and reason, whatever becomes of the closing handshake.


@way("1000", "server", "client_timeout", act=closing(), told="bye")
async def does_not_answer_a_close(client, server):
    await see_close(client, 1000)
    await ended(server)


@way("1000", "server", "client_timeout", act=closing(cleanup_s=5), told="bye")
async def does_not_answer_a_close_of_an_application_that_goes_on(client, server):
    await see_close(client, 1000)
    assert await client.read_to_end() == b""


@way("1000", "server", "done", act=closing(cleanup_s=5), told="bye")
async def answers_a_close_of_an_application_that_goes_on(client, server):
    await see_close(client, 1000)
    await client.send(close(1000))
    assert await client.read_to_end() == b""


@way("1000", "server", "client_closed", act=closing(), told="bye")
async def leaves_in_place_of_an_answer(client, server):
    await see_close(client, 1000)


@way("1000", "server", "protocol_error", act=closing(), told="bye")
async def answers_a_close_with_what_is_no_frame(client, server):
    await see_close(client, 1000)
    await client.send(frame(3))


# Handshakes


async def refuse(scope, receive, send):
    await receive()
    await send({"type": "websocket.close"})


async def deny(scope, receive, send):
    await receive()
    await send({"type": "websocket.http.response.start", "status": 418, "headers": []})
    await send({"type": "websocket.http.response.body", "body": b"tea"})


async def say_nothing(scope, receive, send):
    await receive()


async def wait(scope, receive, send):
    await receive()
    assert (await receive())["type"] == "websocket.disconnect"


async def begin_a_denial(scope, receive, send):
    await receive()
    await send({"type": "websocket.http.response.start", "status": 418, "headers": [(b"content-length", b"6")]})
    await send({"type": "websocket.http.response.body", "body": b"tea", "more_body": True})
    await trio.sleep(1)
    await send({"type": "websocket.http.response.body", "body": b"pot"})


@pytest.mark.parametrize(
    ("app", "change", "status", "outcome", "reason"),
    [
        (refuse, (b"", b""), 403, "refused", "done"),
        (deny, (b"", b""), 418, "refused", "done"),
        (say_nothing, (b"", b""), 500, "refused", "server_error"),
        (echo, (b"Version: 13", b"Version: 99"), 426, "invalid", "protocol_error"),
        (echo, (b"Key: ", b"Key: short"), 400, "invalid", "protocol_error"),
    ],
)
async def test_a_handshake_counts_once_by_what_became_of_it(raw, autojump_clock, app, change, status, outcome, reason):
    async def client(connection, server):
        await connection.send((HANDSHAKE % b"").replace(*change, 1))
        assert (await connection.read_response())[0] == status
        assert await connection.read_to_end() == b""

    await check(raw, app, client, closes={}, reason=reason, handshakes={outcome: 1})


async def test_an_upgrade_that_cannot_be_one_is_no_handshake(raw, autojump_clock):
    async def app(scope, receive, send):
        assert scope["type"] == "http"
        await respond(send, b"plain")

    async def client(connection, server):
        await connection.send((HANDSHAKE % b"").replace(b"GET", b"POST"))
        assert (await connection.read_response())[2] == b"plain"

    await check(raw, app, client, closes={}, reason="done", handshakes={})


async def test_a_handshake_whose_client_leaves_is_abandoned(raw, autojump_clock):
    async def client(connection, server):
        await connection.send(HANDSHAKE % b"")
        await settle()

    await check(raw, wait, client, closes={}, reason="client_closed", handshakes={"abandoned": 1})


async def test_a_handshake_in_progress_is_refused_when_the_server_stops(raw, autojump_clock):
    async def client(connection, server):
        await connection.send(HANDSHAKE % b"")
        await settle()
        server.handle.shutdown()
        assert (await connection.read_response())[0] == 503

    await check(raw, wait, client, closes={}, reason="server_shutdown", handshakes={"refused": 1})


async def test_a_handshake_in_progress_is_abandoned_when_the_server_is_aborted(raw, autojump_clock):
    async def client(connection, server):
        await connection.send(HANDSHAKE % b"")
        await settle()
        server.handle.abort()
        assert await connection.read_to_end() == b""

    await check(raw, wait, client, closes={}, reason="server_shutdown", handshakes={"abandoned": 1})


async def test_a_denial_that_has_begun_is_finished_when_the_server_stops(raw, autojump_clock):
    async def client(connection, server):
        await connection.send(HANDSHAKE % b"")
        assert (await connection.read_head())[0] == 418
        server.handle.shutdown()
        assert await connection.read_to_end() == b"teapot"

    await check(raw, begin_a_denial, client, closes={}, reason="done", handshakes={"refused": 1})


async def test_too_much_before_the_answer_is_a_refusal(raw, autojump_clock):
    async def client(connection, server):
        await connection.send(HANDSHAKE % b"" + bytes(100_000))
        assert (await connection.read_response())[0] == 400

    await check(raw, wait, client, closes={}, reason="queue_overflow", handshakes={"refused": 1})
