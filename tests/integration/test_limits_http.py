"""What a request may have: just below a limit it is served, just above it is refused, as early as that is certain."""

from __future__ import annotations

import logging
from contextlib import suppress

import pytest
import trio

from .conftest import hello, read_body, respond
from .ledger import ended

pytestmark = pytest.mark.trio

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
SLACK_S = 10


class Uploads:
    """An application that answers with the body, and keeps why it did not get one."""

    def __init__(self):
        self.called = 0
        self.told = []

    async def __call__(self, scope, receive, send):
        self.called += 1
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.told.append(message["reason"])
                return
            body += message["body"]
            if not message["more_body"]:
                await respond(send, body)
                return


async def echo(scope, receive, send):
    body, _complete = await read_body(receive)
    await respond(send, body)


def line_of(size):
    return b"GET /%b HTTP/1.1" % (b"a" * (size - len(b"GET / HTTP/1.1")))


def head_of(size):
    """Return a head of so many bytes, its blank line aside, in fields of a hundred."""
    head = b"GET / HTTP/1.1\r\nHost: x"
    while size - len(head) > 200:
        head += b"\r\nA: " + b"a" * 95
    return head + b"\r\nB: ".ljust(size - len(head), b"b")


def field_of(size):
    return b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: ".ljust(size, b"a")


def fields_of(count):
    return b"GET / HTTP/1.1\r\nHost: x" + b"\r\nA: b" * (count - 1)


def body_of(size):
    return CHUNKED + b"%x\r\n%b\r\n0" % (size, b"a" * size)


def extensions_of(size):
    """Return chunks whose extensions are so much longer than their data."""
    return CHUNKED + b"5;%b\r\nhello\r\n0;%b" % (b"a" * 9, b"a" * (size - 6))


def trailers_of(size):
    """Return two trailers of so many bytes together, their line ends aside."""
    return CHUNKED + b"0\r\nA: b\r\n" + b"B: ".ljust(size - 4, b"b")


# What is limited, by how much, what has so much of it, its status and what the connection is counted as.
LIMITS = {
    "request line": ({"request_line_bytes": 100}, 100, line_of, 414, "protocol_error"),
    "head": ({"head_bytes": 1000, "request_line_bytes": 64}, 1000, head_of, 431, "protocol_error"),
    "head, above a long line": ({"head_bytes": 1000}, 1000, head_of, 431, "protocol_error"),
    "field": ({"header_bytes": 300}, 300, field_of, 431, "protocol_error"),
    "fields": ({"headers": 10}, 10, fields_of, 431, "protocol_error"),
    "body": ({"body_bytes": 100}, 100, body_of, 413, "body_too_large"),
    "chunk extensions": ({"chunk_extension_bytes": 100}, 100, extensions_of, 400, "protocol_error"),
    "trailers": ({"trailer_bytes": 100}, 100, trailers_of, 431, "protocol_error"),
}


def blank_lines_after(made):
    """Return what ends a request that a function above has made."""
    if made is line_of:
        return b"\r\nHost: x\r\n\r\n"
    return b"\r\n\r\n"


@pytest.mark.parametrize("split", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("limit", LIMITS)
async def test_what_is_just_within_a_limit_is_served(pagi_serve, raw, limit, split):
    limits, most, made, _status, _reason = LIMITS[limit]
    app = Uploads()
    server = await pagi_serve(app, lifespan="off", limits=limits)
    request = made(most) + blank_lines_after(made)
    async with raw(server) as client:
        for _ in range(2):
            for part in [request[i : i + 1] for i in range(len(request))] if split else [request]:
                await client.send(part)
            assert (await client.read_response())[0] == 200
    assert (await ended(server)).closed == {"done": 1}
    assert (app.called, app.told) == (2, [])


@pytest.mark.parametrize("end", [True, False], ids=["whole", "without an end"])
@pytest.mark.parametrize("limit", LIMITS)
async def test_what_is_just_beyond_a_limit_is_refused(pagi_serve, raw, caplog, limit, end):
    limits, most, made, status, reason = LIMITS[limit]
    app = Uploads()
    server = await pagi_serve(app, lifespan="off", limits=limits)
    # Of a chunk size or a field line nobody knows how long it is before a byte more has come, or its end.
    request = made(most + 1) + (blank_lines_after(made) if end else b"\r\n")
    if made is line_of and not end:
        request = made(most + 2)
    async with raw(server) as other:
        await other.send(GET)
        await other.read_response()
        async with raw(server) as client:
            await client.send(GET)
            assert (await client.read_response())[0] == 200
            await client.send(request)
            answer, headers, _body = await client.read_response()
            assert (answer, headers[b"connection"]) == (status, b"close")
            with trio.fail_after(SLACK_S):
                assert await client.read_to_end() == b""
        # Nobody else notices.
        await other.send(GET)
        assert (await other.read_response())[0] == 200
    assert (await ended(server)).closed == {"done": 1, reason: 1}
    assert server.metrics.value("pagi_server_app_errors_total", scope="http") == 0
    # The application is called for what has a head, and told why there is no more of it.
    assert app.told == ([reason] if made in (body_of, extensions_of, trailers_of) else [])
    assert app.called == 3 + len(app.told)
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


async def test_extensions_may_be_as_long_as_the_data_that_they_come_with(pagi_serve, raw):
    server = await pagi_serve(echo, lifespan="off", limits={"chunk_extension_bytes": 100})
    async with raw(server) as client:
        chunk = b"40;%b\r\n%b\r\n" % (b"a" * 60, b"d" * 64)
        await client.send(CHUNKED + chunk * 1000 + b"0\r\n\r\n")
        assert (await client.read_response())[2] == b"d" * 64_000


# Bodies


@pytest.mark.parametrize("size", [10, 11])
@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
async def test_an_announced_body_beyond_the_limit_is_a_413_rfc9110_15_5_14(pagi_serve, raw, size, expect):
    app = Uploads()
    server = await pagi_serve(app, lifespan="off", limits={"body_bytes": 10})
    async with raw(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n" % (expect, size))
        if size == 11:
            status, headers, _ = await client.read_response()
            assert (status, headers[b"connection"]) == (413, b"close")
            assert app.called == 0
        else:
            if expect:
                assert (await client.read_head())[0] == 100
            await client.send(bytes(size))
            assert (await client.read_response())[2] == bytes(size)
    assert (await ended(server)).closed == {"body_too_large" if size == 11 else "done": 1}


BODY_REFUSALS = {
    "body": (b"b\r\n0123456789a\r\n", 413, "the body is longer than 10 bytes"),
    "extensions": (b"1;aaaaaaaaaa\r\n", 400, "the chunk extensions are longer than is allowed"),
    "trailers": (b"0\r\nA: 67890123\r\n\r\n", 431, "the trailers are longer than is allowed"),
    "speed": (b"1\r\n", 408, "the body comes slower than 240 bytes a second"),
}


@pytest.mark.parametrize("begun", [False, True], ids=["unanswered", "answered"])
@pytest.mark.parametrize(("sent", "status", "why"), BODY_REFUSALS.values(), ids=BODY_REFUSALS)
async def test_the_log_says_which_limit_a_body_broke(pagi_serve, raw, caplog, sent, status, why, begun):
    async def app(scope, receive, send):
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        assert (await read_body(receive))[1] is False

    caplog.set_level(logging.INFO, "pagi_trio")
    limits = {"body_bytes": 10, "chunk_extension_bytes": 10, "trailer_bytes": 10}
    server = await pagi_serve(app, lifespan="off", limits=limits, timeouts={"body_grace_s": 0.25})
    async with raw(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + sent)
        assert (await client.read_head())[0] == (200 if begun else status)
        # A response that has begun is cut off where it is, by a reset.
        with suppress(trio.BrokenResourceError):
            await client.read_to_end()
    said = [record.getMessage().partition(": ")[2] for record in caplog.records if why in record.getMessage()]
    assert said == [f"cut off: {why}" if begun else f"answered {status}: {why}"]


async def test_the_bodies_limit_is_for_each_request(pagi_serve, raw):
    server = await pagi_serve(echo, lifespan="off", limits={"body_bytes": 10})
    async with raw(server) as client:
        for _ in range(3):
            await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n0123456789")
            assert (await client.read_response())[2] == b"0123456789"


# Without a setting


async def test_any_number_of_empty_lines_before_a_request_hurts_nobody_rfc9112_2_2(pagi_serve, raw, caplog):
    server = await pagi_serve(hello, lifespan="off")
    async with raw(server) as client:
        await client.send(b"\r\n" * 20_000 + GET)
        assert (await client.read_response())[0] == 200
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


async def test_what_comes_behind_an_upload_is_not_buffered_without_end(pagi_serve, raw):
    async def app(scope, receive, send):
        await receive()
        assert (await receive())["type"] == "http.disconnect"

    server = await pagi_serve(app, lifespan="off", timeouts={"graceful_s": 0}, allow_open_streams=True)
    async with raw(server) as client:
        sent = 0
        with trio.move_on_after(0.5):
            while True:
                await client.stream.send_all(GET * 1000)
                sent += len(GET) * 1000
        assert 0 < sent < 50_000_000, "the server took all of it"
