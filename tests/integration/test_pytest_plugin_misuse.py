"""The fixtures where they cannot work, or the application does not: the error says what to do.

A run takes a second, so each case is a whole suite.
"""

from __future__ import annotations

import asyncio
import re

import pytest

from pagi_trio import testing

from .strangers import why

pytest_plugins = ["pytester"]


def test_a_fixture_outside_of_a_trio_test_says_what_to_do(project, run_project):
    project.makepyfile("""
        import pytest

        def test_sync(pagi_serve):
            pass

        def test_sync_in_memory(pagi_client):
            pass

        async def test_unmarked(pagi_serve):
            pass

        @pytest.mark.trio
        def test_marked_but_sync(pagi_serve):
            pass

        @pytest.fixture(scope="module")
        def wide(pagi_serve):
            pass

        @pytest.mark.trio
        async def test_wide(wide):
            pass
        """)
    result = run_project()
    reasons = why(result)
    for test in ("test_sync", "test_unmarked"):
        assert "pagi_serve" in reasons[test], reasons
        assert "pytest.mark.trio" in reasons[test], reasons
    assert "pagi_client" in reasons["test_sync_in_memory"]
    assert "marked trio but is not async" in reasons["test_marked_but_sync"]
    assert "test_wide" in reasons
    assert sum(result.parseoutcomes().get(word, 0) for word in ("failed", "error", "errors")) == 5


def test_a_fixture_in_a_test_of_anyio_on_asyncio_says_what_to_do(project, run_project):
    project.makepyfile("""
        import pytest

        @pytest.mark.anyio
        @pytest.mark.parametrize("anyio_backend", ["asyncio"])
        async def test_for_asyncio(pagi_serve, anyio_backend):
            pass
        """)
    assert "runs on Trio" in why(run_project())["test_for_asyncio"]


async def _serve_in_a_block(serving):
    async with serving("never called"):
        pass


@pytest.mark.parametrize("serving", [testing.serve, testing.client])
def test_a_block_on_asyncio_says_what_to_do(serving):
    with pytest.raises(RuntimeError, match='let the fixture anyio_backend return "trio"'):
        asyncio.run(_serve_in_a_block(serving))


BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
"""

INSTALL = "pip install 'pagi-trio[pytest]'"


@pytest.mark.parametrize("missing", ["httpx", "trio_websocket"])
def test_a_missing_extra_is_named_where_it_is_needed(project, run_project, missing):
    project.makeconftest(BLOCKER.format(missing=missing))
    project.makepyfile("""
        import pytest
        from app import app

        pytestmark = pytest.mark.trio

        async def test_http(pagi_serve):
            server = await pagi_serve(app)
            await server.http.get("/")

        async def test_client(pagi_client):
            await (await pagi_client(app)).get("/")

        async def test_websocket(pagi_serve):
            server = await pagi_serve(app)
            async with server.websocket("/"):
                pass

        async def test_a_raw_connection_needs_none(pagi_serve):
            server = await pagi_serve(app)
            async with server.connect() as wire:
                await wire.send_all(b"GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
                assert (await wire.receive_some()).startswith(b"HTTP/1.1 200 ")
        """)
    reasons = why(run_project())
    assert set(reasons) == ({"test_http", "test_client"} if missing == "httpx" else {"test_websocket"})
    for reason in reasons.values():
        assert f"{missing} is not installed" in reason
        assert INSTALL in reason


def test_pytest_trio_is_named_where_it_is_missing(project, run_project):
    project.makeini("[pytest]\nmarkers = trio")
    project.makepyfile("""
        import pytest

        @pytest.mark.trio
        async def test_marked(pagi_serve):
            pass
        """)
    reason = why(run_project("-p", "no:trio"))["test_marked"]
    assert "pytest-trio" in reason
    assert INSTALL in reason


def test_what_an_application_does_wrong_is_the_one_error_of_its_test(project, run_project):
    project.makepyfile("""
        import pytest
        from app import app

        pytestmark = pytest.mark.trio

        async def refusing(scope, receive, send):
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no database"})

        async def failing(scope, receive, send):
            if scope["type"] == "http":
                raise ZeroDivisionError("of the application")

        async def test_refused(pagi_serve):
            await pagi_serve(refusing)

        async def test_refused_in_memory(pagi_client):
            await pagi_client(refusing)

        async def test_raised(pagi_serve):
            server = await pagi_serve(failing)
            await server.http.get("/")

        async def test_raised_and_expected(pagi_client):
            client = await pagi_client(failing)
            with pytest.raises(ZeroDivisionError, match="of the application"):
                await client.get("/")

        async def test_raised_and_answered(pagi_client):
            client = await pagi_client(failing, raise_app_exceptions=False)
            assert (await client.get("/")).status_code == 500

        async def test_setting(pagi_serve):
            await pagi_serve(app, lifespam="on")

        async def test_left_open(pagi_serve):
            server = await pagi_serve(app)
            await server.websocket("/chat")

        async def test_assertion(pagi_serve):
            await pagi_serve(app)
            assert "this" == "that"
        """)
    result = run_project()
    result.assert_outcomes(passed=2, failed=6)
    reasons = why(result)
    assert "no database" in reasons["test_refused"]
    assert "no database" in reasons["test_refused_in_memory"]
    assert reasons["test_raised"] == "ZeroDivisionError: of the application"
    assert "lifespam" in reasons["test_setting"]
    assert "websocket /chat" in reasons["test_left_open"]
    assert reasons["test_assertion"].startswith("AssertionError: assert 'this' == 'that'")
    result.stdout.no_fnmatch_line("*ExceptionGroup*")


def test_real_sockets_under_a_clock_that_jumps_are_refused(project, run_project):
    project.makepyfile("""
        import pytest
        from app import app

        @pytest.mark.trio
        async def test_jumping(pagi_serve, autojump_clock):
            await pagi_serve(app)
        """)
    assert "use pagi_client" in why(run_project())["test_jumping"]


WRONG = """
import pytest
from app import app

pytestmark = pytest.mark.trio

async def test_setting(pagi_serve):
    await pagi_serve(app, lifespam="on")

async def test_jumping(pagi_serve, autojump_clock):
    await pagi_serve(app)

async def test_number(pagi_client):
    client = await pagi_client(app)
    client.metrics.value("pagi_websocket_messages")

async def test_no_events(pagi_client):
    client = await pagi_client(app)
    await anext(client.sse("/"))
"""


def test_a_mistake_of_the_test_ends_at_its_line_of_the_test(project, run_project):
    path = project.makepyfile(WRONG)
    result = run_project()
    result.assert_outcomes(failed=4)
    # Where each was raised, as pytest says it below the line.
    ends = [line for line in result.outlines if re.match(r"\S+:\d+: \w+Error$", line)]
    assert len(ends) == 4, ends
    assert all(line.startswith(path.name) for line in ends), ends


def test_all_frames_are_there_if_they_are_asked_for(project, run_project):
    project.makepyfile(WRONG)
    result = run_project("--full-trace", "-k", "test_jumping")
    result.stdout.re_match_lines([r".*pagi_trio/testing/servers\.py:\d+: RuntimeError"])


SERVING_ITSELF = """
    import pytest
    from app import app
    from pagi_trio import testing

    @pytest.fixture
    def anyio_backend():
        return "trio"

    @pytest.fixture
    async def client():
        async with testing.client(app) as client:
            yield client

    @pytest.mark.PLUGIN
    async def test_fails(client):
        await client.websocket("/")
        assert client is None

    @pytest.mark.PLUGIN
    async def test_leaves(client):
        await client.websocket("/")
    """


@pytest.mark.parametrize("plugin", ["trio", "anyio"])
def test_a_test_that_serves_by_itself_fails_with_its_one_error_too(project, run_project, plugin):
    project.makepyfile(SERVING_ITSELF.replace("PLUGIN", plugin))
    result = run_project()
    reasons = why(result)
    assert "assert <pagi_trio.testing.served.Client" in reasons["test_fails"], reasons
    assert reasons["test_leaves"].startswith("Failed: the test left open: websocket /; "), reasons
    assert "Exception Group" not in result.stdout.str()
    # With AnyIO, fixtures end when the test has passed.
    result.assert_outcomes(**({"failed": 2} if plugin == "trio" else {"failed": 1, "passed": 1, "errors": 1}))
