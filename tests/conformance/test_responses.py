"""What an application sends wrongly: the send says what is wrong, and the client never gets a wrong response.

Source: the ASGI HTTP message format 2.4; RFC 9110 sections 5, 6.4, 8.6, 9.3.2 and 15; RFC 9112 sections 6 and 8.
"""

from __future__ import annotations

import array
from http import HTTPStatus

import pytest
import trio

from pagi_trio import testing
from pagi_trio.errors import AppProtocolError

from .misuse import CUT, ERROR, Case, Player, Whole, body, start
from .strict_client import FINE, Cut, connected

HELLO = Whole(200, b"hello")
PLAIN = (b"content-type", b"text/plain")
STREAM = (b"content-type", b"text/event-stream")
EVENT = b"data: x\n\n"


def length(value):
    return (b"content-length", value)


def with_headers(headers):
    return {"type": "http.response.start", "status": 200, "headers": headers}


# Events that are none, sent first, and what the error says.
NO_EVENTS = {
    "None": (None, "must be a dict with a 'type', not NoneType"),
    "a list": ([("type", "http.response.start")], "not list"),
    "a str": ("http.response.start", "not str"),
    "bytes": (b"http.response.start", "not bytes"),
    "an int": (5, "not int"),
    "empty": ({}, "needs a 'type' that is a str"),
    "without type": ({"status": 200, "headers": []}, "needs a 'type' that is a str"),
    "type None": ({"type": None}, "no event None"),
    "type bytes": ({"type": b"http.response.start", "status": 200}, "no event b'http.response.start'"),
    "type list": ({"type": ["http.response.start"]}, "no event ['http.response.start']"),
    "misspelt": ({"type": "http.response.strat", "status": 200}, "but http.response.start and http.response.body"),
    "of a request": ({"type": "http.request", "body": b""}, "no event 'http.request'"),
    "of a websocket": ({"type": "websocket.accept"}, "no event 'websocket.accept'"),
    "of a denial": ({"type": "websocket.http.response.start", "status": 403}, "no event 'websocket.http."),
    "of a lifespan": ({"type": "lifespan.startup.complete"}, "no event 'lifespan.startup.complete'"),
    "of an extension not offered": ({"type": "http.response.trailers", "headers": []}, "no event 'http.response.t"),
    "no status": ({"type": "http.response.start", "headers": []}, "needs a 'status', an int from 200 to 999"),
}

WRONG_STATUS = ["200", b"200", "OK", None, True, False, 200.0, [200], 0, -200, 99, 100, 101, 103, 199, 1000]

WRONG_HEADERS = {
    "None": (None, "must be a list of pairs of name and value, both bytes, not NoneType"),
    "a str": ("content-type: text/plain", "not str"),
    "bytes": (b"content-type: text/plain", "a pair of name and value, both bytes, not int"),
    "an int": (5, "not int"),
    "a dict": ({b"content-type": b"text/plain"}, "a pair of name and value, both bytes, not bytes"),
    "a dict of two letters": ({b"te": b"x"}, "a pair of name and value, both bytes, not bytes"),
    "strs": ([("x-y", "z")], "a header name must be bytes, not 'x-y'"),
    "a str as name": ([("x-y", b"z")], "a header name must be bytes, not 'x-y'"),
    "a str as value": ([(b"x-y", "z")], "the value of the header b'x-y' must be bytes, not str"),
    "None as value": ([(b"x-y", None)], "must be bytes, not NoneType"),
    "an int as value": ([length(5)], "the value of the header b'content-length' must be bytes, not int"),
    "a bytearray": ([(b"x-y", bytearray(b"z"))], "must be bytes, not bytearray"),
    "a name alone": ([(b"x-y",)], "a pair of name and value"),
    "three of them": ([(b"x-y", b"z", b"w")], "a pair of name and value"),
    "a line": ([b"x-y: z"], "a pair of name and value"),
    "a dict each": ([{b"x-y": b"z"}], "a pair of name and value"),
    "None each": ([None], "a pair of name and value"),
    "an empty name": ([(b"", b"z")], "b'' is not a header name"),
    "a name with a colon": ([(b"x-y:", b"z")], "is not a header name"),
    "a name with a space": ([(b"x y", b"z")], "is not a header name"),
    "a name with a line end": ([(b"x-y: z\r\nset-cookie", b"a=b")], "is not a header name"),
    "a name that is not ASCII": ([("é".encode(), b"z")], "is not a header name"),
    "a value with a line end": ([(b"x-y", b"z\r\nset-cookie: a=b")], "the value of b'x-y' has control characters"),
    "a value with a head's end": ([(b"x-y", b"z\r\n\r\n<html>")], "has control characters"),
    "a value with LF": ([(b"x-y", b"z\nset-cookie: a=b")], "has control characters"),
    "a value with CR": ([(b"x-y", b"z\rset-cookie: a=b")], "has control characters"),
    "a value with NUL": ([(b"x-y", b"\0")], "has control characters"),
    "a length of letters": ([length(b"five")], "must be a number of bytes, not b'five'"),
    "a negative length": ([length(b"-5")], "must be a number of bytes"),
    "a signed length": ([length(b"+5")], "must be a number of bytes"),
    "a length with a point": ([length(b"5.0")], "must be a number of bytes"),
    "a length in hex": ([length(b"0x5")], "must be a number of bytes"),
    "an empty length": ([length(b"")], "must be a number of bytes"),
    "a list of lengths": ([length(b"5, 5")], "must be a number of bytes"),
    "an endless length": ([length(b"5" * 5000)], "must be a number of bytes"),
    "two lengths": ([length(b"5"), (b"Content-Length", b"6")], "content-length is given twice"),
    "a length twice": ([length(b"5"), length(b"5")], "content-length is given twice"),
    "a coding": ([(b"transfer-encoding", b"gzip")], "transfer-encoding is the server's to choose, leave it out"),
    "two codings": ([(b"transfer-encoding", b"gzip, chunked")], "is the server's to choose"),
}

WRONG_BODIES = {"str": "hello", "None": None, "int": 5, "list": [b"hello"], "dict": {"a": 1}}

ORDER = {
    "a body first": Case((body(b"hello"),), ERROR, "http.response.body comes after http.response.start"),
    "two starts": Case((start(), start(status=404)), ERROR, "a start comes once"),
    "a start in the body": Case((start(), body(b"hel", more=True), start()), CUT, "a start comes once"),
    "an unknown event in the body": Case(
        (start(), body(b"hel", more=True), {"type": "http.response.end"}), CUT, "no event 'http.response.end'"
    ),
    "None in the body": Case((start(), body(b"hel", more=True), None), CUT, "must be a dict"),
    "a body behind the end": Case((start(), body(b"hello"), body(b"!")), HELLO, "the response is complete"),
    "an end behind the end": Case((start(), body(b"hello"), body(b"")), HELLO, "the response is complete"),
    "a start behind the end": Case((start(), body(b"hello"), start()), HELLO, "the response is complete"),
    "None behind the end": Case((start(), body(b"hello"), None), HELLO, "the response is complete"),
}

LENGTHS = {
    "too long at once": Case(
        (start(length(b"3")), body(b"hello")), ERROR, "2 bytes longer than its content-length", head_is_fine=True
    ),
    "too short at once": Case(
        (start(length(b"9")), body(b"hello")), ERROR, "4 bytes shorter than its content-length", head_is_fine=True
    ),
    "empty where some was announced": Case(
        (start(length(b"9")), body(b"")), ERROR, "9 bytes shorter than its content-length", head_is_fine=True
    ),
    "too long by a later part": Case(
        (start(length(b"6")), body(b"hel", more=True), body(b"lo world")),
        CUT,
        "5 bytes longer than its content-length",
        head_is_fine=True,
    ),
    "too short at the end": Case(
        (start(length(b"6")), body(b"hel", more=True), body(b"lo")),
        CUT,
        "1 bytes shorter than its content-length",
        head_is_fine=True,
    ),
    "longer than nothing": Case(
        (start(length(b"0")), body(b"hello")), ERROR, "5 bytes longer than its content-length", head_is_fine=True
    ),
    "a body for a 204": Case((start(status=204), body(b"hello")), ERROR, "status 204 has no body"),
    "a body for a 205": Case((start(status=205), body(b"hello")), ERROR, "status 205 has no body"),
    "a body for a 304": Case((start(status=304), body(b"hello")), ERROR, "status 304 has no body"),
    "a part for a 204": Case((start(status=204), body(b"hello", more=True)), ERROR, "status 204 has no body"),
}

# Without a wrong send: the error is in the log.
LEAVING = {
    "returns at once": Case((), ERROR),
    "returns before the body": Case((start(),), ERROR),
    "returns in the body": Case((start(), body(b"hel", more=True)), CUT),
    "returns before all that was announced": Case((start(length(b"9")), body(b"hel", more=True)), CUT),
    "returns when all that was announced is out": Case(
        (start(length(b"5")), body(b"hello", more=True)), HELLO, ends=False
    ),
    "raises at once": Case((ValueError("x"),), ERROR),
    "raises before the body": Case((start(), ValueError("x")), ERROR),
    "raises in the body": Case((start(), body(b"hel", more=True), ValueError("x")), CUT),
    "raises before all that was announced": Case((start(length(b"9")), body(b"hel", more=True), OSError("x")), CUT),
    "raises behind the end": Case((start(), body(b"hello"), ValueError("x")), HELLO),
    "raises behind an empty body": Case((start(status=204), body(b""), ValueError("x")), Whole(204, b"")),
    "returns in a large body": Case((start(), body(bytes(300_000), more=True)), CUT),
}

STREAMS = {
    "a start that is refused": Case((start(STREAM, (b"x", b"\n")),), ERROR, "control characters"),
    "text at once": Case((start(STREAM), body("data: x\n\n")), ERROR, "a body must be bytes, not str; encode it"),
    "text later": Case((start(STREAM), body(EVENT, more=True), body("data: x\n\n")), CUT, "must be bytes, not str"),
    "an unknown event": Case((start(STREAM), body(EVENT, more=True), {"type": "sse.send"}), CUT, "no event 'sse.send'"),
    "two starts": Case((start(STREAM), body(EVENT, more=True), start(STREAM)), CUT, "a start comes once"),
    "a length": Case(
        (start(STREAM, length(b"12")), body(EVENT, more=True), body(EVENT)),
        CUT,
        "6 bytes longer than its content-length",
        head_is_fine=True,
    ),
    "an event behind the end": Case((start(STREAM), body(EVENT), body(EVENT)), Whole(200, EVENT), "is complete"),
    "returns in it": Case((start(STREAM), body(EVENT, more=True)), CUT),
    "raises in it": Case((start(STREAM), body(EVENT, more=True), ValueError("x")), CUT),
}

WRONG = {
    **{f"event {name}": Case((event,), ERROR, words) for name, (event, words) in NO_EVENTS.items()},
    **{
        f"status {status!r}": Case((start(status=status),), ERROR, f"an int from 200 to 999, not {status!r}")
        for status in WRONG_STATUS
    },
    **{
        f"headers: {name}": Case((with_headers(value),), ERROR, words) for name, (value, words) in WRONG_HEADERS.items()
    },
    **{
        f"body {name}": Case((start(), body(data)), ERROR, f"a body must be bytes, not {type(data).__name__}")
        for name, data in WRONG_BODIES.items()
    },
    **{
        f"body {name} later": Case((start(), body(b"hel", more=True), body(data)), CUT, "a body must be bytes, not")
        for name, data in WRONG_BODIES.items()
    },
    **{f"order: {name}": case for name, case in ORDER.items()},
    **{f"length: {name}": case for name, case in LENGTHS.items()},
    **{f"leaving: {name}": case for name, case in LEAVING.items()},
    **{f"event stream: {name}": case for name, case in STREAMS.items()},
}

# What looks odd and is allowed: nothing fails, and the client gets all of it.
ODD = {
    "a status of the standard library": (start(status=HTTPStatus.OK), body(b"hello")),
    "a start without headers": ({"type": "http.response.start", "status": 200}, body(b"hello")),
    "headers of a generator": (with_headers(pair for pair in [PLAIN]), body(b"hello")),
    "headers in lists": (with_headers([list(PLAIN)]), body(b"hello")),
    "the coding that there is": (start((b"transfer-encoding", b"chunked")), body(b"hello")),
    "the coding beside a length": (start((b"Transfer-Encoding", b"chunked"), length(b"5")), body(b"hello")),
    "a body without more_body": (start(), {"type": "http.response.body", "body": b"hello"}),
    "more_body None": (start(), {"type": "http.response.body", "body": b"hello", "more_body": None}),
    "more_body 1": (start(), {"type": "http.response.body", "body": b"hel", "more_body": 1}, body(b"lo")),
    "an end without body": (start(), body(b"hello", more=True), {"type": "http.response.body"}),
    "a bytearray": (start(), body(bytearray(b"hello"))),
    "a view of wide items": (start(), body(memoryview(array.array("I", [0x6C6C6568])), more=True), body(b"o")),
    "a view with gaps": (start(length(b"5")), body(memoryview(b"h.e.l.l.o.")[::2])),
    "trailers announced, which are not offered": ({**start(), "trailers": True}, body(b"hello")),
    "fields that nobody knows": ({**start(), "reason": "\r\n"}, {**body(b"hello"), "x": object()}),
    "empty parts": (start(), body(b"", more=True), body(b"hello", more=True), body(b"", more=True), body(b"")),
}

REQUESTS = {
    "HTTP/1.1": b"GET /case HTTP/1.1\r\nHost: x\r\n\r\n",
    "close": b"GET /case HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "HTTP/1.0": b"GET /case HTTP/1.0\r\n\r\n",
    "HTTP/1.0 keep-alive": b"GET /case HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "HEAD": b"HEAD /case HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.fixture(params=REQUESTS.values(), ids=REQUESTS)
def request_bytes(request):
    return request.param


async def get_on_a_new_connection(server):
    """See that the server goes on."""
    async with connected(server) as client:
        assert (await client.request(FINE)).body == b"fine"


def expected_for(case, request_bytes):
    """Return what the client gets, and whether a send fails."""
    if not request_bytes.startswith(b"HEAD"):
        return case.client, case.words is not None
    if case.client == CUT or case.head_is_fine:
        # The head is the whole of it.
        return Whole(200, b""), case.words is not None and not case.head_is_fine
    return Whole(case.client.status, b""), case.words is not None


@pytest.mark.trio
@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
async def test_a_wrong_response_is_told_at_its_send_and_never_taken_for_a_right_one(
    pagi_serve, caplog, case, request_bytes
):
    app = Player(case.events)
    server = await pagi_serve(app, lifespan="off")
    client_gets, send_fails = expected_for(case, request_bytes)
    async with connected(server) as client:
        if client_gets == CUT:
            with pytest.raises(Cut):
                await client.request(request_bytes)
        else:
            reply = await client.request(request_bytes)
            assert (reply.status, reply.body) == client_gets
            if reply.stays and case.ends and (case.client != CUT or case.head_is_fine):
                assert (await client.request(FINE)).body == b"fine"
    if send_fails:
        (error,) = app.errors
        assert type(error) is AppProtocolError
        assert case.words in str(error)
    else:
        assert app.errors == []
    await get_on_a_new_connection(server)
    assert "internal error" not in caplog.text


@pytest.mark.trio
@pytest.mark.parametrize("events", ODD.values(), ids=ODD)
async def test_what_is_odd_and_allowed_reaches_the_client_whole(pagi_serve, events, request_bytes):
    # A generator can be sent once.
    app = Player(tuple(events))
    server = await pagi_serve(app, lifespan="off")
    async with connected(server) as client:
        reply = await client.request(request_bytes)
        assert reply.status == 200
        assert reply.body == (b"" if request_bytes.startswith(b"HEAD") else b"hello")
    assert app.errors == []


@pytest.mark.trio
async def test_a_response_that_the_end_of_the_server_cuts_short_is_not_taken_for_the_whole(request_bytes):
    begun = trio.Event()

    async def app(scope, receive, send):
        await send(start())
        await send(body(b"hel", more=True))
        begun.set()
        await trio.sleep_forever()

    async with testing.serve(app, lifespan="off", timeouts={"graceful_s": 0}) as server, connected(server) as client:
        await client.send(request_bytes)
        await begun.wait()
        server.handle.shutdown()
        if request_bytes.startswith(b"HEAD"):
            assert (await client.read_reply(request_bytes)).body == b""
        else:
            with pytest.raises(Cut):
                await client.read_reply(request_bytes)
