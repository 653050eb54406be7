"""The page, as an ASGI application to mount where one likes."""

from __future__ import annotations

import logging
import zlib
from typing import TYPE_CHECKING, Final, Protocol

import trio

from pagi_trio.metrics import catalog, negotiation
from pagi_trio.metrics.server_metrics import ServerMetrics
from pagi_trio.mount import refusal_of, send_line, send_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pagi_trio.asgi import HTTPScope, Receive, Scope, Send

_SCRAPES: Final = catalog.index("pagi_metrics_scrapes_total")
_ERRORS: Final = catalog.index("pagi_metrics_errors_total", part="render")

_OTHER_SERVER: Final = "these metrics are counted by pagi-trio; serve the application with it"
_SWITCHED_OFF: Final = "metrics are switched off; start the server without --no-metrics"
_NOT_INSTALLED: Final = "prometheus_client is not installed; run: pip install 'pagi-trio[prometheus]'"
_BROKEN: Final = "the metrics page could not be written; the server's log says why"

TURN_BYTES: Final = 8192
"""How much of the page is written before other tasks get their turn: 1 ms of text, 2 ms of OpenMetrics (300
families with prometheus_client 0.26). Fewer bytes would mean more turns, each as long as the loop is busy."""

GZIP_LEVEL: Final = 5
"""A fifth smaller than level 1 for 0.4 ms per 100 KB; level 6 takes half as long again for 1%."""

_log = logging.getLogger("pagi_trio")


class Render(Protocol):
    """Writes the page, piece by piece."""

    def __call__(self, metrics: ServerMetrics, *, openmetrics: bool) -> Iterator[bytes]:
        """Write the page from what the metrics say now."""
        ...


class MetricsApp:
    """Answers GET and HEAD with the metrics of the server that calls it.

    Mount it anywhere; it answers at its mount alone. It works where the server is pagi-trio, its metrics are
    on and prometheus_client is installed; elsewhere it answers 503 and says what is missing.
    """

    def __init__(self) -> None:
        self._render = _find_render()
        self._logged: set[str] = set()

    async def __call__(
        self,
        scope: Scope,
        receive: Receive,  # noqa: ARG002 - ASGI calls with it, and a GET has no body to read
        send: Send,
    ) -> None:
        """Answer one request; refuse a WebSocket; take no part in the lifespan.

        Cancellation: between two parts of the page; nothing is left behind.
        """
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        elif scope["type"] == "http":
            await self._answer(scope, send)

    async def _answer(self, scope: HTTPScope, send: Send) -> None:
        refusal = refusal_of(scope)
        if refusal is not None:
            await send_line(scope, send, *refusal)
        else:
            metrics = scope.get("extensions", {}).get("pagi.metrics", _OTHER_SERVER)
            if not isinstance(metrics, ServerMetrics):
                await self._decline(scope, send, _OTHER_SERVER if metrics is _OTHER_SERVER else _SWITCHED_OFF)
            elif self._render is None:
                await self._decline(scope, send, _NOT_INSTALLED)
            else:
                await self._send_page(scope, send, metrics, self._render)

    async def _decline(self, scope: HTTPScope, send: Send, cause: str) -> None:
        """Answer that there is no page here, and log it the first time."""
        if cause not in self._logged:
            self._logged.add(cause)
            _log.warning("no metrics page: %s", cause)
        await send_line(scope, send, 503, cause)

    async def _send_page(self, scope: HTTPScope, send: Send, metrics: ServerMetrics, render: Render) -> None:
        openmetrics = negotiation.prefers_openmetrics(_field(scope, b"accept"))
        gzip = negotiation.prefers_gzip(_field(scope, b"accept-encoding"))
        if scope["method"] == "GET":
            metrics.meter.add(_SCRAPES)
        try:
            async with metrics.rendering:
                body = await _join(render(metrics, openmetrics=openmetrics), gzip=gzip)
        except Exception:  # noqa: BLE001 - the application's own collectors run here, and may raise anything
            metrics.meter.add(_ERRORS)
            if _BROKEN not in self._logged:
                self._logged.add(_BROKEN)
                _log.exception("the metrics page could not be written; further failures are only counted")
            await send_line(scope, send, 500, _BROKEN)
            return
        media_type = negotiation.OPENMETRICS if openmetrics else negotiation.TEXT
        headers = [(b"content-type", media_type.content_type.encode()), (b"vary", b"accept, accept-encoding")]
        if gzip:
            headers.append((b"content-encoding", b"gzip"))
        await send_whole(scope, send, 200, headers, body)


def _find_render() -> Render | None:
    """Return what writes the page; None without prometheus_client, which is optional."""
    try:
        from pagi_trio.metrics.exporters.prometheus import render  # noqa: PLC0415 - only where the page is wanted
    except ImportError:
        return None
    return render


async def _join(pieces: Iterable[bytes], *, gzip: bool) -> bytes:
    """Put the page together, letting other tasks run every now and then."""
    squeeze = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS | 16) if gzip else None
    page: list[bytes] = []
    turn: list[bytes] = []
    size = 0
    for piece in pieces:
        turn.append(piece)
        size += len(piece)
        if size >= TURN_BYTES:
            page.append(b"".join(turn) if squeeze is None else squeeze.compress(b"".join(turn)))
            turn.clear()
            size = 0
            await trio.lowlevel.checkpoint()
    page.append(b"".join(turn) if squeeze is None else squeeze.compress(b"".join(turn)) + squeeze.flush())
    return b"".join(page)


def _field(scope: HTTPScope, name: bytes) -> str:
    """Return a request field's value; its lines are joined as RFC 9110 section 5.3 allows."""
    return ", ".join(value.decode("latin-1") for field, value in scope["headers"] if field == name)
