"""The server inside a program: what `serve` gives, what it leaves behind, and where Ctrl-C goes."""

from __future__ import annotations

import gc
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import hypercorn.config
import pytest
import trio
import trio.testing

from pagi_trio import Config, serve
from pagi_trio.errors import BindError, ConfigError
from tests.integration.embedded import ServedApp, serving, start_server

from .conftest import hello, respond
from .test_command_line import get, read_to_end, request, running, wait_until_refused
from .test_websocket import open_websocket

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
ANYWHERE = Config(bind=("127.0.0.1:0",))


class Recorder:
    """An application that notes its lifespan, and serves one path that never ends."""

    def __init__(self):
        self.events = []

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            for phase in ("startup", "shutdown"):
                self.events.append((await receive())["type"])
                await send({"type": f"lifespan.{phase}.complete"})
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await self._never_end("websocket")
        elif scope["path"] == "/forever":
            await self._never_end("http")
        else:
            await respond(send, b"hello")

    async def _never_end(self, what):
        try:
            await trio.sleep_forever()
        finally:
            self.events.append(f"{what} ended")


def open_files():
    return sorted(one.name for one in Path("/proc/self/fd").iterdir())


def handlers():
    return [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)]


@pytest.fixture
def _without_gc():
    """Files are to be closed, not found by the garbage collector."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


# The handle


@pytest.mark.trio
async def test_the_handle_is_a_sequence_of_urls_with_metrics_and_state(tmp_path):
    async def app(scope, receive, send):
        await receive()
        scope["state"]["pool"] = "open"
        await send({"type": "lifespan.startup.complete"})
        await receive()

    path = f"unix:{tmp_path}/app.sock"
    config = Config().replace(bind=["127.0.0.1:0", path], metrics={"bind": "127.0.0.1:0"})
    async with trio.open_nursery() as nursery:
        handle = await nursery.start(serve, app, config)
        assert isinstance(handle, Sequence)
        assert len(handle) == 2
        tcp, unix = handle
        assert tcp.startswith("http://127.0.0.1:")
        assert unix == path
        assert handle[-1:] == (unix,)
        assert tcp in repr(handle)
        [page] = handle.metrics_urls
        assert page.startswith("http://127.0.0.1:")
        assert handle.state == {"pool": "open"}
        assert handle.metrics.value("pagi_server_workers_active") == 1
        handle.shutdown()
    assert handle.metrics.value("pagi_server_workers_active") == 0


@pytest.mark.trio
async def test_without_metrics_the_handle_and_the_scopes_have_none():
    scopes = []

    async def app(scope, receive, send):
        scopes.append(scope)

    async with serving(app, metrics={"enabled": False}) as server:
        assert server.handle.metrics is None
    [scope] = scopes
    assert scope["extensions"]["pagi.metrics"] is None


@pytest.mark.trio
async def test_connections_are_accepted_when_start_returns(raw):
    async with trio.open_nursery() as nursery:
        server = await start_server(nursery, hello, {})
        async with raw(server) as client:
            await client.send(GET)
            assert (await client.read_response())[2] == b"hello"
        nursery.cancel_scope.cancel()


# The end


@pytest.mark.trio
async def test_cancelling_closes_at_once_and_still_runs_lifespan_shutdown(autojump_clock, raw):
    app = Recorder()
    async with trio.open_nursery() as outer:
        async with trio.open_nursery() as nursery:
            server = await start_server(nursery, app, {})
            clients = [await outer.start(_hold, raw, server, kind) for kind in ("idle", "half", "http", "websocket")]
            began = trio.current_time()
            nursery.cancel_scope.cancel()
        assert trio.current_time() == began
        for ended in clients:
            await ended.wait()
    assert app.events[0] == "lifespan.startup"
    assert sorted(app.events[1:-1]) == ["http ended", "websocket ended"]
    assert app.events[-1] == "lifespan.shutdown"
    assert server.metrics.value("pagi_server_connections_active") == 0
    assert server.metrics.value("pagi_websocket_connections_active") == 0


async def _hold(raw, server, kind, task_status):
    """Be a client that waits for the server to close; starts with an event for when it has."""
    ended = trio.Event()
    async with raw(server) as client:
        if kind == "websocket":
            await open_websocket(client)
        elif kind != "idle":
            await client.send(b"GET /forever HTTP/1.1\r\n" + (b"Host: x\r\n\r\n" if kind == "http" else b""))
        await trio.testing.wait_all_tasks_blocked()
        task_status.started(ended)
        await client.read_to_end()
    ended.set()


@pytest.mark.trio
async def test_the_lifespan_shutdown_of_a_cancelled_server_has_its_timeout(autojump_clock):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        server = await start_server(nursery, app, {"timeouts": {"shutdown_s": 5}})
        began = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began == pytest.approx(5, abs=1)
    assert server.metrics.value("pagi_server_lifespan_shutdown_seconds") == pytest.approx(5)


@pytest.mark.trio
@pytest.mark.usefixtures("_without_gc")
@pytest.mark.parametrize("way", ["shutdown", "abort", "cancel"])
async def test_nothing_is_left_behind(tmp_path, raw, way):
    path = tmp_path / "app.sock"
    signals = handlers()
    config = {
        "bind": (f"unix:{path}", "127.0.0.1:0"),
        "metrics": {"bind": f"unix:{tmp_path}/page.sock"},
        "access_log": str(tmp_path / "access.log"),
    }

    async def live():
        """Run a server to its end."""
        async with trio.open_nursery() as nursery:
            server = await start_server(nursery, Recorder(), config)
            server.url = server.handle[1]
            async with raw(server) as idle, raw(server) as busy:
                await idle.send(GET)
                await idle.read_response()
                await open_websocket(busy)
                assert handlers() == signals
                if way == "cancel":
                    nursery.cancel_scope.cancel()
                else:
                    getattr(server.handle, way)()
                    await idle.read_to_end()
                    if way == "shutdown":
                        server.handle.abort()

    await live()
    files = len(open_files())
    tasks = trio.lowlevel.current_statistics().tasks_living
    await live()
    assert len(open_files()) == files
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert not path.exists()
    assert not (tmp_path / "page.sock").exists()
    assert handlers() == signals


@pytest.mark.trio
@pytest.mark.usefixtures("_without_gc")
async def test_a_failed_start_is_that_error_and_leaves_nothing(tmp_path):
    path = tmp_path / "app.sock"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = "{}:{}".format(*taken.getsockname())
        before = open_files()
        for config in (
            Config(bind=(f"unix:{path}", busy)),
            Config(bind=(f"unix:{path}",)).replace(metrics={"bind": busy}),
        ):
            async with trio.open_nursery() as nursery:
                with pytest.raises(BindError, match=f"cannot listen on {busy}: address in use"):
                    await nursery.start(serve, hello, config)
        with pytest.raises(ConfigError):
            await serve(hello, Config().replace(tls={"certfile": "nothing.pem", "keyfile": "nothing.pem"}))
        assert open_files() == before
    assert not path.exists()


@pytest.mark.trio
@pytest.mark.usefixtures("_without_gc")
async def test_a_bad_metrics_address_does_not_leave_the_access_log_open(tmp_path):
    config = Config(access_log=str(tmp_path / "access.log")).replace(
        bind=["127.0.0.1:0"], metrics={"bind": "unix:/nothing/here"}
    )
    before = open_files()
    with pytest.raises(BindError):
        await serve(hello, config)
    assert open_files() == before


@pytest.mark.trio
async def test_a_cancelled_startup_is_cancelled_in_the_application_too(autojump_clock):
    ended = []

    async def app(scope, receive, send):
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    began = trio.current_time()
    with trio.move_on_after(1):
        await serve(app, ANYWHERE)
    assert ended == [began + 1] == [trio.current_time()]


@pytest.mark.trio
async def test_a_shutdown_trigger_is_called_once_and_stops_gracefully():
    calls = []
    app = Recorder()
    go = trio.Event()

    async def trigger():
        calls.append(1)
        await go.wait()

    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, app, ANYWHERE, shutdown_trigger=trigger))
        assert app.events == ["lifespan.startup"]
        go.set()
    assert calls == [1]
    assert app.events == ["lifespan.startup", "lifespan.shutdown"]


@pytest.mark.trio
async def test_a_shutdown_trigger_that_raises_ends_the_server_with_its_error():
    app = Recorder()

    async def trigger():
        await trio.testing.wait_all_tasks_blocked()
        raise ValueError("the trigger broke")

    with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="the trigger broke"), flatten_subgroups=True):
        await serve(app, ANYWHERE, shutdown_trigger=trigger)
    assert app.events == ["lifespan.startup", "lifespan.shutdown"]


# More than one


@pytest.mark.trio
async def test_two_servers_in_one_process_do_not_see_each_other(raw):
    seen = []

    def application(name):
        async def app(scope, receive, send):
            if scope["type"] == "lifespan":
                await receive()
                scope["state"]["name"] = name
                await send({"type": "lifespan.startup.complete"})
                await receive()
                return
            seen.append((name, scope["state"]["name"], scope["extensions"]["pagi.metrics"]))
            await respond(send, name)

        return app

    async with serving(application(b"one")) as one, serving(application(b"two")) as two:
        for server, count, name in ((one, 1, b"one"), (two, 3, b"two")):
            for _ in range(count):
                async with raw(server) as client:
                    await client.send(GET)
                    assert (await client.read_response())[2] == name
        one.handle.shutdown()
        await trio.testing.wait_all_tasks_blocked()
        async with raw(two) as client:
            await client.send(GET)
            assert (await client.read_response())[2] == b"two"
    assert one.metrics.value("pagi_server_connections_total") == 1
    assert two.metrics.value("pagi_server_connections_total") == 4
    assert {entry[:2] for entry in seen} == {(b"one", b"one"), (b"two", b"two")}
    assert all(metrics is (one if name == b"one" else two).metrics for name, _, metrics in seen)


# hypercorn's configuration


@pytest.mark.trio
async def test_a_hypercorn_config_is_taken_and_what_has_no_effect_is_named(raw, caplog):
    theirs = hypercorn.config.Config()
    theirs.bind = ["127.0.0.1:0"]
    theirs.quic_bind = ["127.0.0.1:0"]
    theirs.debug = True
    async with trio.open_nursery() as nursery:
        server = ServedApp(await nursery.start(serve, hello, theirs))
        async with raw(server) as client:
            await client.send(GET)
            assert (await client.read_response())[2] == b"hello"
        server.handle.shutdown()
    [warning] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.endswith(": debug, quic_bind")


@pytest.mark.trio
@pytest.mark.parametrize(
    "theirs", [{"workers": 3}, {"max_requests": 10}, {"use_reloader": True}], ids=["workers", "max_requests", "reload"]
)
async def test_what_only_the_command_can_do_is_refused_by_its_name(theirs):
    theirs = hypercorn.config.Config.from_mapping(bind=["127.0.0.1:0"], **theirs)
    with pytest.raises(ConfigError, match="pagi-trio --workers N module:app"):
        await serve(hello, theirs)


@pytest.mark.trio
async def test_a_hypercorn_config_with_nothing_unused_warns_of_nothing(caplog):
    theirs = hypercorn.config.Config.from_mapping(bind=["127.0.0.1:0"], graceful_timeout=1, worker_class="trio")
    async with trio.open_nursery() as nursery:
        (await nursery.start(serve, hello, theirs)).shutdown()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.trio
@pytest.mark.parametrize("config", [{}, "server.toml", Config])
async def test_a_config_that_is_none_is_refused_by_what_it_is(config):
    with pytest.raises(ConfigError) as caught:
        await serve(hello, config)
    assert str(caught.value) == f"config must be a Config, of pagi_trio or of hypercorn, not {config!r}"


# Ctrl-C, in a process of its own, which takes longer than a quarter second

PROGRAM = """
import logging, signal, sys, trio
from pagi_trio import Config, serve

# Ctrl-C is ignored in what nohup starts, and in its children.
signal.signal(signal.SIGINT, signal.default_int_handler)
logging.basicConfig(level="INFO", format="%(message)s")
config = Config(bind=("127.0.0.1:0",))

def say(what):
    print(what, file=sys.stderr, flush=True)

def spin():
    # A loop of Python that never lets Trio run: only Ctrl-C gets it out.
    say("app: spinning")
    while True:
        pass

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        if "startup" in sys.argv:
            spin()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if "shutdown" in sys.argv:
            spin()
        say("app: shutdown")
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        spin()
    if scope["path"] == "/spin":
        spin()
    if scope["path"] == "/child":
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
    if scope["path"] == "/gated":
        say("app: gated")
        await trio.to_thread.run_sync(sys.stdin.readline)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})

async def child():
    await trio.lowlevel.checkpoint()
    spin()

async def embedded():
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve, app, config)
            await trio.sleep_forever()
    except* KeyboardInterrupt:
        say("program: interrupted")

"""


@pytest.fixture
def program(tmp_path):
    """``with program(main, *arguments)``: a program that ends with the line given."""

    def start(main, *arguments):
        file = tmp_path / "program.py"
        file.write_text(PROGRAM + main)
        return running(sys.executable, str(file), *arguments)

    return start


def assert_clean(program):
    """Check that the program ended by itself, and without a traceback."""
    assert program.finish() == (0, "")
    assert not [line for line in program.errors if "Traceback" in line or "Warning" in line]


def test_ctrl_c_ends_trio_run_gracefully(program):
    with program("trio.run(serve, app, config)") as running_program:
        url = running_program.wait_for_url()
        with request(url, "/gated") as busy:
            running_program.wait_for("app: gated")
            # Once another request is answered, the application waits, and Ctrl-C cannot land in it.
            assert get(url) == "hello"
            running_program.send_signal(signal.SIGINT)
            running_program.send_line()
            assert read_to_end(busy).endswith(b"hello")
        assert_clean(running_program)
    assert "app: shutdown" in running_program.errors


@pytest.mark.parametrize("path", ["/spin", "/child"])
def test_ctrl_c_that_lands_in_a_request_ends_trio_run_gracefully(program, path):
    with program("trio.run(serve, app, config)") as running_program:
        url = running_program.wait_for_url()
        with request(url, path) as busy:
            running_program.wait_for("app: spinning")
            running_program.send_signal(signal.SIGINT)
            assert read_to_end(busy).startswith(b"HTTP/1.1 500 ")
        assert_clean(running_program)
    assert running_program.errors[-2] == "app: shutdown"


HANDSHAKE = (
    f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\n"
)


def test_ctrl_c_that_lands_in_a_websocket_ends_trio_run_gracefully(program):
    with program("trio.run(serve, app, config)") as running_program:
        with request(running_program.wait_for_url(), "/", HANDSHAKE) as busy:
            running_program.wait_for("app: spinning")
            running_program.send_signal(signal.SIGINT)
            # Up to the Close frame; a client that has gone is not waited for.
            answer = b""
            while b"\r\n\r\n\x88" not in answer:
                answer += (received := busy.recv(4096))
                assert received
        assert_clean(running_program)
    assert "app: shutdown" in running_program.errors


def test_ctrl_c_that_lands_in_the_startup_ends_trio_run(program):
    with program("trio.run(serve, app, config)", "startup") as running_program:
        running_program.wait_for("app: spinning")
        running_program.send_signal(signal.SIGINT)
        assert_clean(running_program)
    assert not any("serving on" in line for line in running_program.errors)


def test_a_second_ctrl_c_that_lands_in_the_shutdown_ends_trio_run(program):
    with program("trio.run(serve, app, config)", "shutdown") as running_program:
        running_program.wait_for_url()
        running_program.send_signal(signal.SIGINT)
        running_program.wait_for("app: spinning")
        running_program.send_signal(signal.SIGINT)
        assert_clean(running_program)
    assert running_program.errors[-1] == "the application failed to shut down: KeyboardInterrupt: "


def test_a_second_ctrl_c_does_not_wait(program):
    with program("trio.run(serve, app, config.replace(timeouts={'graceful_s': 1000}))") as running_program:
        url = running_program.wait_for_url()
        with request(url, "/gated") as busy:
            running_program.wait_for("app: gated")
            assert get(url) == "hello"
            running_program.send_signal(signal.SIGINT)
            wait_until_refused(busy.getpeername())
            running_program.send_signal(signal.SIGINT)
            # The application waits in a thread, which cannot be cancelled.
            running_program.send_line()
            read_to_end(busy)
        assert_clean(running_program)
    assert "app: shutdown" in running_program.errors


def test_ctrl_c_is_the_programs_where_serve_is_not_the_main_task(program):
    with program("trio.run(embedded)") as running_program:
        running_program.wait_for_url()
        running_program.send_signal(signal.SIGINT)
        assert_clean(running_program)
    assert running_program.errors[-1] == "program: interrupted"
    assert "app: shutdown" in running_program.errors


@pytest.mark.parametrize("where", ["/spin", "/child", "startup"])
def test_ctrl_c_that_lands_in_the_application_reaches_the_program(program, where):
    with program("trio.run(embedded)", where) as running_program:
        if where == "startup":
            running_program.wait_for("app: spinning")
            running_program.send_signal(signal.SIGINT)
        else:
            with request(running_program.wait_for_url(), where) as busy:
                running_program.wait_for("app: spinning")
                running_program.send_signal(signal.SIGINT)
                read_to_end(busy)
        assert_clean(running_program)
    assert running_program.errors[-1] == "program: interrupted"
