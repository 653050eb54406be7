"""HTTP/1.1 over real sockets, as RFC 9112 and the ASGI HTTP message format 2.4 describe it."""

from __future__ import annotations

import logging
from contextvars import ContextVar

import pytest
import trio
import trio.testing

from .conftest import hello, read_body, respond

pytestmark = pytest.mark.trio

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def echo(scope, receive, send):
    body, _complete = await read_body(receive)
    await respond(send, body)


async def test_a_connection_takes_one_request_after_another_rfc9112_9_3(pagi_serve, raw):
    server = await pagi_serve(hello)
    async with raw(server) as client:
        for _ in range(3):
            await client.send(GET)
            status, headers, body = await client.read_response()
            assert (status, body) == (200, b"hello")
            assert headers[b"content-length"] == b"5"
            assert headers[b"date"].endswith(b" GMT")
            assert b"connection" not in headers


async def test_pipelined_requests_are_answered_in_order_rfc9112_9_3_2(pagi_serve, raw):
    async def app(scope, receive, send):
        await respond(send, scope["raw_path"])

    server = await pagi_serve(app)
    async with raw(server) as client:
        await client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(50)))
        for n in range(50):
            assert (await client.read_response())[2] == b"/%d" % n


async def test_http_1_0_closes_unless_asked_to_stay_rfc9112_9_3(pagi_serve, raw):
    server = await pagi_serve(hello)
    async with raw(server) as client:
        await client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        _, headers, _ = await client.read_response()
        assert headers[b"connection"] == b"keep-alive"
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        _, headers, _ = await client.read_response()
        assert headers[b"connection"] == b"close"
        assert await client.read_to_end() == b""


async def test_connection_close_is_honoured_from_both_sides_rfc9112_9_6(pagi_serve, raw):
    async def app(scope, receive, send):
        await respond(send, b"bye", headers=[(b"connection", b"close")])

    server = await pagi_serve(app)
    async with raw(server) as client:
        await client.send(GET)
        _, headers, body = await client.read_response()
        assert (headers[b"connection"], body) == (b"close", b"bye")
        assert await client.read_to_end() == b""
    async with raw(await pagi_serve(hello)) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await client.read_response())[1][b"connection"] == b"close"
        assert await client.read_to_end() == b""


@pytest.mark.parametrize("size", [0, 1, 70_000, 1_000_000])
async def test_a_body_of_announced_length_arrives_whole_rfc9112_6_2(pagi_serve, raw, size):
    server = await pagi_serve(echo)
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    async with raw(server) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + body)
            assert (await client.read_response())[2] == body
        await client.send(GET)
        assert (await client.read_response())[0] == 200


async def test_a_chunked_body_arrives_whole_however_it_is_cut_rfc9112_7_1(pagi_serve, raw):
    server = await pagi_serve(echo)
    request = (
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5;name=value\r\nhello\r\n1\r\n \r\nA\r\nworld12345\r\n0\r\nX-Trailer: 1\r\n\r\n"
    )
    async with raw(server) as client:
        for cut in range(1, len(request), 7):
            await client.send(request[:cut])
            await trio.lowlevel.checkpoint()
            await client.send(request[cut:])
            assert (await client.read_response())[2] == b"hello world12345"


async def test_no_byte_is_lost_behind_very_many_trailers_rfc9112_7_1_2(pagi_serve, raw):
    server = await pagi_serve(echo)
    # More lines than are taken out of their framing in one go, twice.
    trailers = b"a:\r\n" * 2500
    async with raw(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n")
        await client.send(trailers + b"\r\n" + GET)
        for body in (b"hello", b""):
            status, _, answer = await client.read_response()
            assert (status, answer) == (200, body)


async def test_a_streamed_response_is_chunked_on_1_1_and_ends_with_the_connection_on_1_0_rfc9112_6_3(pagi_serve, raw):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in (b"one", b"", b"two"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    server = await pagi_serve(app)
    async with raw(server) as client:
        await client.send(GET)
        _, headers, body = await client.read_response()
        assert (headers[b"transfer-encoding"], body) == (b"chunked", b"onetwo")
        await client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        _, headers, body = await client.read_response()
        assert headers[b"connection"] == b"close"
        assert b"transfer-encoding" not in headers
        assert body == b"onetwo"


@pytest.mark.parametrize(
    ("request_line", "status"), [(b"HEAD / HTTP/1.1", 200), (b"GET / HTTP/1.1", 204), (b"GET / HTTP/1.1", 304)]
)
async def test_head_204_and_304_have_no_body_rfc9110_6_4_1(pagi_serve, raw, request_line, status):
    async def app(scope, receive, send):
        await respond(send, b"hello" if scope["method"] == "HEAD" else b"", status=status)

    server = await pagi_serve(app)
    async with raw(server) as client:
        for _ in range(2):
            await client.send(request_line + b"\r\nHost: x\r\n\r\n")
            answer, headers, _ = await client.read_response(head_only=True)
            assert answer == status
            assert headers.get(b"content-length") == (b"5" if request_line.startswith(b"HEAD") else None)
            assert b"transfer-encoding" not in headers


async def test_100_continue_is_sent_at_the_first_receive_rfc9110_10_1_1(pagi_serve, raw):
    asked = trio.Event()

    async def app(scope, receive, send):
        await asked.wait()
        await echo(scope, receive, send)

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        with trio.move_on_after(0.05) as early:
            await client.read_head()
        assert early.cancelled_caught
        asked.set()
        assert (await client.read_head())[0] == 100
        await client.send(b"ok")
        assert (await client.read_response())[2] == b"ok"


async def test_an_answer_without_the_body_that_was_expected_ends_the_connection_rfc9110_10_1_1(pagi_serve, raw):
    server = await pagi_serve(hello)
    async with raw(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        status, headers, _ = await client.read_response()
        assert (status, headers[b"connection"]) == (200, b"close")
        assert await client.read_to_end() == b""


async def test_a_body_the_app_did_not_read_is_not_the_next_request_rfc9112_9_3(pagi_serve, raw):
    server = await pagi_serve(hello)
    async with raw(server) as client:
        smuggled = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(smuggled) + smuggled)
        assert (await client.read_response())[2] == b"hello"
        await client.send(GET)
        assert (await client.read_response())[2] == b"hello"
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await client.read_response())[2] == b"hello"
        assert await client.read_to_end() == b""


async def test_a_large_body_the_app_did_not_read_ends_the_connection_after_the_answer(pagi_serve, raw):
    server = await pagi_serve(hello)
    async with raw(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n" + bytes(200_000))
        assert (await client.read_response())[2] == b"hello"
        assert await client.read_to_end() == b""


BAD_REQUESTS = [
    (b"GET /\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\nHost: x\n\n", 400),
    (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
    (b"GET / HTTP/1.1\r\nHost: x\r\nX : y\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello", 400),
    (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
    (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    (b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", 501),
    (b"POST / HTTP/1.1\r\nHost: x\r\nExpect: nonsense\r\n\r\n", 417),
    (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    (b"GET /" + b"a" * 9000, 414),
    (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 70_000, 431),
    (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
    (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 101\r\n\r\n", 413),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
]


@pytest.mark.parametrize(("request_bytes", "status"), BAD_REQUESTS)
async def test_what_is_not_http_is_refused_and_the_connection_closed_rfc9112(pagi_serve, raw, request_bytes, status):
    called = False

    async def app(scope, receive, send):
        nonlocal called
        called = True
        await hello(scope, receive, send)

    server = await pagi_serve(app, lifespan="off", limits={"body_bytes": 100})
    async with raw(server) as client:
        await client.send(request_bytes)
        answer, headers, _ = await client.read_response()
        assert (answer, headers[b"connection"]) == (status, b"close")
        assert await client.read_to_end() == b""
    assert not called


@pytest.mark.parametrize("chunks", [b"xyz\r\n", b"5\r\nhelloX", b"5\nhello\r\n", b"-1\r\n", b"FFFFFFFFFFFFFFFFF\r\n"])
async def test_a_broken_chunk_is_a_400_and_a_disconnect_for_the_app_rfc9112_7_1(pagi_serve, raw, chunks):
    outcome = []

    async def app(scope, receive, send):
        _, complete = await read_body(receive)
        outcome.append(complete)
        with pytest.raises(OSError, match="protocol_error"):
            await respond(send, b"too late")

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
        assert (await client.read_response())[0] == 400
        assert await client.read_to_end() == b""
    assert outcome == [False]


async def test_scopes_say_what_asgi_asks_for(pagi_serve, raw):
    scopes = []

    async def app(scope, receive, send):
        scopes.append(scope)
        await respond(send)

    server = await pagi_serve(app, lifespan="off", root_path="/base")
    async with raw(server) as client:
        await client.send(
            b"GET /caf%C3%A9%2Fx?q=%20&r HTTP/1.1\r\nHOST: x:80\r\nCookie: a=1\r\nX-Y:  z \r\nCookie: b=2\r\n\r\n"
        )
        await client.read_response()
        sender = client.stream.socket.getsockname()
    (scope,) = scopes
    assert scope["type"] == "http"
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.4"}
    assert (scope["http_version"], scope["method"], scope["scheme"]) == ("1.1", "GET", "http")
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/café/x", b"/caf%C3%A9%2Fx", b"q=%20&r")
    assert scope["root_path"] == "/base"
    assert scope["headers"] == [(b"host", b"x:80"), (b"cookie", b"a=1; b=2"), (b"x-y", b"z")]
    assert tuple(scope["client"]) == sender
    assert tuple(scope["server"]) == ("127.0.0.1", server.port)
    assert scope["state"] == {}


async def test_an_absolute_target_overrules_host_rfc9112_3_2_2(pagi_serve, raw):
    scopes = []

    async def app(scope, receive, send):
        scopes.append(scope)
        await respond(send)

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(b"GET http://real:81/x?y HTTP/1.1\r\nHost: other\r\n\r\n")
        await client.read_response()
    assert (scopes[0]["path"], scopes[0]["query_string"]) == ("/x", b"y")
    assert (b"host", b"real:81") in scopes[0]["headers"]


async def test_an_app_error_is_a_500_and_one_traceback_and_hurts_nobody_else(pagi_serve, raw, caplog):
    async def app(scope, receive, send):
        if scope["path"] == "/boom":
            raise ValueError("the reason")
        await respond(send, b"fine")

    server = await pagi_serve(app, lifespan="off", raise_app_exceptions=False)
    async with raw(server) as other:
        await other.send(GET)
        await other.read_response()
        async with raw(server) as client:
            await client.send(b"GET /boom HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await client.read_response())[0] == 500
        await other.send(GET)
        assert (await other.read_response())[2] == b"fine"
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert "GET /boom" in errors[0].getMessage()
    assert "127.0.0.1:" in errors[0].getMessage()
    assert errors[0].exc_info[0] is ValueError
    assert server.metrics.value("pagi_server_app_errors_total", scope="http") == 1


@pytest.mark.parametrize("error", [SystemExit(3), BaseExceptionGroup("two", [ValueError(), KeyError()])])
async def test_whatever_an_app_raises_the_server_goes_on(pagi_serve, raw, caplog, error):
    async def app(scope, receive, send):
        if scope["path"] == "/boom":
            raise error
        await respond(send, b"fine")

    server = await pagi_serve(app, lifespan="off", raise_app_exceptions=False)
    async with raw(server) as client:
        await client.send(b"GET /boom HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.read_response())[0] == 500
    async with raw(server) as client:
        await client.send(GET)
        assert (await client.read_response())[2] == b"fine"


async def test_an_app_that_returns_without_answering_is_a_500(pagi_serve, raw, caplog):
    async def app(scope, receive, send):
        pass

    server = await pagi_serve(app, lifespan="off", raise_app_exceptions=False)
    async with raw(server) as client:
        await client.send(GET)
        assert (await client.read_response())[0] == 500
    assert "returned before its response was complete" in caplog.text


async def test_an_app_that_fails_in_the_middle_leaves_a_visibly_broken_response(pagi_serve, raw, caplog):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError("in the middle")

    server = await pagi_serve(app, lifespan="off", raise_app_exceptions=False)
    async with raw(server) as client:
        await client.send(GET)
        await client.read_head()
        assert await client.read_to_end() == b"4\r\nhalf\r\n"


async def test_send_raises_oserror_once_the_client_has_left_asgi_2_4(pagi_serve, raw):
    gone = trio.Event()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with pytest.raises(OSError, match="client_closed"):
            while True:
                await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
        gone.set()

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(GET)
        await client.read_head()
    with trio.fail_after(5):
        await gone.wait()


async def test_receive_tells_of_a_client_that_leaves_while_the_app_waits_for_it(pagi_serve, raw):
    seen = []
    gone = trio.Event()

    async def app(scope, receive, send):
        seen.extend([(await receive())["type"], (await receive())["type"], (await receive())["type"]])
        gone.set()

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(GET)
    with trio.fail_after(5):
        await gone.wait()
    assert seen == ["http.request", "http.disconnect", "http.disconnect"]


async def test_a_client_that_half_closes_still_gets_its_answer(pagi_serve, raw):
    async def app(scope, receive, send):
        await receive()
        await receive()
        await respond(send, b"after the disconnect")

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(GET)
        await client.stream.send_eof()
        assert (await client.read_response())[2] == b"after the disconnect"


async def test_a_poll_inside_a_cancelled_scope_sees_the_disconnect(pagi_serve, raw):
    """Starlette's ``request.is_disconnected()`` receives inside a scope that is cancelled already."""
    polls = []
    done = trio.Event()

    async def app(scope, receive, send):
        await receive()
        while not polls or polls[-1] is None:
            message = None
            with trio.CancelScope() as scope:
                scope.cancel()
                message = await receive()
            polls.append(message)
            await trio.sleep(0)
        done.set()

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(GET)
        while not polls:
            await trio.lowlevel.checkpoint()
    with trio.fail_after(5):
        await done.wait()
    assert polls[0] is None
    assert polls[-1]["type"] == "http.disconnect"


async def test_several_tasks_may_receive_and_all_are_told(pagi_serve, raw):
    seen = []
    done = trio.Event()

    async def app(scope, receive, send):
        async def listen():
            while (await receive())["type"] != "http.disconnect":
                pass
            seen.append(1)

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(listen)
        done.set()

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(GET)
        await trio.testing.wait_all_tasks_blocked()
    with trio.fail_after(5):
        await done.wait()
    assert len(seen) == 4


async def test_what_an_app_writes_into_the_dicts_of_a_scope_is_not_in_the_next(pagi_serve, raw):
    scopes = []

    async def app(scope, receive, send):
        scopes.append({name: value.copy() for name, value in scope.items() if isinstance(value, dict)})
        for name in scopes[-1]:
            scope[name]["mine"] = True
        await respond(send)

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        for _ in range(2):
            await client.send(GET)
            await client.read_response()
    assert scopes[0].keys() == {"asgi", "state", "extensions"}
    assert scopes[0] == scopes[1]


async def test_what_an_app_does_after_a_last_send_that_was_cancelled_does_not_hold_up_the_connection(pagi_serve, raw):
    async def app(scope, receive, send):
        if scope["path"] == "/next":
            await respond(send, b"next")
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, {"type": "http.response.body", "body": body})
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        cancelled.set()
        await answered.wait()

    cancelled, answered = trio.Event(), trio.Event()
    # More than the kernel takes.
    body = bytes(20_000_000)
    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(GET)
        await cancelled.wait()
        assert (await client.read_response())[2] == body
        await client.send(b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.read_response())[2] == b"next"
        answered.set()


async def test_a_background_task_does_not_hold_up_the_connection(pagi_serve, raw):
    release = trio.Event()
    finished = []

    async def app(scope, receive, send):
        await respond(send, scope["raw_path"])
        if scope["path"] == "/slow":
            await release.wait()
            finished.append((await receive())["type"])
            with pytest.raises(RuntimeError, match="complete"):
                await send({"type": "http.response.body", "body": b"late"})

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        for path in (b"/slow", b"/next", b"/slow", b"/last"):
            await client.send(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path)
            assert (await client.read_response())[2] == path
        release.set()
        await trio.testing.wait_all_tasks_blocked()
        assert finished == ["http.disconnect"] * 2
        await client.send(GET)
        assert (await client.read_response())[2] == b"/"


async def test_a_response_completed_by_a_child_task_frees_the_connection(pagi_serve, raw):
    """Quart-Trio answers from a child task while the coroutine that was called waits for its nursery."""
    release = trio.Event()

    async def app(scope, receive, send):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(respond, send, scope["raw_path"])
            if scope["path"] == "/slow":
                nursery.start_soon(release.wait)

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        for path in (b"/slow", b"/next", b"/other"):
            await client.send(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path)
            assert (await client.read_response())[2] == path
        release.set()


async def test_context_variables_do_not_leak_from_one_request_to_the_next(pagi_serve, raw):
    mark = ContextVar("mark", default="clean")

    async def app(scope, receive, send):
        seen = mark.get()
        mark.set("dirty")
        if scope["path"] == "/slow":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(respond, send, seen.encode())
                nursery.start_soon(trio.sleep, 0.01)
        else:
            await respond(send, seen.encode())

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        for path in (b"/", b"/slow", b"/", b"/slow", b"/"):
            await client.send(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path)
            assert (await client.read_response())[2] == b"clean"


async def test_a_slow_reader_holds_back_the_app(pagi_serve, raw):
    sent = 0

    async def app(scope, receive, send):
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(500):
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
            sent += 1
        await send({"type": "http.response.body", "body": b""})

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(GET)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert 0 < sent < 300
        _, _, body = await client.read_response()
        assert len(body) == 500 * 65536
        await client.send(GET)
        await client.read_head()


async def test_an_app_that_does_not_read_holds_back_an_upload(pagi_serve, raw):
    release = trio.Event()
    sizes = []

    async def app(scope, receive, send):
        await release.wait()
        while True:
            message = await receive()
            sizes.append(len(message["body"]))
            if not message["more_body"]:
                break
        await respond(send, b"%d" % sum(sizes))

    server = await pagi_serve(app, lifespan="off")
    size = 50_000_000
    async with raw(server) as client, trio.open_nursery() as nursery:
        uploaded = trio.Event()

        async def upload():
            await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
            uploaded.set()

        nursery.start_soon(upload)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not uploaded.is_set()
        release.set()
        assert (await client.read_response())[2] == b"%d" % size
    assert max(sizes) <= 65536
