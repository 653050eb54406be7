"""Applications that need asyncio: known by what they are, or by what they raise, so that they are told what to do.

asyncio says "no running event loop" and Trio "unrecognized yield message", and neither says that another server, or
another part of the framework, is the answer.
"""

from __future__ import annotations

from typing import Final

ADVICE: Final = (
    "the application needs asyncio, while this server runs Trio: use a framework for Trio (Quart-Trio) or for AnyIO "
    "(Starlette, FastAPI, Litestar) and libraries for either, or serve it with an asyncio server"
)
"""What the log says beside the traceback, once for a server."""

_FRAMEWORKS: Final = {
    "quart.app.Quart": "Quart needs asyncio, while this server runs Trio: use quart_trio.QuartTrio instead",
    "sanic.app.Sanic": "Sanic needs asyncio, while this server runs Trio: use its own server",
    "django.core.handlers.asgi.ASGIHandler": (
        "Django's ASGI application needs asyncio, while this server runs Trio: use its WSGI application, "
        "get_wsgi_application(), or an asyncio server"
    ),
}

_ON_TRIO: Final = frozenset(("quart_trio.app.QuartTrio",))

_SIGNS: Final = (
    (RuntimeError, "no running event loop"),
    (RuntimeError, "There is no current event loop"),
    # asyncio's locks, events and queues, which take the loop without asking whether there is one.
    (AttributeError, "'NoneType' object has no attribute 'create_future'"),
    (TypeError, "received unrecognized yield message"),
)


def find_asyncio_framework(app: object) -> str | None:
    """Say why an application of a framework that knows only asyncio cannot be served; None for any other.

    Told by the names of its classes, so that no framework is imported for it.
    """
    classes = [f"{one.__module__}.{one.__qualname__}" for one in type(app).__mro__]
    if not _ON_TRIO.isdisjoint(classes):
        return None
    return next((_FRAMEWORKS[name] for name in classes if name in _FRAMEWORKS), None)


def needs_asyncio(error: BaseException) -> bool:
    """Whether an error, one that led to it or one of its group is what code for asyncio raises without asyncio."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if any(isinstance(one, kind) and sign in str(one) for kind, sign in _SIGNS):
            return True
        waiting += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
    return False


def speaks_of_asyncio(text: str) -> bool:
    """Whether a text, such as the traceback that a framework gives for its reason not to start, shows such an error."""
    return any(f"{kind.__name__}: " in text and sign in text for kind, sign in _SIGNS)
