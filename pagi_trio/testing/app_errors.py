"""What the application raised, until the test hears of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeGuard

import trio

from pagi_trio.nurseries.exchange import HTTPExchange

if TYPE_CHECKING:
    from pagi_trio.asgi import Address
    from pagi_trio.nurseries.service import Service


@dataclass(frozen=True, eq=False, slots=True)
class _Entry:
    """An error, and what it was raised in.

    Attributes:
        error: The error.
        is_of_connection: Whether that was a request or a WebSocket, and not the lifespan.
        peer: The address of its client; None over a unix socket.
        started_s: When the request began, by `time.perf_counter`; infinite for a WebSocket, the last on its connection.
    """

    error: BaseException
    is_of_connection: bool
    peer: Address | None
    started_s: float


class AppErrors:
    """Errors of one server's application, each of them told once.

    One that was raised for a request is for the call of the test that made it, which is known by its connection and
    its time; the others come at the end. So does what a background task raises once its call has returned, though the
    test may have made other requests on the same connection since.

    Args:
        is_raising: Whether they are told at all; else nothing is kept.
    """

    def __init__(self, *, is_raising: bool) -> None:
        self.is_raising = is_raising
        self._entries: list[_Entry] = []

    def listen(self, service: Service) -> None:
        """Take the errors of a server from now on."""
        service.is_timed = True
        service.on_app_error = self.add

    def add(self, error: BaseException, what: object) -> None:
        """Take an error, and what the application was called for (`Service.on_app_error`)."""
        if self.is_raising:
            peer = what.connection.peer if _has_connection(what) else None
            started_s = what.started if isinstance(what, HTTPExchange) else float("inf")
            self._entries.append(_Entry(error, _has_connection(what), peer, started_s))

    def check(self, client: Address | None, began_s: float = 0.0) -> None:
        """Raise the first error that belongs to the connection of a client, if there is one.

        Args:
            client: The address of the client's end.
            began_s: When the call of the test began, by `time.perf_counter`: errors of earlier requests are not its.

        Raises:
            BaseException: Whatever the application raised: the same object.
        """
        for number, entry in enumerate(self._entries):
            if entry.is_of_connection and entry.peer == client and entry.started_s >= began_s:
                del self._entries[number]
                raised = _as_told(entry.error)
                context = raised.__context__
                try:
                    raise raised
                finally:
                    # It did not come of what its client is handling now, such as the end of the connection.
                    set_context(raised, context)

    def take_all(self) -> list[BaseException]:
        """Return all that nobody has heard of yet, and forget them."""
        errors = [_as_told(entry.error) for entry in self._entries]
        self._entries.clear()
        return errors


class _Exchange(Protocol):
    @property
    def connection(self) -> _Connection: ...


class _Connection(Protocol):
    @property
    def peer(self) -> Address | None: ...


def _has_connection(what: object) -> TypeGuard[_Exchange]:
    return hasattr(what, "connection")


def unwrap(error: BaseException) -> BaseException:
    """Return the one error that is in a group, however deep; any other error, and a group of several, as it is."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def set_context(error: BaseException, context: BaseException | None) -> None:
    """Set what an error was raised in the handling of, be it frozen."""
    BaseException.__setattr__(error, "__context__", context)


def _as_told(error: BaseException) -> BaseException:
    """Return an error as it is raised in the test.

    What would end the test, or a loop in it, as if nothing had happened comes as the cause of a `RuntimeError`, as it
    does where Python's own generators raise it.
    """
    error = unwrap(error)
    if isinstance(error, (trio.Cancelled, StopAsyncIteration)):
        told = RuntimeError(f"the application raised {type(error).__name__}")
        told.__cause__ = error
        return told
    return error
