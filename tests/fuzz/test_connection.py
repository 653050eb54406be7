"""A whole connection: whatever comes, and however it is cut, the client reads the same whole responses.

Each input takes some milliseconds, which is too slow for atheris.
"""

from __future__ import annotations

import json
import logging
import socket

import h11
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from pagi_trio import testing
from tests.fuzz.cutting import cuttings
from tests.fuzz.targets import TARGETS
from tests.fuzz.test_fuzz import PROFILE, edited

LIMITS = {"limits": {"request_line_bytes": 100, "head_bytes": 300, "headers": 20, "body_bytes": 500}}
"""Small limits, which small inputs reach."""

REFUSED = (400, 413, 414, 417, 421, 431, 501, 505)

_WORDS = (
    *(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"PUT /h HTTP/1.1\r\nHost: a\r\n\r\n", b"\r\n"),
    *(b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde", b"X-Long: " + b"x" * 300 + b"\r\n"),
    b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"POST /e HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 600\r\n\r\n",
)

streams = st.lists(
    st.one_of(st.sampled_from(_WORDS), edited(_WORDS), edited(TARGETS["request"].seeds)), max_size=5
).map(b"".join)


async def app(scope, receive, send):
    """Answer a whole request with what it was; one that breaks off gets no answer of this application."""
    assert scope["type"] == "http"
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        if not message["more_body"]:
            break
    seen = [scope["method"], scope["path"], scope["query_string"].decode(), body.decode("latin-1")]
    seen += [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(seen).encode()})


@settings(PROFILE, max_examples=40)
@given(streams)
def test_the_responses_are_the_same_however_the_requests_are_cut(data):
    whole, *others = [merge_refusals(found) for found in trio.run(converse, cuttings(data))]
    for other in others:
        assert other == whole


@pytest.mark.parametrize(
    ("data", "statuses"),
    [
        (b"".join(_WORDS[:3]), [200, 200]),
        (_WORDS[3] + _WORDS[5] + _WORDS[0], [200, 200, 200]),
        (_WORDS[0] + b"\0\r\n\r\n" + _WORDS[0], [200, 400]),
        (b"GET /" + b"x" * 100 + _WORDS[0], [414]),
        (_WORDS[0][:-2] + _WORDS[4] + b"\r\n", [431]),
        (_WORDS[6] + b"y" * 600, [413]),
        (b"\r\n\r\n" + _WORDS[0], [200]),
    ],
    ids=["pipelined", "bodies", "refused", "line", "head", "body", "empty lines"],
)
def test_the_responses_are_those_that_are_due(data, statuses):
    """What the property above compares is more than silence."""
    whole, *others = trio.run(converse, cuttings(data))
    assert [whole] * 2 == others
    assert [status for status, _ in whole] == statuses


async def converse(ways):
    """Send bytes in each of some ways over connections of their own; return the responses read on each."""
    records = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = records.append
    logger = logging.getLogger("pagi_trio")
    logger.addHandler(handler)
    try:
        with trio.fail_after(20):
            async with testing.serve(app, lifespan="off", **LIMITS) as server:
                found = [await talk(server.port, pieces) for pieces in ways]
                while server.metrics.value("pagi_server_connections_active"):
                    await trio.sleep(0.001)
    finally:
        logger.removeHandler(handler)
    assert records == []
    return found


async def talk(port, pieces):
    received = b""
    with trio.socket.socket() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await sock.connect(("127.0.0.1", port))
        try:
            for piece in pieces:
                await sock.send(piece)
                # The server has read what was sent, and waits for more.
                await wait_all_tasks_blocked()
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has answered and closed, before all was sent
        while data := await sock.recv(65536):
            received += data
    return read_responses(received)


def merge_refusals(responses):
    """Forget how requests were refused: which of several faults is named may depend on the cuts, but not that one is."""
    return [(status if status == 200 else "refused", body) for status, body in responses]


def read_responses(data):
    """Read responses to the end of a connection; return the status of each, and the body if the application wrote it."""
    found = []
    while data:
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method=b"GET", target="/", headers=[("host", "a")]))
        client.send(h11.EndOfMessage())
        client.receive_data(data)
        client.receive_data(b"")
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                status, body = event.status_code, b""
            elif isinstance(event, h11.Data):
                body += event.data
        assert status in (200, *REFUSED)
        found.append((status, bytes(body) if status == 200 else b""))
        data = client.trailing_data[0]
    return found
