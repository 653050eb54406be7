"""One lifespan for several applications.

They start one after the other, in the order they are given, and shut down in reverse. An application that
raises or returns without an answer to its startup has declined, and is served without. If one refuses to
start, those before it are shut down again, and its message is the message of all. If all decline, so does the
whole.

All get the server's own ``state`` dictionary, so what each puts in is there for the requests of all. When two
set the same key the later one's value stays, and a warning names the key.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from pagi_trio.errors import AppProtocolError
from pagi_trio.wire.misuse import MALFORMED, explain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pagi_trio.asgi import App, LifespanScope, Receive, ReceiveMessage, Send, SendMessage

_log = logging.getLogger("pagi_trio")


class _Member:
    """One application's part in the lifespan.

    Attributes:
        prefix: Where it is mounted, for the log.
        started: Whether it has started, and so must be shut down.
        refusal: Why it refused to start; None if it did not.
        failure: Why it failed after its start; None if it did not.
        error: What it raised.
    """

    def __init__(self, prefix: str, app: App) -> None:
        self.prefix = prefix
        self.started = False
        self.refusal: str | None = None
        self.failure: str | None = None
        self.error: Exception | None = None
        self._app = app
        self._scope = trio.CancelScope()
        self._asked_to_start = False
        self._asked_to_stop = False
        self._answered = trio.Event()
        self._stopping = trio.Event()
        self._over = trio.Event()

    async def start(self, nursery: trio.Nursery, scope: LifespanScope) -> None:
        """Start it, and wait for its answer or its end."""
        before = dict(scope.get("state", {}))
        nursery.start_soon(self._run, scope.copy())
        await self._answered.wait()
        for key, value in scope.get("state", {}).items():
            if key in before and before[key] is not value:
                _log.warning("the application at %s overwrites %r in the lifespan state", self.prefix, key)

    async def stop(self) -> None:
        """Shut it down, and wait for its answer or its end."""
        self._stopping.set()
        await self._over.wait()

    async def _run(self, scope: LifespanScope) -> None:
        try:
            with self._scope:
                await self._app(scope, self._receive, self._send)
        except Exception as error:  # noqa: BLE001 - one application's failure must not end the others
            self.error = error
            self._ended_by(error)
        finally:
            self._answered.set()
            self._over.set()

    def _ended_by(self, error: Exception) -> None:
        """Say what an error means: an application that refused has said so itself."""
        if not self.started:
            if self.refusal is None:
                _log.info("the application at %s takes no part in the lifespan: %r", self.prefix, error)
        elif not self._over.is_set():
            self.failure = f"the application at {self.prefix} raised {error!r}"
            _log.error("the application at %s failed in its lifespan", self.prefix, exc_info=error)

    async def _receive(self) -> ReceiveMessage:
        if not self._asked_to_start:
            self._asked_to_start = True
            await trio.lowlevel.checkpoint()
            return {"type": "lifespan.startup"}
        await self._stopping.wait()
        if not self._asked_to_stop and not self._over.is_set():
            self._asked_to_stop = True
            return {"type": "lifespan.shutdown"}
        # Nothing more will come: an application that waits for it after its last answer is at its end.
        await self._over.wait()
        self._scope.cancel()
        return await trio.sleep_forever()

    async def _send(self, message: SendMessage) -> None:
        try:
            match message["type"]:
                case "lifespan.startup.complete" if not self._answered.is_set():
                    self.started = True
                    self._answered.set()
                case "lifespan.startup.failed" if not self._answered.is_set():
                    self.refusal = str(message.get("message", ""))
                    self._answered.set()
                    self._stopping.set()
                    self._over.set()
                case "lifespan.shutdown.complete" if self._asked_to_stop and not self._over.is_set():
                    self._over.set()
                case "lifespan.shutdown.failed" if self._asked_to_stop and not self._over.is_set():
                    self.failure = str(message.get("message", ""))
                    self._over.set()
                case unexpected:
                    raise AppProtocolError(f"{unexpected!r} is no answer to what the lifespan asked last")
        except MALFORMED as error:
            raise explain(message, error) from None
        await trio.lowlevel.checkpoint()


async def fan_out(apps: Iterable[tuple[str, App]], scope: LifespanScope, receive: Receive, send: Send) -> None:
    """Take part in a lifespan on behalf of several applications.

    Args:
        apps: Prefixes and applications; one that comes again does not start again.
        scope: The server's scope, of which each application gets a copy.
        receive: The server's.
        send: The server's.

    Raises:
        Exception: What the first application that declined by raising has raised, if none took part.

    Cancellation: cancels all applications.
    """
    members = list({id(app): _Member(prefix, app) for prefix, app in apps}.values())
    await receive()
    async with trio.open_nursery() as nursery:
        for member in members:
            await member.start(nursery, scope)
            if member.refusal is not None:
                _log.error("the application at %s failed to start", member.prefix)
                await _stop(members)
                await send({"type": "lifespan.startup.failed", "message": member.refusal})
                return
        if any(member.started for member in members):
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await _answer_shutdown(members, send)
            return
    for member in members:
        if member.error is not None:
            raise member.error


async def _stop(members: list[_Member]) -> None:
    """Shut down what has started, last first."""
    for member in reversed(members):
        if member.started:
            await member.stop()


async def _answer_shutdown(members: list[_Member], send: Send) -> None:
    await _stop(members)
    failures = [member.failure for member in members if member.failure is not None]
    if failures:
        await send({"type": "lifespan.shutdown.failed", "message": "; ".join(failures)})
    else:
        await send({"type": "lifespan.shutdown.complete"})
