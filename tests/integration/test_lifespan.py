"""The lifespan: the ASGI lifespan message format 2.0, its timings and its failures."""

from __future__ import annotations

import gc
import logging
import socket
from pathlib import Path

import pytest
import trio
import trio.testing

from pagi_trio.errors import LifespanFailedError
from tests.integration.embedded import serving, start_server

from .conftest import hello, respond

pytestmark = pytest.mark.trio

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def with_lifespan(lifespan, http=hello):
    """Return an application of two parts, and the metrics its lifespan scope offers, once it has been called."""
    found = []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            found.append(scope["extensions"]["pagi.metrics"])
            await lifespan(scope, receive, send)
        else:
            await http(scope, receive, send)

    return app, found


async def complete(receive, send, phase):
    assert await receive() == {"type": f"lifespan.{phase}"}
    await send({"type": f"lifespan.{phase}.complete"})


async def ordinary(scope, receive, send):
    await complete(receive, send, "startup")
    await complete(receive, send, "shutdown")


async def raises(scope, receive, send):
    raise RuntimeError("no lifespan here")


async def raises_after_receive(scope, receive, send):
    await receive()
    raise RuntimeError("no lifespan here")


async def returns(scope, receive, send):
    return


async def returns_after_receive(scope, receive, send):
    await receive()


async def hangs(scope, receive, send):
    await receive()
    await trio.sleep_forever()


async def hangs_without_receive(scope, receive, send):
    await trio.sleep_forever()


async def hangs_in_a_nursery(scope, receive, send):
    await receive()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        await trio.sleep_forever()


async def answers_out_of_order(scope, receive, send):
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


DECLINING = [raises, raises_after_receive, returns, returns_after_receive]


async def start_and_fail(app, **config):
    """Start a server that must not come up; return why."""
    async with trio.open_nursery() as nursery:
        with pytest.raises(LifespanFailedError) as caught:
            await start_server(nursery, app, config)
        assert not nursery.child_tasks
    return str(caught.value)


async def is_served(raw, server):
    async with raw(server) as client:
        await client.send(GET)
        return (await client.read_response())[::2] == (200, b"hello")


def phases(caplog):
    """Return what was logged about phases, without the seconds."""
    lines = [record.getMessage() for record in caplog.records]
    return [line.rpartition(" in ")[0] for line in lines if line.startswith("lifespan ")]


@pytest.fixture(autouse=True)
def _log_all(caplog):
    caplog.set_level(logging.INFO, "pagi_trio")


@pytest.fixture
def _without_gc():
    """Files are to be closed, not found by the garbage collector."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


# Starting


async def test_startup_comes_before_the_first_request_and_shutdown_after_the_last(raw):
    events = []

    async def lifespan(scope, receive, send):
        events.append((await receive())["type"])
        await send({"type": "lifespan.startup.complete"})
        events.append((await receive())["type"])
        await send({"type": "lifespan.shutdown.complete"})

    async def http(scope, receive, send):
        events.append("http")
        await hello(scope, receive, send)

    app, _ = with_lifespan(lifespan, http)
    async with serving(app) as server:
        assert await is_served(raw, server)
    assert events == ["lifespan.startup", "http", "lifespan.shutdown"]


async def test_the_scope_is_that_of_the_lifespan_format_2_0(pagi_serve):
    scopes = []

    async def lifespan(scope, receive, send):
        scopes.append(scope)
        await ordinary(scope, receive, send)

    await pagi_serve(with_lifespan(lifespan)[0])
    [scope] = scopes
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.0"}
    assert scope["state"] == {}
    assert scope["extensions"]["pagi.worker"] == {"is_worker": False, "number": 0}


@pytest.mark.parametrize("lifespan", DECLINING)
async def test_declining_serves_without_and_says_so_at_info(raw, caplog, lifespan):
    app, _ = with_lifespan(lifespan)
    async with serving(app) as server:
        assert await is_served(raw, server)
    assert server.metrics.value("pagi_server_lifespan_failures_total", phase="startup") == 0
    assert server.metrics.value("pagi_server_app_errors_total", scope="lifespan") == 0
    assert phases(caplog) == ["lifespan startup declined"]
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


@pytest.mark.parametrize("lifespan", DECLINING)
async def test_declining_fails_the_start_where_the_lifespan_was_asked_for(lifespan):
    app, found = with_lifespan(lifespan)
    reason = await start_and_fail(app, lifespan="on")
    assert reason.startswith("the application failed to start: ")
    assert ("no lifespan here" if lifespan in (raises, raises_after_receive) else "without an answer") in reason
    [metrics] = found
    assert metrics.value("pagi_server_lifespan_failures_total", phase="startup") == 1


async def test_an_error_while_starting_shows_its_traceback_where_the_lifespan_was_asked_for(caplog):
    app, found = with_lifespan(raises_after_receive)
    await start_and_fail(app, lifespan="on")
    [error] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert str(error.exc_info[1]) == "no lifespan here"
    assert found[0].value("pagi_server_app_errors_total", scope="lifespan") == 1


async def test_off_never_asks(raw, caplog):
    app, found = with_lifespan(raises)
    async with serving(app, lifespan="off") as server:
        assert await is_served(raw, server)
    assert found == []
    assert phases(caplog) == []


@pytest.mark.parametrize("mode", ["auto", "on"])
async def test_a_refusal_stops_the_start_with_its_message(tmp_path, caplog, mode):
    async def refuses(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    path = tmp_path / "app.sock"
    given = socket.create_server(("127.0.0.1", 0))
    address = given.getsockname()
    app, _ = with_lifespan(refuses)
    reason = await start_and_fail(app, lifespan=mode, bind=(f"unix:{path}", f"fd://{given.detach()}"))
    assert reason == "the application failed to start: no database"
    assert phases(caplog) == ["lifespan startup failed"]
    assert not path.exists()
    with pytest.raises(OSError, match=r"127\.0\.0\.1"):
        await trio.open_tcp_stream(*address)


@pytest.mark.usefixtures("_without_gc")
async def test_a_refusal_leaves_no_file_open_and_no_task(tmp_path):
    async def refuses(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed"})

    async def attempt():
        # A frame of its own, so that nothing in it outlives the attempt.
        page, log = f"unix:{tmp_path}/page.sock", str(tmp_path / "access.log")
        app, _ = with_lifespan(refuses)
        assert "it gave no reason" in await start_and_fail(app, access_log=log, metrics={"bind": page})

    await attempt()
    files = len(list(Path("/proc/self/fd").iterdir()))
    tasks = trio.lowlevel.current_statistics().tasks_living
    await attempt()
    assert len(list(Path("/proc/self/fd").iterdir())) == files
    assert trio.lowlevel.current_statistics().tasks_living == tasks


@pytest.mark.parametrize("mode", ["auto", "on"])
@pytest.mark.parametrize("hang", [hangs, hangs_without_receive, hangs_in_a_nursery])
async def test_a_startup_that_hangs_fails_after_its_timeout(autojump_clock, caplog, hang, mode):
    ended = []

    async def lifespan(scope, receive, send):
        try:
            await hang(scope, receive, send)
        finally:
            ended.append(True)

    app, found = with_lifespan(lifespan)
    reason = await start_and_fail(app, lifespan=mode, timeouts={"startup_s": 30})
    assert reason == "the application failed to start: it did not answer within 30 s"
    assert ended == [True]
    [metrics] = found
    assert metrics.value("pagi_server_lifespan_startup_seconds") == pytest.approx(30)
    assert metrics.value("pagi_server_lifespan_failures_total", phase="startup") == 1
    assert [r.getMessage() for r in caplog.records if "lifespan startup" in r.getMessage()] == [
        "lifespan startup failed in 30.000 s"
    ]


@pytest.mark.parametrize("hang", [hangs, hangs_without_receive, hangs_in_a_nursery])
async def test_a_start_that_is_stopped_is_not_told_as_an_application_without_a_lifespan(autojump_clock, caplog, hang):
    caplog.set_level("INFO")
    with trio.move_on_after(1):
        await start_and_fail(with_lifespan(hang)[0])
    assert caplog.messages == ["lifespan startup cancelled in 1.000 s"]


async def test_what_an_application_raises_when_its_start_is_stopped_is_an_error_of_its_own(autojump_clock, caplog):
    async def lifespan(scope, receive, send):
        try:
            await hangs_in_a_nursery(scope, receive, send)
        finally:
            raise ValueError("the reason")

    caplog.set_level("INFO")
    with trio.move_on_after(1):
        await start_and_fail(with_lifespan(lifespan)[0])
    assert caplog.messages == ["lifespan startup cancelled in 1.000 s", "application failed in its lifespan"]


async def test_nothing_is_answered_before_startup_is_complete(raw):
    app_may_start = trio.Event()
    given = socket.create_server(("127.0.0.1", 0))
    address = given.getsockname()

    async def lifespan(scope, receive, send):
        await receive()
        await app_may_start.wait()
        scope["state"]["ready"] = True
        await send({"type": "lifespan.startup.complete"})

    async def http(scope, receive, send):
        await respond(send, b"ready" if scope["state"].get("ready") else b"early")

    app, _ = with_lifespan(lifespan, http)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(start_server, nursery, app, {"bind": (f"fd://{given.detach()}",)})
        async with await trio.open_tcp_stream(*address) as client:
            await client.send_all(b"GET / HTTP/1.0\r\n\r\n")
            await trio.testing.wait_all_tasks_blocked()
            app_may_start.set()
            answer = b""
            while data := await client.receive_some():
                answer += data
        nursery.cancel_scope.cancel()
    assert answer.endswith(b"ready")


@pytest.mark.parametrize("mode", ["auto", "on"])
async def test_an_answer_out_of_order_is_an_error_in_the_application(mode):
    caught = []

    async def lifespan(scope, receive, send):
        try:
            await answers_out_of_order(scope, receive, send)
        except RuntimeError as error:
            caught.append(str(error))
        await send({"type": "lifespan.startup.failed", "message": "as a test"})

    assert (await start_and_fail(with_lifespan(lifespan)[0], lifespan=mode)).endswith("as a test")
    assert caught == ["'lifespan.shutdown.complete' is no answer here: the lifespan is starting"]


@pytest.mark.parametrize(
    "event",
    ["lifespan.startup.complete", "lifespan.startup.failed", "lifespan.shutdown.complete", "http.response.body"],
)
async def test_an_answer_to_what_was_not_asked_raises_and_changes_nothing(raw, event):
    caught = []

    async def lifespan(scope, receive, send):
        await complete(receive, send, "startup")
        try:
            await send({"type": event})
        except RuntimeError as error:
            caught.append(str(error))
        await complete(receive, send, "shutdown")

    async with serving(with_lifespan(lifespan)[0]) as server:
        assert await is_served(raw, server)
    assert caught == [f"{event!r} is no answer here: the lifespan is started"]
    assert server.metrics.value("pagi_server_lifespan_failures_total", phase="shutdown") == 0


# While serving


async def test_each_request_gets_a_shallow_copy_of_the_state(pagi_serve, raw):
    shared = []

    async def lifespan(scope, receive, send):
        scope["state"].update(shared=shared, own="lifespan")
        await ordinary(scope, receive, send)

    async def http(scope, receive, send):
        state = scope["state"]
        seen = state["own"]
        state["own"] = "request"
        state["shared"].append(scope["path"])
        await respond(send, seen.encode())

    server = await pagi_serve(with_lifespan(lifespan, http)[0])
    async with raw(server) as client:
        for path in (b"/a", b"/b"):
            await client.send(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path)
            assert (await client.read_response())[2] == b"lifespan"
    assert shared == ["/a", "/b"]
    assert server.handle.state == {"shared": shared, "own": "lifespan"}
    assert server.handle.state["shared"] is shared


@pytest.mark.parametrize("raises", [True, False])
async def test_a_failure_while_serving_is_told_once_and_as_itself(raw, caplog, raises):
    async def lifespan(scope, receive, send):
        await complete(receive, send, "startup")
        # As Starlette does, with the traceback as the message.
        await send({"type": "lifespan.shutdown.failed", "message": "the pool is gone"})
        if raises:
            raise OSError("the pool is gone")

    async with serving(with_lifespan(lifespan)[0]) as server:
        assert await is_served(raw, server)
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1
    if raises:
        assert str(errors[0].exc_info[1]) == "the pool is gone"
    else:
        assert errors[0].getMessage().endswith("it ended while it was served: the pool is gone")
    assert server.metrics.value("pagi_server_app_errors_total", scope="lifespan") == 1


async def test_a_crash_while_serving_is_logged_and_counted_and_serving_goes_on(raw, caplog):
    crash = trio.Event()

    async def lifespan(scope, receive, send):
        await complete(receive, send, "startup")
        await crash.wait()
        raise RuntimeError("the pool broke")

    async with serving(with_lifespan(lifespan)[0]) as server:
        crash.set()
        await trio.testing.wait_all_tasks_blocked()
        assert await is_served(raw, server)
    [error] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert error.getMessage() == "application failed in its lifespan"
    assert str(error.exc_info[1]) == "the pool broke"
    assert server.metrics.value("pagi_server_app_errors_total", scope="lifespan") == 1
    assert phases(caplog) == ["lifespan startup complete"]


async def test_returning_after_startup_is_not_a_failure(raw, caplog):
    async def lifespan(scope, receive, send):
        await complete(receive, send, "startup")

    async with serving(with_lifespan(lifespan)[0]) as server:
        await trio.testing.wait_all_tasks_blocked()
        assert await is_served(raw, server)
    assert server.metrics.value("pagi_server_lifespan_failures_total", phase="shutdown") == 0
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


# Stopping


async def test_both_phases_are_timed_and_logged(autojump_clock, caplog):
    async def lifespan(scope, receive, send):
        await receive()
        await trio.sleep(3)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await trio.sleep(2)
        await send({"type": "lifespan.shutdown.complete"})

    async with serving(with_lifespan(lifespan)[0]) as server:
        assert server.metrics.value("pagi_server_lifespan_startup_seconds") == pytest.approx(3)
        assert server.metrics.value("pagi_server_lifespan_shutdown_seconds") == 0
    assert server.metrics.value("pagi_server_lifespan_shutdown_seconds") == pytest.approx(2)
    lines = [record.getMessage() for record in caplog.records]
    assert [line for line in lines if line.startswith("lifespan")] == [
        "lifespan startup complete in 3.000 s",
        "lifespan shutdown complete in 2.000 s",
    ]


async def test_a_failed_shutdown_is_logged_with_its_message_and_counted(caplog):
    async def lifespan(scope, receive, send):
        await complete(receive, send, "startup")
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "the pool would not close"})

    async with serving(with_lifespan(lifespan)[0]) as server:
        pass
    [error] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert error.getMessage() == "the application failed to shut down: the pool would not close"
    assert phases(caplog)[1] == "lifespan shutdown failed"
    assert server.metrics.value("pagi_server_lifespan_failures_total", phase="shutdown") == 1


async def test_an_error_while_shutting_down_is_a_failure(caplog):
    async def lifespan(scope, receive, send):
        await complete(receive, send, "startup")
        await receive()
        raise RuntimeError("the pool broke")

    async with serving(with_lifespan(lifespan)[0]) as server:
        pass
    assert phases(caplog)[1] == "lifespan shutdown failed"
    assert server.metrics.value("pagi_server_lifespan_failures_total", phase="shutdown") == 1
    assert server.metrics.value("pagi_server_app_errors_total", scope="lifespan") == 1


async def test_returning_at_shutdown_without_an_answer_is_a_shutdown(caplog):
    async def lifespan(scope, receive, send):
        await complete(receive, send, "startup")
        await receive()

    async with serving(with_lifespan(lifespan)[0]) as server:
        pass
    assert phases(caplog)[1] == "lifespan shutdown complete"
    assert server.metrics.value("pagi_server_lifespan_failures_total", phase="shutdown") == 0


# Several times, since the application is cancelled and the wait for it ends in the same turn of Trio's loop, in
# an order that Trio shuffles.
@pytest.mark.parametrize("_time", range(8))
@pytest.mark.parametrize("hang", [hangs, hangs_in_a_nursery])
async def test_a_shutdown_that_hangs_is_cancelled_after_its_timeout(autojump_clock, caplog, hang, _time):
    ended = []

    async def lifespan(scope, receive, send):
        await complete(receive, send, "startup")
        try:
            await hang(scope, receive, send)
        finally:
            ended.append(True)

    async with serving(with_lifespan(lifespan)[0], timeouts={"shutdown_s": 5}) as server:
        started = trio.current_time()
    assert trio.current_time() - started <= 5 + 1
    assert ended == [True]
    assert phases(caplog)[1] == "lifespan shutdown failed"
    assert "the application failed to shut down: it did not answer within 5 s" in caplog.messages
    assert server.metrics.value("pagi_server_lifespan_failures_total", phase="shutdown") == 1
    assert server.metrics.value("pagi_server_lifespan_shutdown_seconds") == pytest.approx(5)


async def test_an_application_that_goes_on_after_its_last_answer_is_cancelled_after_the_timeout(autojump_clock, caplog):
    async def lifespan(scope, receive, send):
        await ordinary(scope, receive, send)
        await trio.sleep_forever()

    started = trio.current_time()
    async with serving(with_lifespan(lifespan)[0], timeouts={"shutdown_s": 5}) as server:
        pass
    assert trio.current_time() - started <= 5 + 1
    assert phases(caplog)[1] == "lifespan shutdown complete"
    assert server.metrics.value("pagi_server_lifespan_shutdown_seconds") < 5


async def test_receive_after_shutdown_never_returns(autojump_clock):
    received = []

    async def lifespan(scope, receive, send):
        await ordinary(scope, receive, send)
        received.append(await receive())

    async with serving(with_lifespan(lifespan)[0]):
        pass
    assert received == []
