"""What a test reads of a server's numbers, on a meter of its own."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from pagi_trio.metrics import catalog
from pagi_trio.metrics.meter import Meter
from pagi_trio.metrics.server_metrics import ServerMetrics
from pagi_trio.testing.readings import Readings

ACCEPTED = "pagi_server_connections_total"
SENT = "pagi_websocket_messages_sent_total"
CLOSED = "pagi_server_connections_closed_total"


@pytest.fixture
def meter():
    return Meter.create()


@pytest.fixture
def readings(meter):
    return Readings(ServerMetrics(meter))


def accept(meter, count=1):
    meter.add(catalog.index(ACCEPTED), count)


def send(meter):
    """Count a message as the hot path does: it waits to be folded."""
    meter.websocket.sent.append(5)
    if not meter.websocket.dirty:
        meter.websocket.mark()


def test_a_value_is_up_to_date(meter, readings):
    send(meter)
    assert readings.value(SENT) == 1
    assert readings.snapshot().value(SENT) == 1


def test_a_label_may_be_a_number_or_be_called_like_a_parameter(meter, readings):
    meter.add(catalog.index("pagi_websocket_closes_total", code="1000", side="client"))
    assert readings.value("pagi_websocket_closes_total", code=1000, side="client") == 1
    for label in ("name", "self", "wanted"):
        with pytest.raises(KeyError, match=f"takes no labels; got {label}"):
            readings.value(ACCEPTED, **{label: "x"})


@pytest.mark.parametrize(
    ("name", "labels", "fits"),
    [
        ("pagi_server_connection_total", {}, "did you mean 'pagi_server_connections_total'"),
        (CLOSED, {}, "takes reason; got none"),
        (CLOSED, {"reason": "dnoe"}, "it is one of done, client_closed"),
    ],
)
@pytest.mark.trio
async def test_what_is_no_series_is_told_what_fits(readings, name, labels, fits):
    with pytest.raises(KeyError, match=fits):
        readings.value(name, **labels)
    with readings.delta() as delta, pytest.raises(KeyError, match=fits):
        delta.value(name, **labels)
    with pytest.raises(KeyError, match=fits):
        await readings.wait_for(name, 1, **labels)


def test_a_delta_is_what_the_block_added(meter, readings):
    accept(meter, 7)
    send(meter)
    with readings.delta() as delta:
        assert (delta.value(SENT), delta.value(ACCEPTED)) == (0, 0)
        send(meter)
        assert delta.value(SENT) == 1
        send(meter)
    send(meter)
    accept(meter)
    assert (delta.value(SENT), delta.value(ACCEPTED)) == (2, 0)


def test_a_delta_ends_though_its_block_fails(meter, readings):
    with pytest.raises(ZeroDivisionError), readings.delta() as delta:
        accept(meter)
        raise ZeroDivisionError
    accept(meter)
    assert delta.value(ACCEPTED) == 1


def test_deltas_nest(meter, readings):
    with readings.delta() as outer:
        accept(meter)
        with readings.delta() as inner:
            accept(meter)
    assert (outer.value(ACCEPTED), inner.value(ACCEPTED)) == (2, 1)


@pytest.mark.trio
async def test_waiting_for_what_is_there_is_a_checkpoint_and_takes_no_time(meter, readings, autojump_clock):
    accept(meter, 3)
    with trio.testing.assert_checkpoints():
        assert await readings.wait_for(ACCEPTED, 3) == 3
    with trio.testing.assert_checkpoints():
        assert await readings.wait_for(ACCEPTED, lambda value: value > 2) == 3
    assert trio.current_time() == 0


@pytest.mark.trio
async def test_waiting_ends_in_the_moment_that_the_value_is_there(meter, readings, nursery, autojump_clock):
    async def count():
        for _ in range(4):
            await trio.sleep(1)
            send(meter)

    nursery.start_soon(count)
    assert await readings.wait_for(SENT, lambda value: value >= 3) == 3
    assert trio.current_time() == 3


@pytest.mark.trio
async def test_waiting_moves_no_time_while_something_happens(meter, readings, nursery, autojump_clock):
    async def count():
        for _ in range(100):
            await trio.lowlevel.checkpoint()
        send(meter)

    nursery.start_soon(count)
    nursery.start_soon(trio.sleep, 1)
    await readings.wait_for(SENT, 1)
    assert trio.current_time() == 0


@pytest.mark.trio
async def test_the_value_is_looked_at_only_when_others_have_run(meter, readings, nursery, autojump_clock):
    looks = []

    async def count():
        for _ in range(10):
            await trio.sleep(1)
        accept(meter)

    nursery.start_soon(count)
    await readings.wait_for(ACCEPTED, lambda value: looks.append(value) or value == 1, within_s=60)
    # One at once, one after the task has begun, one after each of its ten seconds.
    assert len(looks) <= 12


@pytest.mark.trio
async def test_those_who_wait_do_not_wake_each_other(meter, readings, nursery, autojump_clock):
    looks = []

    async def wait():
        await readings.wait_for(ACCEPTED, lambda value: looks.append(value) or value == 1, within_s=60)

    for _ in range(3):
        nursery.start_soon(wait)
    await trio.sleep(50)
    assert len(looks) < 20
    accept(meter)


@pytest.mark.trio
async def test_what_one_who_waited_counts_wakes_the_others(meter, readings, nursery, autojump_clock):
    ended = []

    async def wait(wanted):
        await readings.wait_for(ACCEPTED, wanted)
        ended.append(wanted)
        accept(meter)
        # Its step ends in another wait, so that it must not be lost on those who wait already.
        await readings.wait_for(ACCEPTED, 4)

    for wanted in (3, 2, 1):
        nursery.start_soon(wait, wanted)
    await trio.testing.wait_all_tasks_blocked()
    accept(meter)
    await readings.wait_for(ACCEPTED, 4)
    assert ended == [1, 2, 3]
    assert trio.current_time() == 0


@pytest.mark.trio
async def test_what_does_not_come_in_time_is_named(meter, readings, autojump_clock):
    meter.add(catalog.index(CLOSED, reason="client_closed"), 2)
    meter.add(catalog.index(CLOSED, reason="done"))
    with pytest.raises(AssertionError) as caught:
        await readings.wait_for(CLOSED, 3, reason="done")
    assert str(caught.value) == (
        'pagi_server_connections_closed_total{reason="done"} is 1 after 5 s; wanted 3; '
        'of the same metric, {reason="client_closed"} is 2'
    )
    assert trio.current_time() == 5


@pytest.mark.trio
async def test_a_function_that_nothing_satisfies_is_named(readings, autojump_clock):
    def many(value):
        return value > 2

    with pytest.raises(AssertionError) as caught:
        await readings.wait_for(ACCEPTED, many, within_s=0.5)
    message = str(caught.value)
    assert message.startswith("pagi_server_connections_total is 0 after 0.5 s; wanted what ")
    assert message.endswith("many accepts")


@pytest.mark.trio
async def test_a_function_that_fails_fails_the_wait(readings):
    with pytest.raises(ZeroDivisionError):
        await readings.wait_for(ACCEPTED, lambda value: 1 / value)


@pytest.mark.trio
async def test_a_wait_that_is_cancelled_leaves_nothing_behind(meter, readings, nursery, autojump_clock):
    with trio.move_on_after(1) as scope:
        await readings.wait_for(ACCEPTED, 1)
    assert scope.cancelled_caught
    # If the task were still taken for one that looks, its step would not be seen.
    nursery.start_soon(readings.wait_for, ACCEPTED, 1)
    await trio.testing.wait_all_tasks_blocked()
    accept(meter)
    await trio.testing.wait_all_tasks_blocked()
    assert not [task for task in nursery.child_tasks if "wait_for" in task.name]
