"""Which series counts how a connection, or a WebSocket on it, ended."""

from __future__ import annotations

from typing import Final

from pagi_trio.metrics import catalog

CONNECTION_CLOSED: Final = catalog.by_label("pagi_server_connections_closed_total")
"""By the token of the disconnect reasons."""

_CLOSES: Final = {
    (code, side): catalog.index("pagi_websocket_closes_total", code=code, side=side)
    for code in catalog.CLOSE_CODES
    for side in catalog.CLOSE_SIDES
}


def websocket_closed(code: int, side: str) -> int:
    """Return the series of one end of a WebSocket.

    Args:
        code: As the application was told.
        side: Whose Close frame came first: client, server, or none.
    """
    name = str(code)
    if (name, side) not in _CLOSES:
        name = f"{code // 1000}xxx" if 3000 <= code <= 4999 else "other"
    return _CLOSES[name, side]
