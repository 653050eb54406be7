"""The composition root: `serve` puts the tree of nurseries together and takes it down again.

::

    server nursery             one per server
    +- flush task              folds message counts into the store
    +- metrics listener        only with a metrics bind; opens first, closes last
    +- lifespan nursery        startup and shutdown are timed phases
    +- listeners nursery
       +- accept loop x listener
       +- reaper
       +- connection nursery x M
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, Literal, Self

import trio

from pagi_trio.config import Config
from pagi_trio.errors import LifespanFailedError
from pagi_trio.hypercorn_config import from_hypercorn
from pagi_trio.interface import WSGIAdapter, as_asgi
from pagi_trio.metrics import catalog
from pagi_trio.metrics.endpoint import MetricsApp
from pagi_trio.metrics.facade import Metrics, current_metrics
from pagi_trio.metrics.meter import Meter, NullMeter
from pagi_trio.nurseries.access import AccessLog
from pagi_trio.nurseries.lifespan import Lifespan
from pagi_trio.nurseries.listeners import Listeners
from pagi_trio.nurseries.scope import ActiveScope
from pagi_trio.nurseries.service import Service, log
from pagi_trio.nurseries.sockets import close_all, open_listeners
from pagi_trio.nurseries.tls import create_ssl_context, read_certificate
from pagi_trio.urlmap import URLMap

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import hypercorn.config

    from pagi_trio.asgi import App, Extensions
    from pagi_trio.metrics.meter import Counting

_SPAWNS: Final = catalog.index("pagi_server_worker_spawns_total")
_WORKERS: Final = catalog.index("pagi_server_workers_active")

METRICS_GRACE_S: Final = 0.5
"""How long a scrape in flight has to finish once everything else is down."""


class Handle(tuple[str, ...]):  # noqa: SLOT001 - one per server, and it has attributes
    """A running server: the URLs it listens on, as a sequence, and what can be asked of it.

    Attributes:
        metrics: Its numbers; None where metrics are off.
        metrics_urls: Where the page of its own is, if there is one.
        state: What the application's lifespan has put into its state.
    """

    metrics: Metrics | None
    metrics_urls: tuple[str, ...]
    state: dict[str, object]
    _server: _Server

    def __new__(cls, server: _Server) -> Self:
        """Describe a server whose sockets are open."""
        self = super().__new__(cls, (listener.url for listener in server.listeners))
        self.metrics = server.metrics
        self.metrics_urls = tuple(listener.url for listener in server.page_listeners)
        self.state = server.service.state
        self._server = server
        return self

    def shutdown(self) -> None:
        """Stop gracefully: what is in flight may finish. Returns at once."""
        self._server.stop()

    def abort(self) -> None:
        """Stop at once: connections are closed and the application's shutdown is not waited for. Returns at once."""
        self._server.abort()

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
        LifespanFailedError: If the application refuses to start.
        KeyboardInterrupt: If Ctrl-C landed in the application and this is not Trio's main task; after a graceful
            stop. In the main task Ctrl-C stops gracefully and is then done with.

    Cancellation: closes connections at once and runs ``lifespan.shutdown``, shielded for its timeout.
    """
    settings = _translate(config)
    app = as_asgi(app, mode if mode is not None else settings.interface)
    if isinstance(app, WSGIAdapter):
        settings = _limit_body(settings)
    interrupted = False
    with ExitStack() as resources:
        server = _Server(app, settings, resources)
        try:
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
    translated, ignored = from_hypercorn(config)
    if ignored:
        log.warning("these settings of the hypercorn config are not honoured here: %s", ", ".join(ignored))
    return translated


def _limit_body(config: Config) -> Config:
    """Limit request bodies to what may be gathered in memory for WSGI."""
    limit = config.limits.body_bytes
    most = config.wsgi_body_max_bytes if limit is None else min(limit, config.wsgi_body_max_bytes)
    return config.replace(limits={"body_bytes": most})


class _Server:
    """What `serve` puts together.

    Ownership: sockets and files belong to the stack of resources, which closes them.

    Attributes:
        failure: Why the application did not start, once that is known.
        interrupted: Whether Ctrl-C landed in the application.
    """

    def __init__(self, app: App, config: Config, resources: ExitStack) -> None:
        self.failure: LifespanFailedError | None = None
        self.interrupted = False
        self.meter: Counting = Meter.create(config.metrics.flush_interval_s) if config.metrics.enabled else NullMeter()
        self.metrics = Metrics(self.meter) if isinstance(self.meter, Meter) else None
        resources.callback(current_metrics.reset, current_metrics.set(self.metrics))
        tls = create_ssl_context(config.tls)
        self.listeners = open_listeners(config.bind, config.backlog, scheme=config.scheme)
        resources.callback(close_all, self.listeners)
        self.page_listeners = (
            [] if config.metrics.bind is None else open_listeners([config.metrics.bind], config.backlog)
        )
        resources.callback(close_all, self.page_listeners)
        access = None
        if config.access_log is not None:
            access = resources.enter_context(AccessLog(config.access_log))
        extensions: Extensions = {
            "pagi.metrics": self.metrics,
            "pagi.worker": {"is_worker": False, "number": 0},
            "websocket.http.response": {},
        }
        self.service = Service(
            app,
            config,
            self.meter,
            state={},
            extensions=extensions,
            interrupt=self.interrupt,
            access=access,
            certificate=read_certificate(config.tls),
        )
        self._public = Listeners(self.service, self.listeners, tls)
        self._lifespan = Lifespan(self.service)
        self._starting = trio.CancelScope()

    def stop(self) -> None:
        """Stop gracefully; while still starting, stop that."""
        self._starting.cancel()
        self._public.stop()

    def abort(self) -> None:
        """Stop at once."""
        self._starting.cancel()
        self._public.abort()
        self._lifespan.abort()

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
        with ActiveScope(self.meter, _SPAWNS, _WORKERS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.meter.run)
                page = self._start_page(nursery)
                if shutdown_trigger is not None:
                    nursery.start_soon(self._stop_after, shutdown_trigger)
                await self._serve_application(task_status)
                if page is not None:
                    page.stop()
                    with trio.move_on_after(METRICS_GRACE_S):
                        await page.closed.wait()
                nursery.cancel_scope.cancel()
        self.meter.fold_all()

    def _start_page(self, nursery: trio.Nursery) -> Listeners | None:
        """Open the metrics listener: before the application starts, so that its start can be watched."""
        if not self.page_listeners:
            return None
        timeouts = {"timeouts.graceful_s": METRICS_GRACE_S}
        app = MetricsApp()
        service = Service(
            # Scrapers ask for /metrics unless told otherwise, people for the address alone.
            URLMap({"/metrics": app, "/": app}),
            Config().replace(**timeouts),
            NullMeter(),
            state={},
            extensions={"pagi.metrics": self.metrics},
            interrupt=self.interrupt,
        )
        page = Listeners(service, self.page_listeners, None)
        nursery.start_soon(page.run)
        return page

    async def _serve_application(self, task_status: trio.TaskStatus[Handle]) -> None:
        """Be the lifespan nursery."""
        async with trio.open_nursery() as nursery:
            try:
                with self._starting:
                    try:
                        await self._lifespan.startup(nursery)
                    except LifespanFailedError as error:
                        self.failure = error
                if self.failure is None and not self._starting.cancel_called:
                    await self._listen(task_status)
            finally:
                await self._lifespan.shutdown()

    async def _listen(self, task_status: trio.TaskStatus[Handle]) -> None:
        """Have connections served, in a task of their own: this one is where Ctrl-C is delivered."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._public.run)
            try:
                await self._public.accepting.wait()
                for listener in self.listeners:
                    log.info("serving on %s", listener.url)
                for listener in self.page_listeners:
                    log.info("metrics on %s", listener.url)
                task_status.started(Handle(self))
                await self._public.stopping.wait()
            except KeyboardInterrupt:
                self.stop()

    async def _stop_after(self, trigger: Callable[[], Awaitable[object]]) -> None:
        await trigger()
        self.stop()
