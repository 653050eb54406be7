"""What the application raised, until the test hears of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeGuard

if TYPE_CHECKING:
    from pagi_trio.asgi import Address
    from pagi_trio.wire.head import Head


class AppErrors:
    """Errors of one server's application, each of them told once.

    One that was raised for a request is for the call of the test that made it, which is known by its connection, and
    where that has several by its method and path; the others come at the end.

    Args:
        is_raising: Whether they are told at all; else nothing is kept.
    """

    def __init__(self, *, is_raising: bool) -> None:
        self.is_raising = is_raising
        self._errors: list[tuple[_Exchange | None, BaseException]] = []

    def add(self, error: BaseException, what: object) -> None:
        """Take an error, and what the application was called for (`Service.on_app_error`)."""
        if self.is_raising:
            self._errors.append((what if _is_exchange(what) else None, error))

    def check(self, client: Address | None, request: tuple[str, bytes] | None = None) -> None:
        """Raise the first error that belongs to the connection of a client, if there is one.

        Args:
            client: The address of the client's end.
            request: The method, and the path without its query, of the request that it must belong to: what was raised
                behind an earlier response, by a background task for one, may come while the next is under way. None if
                the connection has only one.

        Raises:
            BaseException: Whatever the application raised: the same object.
        """
        for number, (exchange, error) in enumerate(self._errors):
            if exchange is not None and exchange.connection.peer == client and request in (None, _request_of(exchange)):
                del self._errors[number]
                raised = unwrap(error)
                context = raised.__context__
                try:
                    raise raised
                finally:
                    # It did not come of what its client is handling now, such as the end of the connection.
                    raised.__context__ = context

    def take_all(self) -> list[BaseException]:
        """Return all that nobody has heard of yet, and forget them."""
        errors = [unwrap(error) for _, error in self._errors]
        self._errors.clear()
        return errors


class _Exchange(Protocol):
    @property
    def connection(self) -> _Connection: ...

    @property
    def head(self) -> Head: ...


class _Connection(Protocol):
    @property
    def peer(self) -> Address | None: ...


def _is_exchange(what: object) -> TypeGuard[_Exchange]:
    return hasattr(what, "connection") and hasattr(what, "head")


def _request_of(exchange: _Exchange) -> tuple[str, bytes]:
    line = exchange.head.line
    return line.method, line.raw_path


def unwrap(error: BaseException) -> BaseException:
    """Return the one error that is in a group, however deep; any other error, and a group of several, as it is."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
