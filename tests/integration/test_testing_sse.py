"""The event stream of a test, over sockets and in memory."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from pagi_trio.testing.event_parser import Event
from pagi_trio.testing.event_source import RECONNECT_S, EventSource
from pagi_trio.testing.event_stream import EventStreamLostError, NotAnEventStreamError

from .conftest import hello, read_body, respond, until
from .linked import link, linked

__all__ = ["link"]

pytestmark = pytest.mark.trio

STREAM = [(b"content-type", b"Text/Event-Stream ; charset=utf-8")]


class Boom(Exception):
    pass


class Feed:
    """One stream after another: each is a list of parts to send, of which an exception is raised.

    A part that is a number of seconds is slept, and ``None`` waits for the client to leave. After the last stream the
    answer is 204.

    Attributes:
        asked: Of each request: method, path, headers and body.
        left: How many clients have been seen leaving.
    """

    def __init__(self, *streams):
        self._streams = list(streams)
        self.asked = []
        self.left = 0

    async def __call__(self, scope, receive, send):
        body, _complete = await read_body(receive)
        self.asked.append((scope["method"], scope["raw_path"], scope["headers"], body))
        if not self._streams:
            await respond(send, status=204)
            return
        await send({"type": "http.response.start", "status": 200, "headers": STREAM})
        for part in self._streams.pop(0):
            if isinstance(part, Exception):
                raise part
            if part is None:
                assert (await receive())["type"] == "http.disconnect"
                self.left += 1
            elif isinstance(part, (int, float)):
                await trio.sleep(part)
            else:
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    @property
    def ids(self):
        return [dict(headers).get(b"last-event-id") for _, _, headers, _ in self.asked]


def sse(link, path="/", **options):
    return EventSource(link.network, link.server.url, path, **options)


async def test_events_come_in_a_block_until_the_stream_ends(link):
    app = Feed([b"data: a\n\nda", b"ta: b\n\n", b"event: add\nid: 7\ndata: c\n\ndata: never\n"])
    async with link(app) as link:
        async with sse(link, "/events?of=me", headers={"x-a": "1", "Accept": "*/*"}) as events:
            assert [event async for event in events] == [
                Event(data="a"),
                Event(data="b"),
                Event(event="add", data="c", id="7"),
            ]
            assert events.last_event_id == "7"
            with pytest.raises(StopAsyncIteration):
                await anext(events)
        assert link.network.wires == []
    method, path, headers, body = app.asked[0]
    assert (method, path, body) == ("GET", b"/events", b"")
    assert sorted(headers)[:2] == [(b"accept", b"*/*"), (b"cache-control", b"no-store")]
    assert [name for name, _ in sorted(headers)[2:]] == [b"host", b"x-a"]


async def test_it_can_be_iterated_directly_and_closed_by_the_test(link):
    app = Feed([b"data: a\n\n", None])
    async with link(app) as link:
        events = sse(link, "/feed?x")
        async for event in events:
            assert event == Event(data="a")
            break
        assert list(link.network.streams) == ["sse /feed"]
        await events.aclose()
        await events.aclose()
        assert len(link.network.streams) == 0
        assert link.network.wires == []
        with pytest.raises(StopAsyncIteration):
            await anext(events)
        await until(lambda: app.left)


async def test_a_block_that_is_left_early_ends_the_stream(link):
    app = Feed([b"data: a\n\ndata: b\n\n", None])
    async with link(app) as link:
        async with sse(link) as events:
            assert await anext(events) == Event(data="a")
        with pytest.raises(StopAsyncIteration):
            await anext(events)
        await until(lambda: app.left)
        assert len(link.network.streams) == 0


async def test_a_body_and_a_method_can_be_given(link):
    app = Feed([b"data: a\n\n"])
    async with link(app) as link, sse(link, "/h\u00e4user", method="POST", content=b'{"ask": 1}') as events:
        assert [event.data async for event in events] == ["a"]
    method, path, _, body = app.asked[0]
    assert (method, path, body) == ("POST", b"/h%C3%A4user", b'{"ask": 1}')


async def test_a_wait_that_is_cancelled_loses_nothing(autojump_clock):
    app = Feed([b"data: a\n\n", 100, b"data: b\n", 100, b"data: c\n\n", None])
    async with linked(app, in_memory=True, patience_s=10**5) as link, sse(link) as events:
        got = []
        while len(got) < 2:
            with trio.move_on_after(30):
                got.append(await anext(events))
    assert got == [Event(data="a"), Event(data="b\nc")]
    assert len(app.asked) == 1


async def test_an_event_that_has_come_is_not_lost_to_a_cancelled_wait_either(link):
    async with link(Feed([b"id: 1\ndata: a\n\nid: 2\ndata: b\n\n", None])) as link, sse(link) as events:
        await anext(events)
        assert events.last_event_id == "1"
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(events)
        assert scope.cancelled_caught
        assert await anext(events) == Event(data="b", id="2")


async def test_a_cancelled_opening_leaves_nothing_open(link):
    async def app(scope, receive, send):
        await receive()
        await receive()

    async with link(app) as link:
        with trio.move_on_after(0.05):
            async with sse(link):
                pass
        assert link.network.wires == []


# Again


async def test_it_comes_back_with_its_last_id_until_it_is_told_not_to(link):
    app = Feed([b"id: 1\ndata: a\n\n"], [b"data: b\n\nid: 2\n\n"], [b"data: c\n\nid: 3\n"])
    async with link(app) as link, sse(link, reconnect=True, last_event_id="0") as events:
        got = [event async for event in events]
    assert got == [Event(data="a", id="1"), Event(data="b", id="1"), Event(data="c", id="2")]
    assert app.ids == [b"0", b"1", b"2", b"2"]


async def test_it_waits_as_long_as_the_stream_says(autojump_clock):
    app = Feed([b"retry: 5000\n\n"], [b"data: a\n\n"], [b"retry: 0\ndata: b\n\n"], [b"data: c\n\n"])
    async with linked(app, in_memory=True, patience_s=10**5) as link, sse(link, reconnect=True) as events:
        times = []
        start = trio.current_time()
        async for _event in events:
            times.append(trio.current_time() - start)
        assert events.retry_s == 0
    assert times == pytest.approx([5, 10, 10 + RECONNECT_S])


@pytest.mark.parametrize("where", ["before", "inside"])
async def test_it_comes_back_after_a_loss(link, where):
    app = Feed([b"id: 1\ndata: a\n\n", None], [b"data: b\n\n"])
    async with link(app) as link:
        if where == "before":
            link.network.delay(0.2)
        events = sse(link, reconnect=True)
        async with trio.open_nursery() as nursery:
            if where == "before":

                async def cut():
                    await until(lambda: link.network.wires)
                    link.network.cut()
                    link.network.delay(0)

                nursery.start_soon(cut)
            assert await anext(events) == Event(data="a", id="1")
        link.network.cut()
        assert [event async for event in events] == [Event(data="b", id="1")]
    assert app.ids == [None, b"1", b"1"]


async def test_it_tries_again_while_it_is_refused(autojump_clock):
    app = Feed([b"id: 1\ndata: a\n\n"], [b"data: b\n\n"])
    async with (
        linked(app, in_memory=True, patience_s=10**5) as link,
        sse(link, reconnect=True) as events,
        trio.open_nursery() as nursery,
    ):
        await anext(events)

        async def refuse(task_status):
            with link.network.refuse():
                task_status.started()
                await trio.sleep(10)

        await nursery.start(refuse)
        start = trio.current_time()
        assert await anext(events) == Event(data="b", id="1")
        assert trio.current_time() - start >= 10


# What is no stream


@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [
        (404, [(b"content-type", b"text/event-stream")], "status 404, content-type 'text/event-stream'"),
        (200, [(b"content-type", b"text/html")], "status 200, content-type 'text/html'"),
        (200, [], "status 200, content-type 'missing'"),
        (204, [], "status 204"),
    ],
)
async def test_what_is_no_stream_is_said_to_be_none(link, status, headers, said):
    async def app(scope, receive, send):
        await respond(send, b"" if status == 204 else b"x", status=status, headers=headers)

    async with link(app) as link:
        with pytest.raises(NotAnEventStreamError, match=said) as caught:
            async with sse(link):
                pass
        assert caught.value.status == status
        with pytest.raises(NotAnEventStreamError):
            await anext(sse(link))
        assert link.network.wires == []
        assert len(link.network.streams) == 0


async def test_what_is_no_stream_ends_reconnecting(link):
    async with link(hello) as link:
        with pytest.raises(NotAnEventStreamError):
            await anext(sse(link, reconnect=True))


# Faults


async def test_a_lost_stream_is_an_error_behind_its_events(link):
    async with link(Feed([b"data: a\n\ndata: b\n\n", None])) as link, sse(link) as events:
        assert await anext(events) == Event(data="a")
        link.network.cut()
        assert await anext(events) == Event(data="b")
        with pytest.raises(EventStreamLostError, match="the test has cut"):
            await anext(events)
        assert link.network.wires == []


async def test_a_stream_that_ends_in_the_middle_of_its_body_is_lost(link):
    async with link(Feed([b"data: a\n\n", Boom()])) as link:
        link.errors.is_raising = False
        async with sse(link) as events:
            assert await anext(events) == Event(data="a")
            with pytest.raises(EventStreamLostError):
                await anext(events)


async def test_a_refused_connection_is_an_error(link):
    async with link(Feed([])) as link:
        with link.network.refuse(), pytest.raises(ConnectionRefusedError):
            await anext(sse(link))


# What the application raises


@pytest.mark.parametrize("reconnect", [True, False])
async def test_what_is_raised_inside_a_stream_is_raised_behind_its_events(link, reconnect):
    # An error of the kind that a loss is.
    error = ConnectionError("in the application")
    async with link(Feed([b"data: a\n\n", error])) as link:
        with pytest.raises(ConnectionError) as caught:
            async with sse(link, reconnect=reconnect) as events:
                assert await anext(events) == Event(data="a")
                await anext(events)
        assert caught.value is error
        assert error.__context__ is None


@pytest.mark.parametrize("reconnect", [True, False])
async def test_what_is_raised_before_a_stream_is_raised_by_opening_it(link, reconnect):
    error = ConnectionError("in the application")

    async def app(scope, receive, send):
        raise error

    async with link(app) as link:
        with pytest.raises(ConnectionError) as caught:
            async with sse(link, reconnect=reconnect):
                pass
        assert caught.value is error
        assert link.network.wires == []


async def test_what_is_raised_meanwhile_is_raised_by_leaving_the_block(link):
    async with link(Feed([b"data: a\n\n", Boom()], [b"data: a\n\n", Boom()])) as link:
        with pytest.raises(Boom):
            async with sse(link) as events:
                await anext(events)
                await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ZeroDivisionError):
            async with sse(link) as events:
                await anext(events)
                await trio.testing.wait_all_tasks_blocked()
                raise ZeroDivisionError


# Time and TLS


async def test_a_stream_that_says_nothing_is_too_slow(link, monkeypatch):
    monkeypatch.setattr("pagi_trio.testing.event_source.patience_s", lambda: 0.05)
    async with link(Feed([b"data: a\n\n", None])) as link, sse(link) as events:
        await anext(events)
        with pytest.raises(trio.TooSlowError):
            await anext(events)


async def test_minutes_pass_in_virtual_time_at_once(autojump_clock):
    app = Feed([600, b"data: late\n\n"])
    async with linked(app, in_memory=True, patience_s=10**5) as link, sse(link) as events:
        assert await anext(events) == Event(data="late")


async def test_tls_is_spoken_without_verifying(authority):
    app = Feed([b"data: a\n\n", None], [b"data: b\n\n"])
    async with linked(app, tls=authority.files) as link, sse(link, reconnect=True) as events:
        assert await anext(events) == Event(data="a")
        link.network.cut()
        assert [event async for event in events] == [Event(data="b")]
