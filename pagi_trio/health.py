"""Answers for whoever watches over the server: is it alive, and does it take requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pagi_trio.mount import refusal_of, send_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from pagi_trio.asgi import Receive, Scope, Send


class HealthApp:
    """Answers GET and HEAD: 200, or 503 with what is in the way.

    Mount it below ``/-/healthy`` or ``/-/ready``; it answers at its mount alone.

    Args:
        obstacle: Returns in a word what is in the way, such as ``draining``; empty if nothing is.
    """

    def __init__(self, obstacle: Callable[[], str]) -> None:
        self._obstacle = obstacle

    async def __call__(
        self,
        scope: Scope,
        receive: Receive,  # noqa: ARG002 - ASGI calls with it, and a GET has no body to read
        send: Send,
    ) -> None:
        """Answer one request; refuse a WebSocket; take no part in the lifespan."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        if scope["type"] != "http":
            return
        obstacle = self._obstacle()
        status, line = refusal_of(scope) or ((503, obstacle) if obstacle else (200, "ok"))
        await send_line(scope, send, status, line)
