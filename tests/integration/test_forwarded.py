"""Who the client is behind proxies, over every kind of socket: only whoever is trusted is believed."""

from __future__ import annotations

import json
import socket
import ssl
from contextlib import asynccontextmanager

import pytest
import trio
import trio_websocket
import trustme
from hypercorn.middleware import ProxyFixMiddleware

from pagi_trio import testing

from .conftest import RawClient, respond
from .test_access_log import lines

pytestmark = pytest.mark.trio

X_FORWARDED = b"X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n"
RFC7239 = b'Forwarded: for="[2001:db8::7]:4711";proto=https\r\n'


async def tell(scope, receive, send):
    """Answer with what the scope says of the client."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": json.dumps([scope["client"], scope["scheme"]])})
        await receive()
        return
    if scope["path"] == "/fails":
        raise RuntimeError("as it should")
    names = [name.decode() for name, _ in scope["headers"] if b"forwarded" in name]
    await respond(send, json.dumps([scope["client"], scope["scheme"], names]).encode())


def get(fields=b"", path=b"/", version=b"1.1"):
    return b"GET " + path + b" HTTP/" + version + b"\r\nHost: x\r\n" + fields + b"\r\n"


async def ask(client, fields=b"", path=b"/"):
    """Send a request; return what the application saw: client, scheme and the names of such fields."""
    await client.send(get(fields, path))
    status, _, body = await client.read_response()
    assert status == 200
    seen, scheme, names = json.loads(body)
    return seen and tuple(seen), scheme, names


@asynccontextmanager
async def connected(server, host="127.0.0.1"):
    with trio.fail_after(5):
        async with await trio.open_tcp_stream(host, server.port) as stream:
            yield RawClient(stream), stream.socket.getsockname()[:2]


@asynccontextmanager
async def connected_unix(path):
    with trio.fail_after(5):
        async with await trio.open_unix_socket(str(path)) as stream:
            yield RawClient(stream)


@pytest.mark.parametrize(
    ("host", "trusted"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "10.0.0.0/8, 127.0.0.0/8"),
        ("127.0.0.1", "*"),
        ("::1", "::1"),
        ("::1", "unix,::/64"),
    ],
)
async def test_a_trusted_peer_is_believed(pagi_serve, host, trusted):
    bind = f"[{host}]:0" if ":" in host else f"{host}:0"
    server = await pagi_serve(tell, lifespan="off", bind=(bind,), forwarded={"trusted": trusted})
    async with connected(server, host) as (client, peer):
        names = ["x-forwarded-for", "x-forwarded-proto"]
        assert await ask(client, X_FORWARDED) == (("192.0.2.7", 0), "https", names)
        # Each request for itself.
        assert await ask(client) == (peer, "http", [])
        assert await ask(client, b"X-Forwarded-Proto: https\r\n") == (peer, "https", names[1:])
        assert await ask(client, b"X-Forwarded-For: 192.0.2.8:9\r\n") == (("192.0.2.8", 9), "http", names[:1])
        assert await ask(client, RFC7239) == (peer, "http", ["forwarded"])


@pytest.mark.parametrize(
    ("host", "trusted"),
    [
        ("127.0.0.1", []),
        ("127.0.0.1", "127.0.0.2, 10.0.0.0/8, unix, ::/0"),
        ("::1", "0.0.0.0/0, unix, fe80::/10"),
    ],
)
async def test_anybody_else_is_not_believed_and_the_fields_stay(pagi_serve, host, trusted):
    bind = f"[{host}]:0" if ":" in host else f"{host}:0"
    server = await pagi_serve(tell, lifespan="off", bind=(bind,), forwarded={"trusted": trusted})
    async with connected(server, host) as (client, peer):
        seen = ["x-forwarded-for", "x-forwarded-proto", "forwarded"]
        assert await ask(client, X_FORWARDED + RFC7239) == (peer, "http", seen)


async def test_an_ipv4_peer_of_a_socket_of_both_families_counts_as_ipv4(pagi_serve):
    """RFC 4291 section 2.5.5.2: such a socket shows it as ::ffff:127.0.0.1."""
    sock = socket.socket(socket.AF_INET6)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(("::ffff:127.0.0.1", 0))
    sock.listen()
    # The server closes it.
    bind = (f"fd://{sock.detach()}",)
    server = await pagi_serve(tell, lifespan="off", bind=bind, forwarded={"trusted": "127.0.0.0/8"})
    async with connected(server) as (client, (host, port)):
        assert (await ask(client))[0] == (f"::ffff:{host}", port)
        assert (await ask(client, X_FORWARDED))[:2] == (("192.0.2.7", 0), "https")


@pytest.mark.parametrize(("trusted", "believed"), [("unix", True), ("*", True), ("127.0.0.1,::1", False)])
async def test_a_unix_socket_is_trusted_by_name(pagi_serve, tmp_path, trusted, believed):
    path = tmp_path / "app.sock"
    await pagi_serve(tell, lifespan="off", bind=(f"unix:{path}",), forwarded={"trusted": trusted})
    async with connected_unix(path) as client:
        assert (await ask(client, X_FORWARDED))[:2] == ((("192.0.2.7", 0), "https") if believed else (None, "http"))
        assert (await ask(client))[:2] == (None, "http")


async def test_rfc7239_is_believed_where_the_proxies_set_it(pagi_serve):
    settings = {"trusted": "127.0.0.1", "headers": "forwarded"}
    server = await pagi_serve(tell, lifespan="off", forwarded=settings)
    async with connected(server) as (client, peer):
        assert (await ask(client, X_FORWARDED + RFC7239))[:2] == (("2001:db8::7", 4711), "https")
        assert (await ask(client, X_FORWARDED))[:2] == (peer, "http")


@pytest.mark.parametrize(("fields", "scheme"), [({}, "ws"), ({"X-Forwarded-Proto": "https"}, "wss")])
async def test_a_websocket_has_the_schemes_of_websockets(pagi_serve, fields, scheme):
    server = await pagi_serve(tell, lifespan="off", forwarded={"trusted": "127.0.0.1"})
    headers = [(name, value) for name, value in {"X-Forwarded-For": "192.0.2.7", **fields}.items()]
    with trio.fail_after(5):
        async with trio_websocket.open_websocket_url(server.ws_url, extra_headers=headers) as ws:
            assert json.loads(await ws.get_message()) == [["192.0.2.7", 0], scheme]


async def test_over_tls_the_proxy_may_say_http(pagi_serve, tmp_path):
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    files = {"certfile": str(tmp_path / "cert.pem"), "keyfile": str(tmp_path / "key.pem")}
    certificate.cert_chain_pems[0].write_to_path(files["certfile"])
    certificate.private_key_pem.write_to_path(files["keyfile"])
    context = ssl.create_default_context()
    authority.configure_trust(context)
    server = await pagi_serve(tell, lifespan="off", tls=files, forwarded={"trusted": "127.0.0.1"})
    with trio.fail_after(5):
        async with await trio.open_ssl_over_tcp_stream(
            "127.0.0.1", server.port, ssl_context=context, https_compatible=True
        ) as stream:
            client = RawClient(stream)
            assert (await ask(client, b"X-Forwarded-Proto: http\r\n"))[1] == "http"
            assert (await ask(client))[1] == "https"


# Logs


async def test_the_access_log_shows_the_client_and_the_peer_of_what_is_no_request(tmp_path):
    log = tmp_path / "access.log"
    settings = {"access_log": str(log), "forwarded": {"trusted": "127.0.0.1"}, "limits": {"body_bytes": 3}}
    async with testing.serve(tell, lifespan="off", **settings) as server, connected(server) as (client, _):
        await ask(client, X_FORWARDED)
        await ask(client)
        await client.send(get(b"X-Forwarded-For: 192.0.2.8, 2001:db8::1\r\n") + b"GET / broken\r\n\r\n")
        await client.read_response()
        assert (await client.read_response())[0] == 400
        await client.read_to_end()
    assert [host for host, *_ in lines(log)] == ["192.0.2.7", "127.0.0.1", "2001:db8::1", "127.0.0.1"]


@pytest.mark.parametrize(
    ("fields", "status"),
    [(b"Content-Length: 4\r\n", 413), (b"Connection: upgrade\r\nUpgrade: websocket\r\n", 400)],
    ids=["body", "handshake"],
)
async def test_the_access_log_shows_the_client_of_a_request_that_the_server_refuses(tmp_path, fields, status):
    log = tmp_path / "access.log"
    settings = {"access_log": str(log), "forwarded": {"trusted": "127.0.0.1"}, "limits": {"body_bytes": 3}}
    async with testing.serve(tell, lifespan="off", **settings) as server, connected(server) as (client, _):
        await ask(client)
        await client.send(get(X_FORWARDED + fields))
        assert (await client.read_response())[0] == status
    assert [host for host, *_ in lines(log)] == ["127.0.0.1", "192.0.2.7"]


async def test_errors_are_logged_with_the_peer(pagi_serve, caplog):
    server = await pagi_serve(tell, lifespan="off", forwarded={"trusted": "127.0.0.1"}, raise_app_exceptions=False)
    async with connected(server) as (client, (host, port)):
        await client.send(get(X_FORWARDED, b"/fails"))
        assert (await client.read_response())[0] == 500
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.getMessage() == f"application failed in http GET /fails, connection from {host}:{port}"


async def test_names_that_only_look_like_it_are_not_believed(pagi_serve):
    server = await pagi_serve(tell, lifespan="off", forwarded={"trusted": "*"})
    async with connected(server) as (client, peer):
        for name in (b"X_Forwarded_For", b"X-Forwarded-For-", b"X-Real-IP", b"Client-IP", b"X-Forwarded"):
            assert (await ask(client, name + b": 192.0.2.7\r\n"))[0] == peer
        assert (await ask(client, b"x-fOrWaRdEd-fOr: 192.0.2.7\r\n"))[0] == ("192.0.2.7", 0)


async def test_the_host_stays_what_the_client_asked_for(pagi_serve):
    async def app(scope, receive, send):
        await respond(send, dict(scope["headers"])[b"host"])

    server = await pagi_serve(app, lifespan="off", forwarded={"trusted": "*"})
    async with connected(server) as (client, _):
        await client.send(get(b"X-Forwarded-Host: evil.example\r\n"))
        assert (await client.read_response())[2] == b"x"


async def test_a_middleware_that_copies_the_scope_deeply_works_and_has_the_last_word(pagi_serve):
    async def app(scope, receive, send):
        assert scope["extensions"]["pagi.metrics"].value("pagi_server_connections_active") == 1
        await tell(scope, receive, send)

    server = await pagi_serve(ProxyFixMiddleware(app), lifespan="off", forwarded={"trusted": "127.0.0.1"})
    async with connected(server) as (client, _):
        fields = b"X-Forwarded-For: 192.0.2.8, 10.0.0.1\r\nX-Forwarded-Proto: https\r\n"
        assert (await ask(client, fields))[:2] == (("10.0.0.1", 0), "https")
