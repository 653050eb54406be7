"""What an application speaks: ASGI, or WSGI through hypercorn's wrapper."""

from __future__ import annotations

import inspect
import sys
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

import trio

from pagi_trio.errors import AppLoadError, ClientDisconnected
from pagi_trio.foreign_loop import find_asyncio_framework
from pagi_trio.mount import path_below

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from io import BytesIO
    from types import TracebackType

    from hypercorn.typing import WSGIFramework

    from pagi_trio.asgi import App, Receive, ReceiveMessage, Scope, Send

    ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None]
    StartResponse: TypeAlias = Callable[[str, list[tuple[str, str]], ExcInfo | None], object]
    WSGIApp: TypeAlias = Callable[[dict[str, object], "StartResponse"], Iterable[bytes]]


def as_asgi(app: App, interface: Literal["asgi", "wsgi", "auto"]) -> App:
    """Return the application as ASGI.

    Args:
        app: As the user gave it.
        interface: What it speaks; ``auto`` looks at how it is called.

    Raises:
        AppLoadError: If it cannot be called, or is of a framework that cannot run here, whatever its code.
    """
    obstacle = find_asyncio_framework(app)
    if obstacle is not None:
        raise AppLoadError(obstacle)
    if not callable(app):
        raise AppLoadError(f"{app!r} is no application: it cannot be called")
    if interface == "asgi" or (interface == "auto" and not looks_like_wsgi(app)):
        return app
    return WSGIAdapter(cast("WSGIApp", app))


def looks_like_wsgi(app: App) -> bool:
    """Whether an application is a plain callable of two arguments, as PEP 3333 wants it."""
    call = app if inspect.isfunction(app) or inspect.ismethod(app) else getattr(app, "__call__", app)  # noqa: B004 - the bound method is wanted, not whether there is one
    if inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(call):
        return False
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len([p for p in positional if p.default is p.empty]) <= 2 <= len(positional)


class WSGIAdapter:
    """A WSGI application, called in a worker thread.

    hypercorn's wrapper gathers the body and makes the environ. It takes the end of a connection for the end of the
    body, an empty iterable for no response, and a name with an underscore for one with a hyphen; it has errors written
    to standard output, knows neither `write` nor the length of a chunked body, and answers 404 where a proxy has cut
    `root_path` off. All are put right here.
    """

    def __init__(self, app: WSGIApp) -> None:
        from hypercorn.app_wrappers import WSGIWrapper  # noqa: PLC0415 - a tenth of the start, for WSGI alone

        # The server refuses a body that is too long before the wrapper sees it, and with a better status.
        self._wrapper = WSGIWrapper(cast("WSGIFramework", partial(_put_right, app)), sys.maxsize)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope, as ASGI says; lifespan is declined and a WebSocket refused."""

        async def receive_or_raise() -> ReceiveMessage:
            message = await receive()
            if message["type"] == "http.disconnect":
                # An upload that was cut must not look like a shorter one that is complete.
                raise ClientDisconnected("client_closed")
            return message

        if scope["type"] == "http":
            # A client could otherwise say what a proxy says, or takes away: X_Forwarded_User is HTTP_X_FORWARDED_USER.
            headers = [one for one in scope["headers"] if b"_" not in one[0]]
            # A proxy may have cut it, and /apix is not below /api.
            path = scope["root_path"] + path_below(scope)
            scope = {**scope, "headers": headers, "path": path}
        # hypercorn has types of its own for the same shapes.
        call = cast("App", self._wrapper)
        await call(scope, receive_or_raise, send, trio.to_thread.run_sync, trio.from_thread.run)


def _put_right(app: WSGIApp, environ: dict[str, object], start_response: StartResponse) -> _Body:
    environ["wsgi.errors"] = sys.stderr
    # PEP 3333 wants texts, and a port where there is none: that of a unix socket is the one of the URL without it.
    usual = 443 if environ["wsgi.url_scheme"] == "https" else 80
    environ["SERVER_PORT"] = str(environ["SERVER_PORT"] or usual)
    if environ.pop("HTTP_TRANSFER_ENCODING", None) is not None:
        # The chunks have been put together. Without a length, Flask and Django take it for no body at all.
        environ["CONTENT_LENGTH"] = str(cast("BytesIO", environ["wsgi.input"]).getbuffer().nbytes)
    return _Body(app, environ, start_response)


class _Body:
    """A WSGI response that yields at least once, so that its head is sent, and yields what is written, too.

    Args:
        app: What responds; it is called here.
        environ: What it is called with.
        start_response: Takes the head.

    Source: PEP 3333, "The start_response() Callable" and "The write() Callable".
    """

    def __init__(self, app: WSGIApp, environ: dict[str, object], start_response: StartResponse) -> None:
        self._start_response = start_response
        self._written: list[bytes] = []
        self._has_begun = False
        self._chunks = app(environ, self._start)

    def _start(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        if exc_info is not None and self._has_begun:
            # Another head cannot be sent any more.
            raise exc_info[1].with_traceback(exc_info[2])
        self._start_response(status, headers, exc_info)
        return self._written.append

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self._has_begun = True
            yield from self._take_written()
            yield chunk
        yield from self._take_written()
        if not self._has_begun:
            yield b""

    def _take_written(self) -> Iterator[bytes]:
        while self._written:
            self._has_begun = True
            yield self._written.pop(0)

    def close(self) -> None:
        """Close what the application returned, as PEP 3333 asks."""
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()
