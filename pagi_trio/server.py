"""The composition root: `serve` puts the tree of nurseries together and takes it down again.

::

    server nursery             one per server
    +- flush task              folds message counts into the store
    +- pushing                 a task for each system that gets the numbers; sends them a last time at the very end
    +- metrics listener        only with a metrics bind; opens first, closes last
    +- lifespan nursery        startup and shutdown are timed phases
    +- listeners nursery
       +- accept loop x listener
       +- reaper
       +- connection nursery x M
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, Literal, Self

import trio

from pagi_trio.config import Config
from pagi_trio.errors import ConfigError, LifespanFailedError
from pagi_trio.interface import WSGIAdapter, as_asgi
from pagi_trio.metrics import catalog
from pagi_trio.metrics.application.resolution import serving
from pagi_trio.metrics.meter import Meter, NullMeter
from pagi_trio.metrics.pushing import Pushing, make_exporters
from pagi_trio.metrics.server_metrics import ServerMetrics
from pagi_trio.nurseries.access import AccessLog
from pagi_trio.nurseries.lifespan import Lifespan
from pagi_trio.nurseries.listeners import Listeners
from pagi_trio.nurseries.scope import ActiveScope
from pagi_trio.nurseries.service import Service, log
from pagi_trio.nurseries.sockets import close_all, log_addresses, open_listeners
from pagi_trio.nurseries.tls import create_ssl_context, read_certificate
from pagi_trio.page import Page

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    import hypercorn.config

    from pagi_trio.asgi import App, Extensions, Receive, Scope, Send
    from pagi_trio.metrics.meter import Counting
    from pagi_trio.nurseries.sockets import Listener

_SPAWNS: Final = catalog.index("pagi_server_worker_spawns_total")
_WORKERS: Final = catalog.index("pagi_server_workers_active")

_CONFIGURED: Final = catalog.index("pagi_server_workers_configured")
_UP: Final = catalog.index("pagi_server_worker_up")
_STARTED: Final = catalog.index("pagi_server_worker_start_time_seconds")
_DRAINING: Final = catalog.index("pagi_server_draining")


class Handle(tuple[str, ...]):  # noqa: SLOT001 - one per server, and it has attributes
    """A running server: the URLs it listens on, as a sequence, and what can be asked of it.

    Attributes:
        metrics: Its numbers; None where metrics are off.
        metrics_urls: Where the page of its own is, if there is one.
        state: What the application's lifespan has put into its state.
        server: The server itself, whose parts are no public interface.
    """

    metrics: ServerMetrics | None
    metrics_urls: tuple[str, ...]
    state: dict[str, object]
    server: Server

    def __new__(cls, server: Server) -> Self:
        """Describe a server whose sockets are open."""
        self = super().__new__(cls, (listener.url for listener in server.listeners))
        self.metrics = server.metrics
        self.metrics_urls = () if server.page is None else tuple(listener.url for listener in server.page.listeners)
        self.state = server.service.state
        self.server = server
        return self

    def shutdown(self) -> None:
        """Stop gracefully: what is in flight may finish. Returns at once."""
        self.server.stop()

    def abort(self) -> None:
        """Stop at once: connections are closed and the application's shutdown is not waited for. Returns at once."""
        self.server.abort()

    def __repr__(self) -> str:
        return f"<pagi_trio server on {', '.join(self)}>"


@trio.lowlevel.enable_ki_protection
async def serve(
    app: App,
    config: Config | hypercorn.config.Config | None = None,
    *,
    shutdown_trigger: Callable[[], Awaitable[object]] | None = None,
    mode: Literal["asgi", "wsgi"] | None = None,
    task_status: trio.TaskStatus[Handle] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an application until told to stop.

    ``trio.run(serve, app)`` serves until Ctrl-C; ``handle = await nursery.start(serve, app, config)`` returns once
    connections are accepted.

    Args:
        app: An ASGI 3 application, or a WSGI one.
        config: Settings; one of hypercorn's is translated, with one warning that names what it cannot honour.
        shutdown_trigger: Called once; when it returns, the server stops gracefully.
        mode: What the application speaks; overrides ``config.interface``.
        task_status: Gets a `Handle`.

    Raises:
        ConfigError: If a setting is wrong or an address cannot be listened on; nothing has been started.
        AppLoadError: If the application is of a framework that needs asyncio; nothing has been started.
        LifespanFailedError: If the application refuses to start.
        KeyboardInterrupt: If Ctrl-C landed in the application and this is not Trio's main task; after a graceful
            stop. In the main task Ctrl-C stops gracefully and is then done with.

    Cancellation: closes connections at once and runs ``lifespan.shutdown``, shielded for its timeout.
    """
    settings = _translate(config)
    await serve_at(settings.bind, app, settings, shutdown_trigger, mode, task_status)


@trio.lowlevel.enable_ki_protection
async def serve_at(  # noqa: PLR0913, PLR0917 - what `serve` takes, and started by a nursery, which takes no keywords
    binds: tuple[str, ...],
    app: App,
    config: Config,
    shutdown_trigger: Callable[[], Awaitable[object]] | None = None,
    mode: Literal["asgi", "wsgi"] | None = None,
    task_status: trio.TaskStatus[Handle] = trio.TASK_STATUS_IGNORED,
    watch: Callable[[Server], object] | None = None,
) -> None:
    """Do what `serve` does, at these addresses; at none, where connections come by `Listeners.admit` alone.

    ``watch`` is called with the server before anything of it runs.
    """
    if config.is_supervised:
        raise ConfigError(
            "serve() runs one process: workers, max_requests and reload are for the command, "
            "pagi-trio --workers N module:app"
        )
    interrupted = False
    with ExitStack() as resources:
        meter: Counting = Meter.create(config.metrics.flush_interval_s) if config.metrics.enabled else NullMeter()
        listeners = open_listeners(binds, config.backlog, scheme=config.scheme)
        resources.callback(close_all, listeners)
        server = Server(app, config, mode, resources, meter=meter, listeners=listeners)
        if watch is not None:
            watch(server)
        try:
            # One process is its own one worker.
            with ActiveScope(meter.owner, _SPAWNS, _WORKERS):
                meter.owner.set(_CONFIGURED, 1.0)
                await server.run(shutdown_trigger, task_status)
        except* KeyboardInterrupt:
            interrupted = True
    if server.failure is not None:
        raise server.failure
    if (interrupted or server.interrupted) and not _is_main_task():
        raise KeyboardInterrupt


def _is_main_task() -> bool:
    """Whether this task was started by `trio.run` itself."""
    parent = trio.lowlevel.current_task().parent_nursery
    return parent is not None and parent.parent_task is trio.lowlevel.current_root_task()


def _translate(config: Config | hypercorn.config.Config | None) -> Config:
    if config is None:
        return Config()
    if isinstance(config, Config):
        return config
    from pagi_trio.hypercorn_config import from_hypercorn  # noqa: PLC0415 - only here, since it imports hypercorn

    translated, ignored = from_hypercorn(config)
    if ignored:
        log.warning("these settings of the hypercorn config are not honoured here: %s", ", ".join(ignored))
    return translated


def _limit_body(config: Config) -> Config:
    """Limit request bodies to what may be gathered in memory for WSGI."""
    limit = config.limits.body_bytes
    most = config.wsgi_body_max_bytes if limit is None else min(limit, config.wsgi_body_max_bytes)
    return config.replace(limits={"body_bytes": most})


def _announce_calls(app: App, called: Callable[[], None]) -> App:
    """Have each request and WebSocket announced; without this, counting them costs nothing."""

    def announced(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "lifespan":
            called()
        return app(scope, receive, send)

    return announced


class Server:
    """One process that serves: by itself, or as a worker.

    Args:
        app: An application of either kind.
        config: The settings.
        mode: What the application speaks, if not as the settings say.
        resources: Takes what is to be closed at the end.
        meter: What it counts with.
        listeners: Where it accepts connections; closed by whoever opened them, and here once it stops.
        number: Which worker it is; 0 is none.
        local: Collects what only this worker's page can tell.
        called: Called for each request and WebSocket, before the application is.
        is_crowded: Whether other workers should have the next connections.

    Attributes:
        failure: Why the application did not start, once that is known.
        on_failure: Told the same at once, while the application may still not have ended; None where nobody asks.
        interrupted: Whether Ctrl-C landed in the application.
        page: The metrics listener, if this process has one.
        service: What its connections share.
        public: Its connections, and where they are accepted.
    """

    def __init__(  # noqa: PLR0913 - the parts that only the two compositions know, most by name
        self,
        app: App,
        config: Config,
        mode: Literal["asgi", "wsgi"] | None,
        resources: ExitStack,
        *,
        meter: Counting,
        listeners: list[Listener],
        number: int = 0,
        local: Callable[[], Iterable[object]] | None = None,
        called: Callable[[], None] | None = None,
        is_crowded: Callable[[], bool] | None = None,
    ) -> None:
        app = as_asgi(app, mode if mode is not None else config.interface)
        if isinstance(app, WSGIAdapter):
            config = _limit_body(config)
        if called is not None:
            app = _announce_calls(app, called)
        self.failure: LifespanFailedError | None = None
        self.on_failure: Callable[[LifespanFailedError], object] | None = None
        self.interrupted = False
        self._number = number
        self.meter = meter
        self.listeners = listeners
        self.metrics: ServerMetrics | None = None
        if isinstance(meter, Meter):
            self.metrics = ServerMetrics(meter, local, series_per_metric=config.metrics.series_per_metric)
        resources.enter_context(serving(self.metrics))
        tls = create_ssl_context(config.tls)
        access = None
        if config.access_log is not None:
            access = resources.enter_context(AccessLog(config.access_log))
        extensions: Extensions = {
            "pagi.metrics": self.metrics,
            "pagi.worker": {"is_worker": number > 0, "number": number},
            "websocket.http.response": {},
        }
        self.service = Service(
            app,
            config,
            meter,
            state={},
            extensions=extensions,
            interrupt=self.interrupt,
            access=access,
            certificate=read_certificate(config.tls),
        )
        self.page: Page | None = None
        if config.metrics.bind is not None:
            self.page = Page(config.metrics.bind, config.backlog, self.metrics, self._obstacle, self.interrupt)
            resources.callback(self.page.close)
        self._pushing = Pushing(self.metrics, make_exporters(config.statsd))
        self.public = Listeners(self.service, listeners, tls, is_crowded)
        self._lifespan = Lifespan(self.service)
        self._starting = trio.CancelScope()

    def _obstacle(self) -> str:
        if self.public.stopping.is_set() or self._starting.cancel_called:
            return "draining"
        return "" if self.public.accepting.is_set() else "starting"

    def stop(self, idle_grace_s: float = 0.0) -> None:
        """Stop gracefully; while still starting, stop that.

        Args:
            idle_grace_s: How long idle connections stay open for a request that may be on its way already.
        """
        self._drain()
        self.public.stop(idle_grace_s)

    def abort(self) -> None:
        """Stop at once."""
        self._drain()
        self.public.abort()
        self._lifespan.abort()

    def _drain(self) -> None:
        self._starting.cancel()
        self.meter.set(_UP, 0.0)
        self.meter.owner.set(_DRAINING, 1.0)

    def interrupt(self) -> None:
        """Take a Ctrl-C that landed in the application."""
        self.interrupted = True
        self.stop()

    async def run(
        self,
        shutdown_trigger: Callable[[], Awaitable[object]] | None,
        task_status: trio.TaskStatus[Handle],
    ) -> None:
        """Be the server nursery."""
        self.meter.sample(self.service.sample_states)
        self.meter.start_clock(trio.current_time())
        self.meter.set(_STARTED, time.time())
        try:
            await self._run_tasks(shutdown_trigger, task_status)
        finally:
            if self.metrics is not None:
                # What a hot path has kept since somebody looked last.
                self.metrics.update()
            self.meter.fold_all()
            await self._pushing.finish()
            self._come_apart()

    def _come_apart(self) -> None:
        """Let go of what refers to this, now that no task is left: without a circle, all is freed at once.

        Tests start a server each, and would spend a tenth of their time on collecting the one before.
        """
        self.meter.stop_sampling()
        del self.service.interrupt

    async def _run_tasks(
        self, shutdown_trigger: Callable[[], Awaitable[object]] | None, task_status: trio.TaskStatus[Handle]
    ) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.meter.run)
            self._pushing.start(nursery)
            if self._number and self.metrics is not None:
                nursery.start_soon(self.metrics.keep_updated)
            if self.page is not None:
                nursery.start_soon(self.page.run)
            if shutdown_trigger is not None:
                nursery.start_soon(self._stop_after, shutdown_trigger)
            await self._serve_application(task_status)
            if self.page is not None:
                await self.page.finish()
            nursery.cancel_scope.cancel()

    async def _serve_application(self, task_status: trio.TaskStatus[Handle]) -> None:
        """Be the lifespan nursery."""
        async with trio.open_nursery() as nursery:
            try:
                with self._starting:
                    try:
                        await self._lifespan.startup(nursery)
                    except LifespanFailedError as error:
                        self.failure = error
                        if self.on_failure is not None:
                            self.on_failure(error)
                if self.failure is None and not self._starting.cancel_called:
                    await self._listen(task_status)
            finally:
                await self._lifespan.shutdown()

    async def _listen(self, task_status: trio.TaskStatus[Handle]) -> None:
        """Have connections served, in a task of their own: this one is where Ctrl-C is delivered."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.public.run)
            try:
                await self.public.accepting.wait()
                if not self.public.stopping.is_set():
                    self.meter.set(_UP, 1.0)
                if not self._number:
                    log_addresses(self.listeners, [] if self.page is None else self.page.listeners)
                task_status.started(Handle(self))
                await self.public.stopping.wait()
            except KeyboardInterrupt:
                self.stop()

    async def _stop_after(self, trigger: Callable[[], Awaitable[object]]) -> None:
        await trigger()
        self.stop()
