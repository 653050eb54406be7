from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from pagi_trio.errors import ConfigError
from pagi_trio.urlmap import URLMap

if TYPE_CHECKING:
    from pagi_trio.asgi import App

pytestmark = pytest.mark.trio

Message = dict[str, object]


# Requests.


class Page:
    """Notes the scopes that it is called with."""

    def __init__(self) -> None:
        self.scopes: list[Message] = []

    async def __call__(self, scope: Message, receive: object, send: object) -> None:
        self.scopes.append(scope)


async def ask(app: App, path: str, *, root_path: str = "", kind: str = "http", method: str = "GET") -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("there is nothing to receive")

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": kind, "method": method, "path": path, "raw_path": path.encode(), "root_path": root_path}
    before = scope.copy()
    await app(scope, receive, send)
    assert scope == before
    return sent


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/metrics", "/metrics"),
        ("/metrics/", "/metrics"),
        ("/metrics/x", "/metrics"),
        ("/metricsfoo", "/"),
        ("/metrics/deep", "/metrics/deep"),
        ("/metrics/deep/er", "/metrics/deep"),
        ("/metrics/deeper", "/metrics"),
        ("/Metrics", "/"),
        ("//metrics", "/"),
        ("/", "/"),
        ("", "/"),
        ("*", "/"),
    ],
)
async def test_the_longest_prefix_of_whole_segments_wins(path: str, expected: str) -> None:
    pages = {prefix: Page() for prefix in ("/", "/metrics", "/metrics/deep")}
    await ask(URLMap(pages), path)
    assert [prefix for prefix, page in pages.items() if page.scopes] == [expected]


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    ("root_path", "path", "grown"),
    [("", "/a/b", "/a"), ("/top", "/top/a/b", "/top/a"), ("/top/", "/top/a", "/top/a"), ("/", "/a", "/a")],
)
async def test_the_path_stays_whole_and_root_path_grows_asgi_http_scope(
    kind: str, root_path: str, path: str, grown: str
) -> None:
    page = Page()
    await ask(URLMap({"/a": page}), path, root_path=root_path, kind=kind)
    [scope] = page.scopes
    assert scope["path"] == path
    assert scope["raw_path"] == path.encode()
    assert scope["root_path"] == grown


async def test_maps_nest_and_a_root_mount_changes_nothing() -> None:
    inner, root = Page(), Page()
    nested = URLMap({"/a": URLMap({"/b": inner, "/": root})})
    await ask(nested, "/a/b/c")
    await ask(nested, "/a/x")
    assert [(s["path"], s["root_path"]) for s in inner.scopes] == [("/a/b/c", "/a/b")]
    assert [(s["path"], s["root_path"]) for s in root.scopes] == [("/a/x", "/a")]


@pytest.mark.parametrize(("method", "body"), [("GET", b"not found\n"), ("POST", b"not found\n"), ("HEAD", b"")])
async def test_what_fits_nowhere_is_not_found(method: str, body: bytes) -> None:
    start, end = await ask(URLMap({"/a": Page()}), "/b", method=method)
    assert start["status"] == 404
    assert start["headers"] == [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"10")]
    assert end == {"type": "http.response.body", "body": body}


async def test_a_websocket_that_fits_nowhere_is_refused_before_it_is_accepted() -> None:
    assert await ask(URLMap({"/a": Page()}), "/ab", kind="websocket") == [{"type": "websocket.close"}]


@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        ("metrics", "must begin with a slash, as in '/metrics'"),
        ("", "must begin with a slash"),
        ("/metrics/", "must not end with a slash; write '/metrics'"),
        ("//", "must not end with a slash; write '/'"),
    ],
)
async def test_a_malformed_prefix_is_refused_by_name(prefix: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        URLMap({prefix: Page()})
    assert said in str(caught.value)
    assert repr(prefix) in str(caught.value)


# The lifespan.


class Living:
    """An application with a lifespan, which notes what happens in a list shared with others."""

    def __init__(self, name: str, events: list[str], **state: object) -> None:
        self.name = name
        self.events = events
        self.state = state

    async def __call__(self, scope: Message, receive: trio.abc.ReceiveChannel[Message], send: object) -> None:
        assert (await receive())["type"] == "lifespan.startup"  # type: ignore[operator]
        self.events.append(f"{self.name} starts")
        await trio.lowlevel.checkpoint()
        scope["state"].update(self.state)  # type: ignore[attr-defined]
        await self.answer(send, "startup")
        assert (await receive())["type"] == "lifespan.shutdown"  # type: ignore[operator]
        self.events.append(f"{self.name} stops")
        await trio.lowlevel.checkpoint()
        await self.answer(send, "shutdown")

    async def answer(self, send: object, phase: str) -> None:
        self.events.append(f"{self.name} {phase}")
        await send({"type": f"lifespan.{phase}.complete"})  # type: ignore[operator]


class Failing(Living):
    """Fails in one phase, with a message; then waits for more, or raises what is in its way."""

    def __init__(self, name: str, events: list[str], phase: str, message: str = "no database") -> None:
        super().__init__(name, events)
        self.phase = phase
        self.message = message

    async def answer(self, send: object, phase: str) -> None:
        if phase != self.phase:
            await super().answer(send, phase)
            return
        self.events.append(f"{self.name} fails")
        await send({"type": f"lifespan.{phase}.failed", "message": self.message})  # type: ignore[operator]
        if phase == "startup":
            raise LookupError("as Starlette does")


class Server:
    """The server's side of a lifespan: runs it to its end, with the shutdown as soon as it has started."""

    def __init__(self) -> None:
        self.state: dict[str, object] = {"server": True}
        self.sent: list[Message] = []
        self.at_startup: dict[str, object] = {}
        self._started = trio.Event()
        self._received = 0

    async def run(self, app: App) -> list[Message]:
        scope = {"type": "lifespan", "asgi": {}, "state": self.state, "extensions": {}}
        with trio.fail_after(5):
            await app(scope, self.receive, self.send)
        return self.sent

    async def receive(self) -> Message:
        self._received += 1
        if self._received == 1:
            return {"type": "lifespan.startup"}
        await self._started.wait()
        await trio.testing.wait_all_tasks_blocked()
        return {"type": "lifespan.shutdown"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        if message["type"] == "lifespan.startup.complete":
            self.at_startup = self.state.copy()
            self._started.set()


COMPLETE = [{"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"}]


async def test_all_start_in_order_and_stop_in_reverse() -> None:
    events: list[str] = []
    apps = {f"/{name}": Living(name, events) for name in "abc"}
    assert await Server().run(URLMap(apps)) == COMPLETE
    assert events == [
        *("a starts", "a startup", "b starts", "b startup", "c starts", "c startup"),
        *("c stops", "c shutdown", "b stops", "b shutdown", "a stops", "a shutdown"),
    ]


async def test_the_same_app_mounted_often_runs_once_in_nested_maps_too() -> None:
    events: list[str] = []
    app = Living("a", events)
    other = Living("b", events)
    assert await Server().run(URLMap({"/x": app, "/y": URLMap({"/z": app, "/": other}), "/": app})) == COMPLETE
    assert [event for event in events if event.endswith("starts")] == ["a starts", "b starts"]


async def test_state_is_merged_into_the_servers() -> None:
    events: list[str] = []
    server = Server()
    await server.run(URLMap({"/a": Living("a", events, one=1), "/b": Living("b", events, two=2)}))
    assert server.at_startup == {"server": True, "one": 1, "two": 2}


async def test_a_state_key_set_twice_has_the_later_value_and_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    events: list[str] = []
    server = Server()
    shared = object()
    apps = {
        "/a": Living("a", events, db="of a", shared=shared),
        "/b": Living("b", events, db="of b", shared=shared),
    }
    with caplog.at_level(logging.WARNING, logger="pagi_trio"):
        await server.run(URLMap(apps))
    assert server.at_startup["db"] == "of b"
    assert [record.getMessage() for record in caplog.records] == [
        "the application at /b overwrites 'db' in the lifespan state"
    ]


async def test_a_failure_fails_the_start_with_its_message_and_stops_what_had_started() -> None:
    events: list[str] = []
    apps = {
        "/a": Living("a", events),
        "/b": Living("b", events),
        "/c": Failing("c", events, "startup"),
        "/d": Living("d", events),
    }
    assert await Server().run(URLMap(apps)) == [{"type": "lifespan.startup.failed", "message": "no database"}]
    assert events == [
        *("a starts", "a startup", "b starts", "b startup", "c starts", "c fails"),
        *("b stops", "b shutdown", "a stops", "a shutdown"),
    ]


async def test_a_failure_with_an_empty_message_is_one() -> None:
    sent = await Server().run(URLMap({"/a": Failing("a", [], "startup", message="")}))
    assert sent == [{"type": "lifespan.startup.failed", "message": ""}]


async def test_a_failed_shutdown_is_told_after_all_have_stopped() -> None:
    events: list[str] = []
    apps = {
        "/a": Failing("a", events, "shutdown", "a is stuck"),
        "/b": Living("b", events),
        "/c": Failing("c", events, "shutdown", "c is stuck"),
    }
    assert await Server().run(URLMap(apps)) == [
        {"type": "lifespan.startup.complete"},
        {"type": "lifespan.shutdown.failed", "message": "a is stuck; c is stuck"},
    ]
    assert events[-5:] == ["c fails", "b stops", "b shutdown", "a stops", "a fails"]


async def returns_at_once(scope: Message, receive: object, send: object) -> None:
    return


async def raises_at_once(scope: Message, receive: object, send: object) -> None:
    raise NotImplementedError("http only")


async def raises_after_startup_was_asked(scope: Message, receive: object, send: object) -> None:
    await receive()  # type: ignore[operator]
    raise NotImplementedError("http only")


@pytest.mark.parametrize("declining", [returns_at_once, raises_at_once, raises_after_startup_was_asked])
async def test_who_declines_is_served_without(declining: App) -> None:
    events: list[str] = []
    assert await Server().run(URLMap({"/a": declining, "/b": Living("b", events)})) == COMPLETE
    assert events == ["b starts", "b startup", "b stops", "b shutdown"]


async def test_if_all_decline_by_returning_so_does_the_map() -> None:
    assert await Server().run(URLMap({"/a": returns_at_once, "/b": URLMap({})})) == []


async def test_if_all_decline_the_map_raises_what_the_first_has_raised() -> None:
    server = Server()
    with pytest.raises(NotImplementedError, match="http only"):
        await server.run(URLMap({"/a": returns_at_once, "/b": raises_at_once}))
    assert server.sent == []


async def test_an_app_that_dies_after_its_start_is_logged_at_once_and_fails_the_shutdown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    events: list[str] = []

    async def dies(scope: Message, receive: object, send: object) -> None:
        await receive()  # type: ignore[operator]
        await send({"type": "lifespan.startup.complete"})  # type: ignore[operator]
        raise LookupError("gone")

    with caplog.at_level(logging.ERROR, logger="pagi_trio"):
        sent = await Server().run(URLMap({"/a": dies, "/b": Living("b", events)}))
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.failed"]
    assert sent[1]["message"] == "the application at /a raised LookupError('gone')"
    assert events[-1] == "b shutdown"
    assert [record.getMessage() for record in caplog.records] == ["the application at /a failed in its lifespan"]


async def test_an_app_that_returns_after_its_start_has_nothing_to_shut_down() -> None:
    async def returns_early(scope: Message, receive: object, send: object) -> None:
        await receive()  # type: ignore[operator]
        await send({"type": "lifespan.startup.complete"})  # type: ignore[operator]

    assert await Server().run(URLMap({"/a": returns_early})) == COMPLETE


@pytest.mark.parametrize("last", ["startup.failed", "shutdown.complete", "shutdown.failed"])
async def test_an_app_that_waits_for_more_after_its_last_answer_is_ended(last: str) -> None:
    async def waits_for_ever(scope: Message, receive: object, send: object) -> None:
        while True:
            phase = str((await receive())["type"])  # type: ignore[operator]
            answer = f"lifespan.{last}" if last.startswith(phase.removeprefix("lifespan.")) else f"{phase}.complete"
            await send({"type": answer})  # type: ignore[operator]

    sent = await Server().run(URLMap({"/a": waits_for_ever}))
    assert sent[-1]["type"] == f"lifespan.{last}"


async def test_an_app_that_waits_in_another_task_is_not_ended_before_its_last_answer() -> None:
    cleaned: list[bool] = []

    async def two_tasks(scope: Message, receive: object, send: object) -> None:
        stopping = trio.Event()

        async def listen() -> None:
            while True:
                message = await receive()  # type: ignore[operator]
                if message["type"] == "lifespan.shutdown":
                    stopping.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            await send({"type": "lifespan.startup.complete"})  # type: ignore[operator]
            await stopping.wait()
            await trio.testing.wait_all_tasks_blocked()
            cleaned.append(True)
            await send({"type": "lifespan.shutdown.complete"})  # type: ignore[operator]

    assert await Server().run(URLMap({"/a": two_tasks})) == COMPLETE
    assert cleaned == [True]


@pytest.mark.parametrize(
    "answer", ["lifespan.startup.complete", "lifespan.shutdown.complete", "lifespan.shutdown.failed", "http.x"]
)
async def test_an_answer_that_was_not_asked_for_is_refused_asgi_lifespan(answer: str) -> None:
    refused: list[str] = []

    async def confused(scope: Message, receive: object, send: object) -> None:
        await receive()  # type: ignore[operator]
        await send({"type": "lifespan.startup.complete"})  # type: ignore[operator]
        try:
            await send({"type": answer})  # type: ignore[operator]
        except RuntimeError as error:
            refused.append(str(error))

    await Server().run(URLMap({"/a": confused}))
    assert refused == [f"{answer!r} is no answer to what the lifespan asked last"]


async def test_cancelling_the_lifespan_cancels_all() -> None:
    ended: list[str] = []

    class Blocked(Living):
        async def __call__(self, scope: Message, receive: object, send: object) -> None:
            try:
                await super().__call__(scope, receive, send)  # type: ignore[arg-type]
            finally:
                ended.append(self.name)

    async def receive() -> Message:
        await trio.lowlevel.checkpoint()
        if not started.is_set():
            return {"type": "lifespan.startup"}
        scope.cancel()
        return await trio.sleep_forever()

    async def send(message: Message) -> None:
        started.set()

    started = trio.Event()
    with trio.CancelScope() as scope:
        await URLMap({"/a": Blocked("a", []), "/b": Blocked("b", [])})(
            {"type": "lifespan", "asgi": {}, "state": {}, "extensions": {}},
            receive,
            send,  # type: ignore[arg-type]
        )
    assert scope.cancelled_caught
    assert sorted(ended) == ["a", "b"]


async def test_a_server_without_state_is_served_too() -> None:
    async def app(scope: Message, receive: object, send: object) -> None:
        assert "state" not in scope
        await receive()  # type: ignore[operator]
        await send({"type": "lifespan.startup.complete"})  # type: ignore[operator]

    server = Server()
    await URLMap({"/": app})({"type": "lifespan", "asgi": {}}, server.receive, server.send)  # type: ignore[arg-type]
    assert server.sent == COMPLETE
