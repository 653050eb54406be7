"""WebSocket over real sockets: RFC 6455, RFC 7692 and the ASGI WebSocket message format 2.4."""

from __future__ import annotations

import base64
import os
import struct
import zlib

import pytest
import trio
import trio_websocket

from pagi_trio.nurseries import service

from .conftest import respond, until

pytestmark = pytest.mark.trio

HANDSHAKE = (
    b"GET /ws?q HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + base64.b64encode(bytes(16)) + b"\r\n%s\r\n"
)


def frame(opcode, payload=b"", *, fin=True, rsv1=False):
    mask = os.urandom(4)
    first = opcode | (0x80 if fin else 0) | (0x40 if rsv1 else 0)
    size = len(payload)
    if size < 126:
        head = bytes([first, 0x80 | size])
    elif size < 65536:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload))


async def read_frame(client):
    first, second = await client.read_exactly(2)
    size = second & 0x7F
    if size == 126:
        (size,) = struct.unpack("!H", await client.read_exactly(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", await client.read_exactly(8))
    return first, await client.read_exactly(size)


async def open_websocket(client, headers=b""):
    await client.send(HANDSHAKE % headers)
    status, answer = await client.read_head()
    assert status == 101
    return answer


async def echo(scope, receive, send):
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        await send({**message, "type": "websocket.send"})


def recorder(*, accept=True):
    """Return an application that keeps every event it gets, and an event set at the disconnect."""
    events = []
    ended = trio.Event()

    async def app(scope, receive, send):
        await receive()
        if accept:
            await send({"type": "websocket.accept"})
        while True:
            events.append(await receive())
            if events[-1]["type"] == "websocket.disconnect":
                ended.set()
                return

    return app, events, ended


async def test_messages_go_both_ways_and_are_counted_exactly(pagi_serve):
    server = await pagi_serve(echo, lifespan="off")
    texts = ["", "a", "é" * 100, "x" * 70_000]
    blobs = [b"", b"\x00", bytes(70_000)]
    async with trio_websocket.open_websocket_url(server.ws_url + "/ws") as ws:
        for message in texts + blobs:
            await ws.send_message(message)
            assert await ws.get_message() == message
        assert server.metrics.value("pagi_websocket_connections_active") == 1
        assert server.metrics.value("pagi_server_connections_by_state", state="websocket") == 1
    size = sum(len(text.encode()) for text in texts) + sum(map(len, blobs))
    for way in ("received", "sent"):
        assert server.metrics.value(f"pagi_websocket_messages_{way}_total") == 7
        assert server.metrics.value(f"pagi_websocket_bytes_{way}_total") == size
    assert server.metrics.value("pagi_websocket_connections_total") == 1
    assert server.metrics.value("pagi_websocket_connections_active") == 0


async def test_the_scope_and_the_101_say_what_asgi_and_rfc6455_4_2_ask_for(pagi_serve, raw):
    scopes = []

    async def app(scope, receive, send):
        scopes.append(scope)
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "two", "headers": [(b"x-y", b"z")]})

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        headers = await open_websocket(client, b"Sec-WebSocket-Protocol: one, two\r\n")
        assert headers[b"sec-websocket-accept"] == b"ICX+Yqv66kxgM0FcWaLWlFLwTAI="
        assert headers[b"sec-websocket-protocol"] == b"two"
        assert headers[b"x-y"] == b"z"
        assert b"sec-websocket-extensions" not in headers
        assert await read_frame(client) == (0x88, struct.pack("!H", 1000))
    (scope,) = scopes
    assert (scope["type"], scope["scheme"], scope["path"]) == ("websocket", "ws", "/ws")
    assert (scope["query_string"], scope["subprotocols"]) == (b"q", ["one", "two"])
    assert "method" not in scope
    assert "websocket.http.response" in scope["extensions"]


async def test_fragments_make_one_message_with_control_frames_between_rfc6455_5_4(pagi_serve, raw):
    server = await pagi_serve(echo, lifespan="off")
    async with raw(server) as client:
        await open_websocket(client)
        await client.send(frame(1, b"one", fin=False) + frame(9, b"ping") + frame(0, b"", fin=False) + frame(0, b"two"))
        assert await read_frame(client) == (0x8A, b"ping")
        assert await read_frame(client) == (0x81, b"onetwo")
        assert server.metrics.value("pagi_websocket_messages_received_total") == 1


async def test_bytes_behind_the_upgrade_in_the_same_packet_are_the_first_message(pagi_serve, raw):
    server = await pagi_serve(echo, lifespan="off")
    async with raw(server) as client:
        await client.send(HANDSHAKE % b"" + frame(1, b"early") + frame(2, b"bird"))
        assert (await client.read_head())[0] == 101
        assert await read_frame(client) == (0x81, b"early")
        assert await read_frame(client) == (0x82, b"bird")


@pytest.mark.parametrize(
    ("sent", "code", "reason"),
    [
        (b"\x81\x01a", 1002, "protocol_error"),
        (frame(3), 1002, "protocol_error"),
        (frame(1, b"\xff"), 1007, "protocol_error"),
        (frame(2, bytes(1001)), 1009, "body_too_large"),
        (frame(2, bytes(600), fin=False) + frame(0, bytes(600)), 1009, "body_too_large"),
        (frame(8, b"\x00"), 1002, "protocol_error"),
    ],
    ids=["unmasked", "reserved", "no text", "long", "long in fragments", "half a code"],
)
async def test_what_is_not_websocket_closes_with_its_code_rfc6455_7_4(pagi_serve, raw, sent, code, reason):
    app, events, ended = recorder()
    server = await pagi_serve(app, lifespan="off", websocket={"message_max_bytes": 1000})
    async with raw(server) as client:
        await open_websocket(client)
        await client.send(frame(1, b"fine") + sent)
        opcode, payload = await read_frame(client)
        assert (opcode, payload[:2]) == (0x88, struct.pack("!H", code))
        await ended.wait()
    assert events == [
        {"type": "websocket.receive", "text": "fine"},
        {"type": "websocket.disconnect", "code": code, "reason": reason},
    ]
    assert server.metrics.value("pagi_websocket_messages_received_total") == 1


@pytest.mark.parametrize(
    ("payload", "code", "reason", "echoed"),
    [
        (struct.pack("!H", 4321) + "früh".encode(), 4321, "früh", struct.pack("!H", 4321)),
        (b"", 1005, "", b""),
    ],
)
async def test_a_close_is_echoed_and_told_to_the_app_rfc6455_5_5_1(pagi_serve, raw, payload, code, reason, echoed):
    app, events, ended = recorder()
    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await open_websocket(client)
        await client.send(frame(8, payload))
        assert await read_frame(client) == (0x88, echoed)
        assert await client.read_to_end() == b""
    await ended.wait()
    assert events == [{"type": "websocket.disconnect", "code": code, "reason": reason}]


@pytest.mark.parametrize("answer", [b"", frame(8, struct.pack("!H", 1000))], ids=["unanswered", "answered"])
async def test_after_a_failure_the_server_ends_the_connection_first_rfc6455_7_1_7(pagi_serve, raw, monkeypatch, answer):
    # So that it cannot be the deadline for slow clients that ends it.
    monkeypatch.setattr(service, "LINGER_S", 3600)
    server = await pagi_serve(echo, lifespan="off")
    async with raw(server) as client:
        await open_websocket(client)
        await client.send(frame(3))
        first, payload = await read_frame(client)
        assert (first, payload[:2]) == (0x88, struct.pack("!H", 1002))
        # Whether the client answers plays no part: nothing that it sends is looked at any more.
        await client.send(answer)
        assert await client.read_to_end() == b""
        # It may still be sending what the server must not reset.
        await client.send(frame(1, b"late"))
        assert server.metrics.value("pagi_server_connections_by_state", state="closing") == 1
    await until(lambda: server.metrics.value("pagi_server_connections_active") == 0)


async def test_a_connection_that_breaks_is_a_1006_for_the_app_rfc6455_7_1_5(pagi_serve, raw):
    app, events, ended = recorder()
    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await open_websocket(client)
    with trio.fail_after(5):
        await ended.wait()
    assert events == [{"type": "websocket.disconnect", "code": 1006, "reason": "client_closed"}]


async def test_a_connection_that_breaks_is_a_1006_where_the_app_only_sends_rfc6455_7_1_5(pagi_serve, raw):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            await send({"type": "websocket.send", "bytes": bytes(65536)})

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await open_websocket(client)
        await client.read_exactly(1)
    await until(lambda: server.metrics.value("pagi_websocket_closes_total", code="1006", side="none") == 1)
    assert server.metrics.value("pagi_websocket_closes_total", code="1011", side="server") == 0
    assert server.metrics.value("pagi_server_app_errors_total", scope="websocket") == 0


async def test_the_app_closes_with_a_code_and_a_reason(pagi_serve, raw):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 3500, "reason": "enough"})
        assert await receive() == {"type": "websocket.disconnect", "code": 3500, "reason": "enough"}
        with pytest.raises(RuntimeError, match="the application has ended the session"):
            await send({"type": "websocket.send", "text": "late"})

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await open_websocket(client)
        assert await read_frame(client) == (0x88, struct.pack("!H", 3500) + b"enough")
        await client.send(frame(8, struct.pack("!H", 3500)))
        assert await client.read_to_end() == b""
    assert server.metrics.value("pagi_server_app_errors_total", scope="websocket") == 0


async def test_an_app_that_fails_closes_with_1011(pagi_serve, raw, caplog):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        raise ValueError("broken")

    server = await pagi_serve(app, lifespan="off", raise_app_exceptions=False)
    async with raw(server) as client:
        await open_websocket(client)
        assert await read_frame(client) == (0x88, struct.pack("!H", 1011))
        await client.send(frame(8))
        assert await client.read_to_end() == b""
    assert "websocket /ws" in caplog.text
    assert server.metrics.value("pagi_server_app_errors_total", scope="websocket") == 1


async def test_a_refusal_is_a_403(pagi_serve, raw):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.close"})

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(HANDSHAKE % b"")
        assert (await client.read_response())[0] == 403
        assert await client.read_to_end() == b""
    assert server.metrics.value("pagi_websocket_connections_total") == 0


async def test_a_denial_is_the_response_that_the_app_sends(pagi_serve, raw):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.http.response.start", "status": 418, "headers": [(b"x-why", b"tea")]})
        await send({"type": "websocket.http.response.body", "body": b"short ", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"and stout"})

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(HANDSHAKE % b"")
        status, headers, body = await client.read_response()
        assert (status, headers[b"x-why"], body) == (418, b"tea", b"short and stout")
        assert await client.read_to_end() == b""


async def test_a_denial_whose_last_send_was_cancelled_is_whole_and_no_error_of_the_app(pagi_serve, raw):
    async def app(scope, receive, send):
        await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
        with trio.move_on_after(0.01) as sending:
            await send({"type": "websocket.http.response.body", "body": body})
        assert sending.cancelled_caught
        cancelled.set()

    cancelled = trio.Event()
    # More than the kernel takes.
    body = bytes(20_000_000)
    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(HANDSHAKE % b"")
        await cancelled.wait()
        assert (await client.read_response())[::2] == (401, body)
    assert server.metrics.value("pagi_server_app_errors_total", scope="websocket") == 0


async def test_an_app_that_does_not_answer_the_handshake_is_a_500(pagi_serve, raw, caplog):
    async def app(scope, receive, send):
        pass

    server = await pagi_serve(app, lifespan="off", raise_app_exceptions=False)
    async with raw(server) as client:
        await client.send(HANDSHAKE % b"")
        assert (await client.read_response())[0] == 500
    assert "without answering the handshake" in caplog.text


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        ((HANDSHAKE % b"").replace(b"Version: 13", b"Version: 99"), 426),
        ((HANDSHAKE % b"").replace(b"Sec-WebSocket-Key: ", b"Sec-WebSocket-Key: short"), 400),
        (HANDSHAKE % b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", 400),
    ],
)
async def test_a_bad_handshake_is_refused_rfc6455_4_2_1(pagi_serve, raw, request_bytes, status):
    server = await pagi_serve(echo, lifespan="off")
    async with raw(server) as client:
        await client.send(request_bytes)
        answer, headers, _ = await client.read_response()
        assert answer == status
        assert headers.get(b"sec-websocket-version") == (b"13" if status == 426 else None)
        assert await client.read_to_end() == b""


@pytest.mark.parametrize("change", [(b"GET", b"POST"), (b"HTTP/1.1", b"HTTP/1.0"), (b"Upgrade\r\n", b"close\r\n")])
async def test_an_upgrade_that_cannot_be_one_is_a_plain_request_rfc9110_7_8(pagi_serve, raw, change):
    async def app(scope, receive, send):
        assert scope["type"] == "http"
        await respond(send, b"plain")

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send((HANDSHAKE % b"").replace(*change))
        assert (await client.read_response())[2] == b"plain"


async def test_a_ping_is_answered_while_the_app_only_sleeps(pagi_serve, raw):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await trio.sleep_forever()

    server = await pagi_serve(app, lifespan="off", timeouts={"graceful_s": 0})
    async with raw(server) as client:
        await open_websocket(client)
        await client.send(frame(1, b"unread") + frame(9, b"still there?"))
        assert await read_frame(client) == (0x8A, b"still there?")
        assert server.metrics.value("pagi_websocket_messages_received_total") == 1


@pytest.mark.parametrize("leave", ["close", "break"])
async def test_a_client_that_leaves_is_noticed_while_the_app_only_sleeps(pagi_serve, raw, leave):
    caught = trio.Event()

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            await trio.sleep(0.01)
            try:
                await send({"type": "websocket.send", "bytes": b"x"})
            except OSError:
                caught.set()
                return

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await open_websocket(client)
        if leave == "close":
            await client.send(frame(8))
            await client.read_to_end()
    with trio.fail_after(5):
        await caught.wait()
    assert server.metrics.value("pagi_websocket_connections_active") == 0


async def test_a_send_loop_neither_spins_nor_starves_others(pagi_serve, raw):
    async def app(scope, receive, send):
        if scope["type"] == "http":
            await respond(send, b"alive")
            return
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            try:
                await send({"type": "websocket.send", "bytes": b"x" * 100})
            except OSError:
                return

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as sink, trio.open_nursery() as nursery:
        await open_websocket(sink)

        async def swallow():
            while await sink.stream.receive_some(65536):
                pass

        nursery.start_soon(swallow)
        async with raw(server) as client:
            for _ in range(20):
                await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert (await client.read_response())[2] == b"alive"
        nursery.cancel_scope.cancel()


async def test_a_silent_client_is_dropped_by_the_ping_timeout(pagi_serve, raw):
    app, events, ended = recorder()
    server = await pagi_serve(app, lifespan="off", websocket={"ping_interval_s": 0.01, "ping_timeout_s": 0.01})
    async with raw(server) as client:
        await open_websocket(client)
        assert await read_frame(client) == (0x89, b"")
        await ended.wait()
    assert events == [{"type": "websocket.disconnect", "code": 1006, "reason": "keepalive_timeout"}]


async def test_an_idle_session_is_closed_and_counted_as_that_whether_its_client_answers_or_not(
    pagi_serve, raw, monkeypatch
):
    monkeypatch.setattr(service, "LINGER_S", 0.01)
    app, _events, _ended = recorder()
    server = await pagi_serve(app, lifespan="off", websocket={"idle_s": 0.01, "ping_interval_s": 0})
    for answers in (True, False):
        async with raw(server) as client:
            await open_websocket(client)
            first, payload = await read_frame(client)
            assert (first, payload[:2]) == (0x88, struct.pack("!H", 1000))
            if answers:
                await client.send(frame(8, payload))
            assert await client.read_to_end() == b""
    await until(lambda: server.metrics.value("pagi_server_connections_active") == 0)
    assert server.metrics.value("pagi_server_connections_closed_total", reason="idle_timeout") == 2
    assert server.metrics.value("pagi_websocket_closes_total", code="1000", side="server") == 2


async def test_messages_are_deflated_where_the_client_offers_it_rfc7692(pagi_serve, raw):
    server = await pagi_serve(echo, lifespan="off")
    text = b"the same again and again " * 100
    async with raw(server) as client:
        headers = await open_websocket(client, b"Sec-WebSocket-Extensions: permessage-deflate\r\n")
        assert headers[b"sec-websocket-extensions"] == b"permessage-deflate"
        deflater, inflater = zlib.compressobj(wbits=-15), zlib.decompressobj(wbits=-15)
        for _ in range(2):
            data = deflater.compress(text) + deflater.flush(zlib.Z_SYNC_FLUSH)
            await client.send(frame(1, data[:-4], rsv1=True))
            first, payload = await read_frame(client)
            assert first == 0xC1
            assert len(payload) < 100
            assert inflater.decompress(payload + b"\x00\x00\xff\xff") == text
    assert server.metrics.value("pagi_websocket_bytes_received_total") == 2 * len(text)
    assert server.metrics.value("pagi_websocket_bytes_sent_total") == 2 * len(text)


async def test_a_slow_reader_holds_back_the_app_and_every_message_counts_once(pagi_serve, raw):
    count = 200
    sent = []

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        for _ in range(count):
            await send({"type": "websocket.send", "bytes": bytes(65536)})
            sent.append(1)

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await open_websocket(client)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(sent) < count
        counted = server.metrics.value("pagi_websocket_messages_sent_total")
        assert counted in (len(sent), len(sent) + 1)
        for _ in range(count):
            assert len((await read_frame(client))[1]) == 65536
        assert (await read_frame(client))[0] == 0x88
    assert server.metrics.value("pagi_websocket_messages_sent_total") == count
    assert server.metrics.value("pagi_websocket_bytes_sent_total") == count * 65536


async def test_a_cancelled_send_leaves_its_frame_whole(pagi_serve, raw):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        with trio.move_on_after(0.01):
            while True:
                await send({"type": "websocket.send", "bytes": b"a" * 100_000})
        await send({"type": "websocket.send", "text": "after"})

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await open_websocket(client)
        await trio.sleep(0.05)
        received = 0
        while True:
            first, payload = await read_frame(client)
            received += 1
            if first == 0x81:
                break
            assert payload == b"a" * 100_000
        assert payload == b"after"
        assert (await read_frame(client))[0] == 0x88
    assert server.metrics.value("pagi_websocket_messages_sent_total") == received


async def test_an_app_that_gives_each_send_its_time_queues_no_more_than_one_message(pagi_serve, raw):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        for message in (first, *[b"skipped"] * 100):
            with trio.move_on_after(0.001) as sending:
                await send({"type": "websocket.send", "bytes": message})
            assert sending.cancelled_caught
        given_up.set()
        await send({"type": "websocket.send", "bytes": b"last"})

    given_up = trio.Event()
    # More than the kernel takes.
    first = bytes(24_000_000)
    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await open_websocket(client)
        await given_up.wait()
        assert await read_frame(client) == (0x82, first)
        assert await read_frame(client) == (0x82, b"last")
        assert (await read_frame(client))[0] == 0x88
    assert server.metrics.value("pagi_websocket_messages_sent_total") == 2


async def test_a_close_reaches_an_app_that_is_blocked_in_a_send_and_its_message_still_leaves(pagi_serve, raw):
    told = trio.Event()

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        with pytest.raises(OSError, match="client_closed"):
            await send({"type": "websocket.send", "bytes": bytes(12_000_000)})
        told.set()

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await open_websocket(client)
        await trio.testing.wait_all_tasks_blocked()
        await client.send(frame(8))
        # A second, and tenfold slack; before anything of the message is read.
        with trio.fail_after(10):
            await told.wait()
        assert len((await read_frame(client))[1]) == 12_000_000
        assert (await read_frame(client))[0] == 0x88
    assert server.metrics.value("pagi_websocket_messages_sent_total") == 1


async def test_a_client_that_leaves_behind_a_full_inbox_is_noticed_and_nothing_it_sent_is_lost(pagi_serve, raw):
    count = 1000
    go_on = trio.Event()
    received = []

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await go_on.wait()
        with pytest.raises(OSError, match="client_closed"):
            await send({"type": "websocket.send", "text": "too late"})
        while (message := await receive())["type"] == "websocket.receive":
            received.append(message["text"])
        received.append(message["code"])

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await open_websocket(client)
        await client.send(b"".join(frame(1, b"%d" % n) for n in range(count)) + frame(8, struct.pack("!H", 4000)))
    with trio.fail_after(10):
        while server.metrics.value("pagi_websocket_connections_active"):
            await trio.sleep(0.01)
        go_on.set()
        while len(received) <= count:
            await trio.sleep(0.01)
    assert received == [*map(str, range(count)), 4000]
    assert server.metrics.value("pagi_websocket_messages_received_total") == count
