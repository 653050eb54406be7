"""Where in the server's paths an application is mounted."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pagi_trio.asgi import HTTPScope, WebSocketScope


def path_below(scope: HTTPScope | WebSocketScope) -> str:
    """Return what is left of the path below the mount: empty, or beginning with a slash.

    Source: the ASGI specification, HTTP connection scope: ``path`` is whole, and begins with ``root_path``.
    Where it does not, whoever set them has cut the path already, and all of it is left.
    """
    root_path = scope.get("root_path", "").rstrip("/")
    path = scope["path"]
    below = path.removeprefix(root_path)
    return below if not below or below[0] == "/" else path
