"""What the applications that come with the server have in common: where they are mounted, and how they refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pagi_trio.asgi import Headers, HTTPScope, Send, WebSocketScope


def path_below(scope: HTTPScope | WebSocketScope) -> str:
    """Return what is left of the path below the mount: empty, or beginning with a slash.

    Source: the ASGI specification, HTTP connection scope: ``path`` is whole, and begins with ``root_path``.
    Where it does not, whoever set them has cut the path already, and all of it is left.
    """
    root_path = scope.get("root_path", "").rstrip("/")
    path = scope["path"]
    below = path.removeprefix(root_path)
    return below if not below or below[0] == "/" else path


def refusal_of(scope: HTTPScope) -> tuple[int, str] | None:
    """Return status and line for what is no GET or HEAD of the mount itself; None if it is one."""
    if path_below(scope) not in {"", "/"}:
        return 404, "not found"
    if scope["method"] not in {"GET", "HEAD"}:
        return 405, "method not allowed; use GET or HEAD"
    return None


async def send_line(scope: HTTPScope, send: Send, status: int, line: str) -> None:
    """Answer with a line of text."""
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
    if status == 405:
        headers.append((b"allow", b"GET, HEAD"))
    await send_whole(scope, send, status, headers, line.encode() + b"\n")


async def send_whole(scope: HTTPScope, send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send a whole response, without its body if the method is HEAD."""
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
