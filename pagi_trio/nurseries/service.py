"""What all connections of one server share."""

from __future__ import annotations

import logging
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Final, Protocol

import trio

from pagi_trio.errors import AppProtocolError
from pagi_trio.foreign_loop import ADVICE, needs_asyncio
from pagi_trio.metrics import catalog
from pagi_trio.wire.date import DateCache
from pagi_trio.wire.forwarded import Forwarded

if TYPE_CHECKING:
    from collections.abc import Callable

    from pagi_trio.asgi import App, Extensions
    from pagi_trio.config import Config
    from pagi_trio.metrics.meter import Counting
    from pagi_trio.nurseries.access import AccessLog
    from pagi_trio.nurseries.readiness import EpollPoller

# What a connection is busy with; the order of the label values in the catalog.
STATES: Final = ("tls", "head", "app", "idle", "websocket", "sse", "http2", "closing")
TLS, HEAD, APP, IDLE, WEBSOCKET, SSE, _HTTP2, CLOSING = range(len(STATES))

_STATE_SERIES: Final = tuple(catalog.by_label("pagi_server_connections_by_state")[state] for state in STATES)
_APP_ERRORS: Final = catalog.by_label("pagi_server_app_errors_total")

LINGER_S: Final = 2.0
"""How long a connection is still read after its last response, so that the client gets to read it: closing with
unread bytes resets the connection (RFC 9112 section 9.6). nginx takes 5 s, most clients need one round trip."""

TICK_S: Final = 0.25
"""Between two walks of the reaper; twice that, and a cancel after it, is still within the second that a leaving client
may take."""

STANDSTILL_S: Final = 2 * TICK_S
"""Beyond it, the event loop stood still (`Service.standstill_s`)."""

HANDSHAKES: Final = 8
"""Steps of TLS handshakes that one turn of the event loop does. One takes 0.3 ms or more, by far the most that a client
gets for 500 bytes: a burst of 400 kept all others waiting for 130."""

log = logging.getLogger("pagi_trio")


class Watched(Protocol):
    """A connection, as those see it who watch over all of them."""

    state: int

    def tick(self, now: float) -> None:
        """Look whether anything is past its time."""

    def abort(self, reason: str) -> None:
        """Close at once."""

    def drain(self) -> None:
        """Let what is in flight end, and take nothing new."""


class Service:
    """One application, its settings, and the connections that call it.

    Attributes:
        connections: Those whose scope has been entered.
        admitted: How many have been accepted and have not ended.
        emptied: Set when the last of them ends.
        now: The clock of all deadlines, seconds; as coarse as the reaper's ticks, and see `look_at_clock`.
        keep_alive: Whether connections take one request after another.
        draining: Whether the server stops, and no connection takes any further request.
        short_head_bytes: A head of at most this length keeps all limits of length.
        deadlines_s: How long a connection may stay in each state, by state.
        forwarded: Reads what trusted proxies say of the client; None where nobody is trusted.
        handshakes: Whose turn it is among TLS handshakes.
        poller: What connections wait with, once they are accepted; None where waiting in Trio is all there is.
        context: The context that connections start from; no request ever runs in it.
        is_timed: Whether requests note when they have begun.
        standstill_s: If more lies between two looks at the clock, the event loop stood still, and was not only busy.
        on_app_error: Told what the application raised, and in what, after that has been logged; None where nobody asks.
    """

    def __init__(  # noqa: PLR0913 - the parts that only the composition root knows, all by name
        self,
        app: App,
        config: Config,
        meter: Counting,
        *,
        state: dict[str, object],
        extensions: Extensions,
        interrupt: Callable[[], None],
        access: AccessLog | None = None,
        certificate: str | None = None,
    ) -> None:
        self.app = app
        self.config = config
        self.meter = meter
        self.state = state
        self.extensions = extensions
        self.interrupt = interrupt
        self.access = access
        self.certificate = certificate
        self.connections: set[Watched] = set()
        self.admitted = 0
        self.emptied = trio.Event()
        self.changed = trio.Event()
        self.date = DateCache()
        trusted = config.forwarded.trusted
        self.forwarded = Forwarded(trusted, config.forwarded.headers) if trusted else None
        self.now = self._looked = trio.current_time()
        self.handshakes = trio.Semaphore(HANDSHAKES)
        self.poller: EpollPoller | None = None
        self.context: Context = copy_context()
        self.keep_alive = config.timeouts.keep_alive_s > 0
        self.draining = False
        self.is_timed = access is not None
        self.standstill_s = STANDSTILL_S
        self.on_app_error: Callable[[BaseException, object], None] | None = None
        self.short_head_bytes = min(config.limits.request_line_bytes, config.limits.head_bytes)
        self._said: set[str] = set()
        timeouts = config.timeouts
        forever = float("inf")
        self.deadlines_s = [forever] * len(STATES)
        self.deadlines_s[TLS] = timeouts.tls_handshake_s
        self.deadlines_s[HEAD] = timeouts.head_s
        self.deadlines_s[IDLE] = timeouts.keep_alive_s
        self.deadlines_s[CLOSING] = LINGER_S

    def look_at_clock(self) -> None:
        """Bring `now` up to date, less the time that the event loop stood still.

        An application that computes for seconds, or a process that is stopped, keeps everybody waiting: what clients
        sent meanwhile has not been read, and none of them shall be late for it.
        """
        looked = trio.current_time()
        passed_s = looked - self._looked
        # Some of it counts, or there would be no deadlines where the loop never gets round in time.
        self.now += passed_s if passed_s <= self.standstill_s else TICK_S
        self._looked = looked

    def app_failed(self, kind: str, what: object, error: BaseException | str) -> None:
        """Log and count an application's error.

        Args:
            kind: http, websocket, sse or lifespan.
            what: What it was called for; as text, the connection, scope and path.
            error: What it raised, or what it did instead.
        """
        self.meter.add(_APP_ERRORS[kind])
        if isinstance(error, str):
            log.error("application failed in %s: %s", str(what), error)
            error = AppProtocolError(error)
        else:
            # Whoever keeps the record does not keep the connection.
            log.error("application failed in %s", str(what), exc_info=error)
        if self.on_app_error is not None:
            self.on_app_error(error, what)
        if needs_asyncio(error):
            self.say_once(ADVICE, logging.ERROR)

    def say_once(self, what: str, level: int = logging.WARNING) -> None:
        """Log something the first time it is given."""
        if what not in self._said:
            self._said.add(what)
            log.log(level, "%s", what)

    def sample_states(self) -> None:
        """Write how many connections are in each state; called before each fold."""
        counts = [0] * len(STATES)
        for connection in self.connections:
            counts[connection.state] += 1
        for series, count in zip(_STATE_SERIES, counts, strict=True):
            self.meter.set(series, float(count))
