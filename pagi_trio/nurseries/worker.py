"""One worker, as the parent sees it: a task that owns a child process from its start to its end."""

from __future__ import annotations

import errno
import signal
import sys
import time
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import trio

from pagi_trio.metrics import catalog
from pagi_trio.metrics.store import BEAT_S
from pagi_trio.nurseries.child import Child
from pagi_trio.nurseries.control import Control
from pagi_trio.nurseries.scope import ActiveScope
from pagi_trio.nurseries.service import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from pagi_trio.config import Config
    from pagi_trio.metrics.store import Store
    from pagi_trio.nurseries.control import Message
    from pagi_trio.nurseries.sockets import Listener
    from pagi_trio.recruits import Recruits

Reason: TypeAlias = Literal["clean", "recycled", "crashed", "killed", "hung", "startup_failed"]

_SPAWNS: Final = catalog.index("pagi_server_worker_spawns_total")
_ACTIVE: Final = catalog.index("pagi_server_workers_active")
_STARTED: Final = catalog.index("pagi_server_worker_start_time_seconds")
_REASONS: Final[tuple[Reason, ...]] = ("clean", "recycled", "crashed", "killed", "hung", "startup_failed")
_EXITS: Final = {reason: catalog.index("pagi_server_worker_exits_total", reason=reason) for reason in _REASONS}

STOP_SLACK_S: Final = 0.5
"""What a worker may take beyond its graceful and its lifespan timeout before it is killed: half of what the whole
server may take beyond them."""

ABORT_S: Final = 0.5
"""How long a worker has to end that is told to do so at once."""

FAILED_S: Final = 1.0
"""How long a worker has to end that has said why it cannot start."""

TRACEBACK_S: Final = 0.5
"""How long a worker that hangs has to write where, between SIGABRT and SIGKILL."""


class Blueprint:
    """What every worker is started with.

    Args:
        app: The path of the application, which only workers import.
        factory: Whether to call what it names.
        config: The settings; what the parent does itself has been taken out.
        listeners: The sockets that all of them accept from.
        store: Where all of them count, and show that they are alive.
        recruits: Where the processes come from.
    """

    def __init__(  # noqa: PLR0913 - a record of what workers need, by name
        self,
        app: str,
        *,
        factory: bool,
        config: Config,
        listeners: list[Listener],
        store: Store,
        recruits: Recruits,
    ) -> None:
        self.config = config
        self.store = store
        self._recruits = recruits
        self._files = [store.fd, *(listener.sock.fileno() for listener in listeners)]
        self._orders: dict[str, object] = {
            "type": "orders",
            "argv": sys.argv,
            "app": app,
            "factory": factory,
            "config": config.as_mapping(),
            "listeners": [listener.describe() for listener in listeners],
        }

    def start(self, slot: int) -> tuple[Child, Control]:
        """Have a process serve in a slot.

        Raises:
            OSError: If that is not possible, for want of files, processes or memory.
        """
        recruit = self._recruits.take()
        control = Control(recruit.control)
        try:
            child = Child(recruit.process)
        except OSError:
            control.close()
            raise
        if not control.post({**self._orders, "slot": slot}, self._files):
            child.close()
            control.close()
            raise OSError(errno.EMSGSIZE, "it took no orders: they may be too long, or it ended at once")
        return child, control


class Worker:
    """One worker, from its start to its end.

    Args:
        blueprint: What it is started with.
        slot: Its place in the store, and what it is called.
        instance: How many have been started before it, and itself.
        hear: Takes what it says that others must know.

    Attributes:
        ready: Set once it accepts connections.
        ended: Set once its process has ended, and what it counted is kept.
        wants_successor: Why it is to be replaced; None while it is not.
        failure: Why it never got ready, in a line; empty if it did, or was stopped.
        failure_details: The traceback of the application's error, if that is why.
        failure_code: What the command exits with for it.
        reason: How it ended, as it is counted.
        ending: The same, as the kernel tells it.
        was_forced: Whether it had to be killed, since it did not end in time.
    """

    def __init__(self, blueprint: Blueprint, slot: int, instance: int, hear: Callable[[Worker, Message], None]) -> None:
        self.slot = slot
        self.instance = instance
        self.ready = trio.Event()
        self.ended = trio.Event()
        self.wants_successor: Reason | None = None
        self.failure = ""
        self.failure_details = ""
        self.failure_code = 3
        self.reason: Reason = "clean"
        self.ending = ""
        self.was_forced = False
        self._blueprint = blueprint
        self._segment = blueprint.store.slot(slot)
        self._pass_on = hear
        self._changed = trio.Event()
        self._replaced = trio.Event()
        self._started = trio.Event()
        self._stopping = trio.Event()
        self._aborting = trio.Event()
        self._stop_reason: Reason = "clean"
        self._killed_for: Reason | None = None
        self._ready_at = 0.0
        self._control: Control | None = None
        self._child: Child | None = None

    def __str__(self) -> str:
        return f"worker {self.slot}" if self._child is None else f"worker {self.slot} (pid {self._child.pid})"

    @property
    def is_stopping(self) -> bool:
        """Whether it has been told to end."""
        return self._stopping.is_set()

    @property
    def served_s(self) -> float:
        """For how long it has been ready."""
        return trio.current_time() - self._ready_at if self.ready.is_set() else 0.0

    async def wait_change(self) -> None:
        """Wait until it is ready, wants a successor or has ended; for one task at a time."""
        await self._changed.wait()
        self._changed = trio.Event()

    def replace(self, reason: Reason) -> None:
        """Have a successor started, which takes over once it is ready."""
        if self.wants_successor is None:
            self.wants_successor = reason
            self._replaced = trio.Event()
        self._changed.set()

    def keep(self) -> None:
        """Go on without a successor, since none could start."""
        again = self.wants_successor == "recycled"
        self.wants_successor = None
        self._replaced.set()
        if again:
            # It has served its time, whatever became of its successor.
            self.replace("recycled")

    async def wait_replaced(self) -> bool:
        """Wait until it has ended, or is to be kept; return whether it has ended."""
        await self._replaced.wait()
        return self.ended.is_set()

    def make_way(self, reason: Reason) -> None:
        """Let it end as `stop` does, since others go on: it first waits for requests that are on their way."""
        if not self._stopping.is_set():
            self._stop_reason = reason
            self._begin_to_stop("make_way")

    def stop(self) -> None:
        """Let it end gracefully, within its timeouts; calling this again changes nothing."""
        if not self._stopping.is_set():
            self._begin_to_stop("stop")

    def _begin_to_stop(self, how: str) -> None:
        self._stopping.set()
        self._tell(how, signal.SIGTERM)
        if self._child is not None and not self.ready.is_set():
            # It may still be importing the application, and not listen.
            self._child.send_signal(signal.SIGTERM)

    def abort(self) -> None:
        """Let it end at once."""
        self.stop()
        self._aborting.set()
        self._tell("abort", signal.SIGTERM)

    def kill(self) -> None:
        """Kill its process; for another thread, when this process is about to end as well."""
        if self._child is not None:
            self._child.send_signal(signal.SIGKILL)

    def _tell(self, what: str, otherwise: signal.Signals) -> None:
        if self._control is None or self._child is None or self.ended.is_set():
            return
        if not self._control.post({"type": what}):
            self._child.send_signal(otherwise)

    async def run(self) -> None:
        """Be the worker's scope; nothing is started if it has been stopped before.

        Cancellation: kills the process.
        """
        try:
            if not self.is_stopping:
                await self._be_counted()
        finally:
            self.ended.set()
            self._replaced.set()
            self._changed.set()

    async def _be_counted(self) -> None:
        store = self._blueprint.store
        self._segment.occupy(self.instance)
        self._segment.set(_STARTED, time.time())
        try:
            with ActiveScope(store.parent, _SPAWNS, _ACTIVE):
                await self._live()
        finally:
            store.parent.add(_EXITS[self.reason])
            for name in store.retire(self.slot):
                log.warning("the metric %s has another definition since the reload, and starts anew", name)

    async def _live(self) -> None:
        try:
            self._child, self._control = self._blueprint.start(self.slot)
        except OSError as error:
            self.reason = "startup_failed"
            self.failure = f"{self} could not be started: {error.strerror}"
            return
        self._segment.name_process(self._child.pid)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, self._control)
                nursery.start_soon(self._watch, self._child)
                code = await self._child.wait()
                nursery.cancel_scope.cancel()
            self._hear_last_words(self._control)
            self.reason = self._judge(code)
            self.ending = _describe(code)
        finally:
            self._child.close()
            self._control.close()

    async def _listen(self, control: Control) -> None:
        while (message := await control.receive()) is not None:
            self._hear(message)

    def _hear_last_words(self, control: Control) -> None:
        """Take what it sent right before its end."""
        try:
            while (message := control.receive_nowait()) is not None:
                self._hear(message)
        except BlockingIOError:
            return

    def _hear(self, message: Message) -> None:
        if message["type"] == "ready":
            self._ready_at = trio.current_time()
            self.ready.set()
            self._started.set()
            self._changed.set()
            self._pass_on(self, message)
        elif message["type"] in ("failing", "failed"):
            self.failure = str(message.get("message"))
            self.failure_details = str(message.get("details", ""))
            self.failure_code = 2 if message.get("code") == 2 else 3
            if message["type"] == "failed":
                # No task of the application's is left, while one that is failing may take its time.
                self._started.set()
        elif message["type"] == "recycle":
            self.replace("recycled")
        else:
            self._pass_on(self, message)

    # Deadlines

    async def _watch(self, child: Child) -> None:
        """Kill it once it takes too long: to get ready, for a turn of its event loop, or to end."""
        timeouts = self._blueprint.config.timeouts
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._bound_stop, child)
            limit_s = max(timeouts.worker_start_s, timeouts.startup_s)
            with trio.move_on_after(limit_s):
                await self._started.wait()
            if self.failure and self._started.is_set():
                # A thread of the application's may keep it from ending, as its last words say why it does.
                await trio.sleep(FAILED_S)
                self._killed_for = "startup_failed"
                child.send_signal(signal.SIGKILL)
                await trio.sleep_forever()
            # One that beats is ready, though the parent may have stood still and not have heard of it yet.
            if not self.ready.is_set() and not self._segment.is_beating:
                self.failure = self.failure or f"{self} was not ready within {limit_s:g} s"
                await self._kill(child, "startup_failed")
            await self._watch_beats(child)

    async def _watch_beats(self, child: Child) -> None:
        limit_s = self._blueprint.config.timeouts.worker_s
        since = looked = time.monotonic()
        while True:
            await trio.sleep(BEAT_S)
            now = time.monotonic()
            if now - looked > 2 * BEAT_S:
                # Whatever stopped this process may have stopped the worker as well, as Ctrl-Z does.
                since = now
            looked = now
            if min(self._segment.blocked_s(now), now - since) > limit_s:
                log.error("%s hangs: its event loop has stood still for %g s; it is killed", self, limit_s)
                await self._kill(child, "hung")

    async def _bound_stop(self, child: Child) -> None:
        await self._stopping.wait()
        timeouts = self._blueprint.config.timeouts
        with trio.move_on_after(timeouts.graceful_s + timeouts.shutdown_s + STOP_SLACK_S):
            await self._aborting.wait()
            await trio.sleep(ABORT_S)
        if not self._aborting.is_set():
            log.error("%s did not end in time; it is killed", self)
            self.was_forced = True
        self._killed_for = "killed"
        child.send_signal(signal.SIGKILL)

    async def _kill(self, child: Child, reason: Reason) -> None:
        """Have it write where it stands, and kill it."""
        self._killed_for = reason
        self.was_forced = self.is_stopping
        child.send_signal(signal.SIGABRT)
        await trio.sleep(TRACEBACK_S)
        child.send_signal(signal.SIGKILL)
        await trio.sleep_forever()

    # Its end

    def _judge(self, code: int) -> Reason:
        """Say why it ended."""
        if self._killed_for is not None:
            return self._killed_for
        if not self.ready.is_set() and not self._stopping.is_set():
            self.failure = self.failure or f"{self} ended before it was ready: {_describe(code)}"
            return "startup_failed"
        if code == -signal.SIGKILL:
            return "killed"
        # It may get the signal once more when its interpreter has let go of all handlers.
        if code == 0 or (self._stopping.is_set() and code == -signal.SIGTERM):
            return self._stop_reason
        return "crashed"


def _describe(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        # One of the real-time signals, which have no names.
        return f"killed by signal {-code}"
