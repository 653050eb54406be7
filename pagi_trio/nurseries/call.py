"""The one place that calls the application, whatever the protocol, and deals with its failure.

The application's coroutine is stepped by hand inside the connection's task, each step in the request's own context.
Entering it costs one `send`; only if it suspends does the driver take over. A task per request would cost 12%.

Once a response is complete while its application goes on (a background task, a cleanup), the connection must not
wait for it. The coroutine cannot move to another task, since the nurseries and cancel scopes it has open belong to
this one; so the *connection loop* moves on to a new task, and this one stays with the application to its end.
"""

from __future__ import annotations

import math
import types
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import trio
from trio.lowlevel import disable_ki_protection

from pagi_trio.errors import ClientDisconnected

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from pagi_trio.asgi import ReceiveMessage, Scope, SendMessage
    from pagi_trio.nurseries.service import Service

    _Coroutine: TypeAlias = Coroutine[object, object, None]


class Exchange(Protocol):
    """What an application is called for: one HTTP request and its response, or one WebSocket session.

    Attributes:
        complete: Whether the client has got all it will get.
        suspended: Whether the application's coroutine waits for something.
        moved: Whether the connection loop has left the application behind.
    """

    complete: bool
    suspended: bool
    moved: bool

    @property
    def kind(self) -> str:
        """What an error is counted as: http, sse or websocket."""

    @property
    def client_left(self) -> bool:
        """Whether the application has been, or could have been, told that the client has left."""

    def __str__(self) -> str:
        """The connection, scope and path, for the log."""
        ...

    async def receive(self) -> ReceiveMessage:
        """As ASGI says."""
        ...

    async def send(self, message: SendMessage) -> None:
        """As ASGI says."""

    def move(self) -> None:
        """Let the connection go on without this application."""

    def tick(self, now: float) -> None:
        """Look after it, a few times a second."""

    def shut_down(self) -> None:
        """Take note that the server stops."""


async def call(service: Service, scope: Scope, exchange: Exchange) -> bool:
    """Call the application for one exchange and see it to its end.

    Its errors end here: they are logged and counted. What is left to do is told by the exchange.

    Returns:
        Whether the application raised.

    Cancellation: reaches the application wherever it waits.
    """
    try:
        context = copy_context()
        # A cast would be a call for each request.
        coroutine: _Coroutine = service.app(scope, exchange.receive, exchange.send)  # type: ignore[assignment]
        try:
            message = step(context, coroutine, None)
        except AttributeError:
            if hasattr(coroutine, "send"):
                raise
            coroutine = _as_coroutine(coroutine)
            message = step(context, coroutine, None)
        await _drive(context, coroutine, message, exchange)
    except StopIteration:
        return False
    except BaseException as error:  # noqa: BLE001 - whatever an application raises ends here
        cancelled = handle_error(service, exchange.kind, exchange, error, client_left=exchange.client_left)
        if cancelled is not None:
            raise cancelled from None
        return True
    return False


@disable_ki_protection
def step(context: Context, coroutine: _Coroutine, value: object) -> object:
    """Run the application to its next suspension; Ctrl-C may land in it, and nowhere else."""
    return context.run(coroutine.send, value)


@types.coroutine
def _drive(
    context: Context, coroutine: _Coroutine, message: object, exchange: Exchange
) -> Generator[object, object, None]:
    """Hand what the application waits for to Trio, and Trio's answers back, until it returns."""
    try:
        while True:
            if exchange.complete and not exchange.moved:
                exchange.move()
            exchange.suspended = True
            try:
                value = yield message
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:  # noqa: BLE001 - Trio did not understand: that is the application's to hear
                exchange.suspended = False
                message = context.run(coroutine.throw, error)
            else:
                exchange.suspended = False
                message = step(context, coroutine, value)
    except StopIteration:
        return


async def _as_coroutine(awaitable: _Coroutine) -> None:
    """Wrap what an application returned that is awaitable, but no coroutine."""
    await awaitable


def handle_error(
    service: Service, kind: str, what: object, error: BaseException, *, client_left: bool = False
) -> BaseException | None:
    """Deal with what came out of an application.

    Args:
        service: Whose application it is.
        kind: What an error is counted as.
        what: What it was called for; as text, the connection, scope and path.
        error: What came out.
        client_left: Whether an error that says just that is none.

    Returns:
        The cancellation in it, which must go on; else None.
    """
    cancelled, rest = part_cancellation(error)
    interrupted, rest = _split(rest, lambda part: isinstance(part, KeyboardInterrupt))
    if interrupted is not None:
        service.interrupt()
    if client_left:
        _departure, rest = _split(rest, _says_that_the_client_left)
    if rest is not None:
        # SystemExit included: an application does not end the server.
        service.app_failed(kind, what, rest)
    return cancelled


def part_cancellation(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Part what came out of an application into the cancellation, which must go on, and the rest.

    A nursery of the application's wraps it into a group of its own.
    """
    if trio.current_effective_deadline() == -math.inf:
        return _split(error, lambda part: isinstance(part, trio.Cancelled))
    # One that is not of now was kept from a scope that has ended: to pass it on would end the whole server.
    return None, error


# How frameworks pass on a disconnect that an endpoint did not expect: Starlette and what is built on it, and Quart from
# 0.23 on, turn ours and the disconnect event itself into exceptions of these names.
_DEPARTURES: Final = frozenset(("ClientDisconnect", "WebSocketDisconnect", "ClientDisconnectedError"))


def _says_that_the_client_left(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_says_that_the_client_left(part) for part in error.exceptions)
    if isinstance(error, ClientDisconnected) or type(error).__name__ in _DEPARTURES:
        return True
    # Litestar raises an error of its own from the group that its streams make of ours.
    return error.__cause__ is not None and _says_that_the_client_left(error.__cause__)


def _split(
    error: BaseException | None, matches: Callable[[BaseException], bool]
) -> tuple[BaseException | None, BaseException | None]:
    """Part an error, or a group of errors, into what matches and the rest."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(matches)
    return (error, None) if error is not None and matches(error) else (None, error)
