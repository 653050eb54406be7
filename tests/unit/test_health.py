"""The answers for whoever watches over the server."""

from __future__ import annotations

import pytest

from pagi_trio.health import HealthApp

pytestmark = pytest.mark.trio


async def ask(
    obstacle: str = "", *, method: str = "GET", path: str = "/-/ready", root_path: str = "/-/ready", kind: str = "http"
) -> list[dict[str, object]]:
    """Ask for health; return what the application sent."""
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        raise AssertionError("there is nothing to receive")

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {"type": kind, "method": method, "path": path, "root_path": root_path, "headers": []}
    await HealthApp(lambda: obstacle)(scope, receive, send)  # type: ignore[arg-type]
    return sent


@pytest.mark.parametrize("path", ["/-/ready", "/-/ready/"])
@pytest.mark.parametrize(
    ("obstacle", "status", "body"),
    [("", 200, b"ok\n"), ("draining", 503, b"draining\n"), ("no worker is ready", 503, b"no worker is ready\n")],
)
async def test_the_answer_is_ok_or_what_is_in_the_way(path: str, obstacle: str, status: int, body: bytes) -> None:
    start, end = await ask(obstacle, path=path)
    assert start == {
        "type": "http.response.start",
        "status": status,
        "headers": [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"content-length", b"%d" % len(body)),
        ],
    }
    assert end == {"type": "http.response.body", "body": body}


@pytest.mark.parametrize("obstacle", ["", "starting"])
async def test_head_has_the_headers_of_get_and_no_body_rfc9110_9_3_2(obstacle: str) -> None:
    get, _ = await ask(obstacle)
    head, end = await ask(obstacle, method="HEAD")
    assert head == get
    assert end["body"] == b""


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_other_methods_are_405_with_allow_rfc9110_15_5_6(method: str) -> None:
    for obstacle in ("", "draining"):
        start, end = await ask(obstacle, method=method)
        assert start["status"] == 405
        assert (b"allow", b"GET, HEAD") in start["headers"]  # type: ignore[operator]
        assert end["body"] == b"method not allowed; use GET or HEAD\n"


async def test_below_the_mount_there_is_nothing() -> None:
    for obstacle in ("", "draining"):
        start, _ = await ask(obstacle, path="/-/ready/deeper")
        assert start["status"] == 404


async def test_each_request_asks_anew() -> None:
    obstacles = iter(["starting", "", "draining"])
    app = HealthApp(lambda: next(obstacles))
    seen = []

    async def send(message: dict[str, object]) -> None:
        seen.append(message.get("status"))

    for _ in range(3):
        scope = {"type": "http", "method": "GET", "path": "/", "root_path": "", "headers": []}
        await app(scope, None, send)  # type: ignore[arg-type]
    assert [status for status in seen if status is not None] == [503, 200, 503]


async def test_a_websocket_is_refused_and_the_lifespan_left_alone() -> None:
    assert await ask(kind="websocket") == [{"type": "websocket.close"}]
    assert await ask(kind="lifespan") == []
