"""Behind nginx, by the configuration that the documentation shows."""

from __future__ import annotations

import json
import os
import shutil
import socket
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import pytest
import trio
import trio_websocket

from .command import running
from .conftest import RawClient, respond

pytestmark = [pytest.mark.trio, pytest.mark.outside]

DOCS = Path(__file__).parents[2] / "docs"
CONF = DOCS / "deploy" / "nginx.conf"
METRICS_CONF = DOCS / "examples" / "metrics" / "nginx.conf"

# Started by root, its worker would become somebody who may not enter the directory of the test.
WHOLE = """
daemon off;
user root;
worker_processes 1;
pid nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    {included}
}}
"""


@pytest.fixture
def nginx(tmp_path):
    """``with nginx(path) as port``: nginx passes on to a unix socket; it listens from the start.

    More locations may be given, which come first.
    """
    # Not in everybody's path.
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program is not None, "nginx is not installed"

    @contextmanager
    def start(path, locations=""):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            port = listener.getsockname()[1]
            text = CONF.read_text(encoding="utf-8")
            for there, here in (("unix:/run/app.sock", f"unix:{path}"), ("listen 80;", f"listen 127.0.0.1:{port};")):
                assert there in text
                text = text.replace(there, here)
            text = text.replace("    location / {", f"{locations}\n    location / {{")
            file = tmp_path / "nginx.conf"
            file.write_text(WHOLE.format(included=text))
            fd = listener.fileno()
            # As it hands its sockets to a new version of itself: there is no port 0 in its configuration.
            with running(program, "-p", tmp_path, "-c", file, pass_fds=(fd,), environ={"NGINX": f"{fd};"}):
                yield port

    return start


@pytest.fixture
def behind(pagi_serve, nginx, tmp_path):
    """``async with behind(app) as port``: the application behind nginx; everything in it has ten seconds."""

    @asynccontextmanager
    async def start(app):
        path = tmp_path / "app.sock"
        await pagi_serve(app, lifespan="off", bind=(f"unix:{path}",), forwarded={"trusted": "unix"})
        with trio.fail_after(10), nginx(path) as port:
            yield port

    return start


async def test_the_client_is_who_connects_to_nginx_whatever_it_says(behind):
    async def app(scope, receive, send):
        await respond(send, json.dumps([scope["client"], scope["scheme"]]).encode())

    async with behind(app) as port, httpx.AsyncClient(trust_env=False) as client:
        for fields in (
            [],
            [("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-Proto", "https")],
            [("X-Forwarded-For", "192.0.2.7, _"), ("X-Forwarded-For", "unknown"), ("Forwarded", "for=192.0.2.8")],
            [("X-Forwarded-For", "," * 1000), ("X_Forwarded_For", "192.0.2.7")],
        ):
            response = await client.get(f"http://127.0.0.1:{port}/", headers=fields)
            assert (response.status_code, response.json()) == (200, [["127.0.0.1", 0], "http"])


async def test_events_arrive_while_the_stream_goes_on(behind):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b"data: one\n\n", "more_body": True})
        await arrived.wait()
        await send({"type": "http.response.body", "body": b"data: two\n\n"})

    arrived = trio.Event()
    async with behind(app) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        client = RawClient(stream)
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.read_head())[0] == 200
        await client.read_until(b"data: one\n\n")
        arrived.set()
        await client.read_until(b"data: two\n\n")


async def test_websockets_come_through_with_the_client(behind):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": f"{scope['client']} {scope['scheme']} {message['text']}"})

    headers = [("X-Forwarded-For", "192.0.2.7")]
    async with (
        behind(app) as port,
        trio_websocket.open_websocket_url(f"ws://127.0.0.1:{port}/", extra_headers=headers) as ws,
    ):
        for message in ("one", "two"):
            await ws.send_message(message)
            assert await ws.get_message() == f"('127.0.0.1', 0) ws {message}"


async def test_the_metrics_page_is_for_whom_the_configuration_lets_in_and_nobody_else(pagi_serve, nginx, tmp_path):
    pytest.importorskip("prometheus_client")

    async def app(scope, receive, send):
        await respond(send, b"the application")

    path = tmp_path / "app.sock"
    server = await pagi_serve(app, lifespan="off", bind=(f"unix:{path}",), metrics={"bind": "127.0.0.1:0"})
    text = METRICS_CONF.read_text(encoding="utf-8")
    [page] = server.handle.metrics_urls
    assert "//127.0.0.1:9100;" in text
    text = text.replace("//127.0.0.1:9100;", f"//{page.removeprefix('http://')};")
    assert "allow 10.0.0.0/24;" in text
    for let_in, status in (("10.0.0.0/24", 403), ("127.0.0.0/8", 200)):
        with trio.fail_after(10), nginx(path, text.replace("10.0.0.0/24", let_in)) as port:
            async with httpx.AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{port}") as client:
                answer = await client.get("/metrics")
                assert answer.status_code == status
                assert ("pagi_server_info" in answer.text) is (status == 200)
                assert (await client.get("/metrics?x")).status_code == status
                assert (await client.get("/")).text == "the application"
