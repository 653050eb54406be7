"""Several applications in one server, each below a prefix of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pagi_trio.errors import ConfigError
from pagi_trio.fanout import fan_out
from pagi_trio.mount import path_below

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pagi_trio.asgi import App, HTTPScope, Receive, Scope, Send, WebSocketScope

_NOT_FOUND = b"not found\n"


class URLMap:
    """Hands a request to the application whose prefix is the longest that fits.

    A prefix fits in whole segments: ``/metrics`` takes ``/metrics`` and ``/metrics/x``, not ``/metricsfoo``.
    The application sees the whole path, and a ``root_path`` that has grown by its prefix. What fits nowhere
    gets a 404, or, if it is a WebSocket, is refused.

    The lifespan of every application runs once, however often it is mounted: one after the other, as
    `pagi_trio.fanout` says. It needs Trio; requests do not.

    Args:
        mounts: Applications by prefix. A prefix begins with a slash and does not end with one, except ``/``,
            which takes whatever is left.

    Raises:
        ConfigError: If a prefix is malformed.
    """

    def __init__(self, mounts: Mapping[str, App]) -> None:
        for prefix in mounts:
            _check(prefix)
        self._mounts = dict(mounts)
        longest_first = sorted(mounts.keys() - {"/"}, key=len, reverse=True)
        self._routes = [(prefix, f"{prefix}/", mounts[prefix]) for prefix in longest_first]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application that fits; on a lifespan, all of them."""
        if scope["type"] == "lifespan":
            await fan_out(self._applications(), scope, receive, send)
            return
        below = path_below(scope)
        for prefix, inner, app in self._routes:
            if below == prefix or below.startswith(inner):
                mounted = scope.copy()
                mounted["root_path"] = scope.get("root_path", "").rstrip("/") + prefix
                await app(mounted, receive, send)
                return
        if "/" in self._mounts:
            await self._mounts["/"](scope, receive, send)
        else:
            await _refuse(scope, send)

    def _applications(self, above: str = "") -> Iterator[tuple[str, App]]:
        """Yield every application with its whole prefix, those of nested maps included."""
        for prefix, app in self._mounts.items():
            whole = above + prefix if prefix != "/" or not above else above
            if isinstance(app, URLMap):
                yield from app._applications(whole)
            else:
                yield whole, app


def _check(prefix: str) -> None:
    """Raise ConfigError unless a prefix can be compared with paths."""
    if not prefix.startswith("/"):
        raise ConfigError(f"mount {prefix!r} must begin with a slash, as in '/{prefix}'")
    if prefix != "/" and prefix.endswith("/"):
        raise ConfigError(f"mount {prefix!r} must not end with a slash; write {prefix.rstrip('/') or '/'!r}")


async def _refuse(scope: HTTPScope | WebSocketScope, send: Send) -> None:
    """Answer that nothing is mounted here."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close"})
        return
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(_NOT_FOUND)),
    ]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else _NOT_FOUND})
