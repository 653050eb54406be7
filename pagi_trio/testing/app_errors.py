"""What the application raised, until the test hears of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeGuard

if TYPE_CHECKING:
    from pagi_trio.asgi import Address


class AppErrors:
    """Errors of one server's application, each of them told once.

    One that was raised for a request is for the call of the test that made it, which is known by its connection; the
    others come at the end.

    Args:
        is_raising: Whether they are told at all; else nothing is kept.
    """

    def __init__(self, *, is_raising: bool) -> None:
        self.is_raising = is_raising
        self._errors: list[tuple[Address | None, BaseException]] = []

    def add(self, error: BaseException, what: object) -> None:
        """Take an error, and what the application was called for (`Service.on_app_error`)."""
        if self.is_raising:
            self._errors.append((what.connection.peer if _has_connection(what) else None, error))

    def check(self, client: Address | None) -> None:
        """Raise the first error that belongs to the connection of a client, if there is one.

        Args:
            client: The address of the client's end.

        Raises:
            BaseException: Whatever the application raised: the same object.
        """
        for number, (peer, error) in enumerate(self._errors):
            if peer == client:
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
