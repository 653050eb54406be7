"""What needs asyncio cannot run here, and is told so in one line that says what to do instead."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager

import pytest
import trio
from asgiref.sync import sync_to_async
from quart import Quart
from quart_trio import QuartTrio
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from pagi_trio.errors import AppLoadError, LifespanFailedError
from pagi_trio.foreign_loop import ADVICE, find_asyncio_framework, needs_asyncio
from tests.conformance.misuse import body, start
from tests.conformance.strict_client import FINE, connected
from tests.integration.command import TCP, fails, running
from tests.integration.embedded import serving

WORDS = "needs asyncio, while this server runs Trio: use"


async def sleeps():
    await asyncio.sleep(0.01)


async def yields():
    await asyncio.sleep(0)


async def makes_a_task():
    coroutine = sleeps()
    try:
        await asyncio.create_task(coroutine)
    finally:
        coroutine.close()


async def waits_for_an_event():
    await asyncio.Event().wait()


async def gets_from_a_queue():
    await asyncio.Queue().get()


async def has_a_timeout():
    async with asyncio.timeout(1):
        pass


async def has_a_task_group():
    async with asyncio.TaskGroup():
        pass


async def awaits_a_future():
    loop = asyncio.new_event_loop()
    try:
        await loop.create_future()
    finally:
        loop.close()


async def asks_for_the_loop_in_a_thread():
    await trio.to_thread.run_sync(asyncio.get_event_loop)


async def calls_by_asgiref():
    await sync_to_async(str)()


async def does_it_in_a_nursery():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sleeps)


async def reports_it_as_its_own():
    try:
        await sleeps()
    except RuntimeError as error:
        raise ValueError("the database is away") from error


WAYS = [
    sleeps,
    yields,
    makes_a_task,
    waits_for_an_event,
    gets_from_a_queue,
    has_a_timeout,
    has_a_task_group,
    awaits_a_future,
    asks_for_the_loop_in_a_thread,
    calls_by_asgiref,
    does_it_in_a_nursery,
    reports_it_as_its_own,
]


def bare(work):
    """Return an application without a framework that works at every path but one."""

    async def app(scope, receive, send):
        if scope["path"] != "/fine":
            await work()
        await send(start())
        await send(body(b"fine"))

    return app


def advice(caplog):
    """Return how often the log advises, at its levels, and how many tracebacks it has."""
    levels = [record.levelname for record in caplog.records if record.getMessage() == ADVICE]
    return levels, len([record for record in caplog.records if record.exc_info])


async def ask(server, path=b"/"):
    async with connected(server) as client:
        return (await client.request(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path)).status


@pytest.mark.trio
@pytest.mark.parametrize("work", WAYS)
async def test_an_app_of_asyncio_is_advised_once_beside_its_tracebacks(pagi_serve, caplog, work):
    server = await pagi_serve(bare(work), lifespan="off")
    for _ in range(2):
        assert await ask(server) == 500
    assert advice(caplog) == (["ERROR"], 2)
    async with connected(server) as client:
        assert (await client.request(FINE)).body == b"fine"


@pytest.mark.trio
async def test_an_endpoint_of_a_framework_is_advised(pagi_serve, caplog):
    async def endpoint(request):
        await sleeps()
        return PlainTextResponse("never")

    server = await pagi_serve(Starlette(routes=[Route("/", endpoint)]))
    assert await ask(server) == 500
    assert advice(caplog) == (["ERROR"], 1)


@pytest.mark.trio
@pytest.mark.parametrize("error", [RuntimeError("no loop"), ValueError("no running event loop"), TypeError("x")])
async def test_an_error_of_another_kind_gets_no_advice(pagi_serve, caplog, error):
    async def raises():
        raise error

    server = await pagi_serve(bare(raises), lifespan="off")
    assert await ask(server) == 500
    assert advice(caplog) == ([], 1)


@pytest.mark.trio
async def test_a_lifespan_that_raises_for_want_of_asyncio_is_no_silent_refusal(caplog):
    async def app(scope, receive, send):
        await receive()
        await sleeps()

    async with serving(app) as server:
        assert await ask(server) == 500
        assert advice(caplog) == (["ERROR"], 2)
    assert server.metrics.value("pagi_server_app_errors_total", scope="lifespan") == 1


@pytest.mark.trio
async def test_a_lifespan_that_refuses_for_want_of_asyncio_is_advised(caplog):
    @asynccontextmanager
    async def lifespan(app):
        await sleeps()
        yield

    with pytest.raises(BaseExceptionGroup) as caught:
        async with serving(Starlette(lifespan=lifespan)):
            raise AssertionError("it started")
    assert "no running event loop" in str(caught.value.exceptions[0])
    assert isinstance(caught.value.exceptions[0], LifespanFailedError)
    assert advice(caplog)[0] == ["ERROR"]


def test_an_error_that_led_to_itself_is_looked_at_once():
    error = ValueError("round")
    error.__context__ = TypeError("about")
    error.__context__.__context__ = error
    assert not needs_asyncio(error)


# Known before the first request.


class Django:
    """Stands in for a large dependency; told by its name, as the real one is."""


Django.__module__, Django.__qualname__ = "django.core.handlers.asgi", "ASGIHandler"


class Derived(Quart):
    """An application's own class."""


@pytest.mark.trio
@pytest.mark.parametrize(
    ("app", "instead"),
    [(Quart(__name__), "quart_trio.QuartTrio"), (Derived(__name__), "QuartTrio"), (Django(), "get_wsgi_application()")],
)
async def test_an_app_of_a_framework_for_asyncio_is_refused_at_the_start(app, instead):
    with pytest.raises(BaseExceptionGroup) as caught:
        async with serving(app):
            raise AssertionError("it started")
    (error,) = caught.value.exceptions
    assert isinstance(error, AppLoadError)
    assert WORDS in str(error)
    assert instead in str(error)


class DerivedTrio(QuartTrio):
    """An application's own class."""


def test_an_app_of_any_other_framework_is_not():
    for app in (QuartTrio(__name__), DerivedTrio(__name__), Starlette(), bare(sleeps), None):
        assert find_asyncio_framework(app) is None


APPS = {
    "quart": "from quart import Quart\napp = Quart(__name__)\n",
    # It changes the policy of asyncio when it is imported: in a process of its own.
    "sanic": "from sanic import Sanic\napp = Sanic('test')\n",
}


@pytest.mark.parametrize("arguments", [(), ("-w", "1")], ids=["alone", "worker"])
@pytest.mark.parametrize("name", APPS)
def test_the_command_ends_with_that_line(tmp_path, name, arguments):
    (tmp_path / "app.py").write_text(APPS[name])
    with running(sys.executable, "-m", "pagi_trio", "app", *TCP, *arguments, cwd=tmp_path) as program:
        assert fails(program, 3).startswith(f"{name.title()} {WORDS}")
        assert not any("Traceback" in line for line in program.errors)


def test_the_command_advises_an_app_that_it_cannot_know(tmp_path):
    (tmp_path / "app.py").write_text(
        "import asyncio\n\nasync def app(scope, receive, send):\n    await receive()\n    await asyncio.sleep(1)\n"
    )
    with running(sys.executable, "-m", "pagi_trio", "app", *TCP, "--lifespan", "on", cwd=tmp_path) as program:
        assert "no running event loop" in fails(program, 3)
        assert len([line for line in program.errors if WORDS in line]) == 1
