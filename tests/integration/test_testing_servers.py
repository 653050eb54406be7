"""What a test is told by the servers it has started: errors of applications, streams left open, and how it all ends."""

from __future__ import annotations

import math
from contextlib import nullcontext

import pytest
import trio
import trio.testing

from pagi_trio import ConfigError, LifespanFailedError, testing
from pagi_trio.errors import AppLoadError, AppProtocolError
from pagi_trio.nurseries.sse import CANCEL_AFTER_S
from pagi_trio.testing import OpenStreamError
from tests.integration.conftest import hello, respond

pytestmark = pytest.mark.trio


@pytest.fixture(params=["serve", "client"])
def serving(request):
    """Both ways to serve, as context managers."""
    return getattr(testing, request.param)


class LifespanApp:
    """An application that notes its phases, and does what it is told for each request."""

    def __init__(self, answer=hello):
        self.phases = []
        self._answer = answer

    async def __call__(self, scope, receive, send):
        if scope["type"] != "lifespan":
            await self._answer(scope, receive, send)
            return
        while True:
            phase = (await receive())["type"]
            self.phases.append(phase)
            scope["state"]["phase"] = phase
            await send({"type": f"{phase}.complete"})
            if phase == "lifespan.shutdown":
                return


GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def endless(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x", "more_body": True})
    await trio.sleep_forever()


async def fails(scope, receive, send):
    raise KeyError(scope["path"])


# The handle


async def test_a_block_serves_with_the_lifespan_and_shuts_down_at_its_end(serving):
    app = LifespanApp()
    async with serving(app) as server:
        assert (await server.http.get("/")).text == "hello"
        assert server.state == {"phase": "lifespan.startup"}
        assert app.phases == ["lifespan.startup"]
    assert app.phases == ["lifespan.startup", "lifespan.shutdown"]


async def test_settings_follow_by_name(serving):
    async with serving(hello, lifespan="off", limits={"headers": 10}, **{"limits.body_bytes": 3}) as server:
        assert (await server.http.post("/", content=b"four")).status_code == 413
        many = {f"x-{number}": "1" for number in range(12)}
        assert (await server.http.get("/", headers=many)).status_code == 431


async def test_what_only_the_command_can_do_is_a_wrong_setting(serving):
    with pytest.raises(ConfigError, match="workers"):
        async with serving(hello, workers=2):
            pass


async def test_what_cannot_be_called_is_refused_before_anything_starts(serving):
    with pytest.raises(AppLoadError, match="'module:app' is no application"):
        async with serving("module:app"):
            pass


async def test_what_has_ended_starts_nothing_more():
    async with testing.open_servers() as servers:
        pass
    for start in (servers.serve, servers.client):
        with pytest.raises(RuntimeError, match="the test that this serves for has ended"):
            await start(hello, lifespan="off")


async def test_the_client_has_the_requests_of_httpx():
    async def app(scope, receive, send):
        await respond(send, scope["method"].encode())

    async with testing.client(app, lifespan="off") as client:
        for name in ("get", "options", "post", "put", "patch", "delete"):
            assert (await getattr(client, name)("/")).text == name.upper()
        assert (await client.head("/")).status_code == 200
        assert (await client.request("TRACE", "/")).text == "TRACE"
        async with client.stream("GET", "/") as response:
            assert await response.aread() == b"GET"
    with pytest.raises(ConfigError, match="pagi_serve"):
        async with testing.client(app, tls={"certfile": "a", "keyfile": "b"}):
            pass


async def test_over_tls_the_clients_of_the_handle_ask_for_no_authority(authority):
    async with testing.serve(hello, lifespan="off", tls=authority.files) as server:
        assert server.url.startswith("https://")
        assert server.ws_url.startswith("wss://")
        assert (await server.http.get("/")).text == "hello"


async def test_over_a_unix_socket(tmp_path):
    async with testing.serve(hello, lifespan="off", bind=f"unix:{tmp_path}/app.sock") as server:
        assert server.handle[0] == f"unix:{tmp_path}/app.sock"
        assert (await server.http.get("/")).text == "hello"


async def test_a_server_that_listens_everywhere_is_reached_on_loopback():
    async with testing.serve(hello, lifespan="off", bind="0.0.0.0:0") as server:
        assert (await server.http.get("/")).text == "hello"


async def test_several_servers_keep_to_themselves(pagi_serve, pagi_client):
    one, two = await pagi_serve(hello, lifespan="off"), await pagi_serve(hello, lifespan="off")
    three = await pagi_client(hello, lifespan="off")
    await one.http.get("/")
    await three.get("/")
    await three.get("/")
    totals = [one.metrics.value("pagi_server_connections_total") for one in (one, two, three)]
    assert totals == [1, 0, 1]
    one.handle.shutdown()
    assert (await two.http.get("/")).text == "hello"


async def test_the_context_of_a_request_is_the_servers_and_not_the_tests(serving):
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["extensions"]["pagi.metrics"])
        await respond(send)

    async with serving(app, lifespan="off") as server, serving(app, lifespan="off") as other:
        await server.http.get("/")
        await other.http.get("/")
        assert seen == [server.handle.metrics, other.handle.metrics]


# Errors of the application


async def test_an_error_is_raised_by_the_call_that_it_answers(serving):
    async with serving(fails, lifespan="off") as server:
        with pytest.raises(KeyError, match="/one"):
            await server.http.get("/one")
        with pytest.raises(KeyError, match="/two"):
            await server.http.get("/two")


async def test_an_answer_that_does_not_come_is_an_error_too(serving):
    async def silent(scope, receive, send):
        pass

    async with serving(silent, lifespan="off") as server:
        with pytest.raises(AppProtocolError, match="before its response was complete"):
            await server.http.get("/")


async def test_unless_asked_for_clients_see_what_all_clients_see(serving):
    async with serving(fails, raise_app_exceptions=False, lifespan="off") as server:
        assert (await server.http.get("/")).status_code == 500
        assert "KeyError: '/'" in server.log


async def test_an_error_that_no_call_of_the_test_hears_of_comes_at_the_end(serving):
    gone = trio.Event()

    async def app(scope, receive, send):
        await respond(send, b"fine")
        await gone.wait()
        raise KeyError("later")

    with pytest.raises(KeyError, match="later") as caught:
        async with serving(app, lifespan="off") as server:
            assert (await server.http.get("/")).text == "fine"
            gone.set()
    assert [entry.name for entry in caught.traceback][-1] == "app"


async def test_a_raw_client_sees_the_500_and_the_test_the_error(serving):
    with pytest.raises(KeyError):
        async with serving(fails, lifespan="off") as server, server.connect() as wire:
            await wire.send_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert b" 500 " in await wire.receive_some()


async def test_several_errors_are_a_group(serving):
    with pytest.raises(ExceptionGroup) as caught:
        async with serving(fails, lifespan="off") as server:
            for path in (b"/one", b"/two"):
                async with server.connect() as wire:
                    await wire.send_all(b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n" % path)
                    await wire.receive_some()
    assert [error.args for error in caught.value.exceptions] == [("/one",), ("/two",)]


async def test_a_client_that_leaves_is_no_error_of_the_application(serving):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": bytes(1 << 16), "more_body": True})

    async with serving(app, lifespan="off") as server:
        async with server.connect() as wire:
            await wire.send_all(GET)
            await wire.receive_some()
        await server.metrics.wait_for("pagi_server_connections_active", 0)


async def test_an_error_in_a_nursery_of_the_application_comes_alone(serving):
    async def app(scope, receive, send):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails, scope, receive, send)

    async with serving(app, lifespan="off") as server:
        with pytest.raises(KeyError):
            await server.http.get("/")


async def test_an_error_of_the_block_is_not_wrapped(serving):
    app = LifespanApp()
    with pytest.raises(ZeroDivisionError) as caught:
        async with serving(app):
            raise ZeroDivisionError
    assert caught.value.__context__ is None
    assert app.phases == ["lifespan.startup", "lifespan.shutdown"]


async def test_a_failed_start_says_why_and_what_to_do(serving):
    async def app(scope, receive, send):
        raise ValueError("no database")

    with pytest.raises(LifespanFailedError, match="ValueError: no database") as caught:
        async with serving(app, lifespan="on"):
            pass
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.__notes__ == ["Mend its startup, or serve it without: lifespan='off'."]


async def test_a_failed_shutdown_is_an_error_of_the_test(serving):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise ValueError("no disk")

    with pytest.raises(ValueError, match="no disk"):
        async with serving(app):
            pass


async def test_a_failure_right_behind_the_start_is_an_error_of_the_test(serving):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        raise ValueError("of a task in its lifespan")

    with pytest.raises(ValueError, match="of a task"):
        async with serving(app):
            pass


async def test_a_shutdown_that_the_application_reports_as_failed_is_an_error_of_the_test(serving):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "no disk"})

    with pytest.raises(LifespanFailedError, match="failed to shut down: no disk"):
        async with serving(app):
            pass


async def test_a_shutdown_that_does_not_end_is_an_error_of_the_test(autojump_clock):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await trio.sleep_forever()

    with pytest.raises(LifespanFailedError, match=r"did not answer within 7 s"):
        async with testing.client(app, timeouts={"shutdown_s": 7}):
            pass


async def test_time_that_a_test_lets_pass_in_one_go_has_passed(mock_clock):
    async with testing.client(hello, lifespan="off", timeouts={"keep_alive_s": 60}) as client:
        await client.get("/")
        mock_clock.jump(59)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert client.metrics.value("pagi_server_connections_active") == 1
        mock_clock.jump(2)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert client.metrics.value("pagi_server_connections_active") == 0


@pytest.mark.parametrize("fails", [True, False])
async def test_the_end_comes_under_a_clock_that_only_the_test_moves(serving, mock_clock, fails):
    moved = []

    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if mock_clock.autojump_threshold != math.inf:
            await trio.sleep(1)
            moved.append(True)
        await send({"type": "lifespan.shutdown.complete"})

    with pytest.raises(ValueError) if fails else nullcontext():
        async with serving(app):
            if fails:
                raise ValueError
    assert moved
    assert mock_clock.autojump_threshold == math.inf


# What is left open


async def leave_http(server):
    request = server.http.build_request("GET", "/feed?x=1")
    await server.http.send(request, stream=True)
    return "GET /feed"


@pytest.mark.parametrize("allow", [False, True])
async def test_a_response_that_is_left_open_is_named(serving, allow):
    app = LifespanApp(endless)

    async def leave():
        async with serving(app, allow_open_streams=allow) as server:
            await leave_http(server)

    if allow:
        await leave()
    else:
        with pytest.raises(OpenStreamError, match=r"left open: GET /feed;.*allow_open_streams=True"):
            await leave()
    assert app.phases[-1] == "lifespan.shutdown"


async def test_what_another_client_left_open_is_named_too():
    async def leave():
        async with testing.serve(endless, lifespan="off") as server:
            streams.append(await trio.open_tcp_stream("127.0.0.1", server.port))
            await streams[0].send_all(GET)
            await streams[0].receive_some()

    streams = []
    with pytest.raises(OpenStreamError, match=r"left open: http GET /;"):
        await leave()
    await streams[0].aclose()


async def test_a_server_that_the_test_has_stopped_leaves_nothing_open(serving):
    async with serving(endless, lifespan="off") as server:
        await leave_http(server)
        server.handle.abort()


async def test_a_test_that_fails_is_not_told_what_it_left_open(serving):
    with pytest.raises(ZeroDivisionError):
        async with serving(endless, lifespan="off") as server:
            await leave_http(server)
            raise ZeroDivisionError


async def test_a_stream_that_was_left_properly_is_closed(serving):
    async with serving(endless, lifespan="off") as server:
        for _ in range(2):
            async with server.http.stream("GET", "/") as response:
                assert response.status_code == 200
            async with server.connect() as wire:
                await wire.send_all(GET)
                await wire.receive_some()


async def test_the_end_waits_for_what_the_application_still_does(serving):
    done = []

    async def app(scope, receive, send):
        await respond(send, b"now")
        for _ in range(50):
            await trio.lowlevel.checkpoint()
        done.append("later")

    async with serving(app, lifespan="off") as server:
        assert (await server.http.get("/")).text == "now"
    assert done == ["later"]


async def test_an_event_stream_that_was_left_takes_no_time_to_end(serving):
    ended_at = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        try:
            await trio.sleep_forever()
        finally:
            ended_at.append(ticks)

    ticks = 0

    async def count():
        nonlocal ticks
        while True:
            await trio.sleep(CANCEL_AFTER_S / 2)
            ticks += 1

    async with trio.open_nursery() as nursery:
        async with serving(app, lifespan="off") as server:
            async with server.sse() as events:
                assert (await anext(events)).data == "1"
            nursery.start_soon(count)
        nursery.cancel_scope.cancel()
    assert ended_at == [0]


async def test_an_application_may_act_on_its_disconnect_before_the_end(serving):
    heard = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        await receive()
        heard.append((await receive())["type"])

    async with serving(app, lifespan="off") as server, server.sse() as events:
        assert (await anext(events)).data == "1"
    assert heard == ["http.disconnect"]


# Which connection is whose


async def test_the_connection_of_each_client_can_be_cut_alone(serving):
    async def app(scope, receive, send):
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await receive()
        else:
            kind = b"text/event-stream" if scope["path"] == "/sse" else b"text/plain"
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
            await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
            await receive()
            await receive()
            await send({"type": "http.response.body"})

    async with (
        serving(app, lifespan="off") as server,
        server.websocket() as ws,
        server.sse("/sse") as events,
        server.http.stream("GET", "/") as response,
        server.connect() as raw,
    ):
        await anext(events)
        wires = [server.network.wire_of(one) for one in (ws, events, response)]
        assert sorted(server.network.wires, key=id) == sorted([*wires, raw], key=id)
        wires[1].cut()
        assert server.network.wires == [wires[0], wires[2], raw]
        with pytest.raises(LookupError):
            server.network.wire_of(events)
    with pytest.raises(LookupError):
        server.network.wire_of(ws)


async def test_a_websocket_that_was_not_opened_says_how_to(serving):
    async with serving(hello, lifespan="off") as server:
        with pytest.raises(AttributeError, match=r"'send_message' before it is open: async with"):
            await server.websocket("/").send_message("hello")


async def test_cookies_of_the_http_client_go_with_everything(serving):
    async def app(scope, receive, send):
        cookie = dict(scope["headers"]).get(b"cookie", b"none")
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "bytes": cookie})
            await receive()
        elif scope["path"] == "/login":
            await respond(send, headers=[(b"set-cookie", b"user=ann; Path=/")])
        else:
            await respond(send, b"data: %s\n\n" % cookie, headers=[(b"content-type", b"text/event-stream")])

    async with serving(app, lifespan="off") as server:
        for wanted in (b"none", b"user=ann"):
            async with server.websocket("/ws", headers={"x-other": "1"}) as ws:
                assert await ws.get_message() == wanted
            async with server.sse("/sse") as events:
                assert (await anext(events)).data == wanted.decode()
            await server.http.get("/login")
        # As with httpx.
        async with server.sse("/sse", headers={"Cookie": "user=bob"}) as events:
            assert (await anext(events)).data == "user=bob"


async def test_a_client_in_memory_has_the_cookies_and_headers_of_its_http_client():
    async def app(scope, receive, send):
        await respond(send, dict(scope["headers"])[b"authorization"])

    async with testing.client(app, lifespan="off") as client:
        client.headers["authorization"] = "Bearer x"
        client.cookies.set("a", "b")
        assert (await client.get("/")).text == "Bearer x"
        assert client.http.cookies["a"] == "b"


async def test_the_cookies_of_a_client_can_be_replaced_and_still_take_what_is_set():
    async def app(scope, receive, send):
        await respond(send, dict(scope["headers"]).get(b"cookie", b""), headers=[(b"set-cookie", b"b=2")])

    async with testing.client(app, lifespan="off") as client:
        client.http.cookies = {"a": "1"}
        assert (await client.get("/")).text == "a=1"
        assert (await client.get("/")).text == "a=1; b=2"
