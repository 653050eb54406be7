"""The application's lifespan: a task of its own, whose startup and shutdown are timed phases.

An application declines by raising or by returning without an answer; it is then served without. Only
``lifespan.startup.failed`` stops the start, or any failure where the lifespan was asked for.

Source: the ASGI lifespan message format 2.0.
"""

from __future__ import annotations

import logging
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

import trio
from trio.lowlevel import enable_ki_protection

from pagi_trio.asgi import LIFESPAN_VERSIONS
from pagi_trio.errors import AppProtocolError, LifespanFailedError
from pagi_trio.foreign_loop import ADVICE, needs_asyncio, speaks_of_asyncio
from pagi_trio.metrics import catalog
from pagi_trio.nurseries.call import handle_error, part_cancellation
from pagi_trio.nurseries.phase import Phase
from pagi_trio.nurseries.service import log
from pagi_trio.wire.misuse import MALFORMED, explain

if TYPE_CHECKING:
    from pagi_trio.asgi import LifespanScope, LifespanShutdown, LifespanStartup, SendMessage
    from pagi_trio.nurseries.service import Service

_STARTUP_SECONDS: Final = catalog.index("pagi_server_lifespan_startup_seconds")
_SHUTDOWN_SECONDS: Final = catalog.index("pagi_server_lifespan_shutdown_seconds")
_FAILURES: Final = {
    phase: catalog.index("pagi_server_lifespan_failures_total", phase=phase) for phase in ("startup", "shutdown")
}


class _State(Enum):
    NEW = auto()
    STARTING = auto()
    STARTED = auto()
    STOPPING = auto()
    STOPPED = auto()
    DECLINED = auto()
    FAILED = auto()


# What the log says of a startup.
_OUTCOMES: Final = {
    _State.STARTED: "complete",
    _State.STOPPED: "complete",
    _State.DECLINED: "declined",
    _State.FAILED: "failed",
}

# What an application may answer, and where that leads.
_ANSWERS: Final = {
    (_State.STARTING, "lifespan.startup.complete"): _State.STARTED,
    (_State.STARTING, "lifespan.startup.failed"): _State.FAILED,
    # Starlette says so where its lifespan fails while it is served, and raises the error only then.
    (_State.STARTED, "lifespan.shutdown.failed"): _State.STARTED,
    (_State.STOPPING, "lifespan.shutdown.complete"): _State.STOPPED,
    (_State.STOPPING, "lifespan.shutdown.failed"): _State.FAILED,
}


class Lifespan:
    """One application's lifespan.

    Call `startup` once, and `shutdown` whether or not it succeeded.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._mode = service.config.lifespan
        self._state = _State.NEW
        self._message = ""
        self._error: BaseException | None = None
        self._aborted = False
        self._answered = trio.Event()
        self._stop = trio.Event()
        # Shielded, so that cancelling the server still lets the application shut down; `shutdown` gives the
        # shield its deadline.
        self._scope = trio.CancelScope(shield=True)

    async def startup(self, nursery: trio.Nursery) -> None:
        """Start the application, in a task of the nursery.

        Raises:
            LifespanFailedError: If it refuses, or does not answer in time.
        """
        if self._mode == "off":
            return
        limit_s = self._service.config.timeouts.startup_s
        with Phase("lifespan startup") as phase:
            nursery.start_soon(self._run)
            with trio.move_on_after(limit_s):
                await self._answered.wait()
            if self._state in (_State.NEW, _State.STARTING):
                self._state = _State.FAILED
                self._message = f"it did not answer within {limit_s:g} s"
            if self._state is _State.DECLINED and self._mode == "on":
                self._state = _State.FAILED
            phase.outcome = _OUTCOMES[self._state]
        self._service.meter.set(_STARTUP_SECONDS, phase.seconds)
        if self._state is _State.FAILED:
            self._service.meter.add(_FAILURES["startup"])
            reason = self._message or "it gave no reason"
            raise LifespanFailedError(f"the application failed to start: {reason}") from self._error

    async def shutdown(self) -> None:
        """Shut the application down, if it has started; a failure is logged and counted.

        Cancellation: shielded for the shutdown timeout; after that the application is cancelled.
        """
        limit_s = self._service.config.timeouts.shutdown_s
        self._scope.deadline = trio.current_time() + limit_s
        if self._state is not _State.STARTED:
            self._scope.cancel()
            return
        with Phase("lifespan shutdown") as phase:
            self._answered = trio.Event()
            self._state = _State.STOPPING
            self._stop.set()
            with trio.CancelScope(shield=True, deadline=self._scope.deadline):
                await self._answered.wait()
            if self._state is _State.STOPPING:
                self._state = _State.FAILED
                self._message = "it was not waited for" if self._aborted else f"it did not answer within {limit_s:g} s"
            phase.outcome = "complete" if self._state is _State.STOPPED else "failed"
        self._service.meter.set(_SHUTDOWN_SECONDS, phase.seconds)
        if self._state is _State.FAILED:
            self._service.meter.add(_FAILURES["shutdown"])
            failure = f"the application failed to shut down: {self._message or 'it gave no reason'}"
            log.error("%s", failure)
            if self._error is None and not self._aborted and self._service.on_app_error is not None:
                self._service.on_app_error(LifespanFailedError(failure), self)

    def abort(self) -> None:
        """Give up waiting for the application."""
        self._aborted = True
        self._scope.cancel()
        self._answered.set()

    @enable_ki_protection
    async def _run(self) -> None:
        service = self._service
        scope: LifespanScope = {
            "type": "lifespan",
            "asgi": LIFESPAN_VERSIONS,
            "state": service.state,
            "extensions": service.extensions.copy(),
        }
        with self._scope:
            try:
                await _unprotected(service, scope, self)
            except BaseException as error:  # noqa: BLE001 - whatever an application raises ends here
                cancelled, rest = part_cancellation(error)
                if rest is not None:
                    self._failed(rest)
                if cancelled is not None:
                    raise cancelled from None
        self._ended()

    def _failed(self, error: BaseException) -> None:
        """Take an application's exception as what it means at this moment."""
        if self._state in (_State.NEW, _State.STARTING):
            self._message = f"{type(error).__name__}: {error}"
            self._error = error
            is_told = self._mode == "on" or self._scope.cancel_called
            if is_told or _is_interrupt(error) or needs_asyncio(error):
                handle_error(self._service, "lifespan", "its lifespan", error)
            else:
                log.info("the application has no lifespan, and is served without (%s)", self._message.rstrip(": "))
        else:
            self._error = error
            handle_error(self._service, "lifespan", "its lifespan", error)
            # While it is served, all has been said by now.
            self._message = f"{type(error).__name__}: {error}" if self._state is not _State.STARTED else ""

    def _ended(self) -> None:
        """Note that the application has returned, whatever it had answered before."""
        if self._state in (_State.NEW, _State.STARTING):
            self._state = _State.DECLINED
            self._message = self._message or "it returned without an answer"
        elif self._state is _State.STOPPING and not self._scope.cancelled_caught:
            self._state = _State.FAILED if self._message else _State.STOPPED
        elif self._state is _State.STARTED:
            if self._message:
                self._service.app_failed("lifespan", "its lifespan", f"it ended while it was served: {self._message}")
            # Nobody is left to shut down.
            self._state = _State.STOPPED
        self._answered.set()

    async def receive(self) -> LifespanStartup | LifespanShutdown:
        """As ASGI says: startup, then shutdown, then nothing more."""
        if self._state is _State.NEW:
            self._state = _State.STARTING
            return {"type": "lifespan.startup"}
        await self._stop.wait()
        if self._state is not _State.STOPPING:
            # It has answered for the last time, and there will be nothing more to wait for.
            self._scope.cancel()
            await trio.lowlevel.checkpoint()
        return {"type": "lifespan.shutdown"}

    async def send(self, message: SendMessage) -> None:
        """As ASGI says.

        Raises:
            AppProtocolError: If this answer does not belong here.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        state = _State.STARTING if self._state is _State.NEW else self._state
        try:
            answered = _ANSWERS.get((state, message["type"]))
            if answered is None:
                raise AppProtocolError(f"{message['type']!r} is no answer here: the lifespan is {state.name.lower()}")
        except MALFORMED as error:
            raise explain(message, error) from None
        self._state = answered
        if message["type"] in ("lifespan.startup.failed", "lifespan.shutdown.failed"):
            self._message = str(message.get("message", ""))
            if speaks_of_asyncio(self._message):
                self._service.say_once(ADVICE, logging.ERROR)
        self._answered.set()


def _is_interrupt(error: BaseException) -> bool:
    """Whether an error is a Ctrl-C, or a group that holds one."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(KeyboardInterrupt) is not None
    return isinstance(error, KeyboardInterrupt)


@trio.lowlevel.disable_ki_protection
async def _unprotected(service: Service, scope: LifespanScope, lifespan: Lifespan) -> None:
    """Call the application where Ctrl-C may land in it."""
    await service.app(scope, lifespan.receive, lifespan.send)
