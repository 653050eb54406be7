"""The parent's composition root: `supervise` binds the sockets, serves the metrics page and watches over workers.

::

    supervisor nursery
    +- metrics listener        only with a metrics bind; opens first, closes last
    +- pushing                 a task for each system that gets the numbers of all workers
    +- signals
    +- watching for changes    only with reload
    +- workers nursery
       +- worker x N           a task that owns one child process

It never imports the application: a worker that is started later gets the code as it is then.
"""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from pagi_trio.errors import PagiError
from pagi_trio.metrics import catalog
from pagi_trio.metrics.meter import Meter, introduce
from pagi_trio.metrics.pushing import Pushing, make_exporters
from pagi_trio.metrics.server_metrics import ServerMetrics
from pagi_trio.metrics.store import Store
from pagi_trio.nurseries.reload import watch
from pagi_trio.nurseries.service import log
from pagi_trio.nurseries.sockets import close_all, log_addresses, open_listeners
from pagi_trio.nurseries.tls import create_ssl_context
from pagi_trio.nurseries.worker import Blueprint
from pagi_trio.nurseries.workers import Workers
from pagi_trio.page import Page
from pagi_trio.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from types import FrameType

    from pagi_trio.config import Config
    from pagi_trio.recruits import Recruits
    from pagi_trio.systemd import Notifier

_DRAINING: Final = catalog.index("pagi_server_draining")

SPARE_WORKERS: Final = 8
"""How many workers may be added to a running server: the store cannot grow. Each costs two slots, one for the worker
that takes over from it; memory that is never touched costs nothing."""

SLACK_S: Final = 2.0
"""What the whole may take beyond the graceful and the lifespan timeout, before it is ended all the same: the workers
have half a second of it, scrapes in flight and the last push of numbers the rest."""

_STOPS: Final = (signal.SIGTERM, signal.SIGINT)
_SIGNALS: Final = (*_STOPS, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU)


async def supervise(app: str, config: Config, *, factory: bool, notifier: Notifier, recruits: Recruits) -> bool:
    """Serve an application by worker processes, until a signal says otherwise.

    Args:
        app: Its path, as on the command line.
        config: The settings.
        factory: Whether to call what the path names.
        notifier: Tells a service manager how it goes.
        recruits: Where the worker processes come from.

    Returns:
        Whether every worker ended by itself, in time.

    Raises:
        ConfigError: If a setting is wrong or an address cannot be listened on; nothing has been started.
        WorkerError: If no worker ever got ready.
    """
    with ExitStack() as resources:
        # Only to find out now, and once, whether it can be made.
        create_ssl_context(config.tls)
        supervisor = _Supervisor(
            app, config, factory=factory, notifier=notifier, recruits=recruits, resources=resources
        )
        await supervisor.run()
    if supervisor.failure is not None:
        raise supervisor.failure
    return not supervisor.workers.was_forced


class _Supervisor:
    def __init__(  # noqa: PLR0913 - what `supervise` was given, by name
        self,
        app: str,
        config: Config,
        *,
        factory: bool,
        notifier: Notifier,
        recruits: Recruits,
        resources: ExitStack,
    ) -> None:
        self.failure: PagiError | None = None
        self._config = config
        self._notifier = notifier
        self._signals = 0
        self._replacing = 0
        self._was_ready = False
        self._is_announced = False
        store = Store(2 * (config.workers + SPARE_WORKERS), shared=True)
        resources.callback(store.close)
        introduce(store)
        self._store = store
        self._listeners = open_listeners(config.bind, config.backlog, scheme=config.scheme)
        resources.callback(close_all, self._listeners)
        self._page: Page | None = None
        metrics = ServerMetrics(Meter(store, None, is_owner=True))
        self._pushing = Pushing(metrics, make_exporters(config.statsd))
        if config.metrics.bind is not None:
            self._page = Page(config.metrics.bind, config.backlog, metrics, self._obstacle, self.stop)
            resources.callback(self._page.close)
        blueprint = Blueprint(
            app,
            factory=factory,
            config=config.replace(**{"metrics.bind": None, "statsd.address": None}),
            listeners=self._listeners,
            store=store,
            recruits=recruits,
        )
        self.workers = Workers(blueprint, config.workers, self._note_change, is_patient=config.reload)

    def _obstacle(self) -> str:
        if self._store.parent.get(_DRAINING):
            return "draining"
        if self.workers.ready:
            return ""
        return "no worker is ready" if self._was_ready else "starting"

    async def run(self) -> None:
        """Be the supervisor nursery."""
        self._is_hung_up = _make_hangup_test()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        for one in _SIGNALS:
            # Or a signal that comes right at the end would be raised again, and end the process by force.
            signal.signal(one, signal.SIG_IGN)
        with trio.open_signal_receiver(*_SIGNALS) as signals:
            self._watch_the_end()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            try:
                await self._watch_over(signals)
            finally:
                # Every worker has ended, and what it counted is kept.
                await self._pushing.finish()

    def _watch_the_end(self) -> None:
        """Bound the end though this process stands still itself, as it does where nobody reads its standard error."""
        watchdog = Watchdog(self._config, slack_s=SLACK_S, what="the server", before=self.workers.kill)
        receive = {one: signal.getsignal(one) for one in _STOPS}

        def take(number: int, frame: FrameType | None) -> None:
            watchdog.start()
            handler = receive[signal.Signals(number)]
            assert callable(handler), "Trio's, which `open_signal_receiver` has set, and takes back"
            handler(number, frame)

        for one in _STOPS:
            signal.signal(one, take)

    async def _watch_over(self, signals: AsyncIterator[int]) -> None:
        async with trio.open_nursery() as nursery:
            self._pushing.start(nursery)
            if self._page is not None:
                nursery.start_soon(self._page.run)
            nursery.start_soon(self._notifier.run)
            nursery.start_soon(self._take_signals, signals, nursery)
            try:
                if self._config.reload:
                    # Before a worker imports anything, or a change in between would be missed.
                    await nursery.start(watch, [Path(one) for one in self._config.reload_dirs], self._reload)
                log_addresses(self._listeners, [] if self._page is None else self._page.listeners)
                await self.workers.run()
            except PagiError as error:
                self.failure = error
            if self._page is not None:
                await self._page.finish()
            nursery.cancel_scope.cancel()

    def stop(self) -> None:
        """Stop gracefully."""
        self._store.parent.set(_DRAINING, 1.0)
        self._notifier.stopping()
        # The workers have their own; the address is free once they have closed them.
        close_all(self._listeners)
        self.workers.stop()

    async def _take_signals(self, signals: AsyncIterator[int], nursery: trio.Nursery) -> None:
        async for number in signals:
            if number in _STOPS or (number == signal.SIGHUP and self._is_hung_up()):
                self._take_stop()
            elif number == signal.SIGHUP and not self._signals and self._replacing < 2:
                # More than one that waits for its turn would find nothing older than itself.
                self._replacing += 1
                nursery.start_soon(self._replace)
            elif number == signal.SIGTTIN:
                self.workers.add()
            elif number == signal.SIGTTOU:
                self.workers.remove()

    def _take_stop(self) -> None:
        self._signals += 1
        if self._signals == 1:
            self.stop()
        else:
            self.workers.abort()

    async def _replace(self) -> None:
        log.info("replacing the workers")
        self._notifier.reloading()
        await self.workers.replace()
        self._replacing -= 1
        self._is_announced = False
        self._note_change()

    def _reload(self, changed: list[Path]) -> None:
        log.info("%s changed, restarting", ", ".join(str(one) for one in changed[:3]))
        self.workers.restart()

    def _note_change(self) -> None:
        """Tell the service manager how many workers serve."""
        ready = self.workers.ready
        status = f"{ready} workers are ready, {self.workers.wanted} are wanted"
        self._was_ready = self._was_ready or ready > 0
        if ready and not self._is_announced:
            self._is_announced = True
            self._notifier.ready(status)
        else:
            self._notifier.status(status)


def _make_hangup_test() -> Callable[[], bool]:
    """Return a test of whether a SIGHUP means that the terminal was closed, which is to end what was started there.

    A program that was started to outlive its terminal, by nohup, has the signal ignored.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN or not _has_terminal():
        return lambda: False
    return lambda: not _has_terminal()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
