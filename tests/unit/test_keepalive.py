"""Pings of a WebSocket, both ways: RFC 6455 sections 5.5.2 and 5.5.3."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from pagi_trio.config import WebSocketSettings
from pagi_trio.errors import WebSocketError
from pagi_trio.nurseries.keepalive import Keepalive

if TYPE_CHECKING:
    from pagi_trio.nurseries.transport import Observer, Transport

PING = b"\x89\x00"


class Wire:
    """What takes frames, and queues them while its client does not read.

    Attributes:
        is_drained: Whether all that was written has left.
        posted: What was written, in order.
        stalled_s: How long nothing of what is queued has left.
    """

    def __init__(self) -> None:
        self.is_drained = True
        self.stalled_s = 0.0
        self.posted: list[bytes] = []
        self._observers: list[Observer] = []

    def post(self, data: bytes, observer: Observer | None = None) -> bool:
        self.posted.append(data)
        if not self.is_drained and observer is not None:
            self._observers.append(observer)
        return self.is_drained

    def take(self) -> None:
        """Take what is queued now, in two pieces each; what that makes others write is queued behind it."""
        taken, self._observers = self._observers, []
        for observer in taken:
            observer(memoryview(b"1"), False)
            observer(memoryview(b"2"), True)
        self.is_drained = not self._observers


def keep_alive(**settings: float) -> tuple[Keepalive, Wire]:
    wire = Wire()
    changed = WebSocketSettings(**{"ping_interval_s": 0, **settings})  # type: ignore[arg-type]  # by name
    return Keepalive(changed, cast("Transport", wire), 0.0), wire


def tick(keepalive: Keepalive, now: float, *, is_busy: bool = False, is_unread: bool = False) -> str:
    return keepalive.tick(now, is_busy=is_busy, is_unread=is_unread)


def pong(payload: bytes) -> bytes:
    return bytes((0x8A, len(payload))) + payload


# Pings of the client


def test_a_ping_is_answered_at_once() -> None:
    keepalive, wire = keep_alive()
    keepalive.pinged(b"a")
    keepalive.pinged(b"b")
    assert wire.posted == [pong(b"a"), pong(b"b")]


def test_one_pong_at_a_time_waits_to_leave_and_the_next_is_for_the_latest_ping() -> None:
    keepalive, wire = keep_alive()
    wire.is_drained = False
    for payload in (b"a", b"b", b"c"):
        keepalive.pinged(payload)
    assert wire.posted == [pong(b"a")]
    wire.take()
    assert wire.posted == [pong(b"a"), pong(b"c")]
    wire.take()
    wire.take()
    assert wire.posted == [pong(b"a"), pong(b"c")]
    keepalive.pinged(b"d")
    assert wire.posted[-1] == pong(b"d")


def test_nothing_is_answered_behind_the_end_rfc6455_5_5_1() -> None:
    keepalive, wire = keep_alive()
    wire.is_drained = False
    for payload in (b"a", b"b"):
        keepalive.pinged(payload)
    keepalive.end()
    wire.take()
    assert wire.posted == [pong(b"a")]


def test_as_many_pings_may_be_outstanding_as_the_limit_says() -> None:
    keepalive, wire = keep_alive(pings_outstanding=3)
    wire.is_drained = False
    for _ in range(3):
        keepalive.pinged(b"")
    with pytest.raises(WebSocketError, match="more than 3 pings") as caught:
        keepalive.pinged(b"")
    assert caught.value.code == 1008


def test_what_is_answered_is_not_outstanding() -> None:
    keepalive, wire = keep_alive(pings_outstanding=3)
    for _ in range(10):
        wire.is_drained = False
        for _ in range(3):
            keepalive.pinged(b"")
        wire.take()
        wire.take()


# Pings of the server


def test_pings_are_sent_as_often_as_the_settings_say_and_one_at_a_time() -> None:
    keepalive, wire = keep_alive(ping_interval_s=10, ping_timeout_s=15)
    assert [tick(keepalive, now) for now in (9, 10, 20)] == ["", "", ""]
    assert wire.posted == [PING]
    keepalive.ponged()
    assert [tick(keepalive, now) for now in (29, 30, 45)] == ["", "", ""]
    assert wire.posted == [PING, PING]
    assert tick(keepalive, 46) == "keepalive_timeout"


def test_a_pong_that_cannot_be_seen_is_not_missed() -> None:
    keepalive, _ = keep_alive(ping_interval_s=10, ping_timeout_s=15)
    tick(keepalive, 10)
    assert tick(keepalive, 100, is_unread=True) == ""
    assert tick(keepalive, 101) == "keepalive_timeout"


def test_a_ping_has_its_time_once_the_client_has_taken_what_is_before_it() -> None:
    keepalive, wire = keep_alive(ping_interval_s=10, ping_timeout_s=15)
    wire.is_drained = False
    tick(keepalive, 10)
    for now in range(20, 100, 10):
        assert tick(keepalive, now) == ""
    wire.take()
    assert tick(keepalive, 105) == ""
    assert tick(keepalive, 106) == "keepalive_timeout"


def test_a_client_that_takes_nothing_at_all_answers_no_ping() -> None:
    keepalive, wire = keep_alive(ping_interval_s=10, ping_timeout_s=15)
    wire.is_drained = False
    assert tick(keepalive, 10) == ""
    for wire.stalled_s in (5, 15):
        assert tick(keepalive, 10 + wire.stalled_s) == ""
    wire.stalled_s = 16
    assert tick(keepalive, 26) == "keepalive_timeout"


# Silence


def test_a_session_without_messages_is_idle_pings_or_not() -> None:
    keepalive, _ = keep_alive(idle_s=10, ping_interval_s=1)
    for now in range(1, 11):
        keepalive.ponged()
        keepalive.pinged(b"")
        assert tick(keepalive, now) == ""
    keepalive.ponged()
    assert tick(keepalive, 10.5) == "idle_timeout"


@pytest.mark.parametrize("how", ["is_busy", "is_unread"])
def test_messages_that_come_or_wait_make_it_busy(how: str) -> None:
    keepalive, _ = keep_alive(idle_s=10)
    assert tick(keepalive, 9, **{how: True}) == ""
    assert tick(keepalive, 19) == ""
    assert tick(keepalive, 19.5) == "idle_timeout"


def test_a_message_that_takes_its_time_to_leave_makes_it_busy() -> None:
    keepalive, wire = keep_alive(idle_s=10)
    wire.is_drained = False
    assert [tick(keepalive, now) for now in (10, 20, 30)] == ["", "", ""]
    wire.is_drained = True
    assert tick(keepalive, 40) == ""
    assert tick(keepalive, 41) == "idle_timeout"


def test_zero_is_never_idle() -> None:
    keepalive, _ = keep_alive(idle_s=0)
    assert tick(keepalive, 1e9) == ""
