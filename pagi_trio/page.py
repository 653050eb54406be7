"""The metrics listener: the page and the health answers, at an address of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from pagi_trio.config import Config
from pagi_trio.health import HealthApp
from pagi_trio.metrics.endpoint import MetricsApp
from pagi_trio.metrics.meter import NullMeter
from pagi_trio.nurseries.listeners import Listeners
from pagi_trio.nurseries.service import Service
from pagi_trio.nurseries.sockets import close_all, open_listeners
from pagi_trio.urlmap import URLMap

if TYPE_CHECKING:
    from collections.abc import Callable

    from pagi_trio.metrics.server_metrics import ServerMetrics

GRACE_S: Final = 0.5
"""How long a scrape in flight has to finish once everything else is down."""

CONNECTIONS: Final = 32
"""Its readers are few; without a bound of their own, they could take the files that the application's clients need. It
is half of those that are kept free of connections (`pagi_trio.nurseries.listeners.RESERVED_FILES`)."""


class Page:
    """Serves ``/metrics``, ``/-/healthy`` and ``/-/ready``; its own connections are not counted.

    It opens before the application starts and closes after it has ended, so that both can be watched.

    Args:
        bind: Where to listen; the address is taken at once.
        backlog: Connections that wait in the kernel to be accepted.
        metrics: What the page shows.
        obstacle: What keeps the server from taking requests, in a word; empty if nothing does.
        interrupt: Called when Ctrl-C lands here.

    Ownership: the listeners are closed by `close`.

    Raises:
        BindError: If the address cannot be listened on.
    """

    def __init__(
        self,
        bind: str,
        backlog: int,
        metrics: ServerMetrics | None,
        obstacle: Callable[[], str],
        interrupt: Callable[[], None],
    ) -> None:
        app = MetricsApp()
        service = Service(
            URLMap(
                {
                    # Scrapers ask for /metrics unless told otherwise, people for the address alone.
                    "/metrics": app,
                    "/": app,
                    "/-/healthy": HealthApp(lambda: ""),
                    "/-/ready": HealthApp(obstacle),
                }
            ),
            Config().replace(**{"timeouts.graceful_s": GRACE_S, "limits.connections": CONNECTIONS}),
            NullMeter(),
            state={},
            extensions={"pagi.metrics": metrics},
            interrupt=interrupt,
        )
        self.listeners = open_listeners([bind], backlog)
        self._served = Listeners(service, self.listeners, None)

    async def run(self) -> None:
        """Serve until finished.

        Cancellation: closes every connection at once.
        """
        await self._served.run()

    async def finish(self) -> None:
        """Let scrapes in flight end, within half a second."""
        self._served.stop()
        with trio.move_on_after(GRACE_S):
            await self._served.closed.wait()

    def close(self) -> None:
        """Close the listeners."""
        close_all(self.listeners)
