"""Fixtures for pytest-trio, found by pytest once ``pagi-trio[pytest]`` is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

try:
    import pytest_trio
    import trio
except ImportError:
    # Installed without the extra: pytest loads every plugin that it finds, and must not fail for that.
    pass
else:
    if TYPE_CHECKING:
        from collections.abc import AsyncIterator

        from pagi_trio.asgi import App
        from pagi_trio.testing import ServedApp, Start

    @pytest_trio.trio_fixture  # type: ignore[untyped-decorator]  # pytest-trio ships no types
    async def pagi_serve() -> AsyncIterator[Start]:
        """Serve applications for the length of a test; each call takes one, and settings by name.

        Each server listens on a free port, accepts connections when the call returns, and is shut down with its
        lifespan at the end of the test.
        """
        # Here and not above, since pytest imports plugins before anything that measures coverage.
        from pagi_trio.testing import start_server  # noqa: PLC0415

        servers: list[ServedApp] = []
        async with trio.open_nursery() as nursery:

            async def start(app: App, **config: object) -> ServedApp:
                server = await start_server(nursery, app, config)
                servers.append(server)
                return server

            yield start
            for server in servers:
                server.handle.shutdown()
