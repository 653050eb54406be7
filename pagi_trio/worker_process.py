"""What runs in a worker process, from its first line to its end.

The parent has started it with two numbers: its own pid, and the file of the socket on which it sends what to serve.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import random
import signal
import socket
import sys
import traceback
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NoReturn, TypedDict, cast

import trio

from pagi_trio.config import Config
from pagi_trio.cpu_limit import CPULimit
from pagi_trio.errors import PagiError
from pagi_trio.failure import EXIT_STUCK, explain
from pagi_trio.import_hook import when_imported
from pagi_trio.loader import load_app
from pagi_trio.metrics import catalog
from pagi_trio.metrics.application.region import Region
from pagi_trio.metrics.application.turns import Turns
from pagi_trio.metrics.meter import Meter, NullMeter
from pagi_trio.metrics.store import BEAT_S, Store
from pagi_trio.nurseries.control import Control, receive_first
from pagi_trio.nurseries.sockets import Listener, close_all
from pagi_trio.process import set_up_logging
from pagi_trio.recruits import HELD_SIGNALS
from pagi_trio.server import Server
from pagi_trio.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import FrameType

    from pagi_trio.asgi import App
    from pagi_trio.metrics.exporters.prometheus_values import AppMetrics
    from pagi_trio.metrics.meter import Counting
    from pagi_trio.nurseries.sockets import Described
    from pagi_trio.server import Handle

# Of what went wrong at the start, in characters: the socket's packet holds 200 KiB, and one may take 12 bytes there.
_LINE_MOST: Final = 1_000
_DETAILS_MOST: Final = 12_000

_CONNECTIONS: Final = catalog.index("pagi_server_connections_active")
_UP: Final = catalog.index("pagi_server_worker_up")

CROWDED: Final = 1.05
CROWDED_LEAST: Final = 4
"""A worker lets the others accept first once it has this much more than the average, and this many more."""

CPU_SLACK_S: Final = 2.0
"""What a worker that hangs may take beyond its timeout until the kernel kills it: the parent is to be first, since it
knows why and has the worker write where it stands."""

IDLE_GRACE_S: Final = 1.0
"""How long a worker that is replaced keeps idle connections: their clients do not know, and may have sent a request
that would find them closed. Nobody waits for the worker's end."""

# prctl(2); Python has no names for them.
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15


_ELSEWHERE: Final = (
    "PROMETHEUS_MULTIPROC_DIR is set, so the application's metrics are kept there and are not on the metrics page; "
    "unset it to have them added up here"
)


class Orders(TypedDict):
    """What the parent sends first.

    Attributes:
        argv: The parent's own arguments, since applications look at them.
        app: The path of the application.
        factory: Whether to call what it names.
        config: The settings, by dotted key.
        listeners: The sockets to accept from; their files, behind that of the shared memory, come along.
        slot: The worker's place in the shared memory.
    """

    argv: list[str]
    app: str
    factory: bool
    config: Mapping[str, object]
    listeners: list[Described]
    slot: int


def main() -> NoReturn:
    """Be a worker in an interpreter of its own."""
    gc.enable()
    serve_orders(int(sys.argv[2]), socket.socket(fileno=int(sys.argv[3])))


def serve_orders(parent: int, control: socket.socket) -> NoReturn:
    """Be a worker: hear what to serve, and serve it until the parent says otherwise, or ends.

    Args:
        parent: The pid of the parent.
        control: The socket that is shared with it.

    Raises:
        SystemExit: At the end.
    """
    control.set_inheritable(False)
    _end_with(parent)
    _close_listeners()
    _set_signals(_leave)
    with suppress(ValueError, OSError, RuntimeError):
        # The parent has a worker that hangs write where, by SIGABRT; without a standard error there is nowhere.
        faulthandler.enable()
    with control:
        orders, files = receive_first(control)
        if orders is None:
            # Nothing has been started, and there is nobody to tell anything to.
            os._exit(0)
        code = _work(cast("Orders", orders), files, Control(control))
    # What called a process that was forked is the parent's, and must not see anything else.
    sys.exit(code)


def _work(orders: Orders, files: list[int], control: Control) -> int:
    """Import the application and serve it; return the exit code."""
    try:
        _Worker(orders, files, control).work()
    except PagiError as error:
        return _tell("failed", error, control)
    except Exception:  # noqa: BLE001 - an error of our own, or of the system's
        traceback.print_exc()
        return EXIT_STUCK
    return 0


def _tell(what: Literal["failed", "failing"], error: PagiError, control: Control) -> int:
    """Tell the parent why this process does not serve; return the exit code for it."""
    failure = explain(error)
    control.post(
        {
            "type": what,
            "message": failure.line[:_LINE_MOST],
            "details": _shorten(failure.details, _DETAILS_MOST),
            "code": failure.code,
        }
    )
    return failure.code


def _shorten(text: str, most: int) -> str:
    """Leave out the middle of a text that is too long: how a traceback begins is worth as much as how it ends."""
    return text if len(text) <= most else f"{text[: most // 2]}\n[...]\n{text[-most // 2 :]}"


def _end_with(parent: int) -> None:
    """Have the kernel send SIGTERM when the parent ends, however it does.

    It comes by its thread, and not by a loop that may hang; `_Worker` learns of it by the end of the socket, too.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        # It ended before that was in force.
        os._exit(0)


def _name_process(slot: int) -> None:
    """Have ``top`` and ``ps -o comm`` tell workers apart; the kernel keeps 15 bytes."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, f"pagi-worker {slot}".encode())


def _close_listeners() -> None:
    """Close the listening sockets that this process was forked with; those that it serves come with its orders.

    A service manager has passed them to the parent. Clients could connect for as long as they are open, and would
    hang once nobody accepts.
    """
    directory = Path("/proc/self/fd")
    for file in directory.iterdir() if directory.exists() else ():
        try:
            sock = socket.socket(fileno=int(file.name))
        except OSError:
            continue
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            sock.close()
        else:
            sock.detach()


def _set_signals(on_term: Callable[[int, FrameType | None], None]) -> None:
    """Leave the terminal's signals to the parent, which gets them too.

    Ctrl-C and a hangup are ignored by a function, since SIG_IGN would be inherited by what the application starts.
    That is right for the terminal's job control: a handler would have a read from it tried again for ever.
    """
    for one in HELD_SIGNALS:
        signal.signal(one, signal.SIG_IGN if one in (signal.SIGTTIN, signal.SIGTTOU) else _ignore)
    signal.signal(signal.SIGTERM, on_term)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_SIGNALS)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing."""


def _leave(_number: int, _frame: FrameType | None) -> None:
    """End at once: nothing has been started yet."""
    os._exit(0)


class _Worker:
    """One worker process."""

    def __init__(self, orders: Orders, files: list[int], control: Control) -> None:
        sys.argv[:] = orders["argv"]
        _name_process(orders["slot"])
        self._orders = orders
        self._control = control
        self._config = Config.from_mapping(orders["config"])
        self._watchdog = Watchdog(self._config)
        self._cpu_limit = CPULimit(self._config.timeouts.worker_s + CPU_SLACK_S)
        store, *self._sockets = files
        self._listeners: list[Listener] = []
        os.register_at_fork(after_in_child=self._be_a_child_of_the_application)
        self._store = Store.attach(store)
        self._segment = self._store.slot(orders["slot"])
        self._turns = Turns(Region(self._segment.area))
        self._application: AppMetrics | None = None
        if self._config.metrics.enabled:
            when_imported("prometheus_client", self._share_metrics)
        self._told: set[str] = set()
        self._requests = 0
        self._is_recycling = False
        limit = self._config.max_requests
        self._last_request = None if limit is None else limit + random.randint(0, self._config.max_requests_jitter)  # noqa: S311 - spreads load

    def work(self) -> None:
        """Import the application and serve it."""
        app = load_app(self._orders["app"], factory=self._orders["factory"])
        set_up_logging(self._config.log_level, name=f"worker {self._orders['slot']}")
        trio.run(self._serve, app)

    async def _serve(self, app: App) -> None:
        config = self._config
        slot = self._orders["slot"]
        with ExitStack() as resources:
            meter: Counting = NullMeter()
            if config.metrics.enabled:
                interval_s = config.metrics.flush_interval_s
                meter = Meter(self._store, slot, is_owner=False, interval_s=interval_s, turns=self._turns)
            listeners = [Listener.inherit(*one) for one in zip(self._orders["listeners"], self._sockets, strict=True)]
            self._listeners, self._sockets = listeners, []
            resources.callback(close_all, listeners)
            server = Server(
                app,
                config,
                None,
                resources,
                meter=meter,
                listeners=listeners,
                number=slot,
                local=self._collect_local,
                is_crowded=self._is_crowded if config.metrics.enabled else None,
                called=None if self._last_request is None else self._count_request,
            )
            # It says so once more when it has ended, which an application may hold up.
            server.on_failure = partial(_tell, "failing", control=self._control)
            self._stop_on_term(server)
            # A signal that comes once all is done would find Trio half taken down.
            for one in HELD_SIGNALS:
                resources.callback(signal.signal, one, signal.SIG_IGN)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._obey, server, listeners)
                nursery.start_soon(self._beat, meter)
                await server.run(None, self)
                nursery.cancel_scope.cancel()
        if server.failure is not None:
            raise server.failure

    def started(self, _handle: Handle | None = None) -> None:
        """Tell the parent that connections are accepted, as a task status does."""
        self._segment.beat()
        self._cpu_limit.renew()
        self._control.post({"type": "ready"})

    async def _beat(self, meter: Counting) -> None:
        """Show that the event loop runs, once the worker is ready, and what is looked up instead of counted."""
        while True:
            await trio.sleep(BEAT_S)
            if self._segment.is_beating:
                self._segment.beat()
                self._cpu_limit.renew()
            meter.fold_all()
            if self._application is not None:
                self._look_after(self._application)

    def _share_metrics(self) -> None:
        """Have what the application defines in prometheus_client's registry counted where all processes can read it."""
        try:
            from pagi_trio.metrics.exporters.prometheus import Collector  # noqa: PLC0415 - where it is installed
            from pagi_trio.metrics.exporters.prometheus_values import install, is_elsewhere  # noqa: PLC0415

            if is_elsewhere():
                self._control.post({"type": "warning", "text": _ELSEWHERE})
            else:
                self._application = install(self._turns, ignored=(Collector,))
        except Exception as error:  # noqa: BLE001 - or the application's own import would fail
            self._control.post({"type": "warning", "text": f"the application's metrics are not shared: {error!r}"})

    def _collect_local(self) -> Iterable[object]:
        return () if self._application is None else self._application.collect_unshared(self._orders["slot"])

    def _look_after(self, application: AppMetrics) -> None:
        """Give places to new metrics, and tell the parent what cannot have one."""
        application.place_pending()
        if new := application.unshared() - self._told:
            self._told |= new
            self._control.post({"type": "unshared", "names": " ".join(sorted(new))})

    def _be_a_child_of_the_application(self) -> None:
        """Let go of what is the worker's, in a process that the application has forked from it.

        Or the addresses would be taken for as long as that lives, and a signal that is to end it would not.
        """
        for one in HELD_SIGNALS:
            signal.signal(one, signal.SIG_DFL)
        for file in self._sockets:
            with suppress(OSError):
                os.close(file)
        for listener in self._listeners:
            listener.sock.close()
        self._control.abandon()

    def _stop_on_term(self, server: Server) -> None:
        """Stop gracefully on SIGTERM, however often it comes: a service manager sends it to every process."""
        token = trio.lowlevel.current_trio_token()

        def stop(_number: int, _frame: FrameType | None) -> None:
            self._watchdog.start()
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(server.stop, idempotent=True)

        _set_signals(stop)

    async def _obey(self, server: Server, listeners: list[Listener]) -> None:
        """Do what the parent says; once it has ended, end as well."""
        while (message := await self._control.receive()) is not None:
            if message["type"] == "stop":
                server.stop()
            elif message["type"] == "make_way":
                server.stop(IDLE_GRACE_S)
            elif message["type"] == "abort":
                server.abort()
            self._watchdog.start()
        for listener in listeners:
            # Nobody else is left to.
            listener.remove_file()
        self._watchdog.start()
        server.stop()

    def _is_crowded(self) -> bool:
        """Whether this worker has clearly more connections than the others have on average."""
        others = [segment.get(_CONNECTIONS) for _, segment in self._store.live() if segment.get(_UP)]
        most = CROWDED * sum(others) / max(1, len(others)) + CROWDED_LEAST
        return self._segment.get(_CONNECTIONS) > most

    def _count_request(self) -> None:
        self._requests += 1
        if self._last_request is not None and self._requests >= self._last_request and not self._is_recycling:
            # A parent that stands still may not take it now.
            self._is_recycling = self._control.post({"type": "recycle"})
