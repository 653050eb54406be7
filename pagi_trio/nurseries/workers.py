"""The workers nursery: as many workers as are wanted, each replaced when it ends.

A *place* is a task that keeps one worker running; over time it has many, and two while one takes over from the
other. Stopping closes the places first, so that nobody is replaced, and then lets every worker end.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final

import trio

from pagi_trio.errors import ConfigError, WorkerError
from pagi_trio.metrics import catalog
from pagi_trio.nurseries.service import log
from pagi_trio.nurseries.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from pagi_trio.nurseries.control import Message
    from pagi_trio.nurseries.worker import Blueprint

_CONFIGURED: Final = catalog.index("pagi_server_workers_configured")

PAUSE_LEAST_S: Final = 0.1
PAUSE_MOST_S: Final = 30.0
"""How long a place waits before it starts another worker: it doubles with each that did not live."""

SETTLED_S: Final = 5.0
"""A worker that has served this long has lived; whatever ended it is no reason to wait."""


class _Place:
    """Where one worker is kept running.

    Attributes:
        worker: The one that serves, or is about to.
        successor: The one that is to take over from it, while that starts.
        misfortunes: How many in a row did not live.
        failed: The worker that could not start while none ever had; None while there is hope.
        hurry: Set when its next worker is to be started without a pause.
    """

    def __init__(self) -> None:
        self.worker: Worker | None = None
        self.successor: Worker | None = None
        self.misfortunes = 0
        self.failed: Worker | None = None
        self.hurry = trio.Event()
        self.closing = trio.CancelScope()


class Workers:
    """All workers of a server.

    Args:
        blueprint: What each is started with.
        count: How many are wanted.
        changed: Called whenever one has become ready, or has ended.
        is_patient: Whether to wait for `restart` or `replace` where no worker can start, instead of giving up.

    Attributes:
        was_forced: Whether, once stopped, a worker had to be killed, since it did not end in time.
    """

    def __init__(self, blueprint: Blueprint, count: int, changed: Callable[[], None], *, is_patient: bool) -> None:
        self.was_forced = False
        self._blueprint = blueprint
        self._count = count
        self._changed = changed
        self._is_patient = is_patient
        self._free = list(range(1, blueprint.store.slots + 1))
        self._freed = trio.Event()
        self._instances = 0
        self._workers: list[Worker] = []
        self._places: list[_Place] = []
        self._stopping = trio.Event()
        self._any_ready = trio.Event()
        self._failed: Worker | None = None
        self._replacing = trio.Lock()
        self._unshared: set[str] = set()
        self._warned: set[str] = set()
        self._details_shown = ""
        self._processes: trio.Nursery
        self._keepers: trio.Nursery

    # What can be asked of it

    @property
    def wanted(self) -> int:
        """How many workers are wanted."""
        return len(self._places)

    @property
    def ready(self) -> int:
        """How many workers accept connections."""
        return sum(worker.ready.is_set() and not worker.is_stopping for worker in self._workers)

    def stop(self) -> None:
        """Let every worker end gracefully, and start no more."""
        self._stopping.set()
        for worker in self._workers:
            worker.stop()

    def abort(self) -> None:
        """Let every worker end at once."""
        self.stop()
        for worker in self._workers:
            worker.abort()

    def kill(self) -> None:
        """Kill all workers; for another thread, when this process is about to end as well."""
        for worker in tuple(self._workers):
            worker.kill()

    def add(self) -> None:
        """Want one worker more."""
        if self._stopping.is_set() or not self._places:
            return
        if 2 * (self.wanted + 1) > self._blueprint.store.slots:
            log.warning("there is no room for more than %d workers; start with more --workers", self.wanted)
            return
        self._open_place()
        log.info("%d workers are wanted now", self.wanted)

    def remove(self) -> None:
        """Want one worker less; the last one stays."""
        if self._stopping.is_set() or not self._places:
            return
        if self.wanted == 1:
            log.warning("the last worker stays; stop the server to end it")
            return
        self._places.pop().closing.cancel()
        self._note_wanted()
        log.info("%d workers are wanted now", self.wanted)
        self._give_up_without_hope()

    async def replace(self) -> None:
        """Replace every worker by one that is started anew: the new ones first, then the old ones end.

        A second call waits for the first. A worker whose successor cannot start stays; a place that pauses since its
        worker has ended starts the next.
        """
        async with self._replacing, trio.open_nursery() as nursery:
            newest = self._instances
            for place in self._places:
                nursery.start_soon(self._renew, place, newest)

    async def _renew(self, place: _Place, newest: int) -> None:
        """Have the worker of a place replaced, and one that is about to replace it as well."""
        while True:
            living = [one for one in (place.worker, place.successor) if one is not None and not one.ended.is_set()]
            if not living:
                place.hurry.set()
                return
            # Where only a successor lives, the worker has ended before that was ready.
            worker = living[0]
            if worker.instance > newest:
                return
            worker.replace("clean")
            if not await worker.wait_replaced():
                if not self._stopping.is_set():
                    log.error("%s stays, since its successor could not start", worker)
                return

    def restart(self) -> None:
        """End every worker, and start it anew: the old ones first."""
        for place in self._places:
            place.hurry.set()
            for worker in (place.worker, place.successor):
                if worker is not None:
                    worker.stop()

    # The tree

    async def run(self) -> None:
        """Be the workers nursery, until stopped.

        Raises:
            WorkerError: If no worker ever got ready.
            ConfigError: The same, where a setting is why.

        Cancellation: kills every worker.
        """
        async with trio.open_nursery() as self._processes, trio.open_nursery() as self._keepers:
            for _ in range(self._count):
                self._open_place()
            await self._stopping.wait()
            self._keepers.cancel_scope.cancel()
        if self._failed is not None:
            kind = ConfigError if self._failed.failure_code == 2 else WorkerError
            raise kind(self._failed.failure)

    def _open_place(self) -> None:
        place = _Place()
        self._places.append(place)
        self._keepers.start_soon(self._keep, place)
        self._note_wanted()

    def _note_wanted(self) -> None:
        self._blueprint.store.parent.set(_CONFIGURED, float(self.wanted))

    async def _keep(self, place: _Place) -> None:
        """Keep a worker running in a place, until it is closed."""
        try:
            with place.closing:
                while True:
                    place.hurry = trio.Event()
                    place.worker = await self._start()
                    await self._pause(place, await self._attend(place, place.worker))
        finally:
            for worker in (place.worker, place.successor):
                if worker is not None:
                    # Where all of them are stopped, this one has been already.
                    worker.make_way("clean")

    async def _attend(self, place: _Place, worker: Worker) -> Worker:
        """Replace the worker of a place whenever it is to be; return the one that has ended without a successor."""
        while not worker.ended.is_set():
            if worker.wants_successor is None:
                await worker.wait_change()
                continue
            place.successor = successor = await self._start()
            while not successor.ready.is_set() and not successor.ended.is_set():
                await successor.wait_change()
            place.successor = None
            if successor.ready.is_set():
                worker.make_way(worker.wants_successor)
                place.worker = worker = successor
                place.misfortunes = 0
            else:
                worker.keep()
                if worker.wants_successor is not None:
                    await self._rest(place, worker.ended)
        return worker

    async def _pause(self, place: _Place, ended: Worker) -> None:
        """Wait before a place gets its next worker; no longer than until it is to hurry."""
        failed = ended.reason == "startup_failed"
        if not failed and (ended.is_stopping or ended.served_s >= SETTLED_S):
            place.misfortunes = 0
        elif failed and self._is_patient:
            log.error("%s; waiting for a change", ended.failure)
            await place.hurry.wait()
        else:
            await self._rest(place, place.hurry)
            if failed and not self._any_ready.is_set():
                await self._wait_for_hope(place, ended)

    async def _rest(self, place: _Place, enough: trio.Event) -> None:
        """Wait: the longer, the more workers of a place did not live.

        At least long enough for a signal that ended a worker to reach the parent too.
        """
        with trio.move_on_after(min(PAUSE_LEAST_S * 2.0**place.misfortunes, PAUSE_MOST_S)):
            await enough.wait()
        place.misfortunes += 1

    async def _wait_for_hope(self, place: _Place, failed: Worker) -> None:
        """Wait until another worker could start; give up if none can."""
        place.failed = failed
        self._give_up_without_hope()
        await self._any_ready.wait()
        place.failed = None

    def _give_up_without_hope(self) -> None:
        failed = [place.failed for place in self._places if place.failed is not None]
        if len(failed) == len(self._places):
            self._failed = failed[-1]
            self.stop()

    async def _start(self) -> Worker:
        """Start a worker, once there is a slot for it."""
        while not self._free:
            await self._freed.wait()
        if self._stopping.is_set():
            # All places are about to be closed, and so are the listeners.
            await trio.sleep_forever()
        self._instances += 1
        worker = Worker(self._blueprint, heapq.heappop(self._free), self._instances, self._hear)
        self._workers.append(worker)
        self._processes.start_soon(self._own, worker)
        return worker

    async def _own(self, worker: Worker) -> None:
        try:
            await worker.run()
        finally:
            self._workers.remove(worker)
            heapq.heappush(self._free, worker.slot)
            freed, self._freed = self._freed, trio.Event()
            freed.set()
        self.was_forced = self.was_forced or (worker.was_forced and self._stopping.is_set())
        self._report(worker)
        self._changed()

    # What they say

    def _hear(self, worker: Worker, message: Message) -> None:
        """Take what a worker says that is not for its own scope alone."""
        if message["type"] == "ready":
            log.info("%s is ready", worker)
            self._any_ready.set()
            self._changed()
        elif message["type"] == "unshared":
            self._warn_of_unshared(str(message.get("names", "")).split())
        elif message["type"] == "warning":
            self._warn_once(str(message.get("text")))

        elif message["type"] == "garbage":
            self._warn_once("a worker says what nobody understands: the application may have written to a file of ours")

    def _warn_once(self, text: str) -> None:
        """Log a warning the first time: every worker would say the same."""
        if text not in self._warned:
            self._warned.add(text)
            log.warning("%s", text)

    def _warn_of_unshared(self, names: list[str]) -> None:
        new = [name for name in names if name not in self._unshared]
        self._unshared.update(new)
        if new:
            log.warning(
                "these metrics of the application cannot be added up over workers, "
                "and are only on the pages that workers serve: %s",
                ", ".join(new),
            )

    def _report(self, worker: Worker) -> None:
        """Log how a worker ended."""
        if worker.failure_details and worker.failure_details != self._details_shown:
            # Every worker would say the same.
            self._details_shown = worker.failure_details
            log.error("%s could not start\n%s", worker, worker.failure_details.rstrip())
        if worker.reason == "startup_failed":
            if self._any_ready.is_set() and not self._is_patient:
                log.error("%s could not start: %s", worker, worker.failure)
        elif worker.reason in ("crashed", "killed"):
            log.error("%s ended: %s", worker, worker.ending)
        else:
            log.info("%s ended: %s", worker, worker.reason)
