"""What an application sends wrongly in a WebSocket: the send says what is wrong, and the client is told in time.

Before the accept the client gets a valid refusal; after it, whole messages and a Close frame, 1011 where the application
let its error out.

Source: the ASGI WebSocket message format 2.4; RFC 6455 sections 4.2.2, 5.5, 5.6 and 7.4.
"""

from __future__ import annotations

import array
import struct

import pytest

from pagi_trio.errors import AppProtocolError

from .misuse import CUT, ERROR, Case, Player, Whole
from .strict_client import FINE, Cut, connected

pytestmark = pytest.mark.trio

HANDSHAKE = (
    b"GET /case HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: chat, mqtt\r\n%s\r\n"
)
DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"

FORBIDDEN = Whole(403, b"")

ACCEPT = {"type": "websocket.accept"}
CLOSE = {"type": "websocket.close"}


def accept(**fields):
    return {"type": "websocket.accept", **fields}


def text(data):
    return {"type": "websocket.send", "text": data}


def close(**fields):
    return {"type": "websocket.close", **fields}


def deny(status=403, headers=()):
    return {"type": "websocket.http.response.start", "status": status, "headers": headers}


def part(data, *, more=False):
    return {"type": "websocket.http.response.body", "body": data, "more_body": more}


WRONG_ACCEPTS = {
    "a subprotocol not offered": ({"subprotocol": "soap"}, "did not offer the subprotocol 'soap', but chat, mqtt"),
    "a subprotocol of another case": ({"subprotocol": "Chat"}, "did not offer the subprotocol 'Chat'"),
    "two subprotocols": ({"subprotocol": "chat, mqtt"}, "did not offer the subprotocol"),
    "an empty subprotocol": ({"subprotocol": ""}, "did not offer the subprotocol ''"),
    "a subprotocol with a line end": ({"subprotocol": "chat\r\nx: y"}, "did not offer the subprotocol"),
    "a subprotocol of bytes": ({"subprotocol": b"chat"}, "did not offer the subprotocol b'chat'"),
    "a subprotocol of a list": ({"subprotocol": ["chat"]}, "did not offer the subprotocol ['chat']"),
    "a subprotocol with a surrogate": ({"subprotocol": "\ud800"}, "did not offer the subprotocol"),
    "headers None": ({"headers": None}, "the event's 'headers' must be a list of pairs"),
    "headers of a dict": ({"headers": {b"x-y": b"z"}}, "a pair of name and value, both bytes, not bytes"),
    "headers of strs": ({"headers": [("x-y", "z")]}, "a header name must be bytes, not 'x-y'"),
    "a value with a line end": ({"headers": [(b"x-y", b"z\r\nx: y")]}, "control characters"),
    "a name with a line end": ({"headers": [(b"x-y\r\nx", b"y")]}, "is not a header name"),
    **{
        f"the header {name}": ({"headers": [(name.encode(), b"1")]}, "belongs to the handshake and is the server's")
        for name in (
            "Sec-WebSocket-Accept",
            "sec-websocket-protocol",
            "sec-websocket-extensions",
            "sec-websocket-version",
            "Upgrade",
            "Connection",
            "content-length",
        )
    },
    "the header transfer-encoding": ({"headers": [(b"transfer-encoding", b"chunked")]}, "belongs to the handshake"),
}

WRONG_SENDS = {
    "neither text nor bytes": ({}, "needs a 'text' or 'bytes' that is not None"),
    "both None": ({"text": None, "bytes": None}, "needs a 'text' or 'bytes' that is not None"),
    "text and bytes": ({"text": "a", "bytes": b"b"}, "takes a 'text' or 'bytes', not both"),
    "text of bytes": ({"text": b"a"}, "the event's 'text' must be a str, not bytes"),
    "text of an int": ({"text": 5}, "must be a str, not int"),
    "text of a list": ({"text": ["a"]}, "must be a str, not list"),
    "text that is False": ({"text": False}, "must be a str, not bool"),
    "half a pair at once": ({"text": "\ud800"}, "has '\\ud800' at index 0, one half of a surrogate pair"),
    "half a pair inside": ({"text": "ab\udfffc"}, "has '\\udfff' at index 2"),
    "bytes of a str": ({"bytes": "a"}, "the 'bytes' of websocket.send must be bytes, not str; encode it"),
    "bytes of a long str": ({"bytes": "a" * 70_000}, "must be bytes, not str"),
    "bytes of an int": ({"bytes": 5}, "must be bytes, not int"),
    "bytes of a list": ({"bytes": [1, 2]}, "must be bytes, not list"),
    "bytes of an array": ({"bytes": array.array("I", [1])}, "must be bytes, not array"),
}

WRONG_CODES = [0, 1, 99, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 70_000, -1000, "1000", None, True, 1000.0, b"1"]

WRONG_REASONS = {
    "bytes": (b"enough", "the event's 'reason' must be a str, not bytes"),
    "an int": (5, "must be a str, not int"),
    "a list": (["enough"], "must be a str, not list"),
    "half a pair": ("enough \udcff", "has '\\udcff' at index 7"),
}

# In an open session, and instead of one.
OUT_OF_PLACE = {
    "a denial": (deny(), "'websocket.http.response.start' has no place in an open session"),
    "a body of a denial": (part(b"x"), "'websocket.http.response.body' has no place in an open session"),
    "a response": ({"type": "http.response.start", "status": 200}, "has no place in an open session"),
    "an unknown event": ({"type": "websocket.sned", "text": "x"}, "but websocket.send and websocket.close"),
    "an event received": ({"type": "websocket.receive", "text": "x"}, "has no place in an open session"),
    "None": (None, "an event must be a dict with a 'type', not NoneType"),
    "a str": ("websocket.send", "must be a dict with a 'type', not str"),
    "an empty dict": ({}, "needs a 'type'"),
    "a type that is none": ({"type": ["websocket.send"]}, "has no place in an open session"),
}

BEFORE = {
    "send": Case((text("x"),), ERROR, "'websocket.send' has no place before websocket.accept"),
    "a response": Case(({"type": "http.response.start", "status": 200},), ERROR, "no place before websocket.accept"),
    "a body of a denial": Case((part(b"x"),), ERROR, "no place before websocket.accept"),
    "an unknown event": Case(({"type": "websocket.acept"},), ERROR, "'websocket.acept' has no place before"),
    "None": Case((None,), ERROR, "must be a dict with a 'type', not NoneType"),
    "an empty dict": Case(({},), ERROR, "needs a 'type'"),
    "nothing": Case((), ERROR),
    "an error": Case((ValueError("x"),), ERROR),
    **{f"accept with {name}": Case((accept(**f),), ERROR, words) for name, (f, words) in WRONG_ACCEPTS.items()},
}

DENIALS = {
    "no status": Case(({"type": "websocket.http.response.start"},), ERROR, "needs a 'status', an int from 200 to 999"),
    "a status of a str": Case((deny("403"),), ERROR, "an int from 200 to 999, not '403'"),
    "status 101": Case((deny(101),), ERROR, "an int from 200 to 999, not 101"),
    "headers None": Case((deny(headers=None),), ERROR, "the event's 'headers' must be a list of pairs"),
    "headers of strs": Case((deny(headers=[("a", "b")]),), ERROR, "a header name must be bytes"),
    "a value with a line end": Case((deny(headers=[(b"a", b"\r\nb: c")]),), ERROR, "control characters"),
    "two starts": Case((deny(), deny()), ERROR, "a start comes once"),
    "accept in it": Case((deny(), ACCEPT), ERROR, "is being denied, it cannot be accepted any more"),
    "close in it": Case((deny(), CLOSE), ERROR, "has no place in a denial: after its start comes only websocket.http"),
    "send in it": Case((deny(), text("x")), ERROR, "'websocket.send' has no place in a denial"),
    "a body of a str": Case((deny(), part("x")), ERROR, "a body must be bytes, not str"),
    "a body of a str later": Case((deny(), part(b"x", more=True), part("x")), CUT, "a body must be bytes, not str"),
    "a body that is too long": Case(
        (deny(headers=[(b"content-length", b"2")]), part(b"long")), ERROR, "2 bytes longer than its content-length"
    ),
    "returns before the body": Case((deny(),), ERROR),
    "returns in the body": Case((deny(), part(b"x", more=True)), CUT),
    "raises in the body": Case((deny(), part(b"x", more=True), ValueError("x")), CUT),
    "a body behind the end": Case((deny(), part(b"x"), part(b"y")), Whole(403, b"x"), "has ended the session"),
    "accept behind the end": Case((deny(), part(b"x"), ACCEPT), Whole(403, b"x"), "has ended the session"),
    "accept behind a refusal": Case((CLOSE, ACCEPT), FORBIDDEN, "the application has ended the session"),
    "send behind a refusal": Case((CLOSE, text("x")), FORBIDDEN, "'websocket.send' cannot follow"),
    "None behind a refusal": Case((CLOSE, None), FORBIDDEN, "must be a dict"),
    "another refusal": Case((CLOSE, CLOSE), FORBIDDEN),
    "a reason that no refusal can carry": Case((close(code="x", reason=["y"]),), FORBIDDEN),
}

REFUSED = {
    **{f"before the accept: {name}": case for name, case in BEFORE.items()},
    **{f"denial: {name}": case for name, case in DENIALS.items()},
}

# The event behind the accept and a first message, and what the error says.
OPEN = {
    **{f"send: {name}": ({"type": "websocket.send", **fields}, words) for name, (fields, words) in WRONG_SENDS.items()},
    **{
        f"close: code {code!r}": (close(code=code), f"{code!r} is no close code to send: those") for code in WRONG_CODES
    },
    **{f"close: reason of {name}": (close(reason=value), words) for name, (value, words) in WRONG_REASONS.items()},
    **{f"out of place: {name}": (event, words) for name, (event, words) in OUT_OF_PLACE.items()},
    "accept again": (ACCEPT, "'websocket.accept' has no place in an open session, but websocket.send and websocket."),
    "an error": (ValueError("x"), None),
}

AFTER = {
    "send": (text("late"), "the application has ended the session, 'websocket.send' cannot follow"),
    "accept": (ACCEPT, "'websocket.accept' cannot follow"),
    "an unknown event": ({"type": "websocket.sned"}, "'websocket.sned' cannot follow"),
    "None": (None, "must be a dict with a 'type', not NoneType"),
    "an empty dict": ({}, "needs a 'type'"),
}

ODD = {
    "bytes None": ({"type": "websocket.send", "text": "hi", "bytes": None}, (0x81, b"hi")),
    "text None": ({"type": "websocket.send", "text": None, "bytes": b"hi"}, (0x82, b"hi")),
    "an empty text": (text(""), (0x81, b"")),
    "a whole pair": (text("\U0001f600"), (0x81, "\U0001f600".encode())),
    "a bytearray": ({"type": "websocket.send", "bytes": bytearray(b"hi")}, (0x82, b"hi")),
    "a view of wide items": (
        {"type": "websocket.send", "bytes": memoryview(array.array("I", [0x64636261]))},
        (0x82, b"abcd"),
    ),
    "a close without code": (CLOSE, (0x88, struct.pack("!H", 1000))),
    "a close with reason None": (close(code=4000, reason=None), (0x88, struct.pack("!H", 4000))),
    "a reason of two lines": (close(code=1001, reason="a\r\nb"), (0x88, struct.pack("!H", 1001) + b"a\r\nb")),
}


async def connect(receive, send):
    assert await receive() == {"type": "websocket.connect"}


async def check_that_it_goes_on(server, caplog):
    async with connected(server) as client:
        assert (await client.request(FINE)).body == b"fine"
    assert "internal error" not in caplog.text


def check_error(app, words):
    if words is None:
        assert app.errors == []
        return
    (error,) = app.errors
    assert type(error) is AppProtocolError
    assert words in str(error)


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
async def test_a_handshake_that_is_answered_wrongly_is_a_valid_refusal(pagi_serve, caplog, case):
    app = Player(case.events, before=connect)
    server = await pagi_serve(app, lifespan="off")
    async with connected(server) as client:
        if case.client == CUT:
            with pytest.raises(Cut):
                await client.request(HANDSHAKE % b"")
        else:
            reply = await client.request(HANDSHAKE % b"")
            assert (reply.status, reply.body, reply.stays) == (*case.client, False)
    check_error(app, case.words)
    await check_that_it_goes_on(server, caplog)
    assert server.metrics.value("pagi_websocket_connections_total") == 0


@pytest.mark.parametrize("extension", [b"", DEFLATE], ids=["plain", "deflated"])
@pytest.mark.parametrize(("event", "words"), OPEN.values(), ids=OPEN)
async def test_a_wrong_event_in_an_open_session_sends_nothing_but_a_1011(pagi_serve, caplog, event, words, extension):
    app = Player((accept(subprotocol="chat"), text("first"), event), before=connect)
    server = await pagi_serve(app, lifespan="off")
    async with connected(server) as client:
        await client.upgrade(HANDSHAKE % extension)
        assert (await client.read_frame())[0] == (0xC1 if extension else 0x81)
        assert await client.read_frame() == (0x88, struct.pack("!H", 1011))
        await client.close()
    check_error(app, words)
    await check_that_it_goes_on(server, caplog)
    assert server.metrics.value("pagi_websocket_messages_sent_total") == 1
    assert server.metrics.value("pagi_server_app_errors_total", scope="websocket") == 1


@pytest.mark.parametrize(("event", "words"), AFTER.values(), ids=AFTER)
async def test_a_wrong_event_behind_the_close_sends_nothing(pagi_serve, caplog, event, words):
    app = Player((ACCEPT, close(code=4000, reason="enough"), CLOSE, event), before=connect)
    server = await pagi_serve(app, lifespan="off")
    async with connected(server) as client:
        await client.upgrade(HANDSHAKE % b"")
        assert await client.read_frame() == (0x88, struct.pack("!H", 4000) + b"enough")
        await client.close()
    check_error(app, words)
    await check_that_it_goes_on(server, caplog)


@pytest.mark.parametrize(("event", "frame"), ODD.values(), ids=ODD)
async def test_what_is_odd_and_allowed_reaches_the_client_as_it_is(pagi_serve, event, frame):
    app = Player((ACCEPT, event), before=connect)
    server = await pagi_serve(app, lifespan="off")
    async with connected(server) as client:
        await client.upgrade(HANDSHAKE % b"")
        assert await client.read_frame() == frame
        if frame[0] != 0x88:
            assert await client.read_frame() == (0x88, struct.pack("!H", 1000))
        await client.close()
    assert app.errors == []


async def test_a_reason_that_is_too_long_is_cut_between_characters_which_is_logged_once(pagi_serve, caplog):
    app = Player((ACCEPT, close(code=4000, reason="ä" * 80)), before=connect)
    server = await pagi_serve(app, lifespan="off")
    for _ in range(2):
        async with connected(server) as client:
            await client.upgrade(HANDSHAKE % b"")
            assert await client.read_frame() == (0x88, struct.pack("!H", 4000) + ("ä" * 61).encode())
            await client.close()
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "the reason of a close was cut to the 123 bytes that fit"
    ]


async def test_an_error_that_the_app_catches_leaves_the_session_as_it_was(pagi_serve):
    async def app(scope, receive, send):
        await connect(receive, send)
        for event in (text("x"), accept(subprotocol="soap"), accept(headers=None)):
            with pytest.raises(AppProtocolError):
                await send(event)
        await send(ACCEPT)
        for event, _ in OPEN.values():
            if not isinstance(event, Exception):
                with pytest.raises(AppProtocolError):
                    await send(event)
        await send(text("still here"))

    server = await pagi_serve(app, lifespan="off")
    async with connected(server) as client:
        await client.upgrade(HANDSHAKE % b"")
        assert await client.read_frame() == (0x81, b"still here")
        assert await client.read_frame() == (0x88, struct.pack("!H", 1000))
        await client.close()
    assert server.metrics.value("pagi_server_app_errors_total", scope="websocket") == 0
