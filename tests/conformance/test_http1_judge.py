"""The judge and the client of the HTTP/1.1 cases: what is not allowed does not pass."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager

import pytest

from .http1_cases.case import CONTINUE, PRESENT, Call, Case, Outcome, Then, by_app, by_server, get
from .http1_client import Client, MalformedError, Response, SilentError
from .http1_judge import Seen, judge

LIMIT_S = 10

GET = {"type": "http", "method": "GET", "path": "/", "query": "", "version": "1.1", "body": "", "whole": True}
CALL = {**GET, "fields": [["host", "a"], ["x", "1"], ["x", "2"]]}
BROKEN = {**CALL, "whole": False}

ANSWER = Response(200, [("x-call", "0"), ("date", "now")], b"seen")
REFUSAL = Response(400, [("connection", "close")])


def case(*answers, then=Then.OPEN, **options):
    return Case("a case", "RFC 9112 2", get(), (Outcome(answers, then, **options),))


ALLOWED = [
    (case(by_app()), Seen([ANSWER], Then.OPEN, [CALL])),
    (case(by_app(), then=Then.EITHER), Seen([ANSWER], Then.CLOSED, [CALL])),
    (case(by_app(Call(fields={"x": "1|2", "y": None}))), Seen([ANSWER], Then.OPEN, [CALL])),
    (case(by_app(Call(body=None, path=None))), Seen([ANSWER], Then.OPEN, [{**CALL, "body": "a", "path": "/b"}])),
    (case(by_app(fields={"date": PRESENT, "server": None}, body=b"seen")), Seen([ANSWER], Then.OPEN, [CALL])),
    (case(CONTINUE, by_app()), Seen([Response(100, []), ANSWER], Then.OPEN, [CALL])),
    (case(by_server(400, 501), then=Then.CLOSED), Seen([REFUSAL], Then.CLOSED, [])),
    (case(by_server(400), then=Then.CLOSED, begun=True), Seen([REFUSAL], Then.CLOSED, [BROKEN])),
    (case(by_server(400), then=Then.CLOSED, unanswered=1), Seen([REFUSAL], Then.CLOSED, [CALL])),
    (case(then=Then.CLOSED), Seen([], Then.CLOSED, [])),
]

NOT_ALLOWED = [
    (case(by_app()), Seen([ANSWER], Then.OPEN, [CALL], "it hangs"), "it hangs"),
    (case(by_app()), Seen([ANSWER], Then.CLOSED, [CALL]), "the server has closed it"),
    (case(by_app(), then=Then.CLOSED), Seen([ANSWER], Then.OPEN, [CALL]), "it takes another request"),
    (case(by_app(), then=Then.UPGRADED), Seen([ANSWER], Then.OPEN, [CALL]), "it speaks WebSocket"),
    (case(by_app()), Seen([], Then.CLOSED, []), "answered"),
    (case(by_app()), Seen([Response(100, []), ANSWER], Then.OPEN, [CALL]), "answered"),
    (case(CONTINUE, by_app()), Seen([ANSWER], Then.OPEN, [CALL]), "answered"),
    (case(by_app()), Seen([Response(204, ANSWER.fields)], Then.OPEN, [CALL]), "answered 204"),
    (case(by_app()), Seen([Response(200, ANSWER.fields, whole=False)], Then.OPEN, [CALL]), "breaks off"),
    (case(by_app(body=b"other")), Seen([ANSWER], Then.OPEN, [CALL]), "seen"),
    (case(by_app()), Seen([Response(200, [])], Then.OPEN, [CALL]), "answered 200 itself"),
    (case(by_app()), Seen([ANSWER], Then.OPEN, []), "called"),
    (case(by_app()), Seen([ANSWER], Then.OPEN, [CALL, CALL]), "called"),
    (case(by_app()), Seen([ANSWER], Then.OPEN, [CALL, BROKEN]), "what is no request"),
    (case(by_app()), Seen([ANSWER], Then.OPEN, [{**CALL, "method": "HEAD"}]), "method 'HEAD'"),
    (case(by_app()), Seen([ANSWER], Then.OPEN, [{**CALL, "path": "/b"}]), "path '/b'"),
    (case(by_app()), Seen([ANSWER], Then.OPEN, [{**CALL, "body": "b"}]), "body 'b'"),
    (case(by_app()), Seen([ANSWER], Then.OPEN, [{**CALL, "type": "websocket"}]), "type 'websocket'"),
    (case(by_app(Call(fields={"x": "1"}))), Seen([ANSWER], Then.OPEN, [CALL]), "x: '1|2'"),
    (case(by_app(Call(fields={"x": None}))), Seen([ANSWER], Then.OPEN, [CALL]), "x: '1|2'"),
    (case(by_app(Call(fields={"y": PRESENT}))), Seen([ANSWER], Then.OPEN, [CALL]), "y: None"),
    (case(by_app(fields={"server": PRESENT})), Seen([ANSWER], Then.OPEN, [CALL]), "server: None"),
    (
        case(by_app()),
        Seen([Response(200, [("x-call", "0"), ("transfer-encoding", "chunked")])], Then.OPEN, [{**CALL, "version": "1.0"}]),
        "Transfer-Encoding",
    ),
    (case(by_server(400)), Seen([REFUSAL], Then.OPEN, [CALL]), "called"),
    (case(by_server(400)), Seen([REFUSAL], Then.OPEN, [BROKEN]), "what is no request"),
    (case(by_server(400), unanswered=1), Seen([REFUSAL], Then.OPEN, [CALL, CALL]), "called"),
    (case(by_server(400)), Seen([Response(400, [("x-call", "0")])], Then.OPEN, []), "the application answered"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "seen"), ALLOWED)
def test_what_is_allowed_passes(one, seen):
    assert judge(one, seen) == ""


@pytest.mark.parametrize(("one", "seen", "complaint"), NOT_ALLOWED)
def test_what_is_not_allowed_is_complained_about(one, seen, complaint):
    assert complaint in judge(one, seen)


def test_the_answers_belong_to_the_requests_in_their_order():
    one = case(by_app(Call(path="/a")), by_app(Call(path="/b")))
    calls = [{**CALL, "path": "/a"}, {**CALL, "path": "/b"}]
    first, second = (Response(200, [("x-call", number)]) for number in "01")
    assert judge(one, Seen([first, second], Then.OPEN, calls)) == ""
    assert "path '/b'" in judge(one, Seen([second, first], Then.OPEN, calls))


# The client


@contextmanager
def answering(*parts, close=True):
    """Connect to a server that sends this, whatever is asked."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            accepted, _ = listener.accept()
            with accepted:
                for part in parts:
                    accepted.sendall(part)
                if close:
                    accepted.shutdown(socket.SHUT_WR)
                accepted.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with Client(listener.getsockname()[1], LIMIT_S if close else 0.1) as client:
                yield client
        finally:
            thread.join(LIMIT_S)


@pytest.mark.parametrize(
    ("sent", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
        (b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", b"hi"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", b""),
    ],
)
def test_the_client_reads_what_is_framed(sent, body):
    with answering(sent, b"HTTP/1.0 400 Bad\r\n\r\nrest") as client:
        response = client.read_response()
        assert (response.body, response.whole, response.until_close) == (body, True, False)
        response = client.read_response()
        assert (response.status, response.body, response.until_close) == (400, b"rest", True)
        assert client.read_response() is None


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nhi\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"rest of a body",
    ],
)
def test_the_client_refuses_what_is_no_response(sent):
    with answering(sent) as client, pytest.raises(MalformedError):
        client.read_response()


def test_content_of_an_answer_to_head_is_taken_for_what_it_is():
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi") as client:
        assert client.read_response(to_head=True).body == b""
        with pytest.raises(MalformedError, match="hi"):
            client.read_response()


def test_an_answer_that_breaks_off_is_not_whole():
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi") as client:
        assert not client.read_response().whole


def test_a_server_that_stays_silent_is_found_out():
    with answering(b"HTTP/1.1 200 OK\r\n", close=False) as client, pytest.raises(SilentError):
        client.read_response()
