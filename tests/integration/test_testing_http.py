"""The HTTP client of a test, over sockets and in memory."""

from __future__ import annotations

import gc
import os
from contextlib import asynccontextmanager

import httpx
import pytest
import trio
import trio.testing

from pagi_trio.testing.http_client import make_client

from .conftest import hello, read_body, respond
from .linked import link, linked

__all__ = ["link"]

pytestmark = pytest.mark.trio


class Boom(Exception):
    pass


async def echo(scope, receive, send):
    body, _complete = await read_body(receive)
    await respond(send, body, headers=[(b"x-method", scope["method"].encode()), (b"x-path", scope["raw_path"])])


async def endless(scope, receive, send):
    """Send a part, and wait for the client to leave."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"part", "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass


@asynccontextmanager
async def client_of(link):
    async with make_client(link.network, link.server.url) as client:
        yield client


async def test_requests_have_their_responses(link):
    async with link(echo) as link, client_of(link) as client:
        response = await client.post("/a%20b?c", content=b"body")
        assert (response.status_code, response.content) == (200, b"body")
        assert (response.headers["x-method"], response.headers["x-path"]) == ("POST", "/a%20b")
        assert (await client.get("/")).content == b""


async def test_a_body_that_is_not_wanted_to_its_end_is_closed(link):
    ended = []

    async def too_long():
        try:
            yield b"long"
        finally:
            ended.append(True)

    async with link(echo) as link, client_of(link) as client:
        with pytest.raises(httpx.LocalProtocolError):
            await client.post("/", content=too_long(), headers={"content-length": "2"})
    assert ended


async def test_bodies_stream_both_ways(link):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            await send({"type": "http.response.body", "body": message["body"], "more_body": more})

    async def parts():
        yield b"first"
        yield b"second"

    async with link(app) as link, client_of(link) as client, client.stream("POST", "/", content=parts()) as response:
        assert b"".join([part async for part in response.aiter_bytes()]) == b"firstsecond"


async def test_one_connection_serves_request_after_request(link):
    async with link(hello) as link, client_of(link) as client:
        for _ in range(5):
            await client.get("/")
        assert link.server.metrics.value("pagi_server_connections_total") == 1
        assert len(link.network.wires) == 1
    assert link.network.wires == []


async def test_a_connection_that_the_server_has_closed_is_not_used_again(link):
    async def app(scope, receive, send):
        await respond(send, b"bye", headers=[(b"connection", b"close")] if scope["path"] == "/last" else [])

    async with link(app) as link, client_of(link) as client:
        await client.get("/last")
        assert (await client.get("/")).content == b"bye"
        link.network.cut()
        assert (await client.get("/")).content == b"bye"
        assert link.server.metrics.value("pagi_server_connections_total") == 3


async def test_more_requests_than_ten_run_at_once(link):
    together = 0
    all_there = trio.Event()

    async def app(scope, receive, send):
        nonlocal together
        together += 1
        if together == 25:
            all_there.set()
        await all_there.wait()
        await respond(send, b"ok")

    async with link(app) as link, client_of(link) as client, trio.open_nursery() as nursery:
        for _ in range(25):
            nursery.start_soon(client.get, "/")


async def test_any_host_is_that_of_the_server(link):
    async def app(scope, receive, send):
        await respond(send, dict(scope["headers"])[b"host"])

    async with link(app) as link, client_of(link) as client:
        assert (await client.get("http://chat.example/")).text == "chat.example"


async def test_nothing_is_read_from_the_environment(link, monkeypatch, tmp_path):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))

    async def app(scope, receive, send):
        await respond(send, dict(scope["headers"]).get(b"authorization", b"none"))

    async with link(app) as link, client_of(link) as client:
        assert (await client.get("/")).text == "none"


async def test_a_client_has_half_a_minute(link):
    async with link(hello) as link, client_of(link) as client:
        assert client.timeout == httpx.Timeout(30)


async def test_in_virtual_time_a_client_has_forever(autojump_clock):
    async def app(scope, receive, send):
        await trio.sleep(100)
        await respond(send, b"late")

    async with linked(app, in_memory=True, patience_s=1000) as link, client_of(link) as client:
        assert client.timeout == httpx.Timeout(None)
        assert (await client.get("/")).text == "late"


# What the application raises


async def test_what_is_raised_before_a_response_is_raised_in_the_test(link):
    error = Boom("before")

    async def app(scope, receive, send):
        raise error

    async with link(app) as link, client_of(link) as client:
        with pytest.raises(Boom) as caught:
            await client.get("/")
        assert caught.value is error
        assert error.__context__ is None
        names = [entry.name for entry in caught.traceback]
        assert "app" in names
        assert names[0].startswith("test_what_is_raised_before")
        assert len(link.network.streams) == 0
        assert link.network.wires == []


@pytest.mark.parametrize("framing", [[], [(b"content-length", b"100")]])
async def test_what_is_raised_inside_a_body_is_raised_behind_what_was_sent(link, framing):
    error = Boom("inside")

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": framing})
        await send({"type": "http.response.body", "body": b"part", "more_body": True})
        raise error

    async with link(app) as link, client_of(link) as client:
        got = []
        with pytest.raises(Boom) as caught:
            async with client.stream("GET", "/") as response:
                async for part in response.aiter_bytes():
                    got.append(part)
        assert caught.value is error
        assert got == [b"part"]
        with pytest.raises(Boom):
            await client.get("/")
        assert len(link.network.streams) == 0


async def test_requests_at_the_same_time_have_their_own_errors(link):
    errors = {f"/{number}": Boom(number) for number in range(10)}
    arrived = trio.testing.Sequencer()

    async def app(scope, receive, send):
        # The last to be asked is the first to fail.
        number = int(scope["path"][1:])
        async with arrived(9 - number):
            raise errors[scope["path"]]

    async with link(app) as link, client_of(link) as client:

        async def get(path):
            with pytest.raises(Boom) as caught:
                await client.get(path)
            assert caught.value is errors[path]

        async with trio.open_nursery() as nursery:
            for path in errors:
                nursery.start_soon(get, path)


async def test_what_is_caught_leaves_the_next_request_alone(link):
    async def app(scope, receive, send):
        if scope["path"] == "/boom":
            raise Boom
        await respond(send, b"fine")

    async with link(app) as link, client_of(link) as client:
        for _ in range(2):
            with pytest.raises(Boom):
                await client.get("/boom")
            assert (await client.get("/")).text == "fine"


async def test_what_is_raised_behind_a_response_is_not_the_error_of_the_next_request(link):
    gone = trio.Event()

    async def app(scope, receive, send):
        await respond(send, b"fine")
        if scope["path"] == "/background":
            await gone.wait()
            raise Boom

    async with link(app) as link, client_of(link) as client:
        await client.get("/background?first")
        gone.set()
        await trio.testing.wait_all_tasks_blocked()
        assert (await client.get("/next?second")).text == "fine"
        assert [type(error) for error in link.errors.take_all()] == [Boom]


async def test_where_errors_are_not_asked_for_the_response_is_the_servers(link):
    async def app(scope, receive, send):
        raise Boom

    async with link(app) as link, client_of(link) as client:
        link.errors.is_raising = False
        assert (await client.get("/")).status_code == 500


# Faults


async def test_refused_is_a_connect_error(link):
    async with link(hello) as link, client_of(link) as client:
        with link.network.refuse(), pytest.raises(httpx.ConnectError):
            await client.get("/")
        assert (await client.get("/")).text == "hello"


async def test_a_server_that_is_gone_is_cut_and_refused(link):
    async with link(hello) as link, client_of(link) as client:
        await client.get("/")
        link.network.cut()
        with link.network.refuse(), pytest.raises(httpx.ConnectError):
            await client.get("/")


async def test_a_cut_is_a_read_error_before_and_inside_a_response(link):
    async def app(scope, receive, send):
        if scope["path"] == "/never":
            await receive()
            link.network.cut()
            await receive()
        await endless(scope, receive, send)

    async with link(app) as link, client_of(link) as client:
        with pytest.raises(httpx.ReadError, match="the test has cut"):
            await client.get("/never")
        with pytest.raises(httpx.ReadError, match="the test has cut"):
            async with client.stream("GET", "/") as response:
                async for _part in response.aiter_bytes():
                    link.network.cut()
        assert len(link.network.streams) == 0


async def test_a_cut_inside_an_upload_is_an_error_and_no_warning(link):
    async def app(scope, receive, send):
        await receive()
        link.network.cut()
        while (await receive())["type"] != "http.disconnect":
            pass

    async with link(app) as link, client_of(link) as client:
        with pytest.raises((httpx.ReadError, httpx.WriteError)):
            await client.post("/", content=bytes(32 << 20))
        gc.collect()


async def test_a_server_that_sends_nothing_is_too_slow(link):
    async def app(scope, receive, send):
        await receive()
        await receive()

    async with link(app) as link, client_of(link) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.get("/", timeout=0.05)


async def test_a_delay_is_felt_once_by_a_request_and_once_by_its_response(autojump_clock):
    async with linked(hello, in_memory=True, patience_s=1000) as link, client_of(link) as client:
        link.network.delay(3)
        start = trio.current_time()
        await client.get("/")
        assert trio.current_time() - start == pytest.approx(6)


async def test_half_closed_the_response_is_whole(link):
    asked, go_on = trio.Event(), trio.Event()

    async def app(scope, receive, send):
        await read_body(receive)
        asked.set()
        await go_on.wait()
        await respond(send, b"x" * 300_000)

    async with link(app) as link, client_of(link) as client:
        async with trio.open_nursery() as nursery:

            async def half_close():
                await asked.wait()
                await link.network.half_close()
                go_on.set()

            nursery.start_soon(half_close)
            assert (await client.get("/")).content == b"x" * 300_000
        assert (await client.get("/")).content == b"x" * 300_000


# What is left open


async def test_a_response_is_open_until_it_is_closed_or_read_to_its_end(link):
    async def app(scope, receive, send):
        await (endless if scope["path"] == "/feed" else hello)(scope, receive, send)

    async with link(app) as link, client_of(link) as client:
        feed = await client.send(client.build_request("GET", "/feed?of=news"), stream=True)
        short = await client.send(client.build_request("POST", "/short"), stream=True)
        assert list(link.network.streams) == ["GET /feed", "POST /short"]
        await short.aread()
        assert list(link.network.streams) == ["GET /feed"]
        await feed.aclose()
        assert len(link.network.streams) == 0
        assert len(link.network.wires) == 1


@pytest.mark.parametrize("read", [True, False])
async def test_a_response_that_is_closed_early_ends_its_connection_without_a_warning(link, read):
    async with link(endless) as link, client_of(link) as client:
        async with client.stream("GET", "/") as response:
            parts = response.aiter_raw()
            if read:
                assert await anext(parts) == b"part"
        # A generator of httpx, which is the test's to end.
        assert [part async for part in parts] == [] if read else True
        assert link.network.wires == []
        async with client.stream("GET", "/") as response:
            pass


@pytest.mark.parametrize("iterate", ["aiter_raw", "aiter_bytes", "aiter_text", "aiter_lines"])
async def test_a_body_may_be_left_in_the_middle_without_a_warning(link, iterate):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(3):
            await send({"type": "http.response.body", "body": b"one\ntwo\n", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    async with link(app) as link, client_of(link) as client:
        async with client.stream("GET", "/") as response:
            async for part in getattr(response, iterate)():
                assert part
                break
        gc.collect()


async def test_a_response_that_has_come_but_was_not_read_leaves_no_connection_behind(link):
    async with link(hello) as link, client_of(link) as client:
        async with client.stream("GET", "/"):
            pass
        assert (await client.get("/")).text == "hello"


async def test_a_cancelled_request_ends_its_connection(link):
    async with link(endless) as link, client_of(link) as client:
        with trio.move_on_after(0.05):
            await client.get("/")
        assert link.network.wires == []
        assert len(link.network.streams) == 0


# TLS


async def test_tls_is_spoken_without_verifying_and_kept_alive(authority):
    body = os.urandom(1 << 20)
    async with linked(echo, tls=authority.files) as link, client_of(link) as client:
        assert link.server.url.startswith("https:")
        for _ in range(3):
            assert (await client.post("/", content=body)).content == body
        assert link.server.metrics.value("pagi_server_connections_total") == 1
        link.network.cut()
        assert (await client.post("/", content=body)).content == body


async def test_what_is_raised_behind_tls_is_raised_in_the_test(authority):
    async def app(scope, receive, send):
        raise Boom

    async with linked(app, tls=authority.files) as link, client_of(link) as client:
        with pytest.raises(Boom):
            await client.get("/")


async def test_a_failed_handshake_is_a_connect_error_that_says_why():
    async with linked(hello) as link, make_client(link.network, "https://127.0.0.1") as client:
        with pytest.raises(httpx.ConnectError, match=r"(?i)record layer|wrong version|ssl"):
            await client.get("/")
        assert link.network.wires == []
