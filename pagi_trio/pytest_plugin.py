"""The fixtures ``pagi_serve`` and ``pagi_client``, found by pytest once ``pagi-trio[pytest]`` is installed.

pytest imports this in every run of an environment that has the package, whoever uses it: so it imports nothing of the
package, nor Trio, before one of the fixtures is used.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator

    from pagi_trio.testing import StartClient, StartServer

FIXTURES: Final = frozenset(("pagi_serve", "pagi_client"))

_MADE_BEFORE: Final = pytest.StashKey[int]()
"""Of a test: how often something had been served in this process when it began."""

_HAS_FAILED: Final = pytest.StashKey[bool]()
"""Of a test: whether it has failed already when its fixtures end."""


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


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note how often something has been served before a test, so that it is known whether it serves by itself."""
    item.stash[_MADE_BEFORE] = _count_made()
    item.stash[_HAS_FAILED] = False


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Let a test that has served fail with its one error, and not with a group of one."""
    try:
        return (yield from _tell_errors(item, has_failed=False))
    except BaseException:
        item.stash[_HAS_FAILED] = True
        raise


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Do the same for what comes at the end, where pytest-trio is not who ends the fixtures."""
    return (yield from _tell_errors(item, has_failed=item.stash.get(_HAS_FAILED, False)))


def _tell_errors(item: pytest.Item, *, has_failed: bool) -> Generator[None, object, object]:
    try:
        return (yield)
    except (BaseExceptionGroup, Exception) as raised:
        if not _has_served(item):
            raise
        from pagi_trio.testing.failures import what_failed  # noqa: PLC0415 - see above

        error = what_failed(raised, has_failed=has_failed, in_full=item.config.getoption("fulltrace"))
        if error is None:
            return None
    raise error


def _has_served(item: pytest.Item) -> bool:
    """Return whether a test has one of the fixtures, or something has been served since it began."""
    return not FIXTURES.isdisjoint(getattr(item, "fixturenames", ())) or _count_made() > item.stash.get(_MADE_BEFORE, 0)


def _count_made() -> int:
    servers = sys.modules.get("pagi_trio.testing.servers")
    return 0 if servers is None else servers.Servers.made
