"""The fixtures ``pagi_serve`` and ``pagi_client``, found by pytest once ``pagi-trio[pytest]`` is installed.

pytest imports this in every run of an environment that has the package, whoever uses it: so it imports nothing of the
package, nor Trio, before one of the fixtures is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator

    from pagi_trio.testing import StartClient, StartServer

FIXTURES: Final = frozenset(("pagi_serve", "pagi_client"))


@pytest.fixture
async def pagi_serve() -> AsyncIterator[StartServer]:
    """Serve applications over sockets.

    ``server = await pagi_serve(app)``, and settings by name. Each server listens on a free port, accepts connections
    when the call returns, and is shut down with its lifespan at the end of the test. What it gives is a
    `pagi_trio.testing.Served`.
    """
    _check_trio_runs("pagi_serve")
    from pagi_trio.testing import open_servers  # noqa: PLC0415 - see above

    async with open_servers() as servers:
        yield servers.serve


@pytest.fixture
async def pagi_client() -> AsyncIterator[StartClient]:
    """Serve applications in memory.

    ``client = await pagi_client(app)``, then ``await client.get("/")``. It is the same server, without sockets: fit for
    unit tests, and for clocks that jump. What it gives is a `pagi_trio.testing.Client`.
    """
    _check_trio_runs("pagi_client")
    from pagi_trio.testing import open_servers  # noqa: PLC0415 - see above

    async with open_servers() as servers:
        yield servers.client


def _check_trio_runs(fixture: str) -> None:
    import trio  # noqa: PLC0415 - see above

    if not trio.lowlevel.in_trio_run():
        pytest.fail(
            f"{fixture} runs on Trio, and this test does not: mark it with @pytest.mark.trio, and where another plugin "
            "takes every async fixture for its own, have that one in its strict mode",
            pytrace=False,
        )


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest) -> None:
    """Say what to do where one of the fixtures cannot work; without this, the test would get a bare generator."""
    if fixturedef.argname in FIXTURES and fixturedef.func.__module__ == __name__:
        obstacle = _obstacle(fixturedef.argname, request)
        if obstacle:
            failure = pytest.fail.Exception(obstacle, pytrace=False)
            # As pytest does with what a fixture raises.
            key = fixturedef.cache_key(request)  # type: ignore[arg-type]  # its type is not public
            fixturedef.cached_result = None, key, (failure, None)
            raise failure


def _obstacle(fixture: str, request: pytest.FixtureRequest) -> str:
    if request.node.get_closest_marker("trio") is not None:
        if request.config.pluginmanager.hasplugin("trio"):
            return ""
        return f"{fixture} needs pytest-trio; pip install 'pagi-trio[pytest]' brings it"
    if "anyio_backend" in request.fixturenames:
        return ""
    return (
        f"{fixture} is for Trio tests: make the test async and mark it with @pytest.mark.trio, "
        "or have trio_mode = true in the configuration of pytest"
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Let a test that used one of the fixtures fail with its one error, and not with a group of one."""
    return (yield from _tell_errors(item))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Do the same for what comes at the end, where pytest-trio is not who ends the fixtures."""
    return (yield from _tell_errors(item))


def _tell_errors(item: pytest.Item) -> Generator[None, object, object]:
    if FIXTURES.isdisjoint(getattr(item, "fixturenames", ())):
        return (yield)
    try:
        return (yield)
    except (BaseExceptionGroup, Exception) as raised:  # noqa: BLE001 - it is raised again
        from pagi_trio.testing.failures import what_failed  # noqa: PLC0415 - see above

        error = what_failed(raised, in_full=item.config.getoption("fulltrace"))
    raise error
