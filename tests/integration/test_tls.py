"""TLS over real sockets: RFC 8446, RFC 9112 section 9.8, RFC 7301 and the ASGI TLS extension 0.2."""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import struct
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
import trio
import trio.testing
import trio_websocket

from pagi_trio import testing
from pagi_trio.config import Config
from pagi_trio.config_groups import TLS
from pagi_trio.metrics.meter import NullMeter
from pagi_trio.nurseries.listeners import Listeners
from pagi_trio.nurseries.service import HANDSHAKES, Service
from pagi_trio.nurseries.sockets import open_listeners
from pagi_trio.nurseries.tls import create_ssl_context

from .conftest import hello, read_body, respond, until

trustme = pytest.importorskip("trustme")

pytestmark = pytest.mark.trio

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"

LEAVE = {"close_notify": trio.SSLStream.aclose, "cut": trio.aclose_forcefully}


async def echo(scope, receive, send):
    body, _complete = await read_body(receive)
    await respond(send, body)


# Requests


async def test_requests_come_one_after_another_and_pipelined_rfc9112_9_8(pagi_serve, tls, authority):
    async def app(scope, receive, send):
        assert scope["scheme"] == "https"
        await respond(send, scope["raw_path"])

    server = await pagi_serve(app, lifespan="off", tls=authority.files)
    assert server.url.startswith("https://127.0.0.1:")
    async with tls(server) as client:
        for _ in range(3):
            await client.send(GET)
            assert (await client.read_response())[2] == b"/"
        await client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(50)))
        for n in range(50):
            assert (await client.read_response())[2] == b"/%d" % n
        assert server.metrics.value("pagi_server_connections_by_state", state="idle") == 1
        assert server.metrics.value("pagi_server_connections_total") == 1


async def test_many_requests_in_one_record_are_all_answered_rfc8446_5_1(pagi_serve, tls, authority):
    server = await pagi_serve(hello, lifespan="off", tls=authority.files)
    # 16 KiB is the longest record; what is decrypted already never makes the socket readable again.
    count = 16384 // len(GET)
    async with tls(server) as client:
        await client.send(GET * count)
        for _ in range(count):
            assert (await client.read_response())[2] == b"hello"


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_large_body_goes_both_ways_whole(pagi_serve, tls, authority, framing):
    body = os.urandom(1 << 22)

    async def app(scope, receive, send):
        taken = hashlib.sha256()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            taken.update(message["body"])
            await send({"type": "http.response.body", "body": message["body"], "more_body": True})
        await send({"type": "http.response.body", "body": taken.digest()})

    head = b"POST / HTTP/1.1\r\nHost: x\r\n"
    if framing == "length":
        upload = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    else:
        size = 100_000
        chunks = [body[start : start + size] for start in range(0, len(body), size)]
        framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
        upload = head + b"Transfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"
    server = await pagi_serve(app, lifespan="off", tls=authority.files)
    async with tls(server) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.send, upload)
        assert (await client.read_response())[2] == body + hashlib.sha256(body).digest()


@pytest.mark.parametrize("part", [10_000, 65_536, 1_000_000, 24_000_000])
async def test_a_slow_reader_gets_every_byte(pagi_serve, tls, authority, part):
    total = 24_000_000
    body = os.urandom(part)

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(total // part):
            await send({"type": "http.response.body", "body": body, "more_body": True})
        done.set()
        await send({"type": "http.response.body"})

    done = trio.Event()
    server = await pagi_serve(app, lifespan="off", tls=authority.files)
    async with tls(server) as client:
        # Over 1.0 the body is all that follows the head.
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        await client.read_head()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not done.is_set(), "the kernel took everything, nothing is tested"
        assert await client.read_to_end() == body * (total // part)


# Event streams and WebSockets


async def test_an_event_stream_is_counted_exactly_before_tls(pagi_serve, tls, authority):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for _ in range(10):
            await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
        await send({"type": "http.response.body"})

    server = await pagi_serve(app, lifespan="off", tls=authority.files)
    async with tls(server) as client:
        await client.send(GET)
        assert (await client.read_response())[2] == b"data: x\n\n" * 10
        assert server.metrics.value("pagi_sse_events_sent_total") == 10
        assert server.metrics.value("pagi_sse_bytes_sent_total") == 90


# Enough that the kernel does not take it all; small events take it more room and the client more time.
@pytest.mark.parametrize(("size", "total"), [(1000, 12_000_000), (40_000, 24_000_000), (300_000, 24_000_000)])
async def test_a_slow_reader_of_an_event_stream_gets_every_event_and_all_are_counted(
    pagi_serve, tls, authority, size, total
):
    event = b"data: " + b"x" * size + b"\n\n"
    count = total // len(event)
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for _ in range(count):
            await send({"type": "http.response.body", "body": event, "more_body": True})
            sent.append(1)
        await send({"type": "http.response.body"})

    server = await pagi_serve(app, lifespan="off", tls=authority.files)
    async with tls(server) as client:
        await client.send(GET)
        await client.read_head()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(sent) < count, "the kernel took everything, nothing is tested"
        received = 0
        for _ in range(count):
            assert int(await client.read_until(b"\r\n"), 16) == len(event)
            assert await client.read_exactly(len(event) + 2) == event + b"\r\n"
            received += len(event)
            assert received <= server.metrics.value("pagi_sse_bytes_sent_total")
        assert await client.read_until(b"\r\n\r\n") == b"0"
    assert server.metrics.value("pagi_sse_events_sent_total") == count
    assert server.metrics.value("pagi_sse_bytes_sent_total") == count * len(event)


@pytest.mark.parametrize("leave", LEAVE)
async def test_a_client_that_leaves_an_event_stream_is_noticed(pagi_serve, tls, authority, leave):
    cancelled = trio.Event()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    server = await pagi_serve(app, lifespan="off", tls=authority.files)
    async with tls(server) as client:
        await client.send(GET)
        await client.read_head()
        await LEAVE[leave](client.stream)
        with trio.fail_after(10):
            await cancelled.wait()
    await until(lambda: server.metrics.value("pagi_sse_connections_active") == 0)


async def test_websocket_messages_go_both_ways_and_are_counted(pagi_serve, authority):
    async def app(scope, receive, send):
        assert scope["scheme"] == "wss"
        assert "tls" in scope["extensions"]
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})

    server = await pagi_serve(app, lifespan="off", tls=authority.files)
    assert server.ws_url.startswith("wss://")
    messages = ["", "é" * 10, b"\x00" * 70_000, os.urandom(300_000)]
    async with trio_websocket.open_websocket_url(server.ws_url, ssl_context=authority.client()) as ws:
        for message in messages:
            await ws.send_message(message)
            assert await ws.get_message() == message
        await ws.ping(b"there?")
        assert server.metrics.value("pagi_server_connections_by_state", state="websocket") == 1
    assert server.metrics.value("pagi_websocket_messages_received_total") == 4
    assert server.metrics.value("pagi_websocket_messages_sent_total") == 4
    assert server.metrics.value("pagi_websocket_bytes_sent_total") == 370_020
    await until(lambda: server.metrics.value("pagi_websocket_connections_active") == 0)


# The extension


async def test_the_extension_tells_of_certificate_version_and_cipher_asgi_tls_0_2(pagi_serve, tls, authority):
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["extensions"]["tls"])
        await respond(send)

    server = await pagi_serve(app, lifespan="off", tls=authority.files)
    older = authority.client()
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    older.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-GCM-SHA256")
    ciphers = []
    for context in (authority.client(), older):
        async with tls(server, context) as client:
            ciphers.append(client.stream.cipher()[0])
            await client.send(GET)
            await client.read_response()
    newest, oldest = seen
    assert newest["server_cert"] == authority.pem
    assert newest["tls_version"] == 0x0304
    assert ciphers[0].startswith("TLS_AES_")
    # RFC 8446 appendix B.4
    assert newest["cipher_suite"] in (0x1301, 0x1302)
    assert oldest["tls_version"] == 0x0303
    # RFC 5289 section 5
    assert oldest["cipher_suite"] in (0xC02B, 0xC02F)
    for extension in seen:
        assert extension["client_cert_chain"] == []
        assert extension["client_cert_name"] is None
        assert extension["client_cert_error"] is None


async def test_a_plain_connection_has_no_extension(pagi_serve, raw):
    async def app(scope, receive, send):
        await respond(send, b"tls" if "tls" in scope["extensions"] else b"plain")

    server = await pagi_serve(app, lifespan="off")
    async with raw(server) as client:
        await client.send(GET)
        assert (await client.read_response())[2] == b"plain"


@pytest.mark.parametrize("mode", ["required", "optional"])
async def test_a_client_certificate_is_told_to_the_app_rfc4514(pagi_serve, tls, authority, mode):
    async def app(scope, receive, send):
        extension = scope["extensions"]["tls"]
        assert extension["client_cert_error"] is None
        chain = "".join(extension["client_cert_chain"])
        await respond(send, chain.encode(), headers=[(b"name", (extension["client_cert_name"] or "-").encode())])

    server = await pagi_serve(app, lifespan="off", tls=authority.verifying(mode))
    certificate = authority.certificate()
    async with tls(server, authority.client(certificate=certificate)) as client:
        await client.send(GET)
        _, headers, body = await client.read_response()
        assert headers[b"name"] == rb"CN=Smith\, \"J\",OU=Unit,O=Example"
        assert ssl.PEM_cert_to_DER_cert(body.decode()) == ssl.PEM_cert_to_DER_cert(
            certificate.cert_chain_pems[0].bytes().decode()
        )
    if mode == "optional":
        async with tls(server) as client:
            await client.send(GET)
            _, headers, body = await client.read_response()
            assert (headers[b"name"], body) == (b"-", b"")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_without_a_required_certificate_nobody_is_served_rfc8446_4_4_2_4(pagi_serve, authority, version):
    server = await pagi_serve(hello, lifespan="off", tls=authority.verifying("required"))
    stranger = trustme.CA().issue_cert("me@example.org")
    for certificate in (None, stranger):
        context = authority.client(certificate=certificate)
        context.maximum_version = version
        with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
            # In TLS 1.3 the client has finished before the server looks at its certificate.
            async with await trio.open_ssl_over_tcp_stream("127.0.0.1", server.port, ssl_context=context) as stream:
                await stream.send_all(GET)
                assert await stream.receive_some(1) == b""
                raise trio.BrokenResourceError
    await until(lambda: server.metrics.value("pagi_server_connections_active") == 0)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("mode", ["required", "optional"])
async def test_a_certificate_that_cannot_be_verified_is_worse_than_none(pagi_serve, authority, mode, version):
    calls = []

    async def app(scope, receive, send):
        calls.append(scope["type"])
        await respond(send)

    server = await pagi_serve(app, lifespan="off", tls=authority.verifying(mode))
    last_year = datetime.now(UTC) - timedelta(days=365)
    next_year = datetime.now(UTC) + timedelta(days=365)
    for certificate in (
        trustme.CA().issue_cert("me@example.org"),
        authority.certificate(not_before=last_year - timedelta(days=1), not_after=last_year),
        authority.certificate(not_before=next_year, not_after=next_year + timedelta(days=1)),
    ):
        context = authority.client(certificate=certificate)
        context.maximum_version = version
        with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
            async with await trio.open_ssl_over_tcp_stream("127.0.0.1", server.port, ssl_context=context) as stream:
                await stream.send_all(GET)
                await stream.receive_some(1)
    await until(lambda: server.metrics.value("pagi_server_connections_active") == 0)
    assert calls == []


async def test_a_certificate_that_nobody_asks_for_is_not_told(pagi_serve, tls, authority):
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["extensions"]["tls"])
        await respond(send)

    server = await pagi_serve(app, lifespan="off", tls=authority.verifying("none"))
    async with tls(server, authority.client(certificate=authority.certificate())) as client:
        await client.send(GET)
        await client.read_response()
    [extension] = seen
    assert (extension["client_cert_chain"], extension["client_cert_name"], extension["client_cert_error"]) == (
        [],
        None,
        None,
    )


@pytest.mark.parametrize(
    ("offered", "chosen"), [(["h2", "http/1.1"], "http/1.1"), (["http/1.1"], "http/1.1"), ([], None)]
)
async def test_what_is_agreed_on_is_what_is_served_rfc7301(pagi_serve, tls, authority, offered, chosen):
    server = await pagi_serve(hello, lifespan="off", tls=authority.files)
    context = authority.client()
    if offered:
        context.set_alpn_protocols(offered)
    async with tls(server, context) as client:
        assert client.stream.selected_alpn_protocol() == chosen
        await client.send(GET)
        assert (await client.read_response())[2] == b"hello"


# Clients that do not speak it


@pytest.mark.parametrize(
    "first",
    [GET, b"\x00" * 5, b"\x16\x03\x01\xff\xff" + bytes(100), b"\xa5" * 1000, b"\x15\x03\x01\x00\x02\x02\x28"],
)
async def test_garbage_in_place_of_a_client_hello_hurts_nobody(pagi_serve, raw, tls, authority, caplog, first):
    server = await pagi_serve(hello, lifespan="off", tls=authority.files)
    async with tls(server) as good:
        async with raw(server) as bad:
            # The server may be done with it before it has sent everything.
            with suppress(trio.BrokenResourceError):
                await bad.send(first)
                assert b"HTTP" not in await bad.read_to_end()
        await good.send(GET)
        assert (await good.read_response())[2] == b"hello"
        await until(lambda: server.metrics.value("pagi_server_connections_active") == 1)
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


@pytest.mark.parametrize("first", [b"", b"\x16\x03\x01"], ids=["silence", "half"])
async def test_a_handshake_that_does_not_end_has_its_deadline(pagi_serve, raw, tls, authority, first):
    server = await pagi_serve(hello, lifespan="off", tls=authority.files, timeouts={"tls_handshake_s": 0.3})
    with trio.fail_after(10):
        async with raw(server) as bad:
            await bad.send(first)
            await until(lambda: server.metrics.value("pagi_server_connections_by_state", state="tls") == 1)
            async with tls(server) as good:
                await good.send(GET)
                assert (await good.read_response())[2] == b"hello"
            assert await bad.read_to_end() == b""
    await until(lambda: server.metrics.value("pagi_server_connections_active") == 0)


@pytest.mark.parametrize("first", [b"", b"\x16\x03\x01"], ids=["silence", "half"])
async def test_a_handshake_that_waits_costs_nothing(pagi_serve, raw, authority, first):
    server = await pagi_serve(hello, lifespan="off", tls=authority.files)
    async with raw(server) as client:
        await client.send(first)
        await until(lambda: server.metrics.value("pagi_server_connections_by_state", state="tls") == 1)
        # Never comes where a task goes round and round.
        with trio.fail_after(2):
            await trio.testing.wait_all_tasks_blocked()


async def test_a_client_that_resets_before_it_is_accepted_hurts_nobody(pagi_serve, tls, authority, caplog):
    server = await pagi_serve(hello, lifespan="off", tls=authority.files)
    # All before the server's next turn, since nothing here yields.
    for first in (b"", b"x" * 10, GET):
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.sendall(first)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    async with tls(server) as client:
        await client.send(GET)
        assert (await client.read_response())[2] == b"hello"
        await until(lambda: server.metrics.value("pagi_server_connections_active") == 1)
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


# The end


async def test_the_server_ends_with_close_notify_rfc8446_6_1(pagi_serve, tls, authority):
    server = await pagi_serve(hello, lifespan="off", tls=authority.files)
    async with tls(server, https_compatible=False) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await client.read_response())[2] == b"hello"
        # Without a close_notify this would be a BrokenResourceError.
        assert await client.read_to_end() == b""


async def test_a_refusal_arrives_whole_and_with_close_notify(pagi_serve, tls, authority):
    server = await pagi_serve(hello, lifespan="off", tls=authority.files)
    async with tls(server, https_compatible=False) as client:
        await client.send(b"BROKEN\r\n\r\n" + bytes(100_000))
        assert (await client.read_response())[0] == 400
        assert await client.read_to_end() == b""


@pytest.mark.parametrize("leave", LEAVE)
async def test_a_client_that_leaves_between_requests_is_let_go(pagi_serve, tls, authority, leave):
    server = await pagi_serve(hello, lifespan="off", tls=authority.files)
    async with tls(server) as client:
        await client.send(GET)
        await client.read_response()
        await LEAVE[leave](client.stream)
        await until(lambda: server.metrics.value("pagi_server_connections_active") == 0)


async def test_the_server_stops_with_connections_open_in_every_state(authority, tls, raw):
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            async with testing.serve(hello, lifespan="off", tls=authority.files) as server:
                idle = await nursery.start(_hold, tls(server, https_compatible=False))
                silent = await nursery.start(_hold, raw(server))
                await idle.send(GET)
                assert (await idle.read_response())[2] == b"hello"
                await until(lambda: server.metrics.value("pagi_server_connections_active") == 2)
            assert await idle.read_to_end() == b""
            assert await silent.read_to_end() == b""
            assert server.metrics.value("pagi_server_connections_active") == 0
            nursery.cancel_scope.cancel()


async def _hold(connecting, task_status):
    async with connecting as client:
        task_status.started(client)
        await trio.sleep_forever()


async def test_a_body_that_ends_with_the_connection_has_no_close_notify_where_its_app_fails_rfc9112_9_8(
    pagi_serve, authority, tls, caplog
):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError("in the middle")

    server = await pagi_serve(app, lifespan="off", tls=authority.files, raise_app_exceptions=False)
    async with tls(server) as client:
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(trio.BrokenResourceError):
            await client.read_to_end()


async def test_no_more_connections_are_accepted_while_handshakes_wait_for_their_turn(authority):
    """Each of those takes memory: a flood that is accepted faster than it is answered took 74 MiB in three seconds."""
    config = Config(tls=TLS(**authority.files))
    service = Service(hello, config, NullMeter(), state={}, extensions={}, interrupt=lambda: None)
    listeners = open_listeners(["127.0.0.1:0"], 16)
    served = Listeners(service, listeners, create_ssl_context(config.tls))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(served.run)
        await served.accepting.wait()
        for _ in range(HANDSHAKES):
            await service.handshakes.acquire()
        stream = await trio.open_tcp_stream(*listeners[0].sock.getsockname())
        async with stream:
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert service.admitted == 0
            assert service.handshakes.statistics().tasks_waiting == 1
            service.handshakes.release()
            await until(lambda: service.admitted == 1)
        served.stop()
        await served.closed.wait()
