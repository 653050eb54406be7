"""The StatsD exporter beside a daemon that is there, or is not, or is slow."""

from __future__ import annotations

import errno
import socket
from threading import Event

import pytest
import trio
import trio.testing

from pagi_trio.bind import Bind
from pagi_trio.config_statsd import parse_daemon
from pagi_trio.errors import PushFailedError
from pagi_trio.metrics.application.aggregation import Sample
from pagi_trio.metrics.push import link
from pagi_trio.metrics.push.link import Link, Place
from pagi_trio.metrics.push.protocol import FamilySnapshot
from pagi_trio.metrics.push.statsd import StatsD
from pagi_trio.metrics.push.statsd_format import StatsDWriter
from tests.statsd import Daemon, address_of, bound

pytestmark = pytest.mark.trio


def counter(value, name="jobs", **labels):
    return FamilySnapshot(name, "counter", "", "", tuple(labels), (Sample("_total", labels, value),))


def gauge(value, name="depth", **labels):
    return FamilySnapshot(name, "gauge", "", "", tuple(labels), (Sample("", labels, value),))


def histogram(*counts, total=0.0, name="seconds"):
    """Make one with the buckets 1, 2 and so on, and the last one +Inf, by their cumulative counts."""
    bounds = [*map(str, range(1, len(counts))), "+Inf"]
    buckets = [Sample("_bucket", {"le": bound}, count) for bound, count in zip(bounds, counts, strict=True)]
    samples = (*buckets, Sample("_count", {}, counts[-1]), Sample("_sum", {}, total))
    return FamilySnapshot(name, "histogram", "", "", (), samples)


def many(value, count=500):
    """Make a counter of so many series that it takes several datagrams."""
    return FamilySnapshot(
        "many", "counter", "", "", ("n",), tuple(Sample("_total", {"n": str(n)}, value) for n in range(count))
    )


PAIRS = []


@pytest.fixture(autouse=True)
def close_links():
    yield
    while PAIRS:
        PAIRS.pop().link.close()


class Pair:
    """An exporter, and the daemon that it pushes to."""

    def __init__(self, sock, *, way=None, **options):
        self.sock = sock
        self.daemon = Daemon()
        daemon = parse_daemon(address_of(sock))
        self.link = Link(daemon) if way is None else way
        self.exporter = StatsD(daemon, StatsDWriter(""), 1.0, link=self.link, **options)
        PAIRS.append(self)

    async def push(self, *families, is_last=False):
        await self.exporter.push(families, is_last=is_last)
        self.daemon.take_all(self.sock)

    async def fails(self, *families, is_last=False):
        """Push in vain; return why."""
        with pytest.raises(PushFailedError) as caught:
            await self.exporter.push(families, is_last=is_last)
        return str(caught.value)


@pytest.fixture
def udp():
    with bound() as sock:
        yield sock


@pytest.fixture
def pair(udp):
    return Pair(udp)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "statsd.sock")


# What is sent


async def test_a_counter_is_sent_as_what_it_has_grown_by_and_a_gauge_as_it_is(pair):
    for value in (5.0, 7.0, 7.5):
        await pair.push(counter(value, queue="mail"), gauge(value))
        assert pair.daemon.counters == {"jobs_total.mail": value}
        assert pair.daemon.gauges == {"depth": value}
    assert pair.daemon.datagrams == 3


async def test_a_counter_is_made_known_by_a_zero_and_then_sent_only_when_it_has_grown(pair):
    for value in (0.0, 0.0, 2.0, 2.0):
        await pair.push(counter(value))
    assert pair.daemon.counters == {"jobs_total": 2}
    assert pair.daemon.increments == {"jobs_total": 2}
    assert pair.daemon.datagrams == 2


async def test_a_counter_that_is_less_has_begun_anew(pair):
    for value in (5.0, 2.0, 3.0):
        await pair.push(counter(value))
    assert pair.daemon.counters == {"jobs_total": 5 + 2 + 1}


async def test_the_sum_of_a_histogram_that_is_defined_anew_begins_anew_with_its_count(pair):
    await pair.push(histogram(5, 5, total=9.5))
    await pair.push(histogram(1, 1, total=1.5))
    assert pair.daemon.counters["seconds_count"] == 5 + 1
    assert pair.daemon.counters["seconds_sum"] == 9.5 + 1.5


async def test_a_sum_that_begins_anew_and_nobody_takes_is_sent_once_more():
    with bound() as sock:
        pair = Pair(sock)
        address = sock.getsockname()
        await pair.push(histogram(5, 5, total=9.5))
    assert "refused" in await pair.fails(histogram(1, 1, total=1.5))
    with bound(address) as pair.sock:
        await pair.push(histogram(2, 2, total=3.5))
    assert pair.daemon.counters["seconds_count"] == 5 + 2
    assert pair.daemon.counters["seconds_sum"] == 9.5 + 3.5


async def test_a_quantile_of_a_summary_is_a_gauge(pair):
    for value in (0.5, 0.25):
        samples = Sample("", {"quantile": "0.9"}, value), Sample("_count", {}, 7.0), Sample("_sum", {}, 3.5)
        await pair.push(FamilySnapshot("seconds", "summary", "", "", (), samples))
    assert pair.daemon.counters == {"seconds_count": 7, "seconds_sum": 3.5}
    assert pair.daemon.gauges == {"seconds.0_9": 0.25}


async def test_counters_that_are_gone_are_not_kept_for_ever(pair):
    for user in range(50):
        await pair.push(counter(1.0), counter(2.0, "users", user=str(user)))
    assert pair.daemon.counters["jobs_total"] == 1
    assert len(pair.exporter._sent) < 6


async def test_counters_that_are_missing_for_a_while_go_on_from_where_they_were(pair):
    """As those of a registry of which a collector fails, or one of a collector's that was not to be had."""
    await pair.push(counter(1.0), many(1.0))
    await pair.push(counter(1.0))
    await pair.push(counter(2.0), FamilySnapshot("many", "counter", "", "", ("n",), many(1.0).samples[:300]))
    await pair.push(counter(3.0), many(2.0))
    assert pair.daemon.counters == {"jobs_total": 3} | {f"many_total.{n}": 2 for n in range(500)}


async def test_a_histogram_is_a_counter_for_each_bucket_its_count_and_its_sum(pair):
    await pair.push(histogram(1, 2, 4, total=7.5))
    await pair.push(histogram(1, 3, 6, total=5.5))
    names = {"seconds_bucket.1": 1, "seconds_bucket.2": 3, "seconds_bucket.Inf": 6}
    assert pair.daemon.counters == {**names, "seconds_count": 6, "seconds_sum": 5.5}


async def test_where_only_totals_are_wanted_a_histogram_has_no_buckets(udp):
    pair = Pair(udp, has_buckets=False)
    await pair.push(histogram(1, 2, 4, total=7.5))
    assert pair.daemon.counters == {"seconds_count": 4, "seconds_sum": 7.5}


async def test_many_series_take_several_datagrams(pair):
    await pair.push(many(1.0), many(1.0))
    assert len(pair.daemon.counters) == 500
    assert pair.daemon.datagrams > 5


async def test_what_is_no_number_is_left_out_and_comes_when_it_is_one(pair):
    await pair.push(counter(float("inf")), gauge(float("nan")), gauge(1.0, "other"))
    assert (pair.daemon.counters, pair.daemon.gauges) == ({}, {"other": 1})
    await pair.push(counter(3.0), gauge(2.0))
    assert pair.daemon.counters == {"jobs_total": 3}
    assert pair.daemon.gauges == {"other": 1, "depth": 2}


async def test_a_series_too_long_for_a_datagram_is_left_out_and_logged_once(pair, caplog):
    labels = {f"l{number}": "x" * 200 for number in range(8)}
    for _ in range(2):
        await pair.push(counter(1.0, **labels), counter(2.0))
    assert pair.daemon.counters == {"jobs_total": 2}
    [record] = caplog.records
    assert record.getMessage() == "the labels of the metric jobs are too long for StatsD; such series are not sent"


# A daemon that is not there


async def test_a_push_that_nobody_takes_fails_and_the_next_brings_all_of_it():
    with bound() as sock:
        pair = Pair(sock)
        await pair.push(many(1.0), counter(2.0))
        address = sock.getsockname()
    for value in (2.0, 3.0):
        assert await pair.fails(many(value), counter(2 * value)) == f"127.0.0.1:{address[1]}: Connection refused"
    with bound(address) as pair.sock:
        await pair.push(many(4.0), counter(8.0))
    assert pair.daemon.counters == {**{f"many_total.{number}": 4 for number in range(500)}, "jobs_total": 8}


async def test_one_datagram_that_nobody_takes_is_known_at_once_as_well():
    with bound() as sock:
        pair = Pair(sock)
        address = sock.getsockname()
    assert "refused" in await pair.fails(counter(1.0))
    with bound(address) as pair.sock:
        await pair.push(counter(1.0))
    assert pair.daemon.counters == {"jobs_total": 1}


@pytest.fixture
def far(monkeypatch):
    """Let every answer take its time, as over a network: only who waits for it has it before the next push."""
    check, hear = Link.check, Link.hear

    async def hear_and_check(self):
        await hear(self)
        check(self)

    monkeypatch.setattr(Link, "check", lambda self: None)
    monkeypatch.setattr(Link, "hear", hear_and_check)


async def test_a_refusal_that_comes_after_the_push_is_heard_by_the_next(pair, far, autojump_clock):
    address = pair.sock.getsockname()
    pair.sock.close()
    await pair.exporter.push([counter(5.0)], is_last=False)
    with bound(address) as pair.sock:
        await pair.push(counter(7.0))
        assert trio.current_time() == pytest.approx(link.ANSWER_S)
        # Nobody is waited for where the last push arrived.
        await pair.push(counter(8.0))
        assert trio.current_time() == pytest.approx(link.ANSWER_S)
    assert pair.daemon.counters == {"jobs_total": 8}


async def test_a_push_fails_from_the_second_refusal_that_comes_late(pair, far, autojump_clock):
    pair.sock.close()
    await pair.exporter.push([counter(5.0)], is_last=False)
    for _ in range(3):
        assert "Connection refused" in await pair.fails(counter(6.0))


async def test_over_a_unix_socket_that_is_not_there_is_there_dies_and_comes_back(path):
    with bound(path, socket.AF_UNIX) as sock:
        pair = Pair(sock)
    assert await pair.fails(counter(1.0)) == f"{path}: No such file or directory"
    with bound(path, socket.AF_UNIX) as pair.sock:
        await pair.push(counter(2.0))
    assert await pair.fails(counter(3.0)) == f"{path}: No such file or directory"
    with bound(path, socket.AF_UNIX) as pair.sock:
        await pair.push(counter(5.0))
    assert pair.daemon.counters == {"jobs_total": 5}


async def test_a_unix_socket_that_has_another_daemon_since_gets_the_very_next_push(path):
    with bound(path, socket.AF_UNIX) as sock:
        pair = Pair(sock)
        await pair.push(counter(2.0))
    with bound(path, socket.AF_UNIX) as pair.sock:
        await pair.push(counter(5.0), is_last=True)
    assert pair.daemon.counters == {"jobs_total": 5}


# A daemon that is slow


async def test_a_daemon_that_takes_nothing_is_waited_for_a_moment_and_gets_each_count_once(path, autojump_clock):
    with bound(path, socket.AF_UNIX) as sock:
        pair = Pair(sock)
        since = trio.current_time()
        assert await pair.fails(many(1.0, 2000)) == f"{path}: Resource temporarily unavailable"
        assert trio.current_time() - since == pytest.approx(link.FULL_S)
        # What fitted into the socket stands; the rest comes once there is room again, and nothing twice.
        pair.daemon.take_all(sock)
        assert 0 < len(pair.daemon.counters) < 2000
        for _ in range(20):
            try:
                await pair.push(many(3.0, 2000))
                break
            except PushFailedError:
                pair.daemon.take_all(sock)
    assert pair.daemon.counters == {f"many_total.{number}": 3 for number in range(2000)}


async def test_of_a_daemon_that_is_always_too_slow_every_series_has_its_turn(path, autojump_clock):
    with bound(path, socket.AF_UNIX) as sock:
        pair = Pair(sock)
        for value in range(1, 100):
            await pair.fails(many(float(value), 2000), gauge(float(value)))
            pair.daemon.take_all(sock)
            if len(pair.daemon.counters) == 2000 and pair.daemon.gauges:
                break
        # What fits into its socket is some 30 of 60 datagrams.
        assert value < 10
        firsts = [pair.daemon.counters[f"many_total.{number}"] for number in range(2000)]
        assert min(firsts) >= 1


async def test_a_daemon_that_reads_in_between_gets_more_than_its_socket_holds(path):
    with bound(path, socket.AF_UNIX) as sock:
        pair = Pair(sock)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.daemon.listen, sock)
            await pair.exporter.push([many(1.0, 5000)], is_last=False)
            await pair.daemon.until(lambda: len(pair.daemon.counters) == 5000)
            nursery.cancel_scope.cancel()
    assert pair.daemon.datagrams > 50


async def test_a_daemon_that_reads_slowly_is_waited_for_no_longer_in_all(path, autojump_clock):
    with bound(path, socket.AF_UNIX) as sock:
        pair = Pair(sock)

        async def read_slowly():
            while True:
                await trio.sleep(link.FULL_S / 2)
                sock.recv(65536)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_slowly)
            since = trio.current_time()
            await pair.fails(many(1.0, 2000))
            assert trio.current_time() - since == pytest.approx(link.FULL_S)
            nursery.cancel_scope.cancel()


async def test_a_push_that_is_cancelled_counts_what_it_has_sent(path):
    with bound(path, socket.AF_UNIX) as sock:
        pair = Pair(sock)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.push, many(1.0, 2000))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.daemon.listen, sock)
            await pair.exporter.push([many(2.0, 2000)], is_last=False)
            await pair.daemon.until(lambda: set(pair.daemon.counters.values()) == {2})
            nursery.cancel_scope.cancel()
    assert len(pair.daemon.counters) == 2000


async def test_a_datagram_that_this_machine_refuses_to_send_costs_only_what_was_behind_it(udp, monkeypatch):
    """As a firewall's limit does. What went before has arrived, and is not sent again."""
    left = 3

    class Limited(socket.socket):
        def send(self, data):
            nonlocal left
            left -= 1
            if left == 0:
                raise PermissionError(errno.EPERM, "Operation not permitted")
            return super().send(data)

    pair = Pair(udp)
    monkeypatch.setattr(socket, "socket", Limited)
    assert (await pair.fails(many(1.0))).endswith("Operation not permitted")
    await pair.push(many(1.0))
    assert pair.daemon.counters == {f"many_total.{number}": 1 for number in range(500)}


async def test_pushing_lets_others_run_between_two_datagrams(pair):
    turns = 0

    async def other():
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await pair.push(many(1.0))
        nursery.cancel_scope.cancel()
    assert turns >= pair.daemon.datagrams - 1


# Where it is


class Names:
    """Answers for the system: a name's addresses, or none, or nothing at all."""

    def __init__(self, *places):
        self.places = list(places)
        self.asked = 0
        self.error = None
        self.hangs = None

    def __call__(self, host, port, flags):
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        assert (host, port) == ("statsd.example", 8125)
        self.asked += 1
        if self.hangs is not None:
            self.hangs.wait(10)
        if self.error is not None:
            raise self.error
        return self.places


def named(sock, names):
    return Pair(sock, way=Link(Bind(kind="tcp", host="statsd.example", port=8125), names))


def place(sock):
    return Place(sock.family, sock.getsockname())


async def test_a_name_is_looked_up_once_for_each_push_but_the_last(udp):
    names = Names(place(udp))
    pair = named(udp, names)
    for value in (1.0, 2.0):
        await pair.push(counter(value))
    assert names.asked == 2
    await pair.push(counter(3.0), is_last=True)
    assert names.asked == 2
    assert pair.daemon.counters == {"jobs_total": 3}


async def test_a_daemon_that_moves_is_followed(udp):
    names = Names(place(udp))
    pair = named(udp, names)
    await pair.push(counter(1.0))
    with bound() as there:
        names.places = [place(there)]
        await pair.push(counter(3.0))
        other = Daemon()
        other.take_all(there)
    assert pair.daemon.counters == {"jobs_total": 1}
    assert other.counters == {"jobs_total": 2}


async def test_of_several_addresses_the_one_where_somebody_is_gets_it(udp, monkeypatch):
    with bound() as sock:
        empty = place(sock)
    names = Names(empty, place(udp))
    pair = named(udp, names)
    await pair.push(many(1.0))
    monkeypatch.setattr(Link, "close", None)
    await pair.push(many(2.0))
    assert set(pair.daemon.counters.values()) == {2}
    # Only there from then on, and over the same socket.
    assert max(pair.daemon.increments.values()) == 2
    monkeypatch.undo()


async def test_of_several_addresses_the_one_where_somebody_is_gets_it_though_answers_are_late(udp, far, monkeypatch):
    # No clock that jumps: it would not wait for the thread that looks up.
    monkeypatch.setattr(link, "ANSWER_S", 0.01)
    with bound() as sock:
        empty = place(sock)
    pair = named(udp, Names(empty, place(udp)))
    for value in (1.0, 2.0, 3.0):
        await pair.push(counter(value))
    assert pair.daemon.counters == {"jobs_total": 3}


async def test_a_name_that_is_not_known_is_a_failure_until_it_is(udp):
    names = Names(place(udp))
    names.error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    pair = named(udp, names)
    assert await pair.fails(counter(1.0)) == "statsd.example:8125: Name or service not known"
    names.error = None
    await pair.push(counter(2.0))
    names.error = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    await pair.push(counter(3.0))
    assert pair.daemon.counters == {"jobs_total": 3}


async def test_a_look_up_that_hangs_is_not_waited_for_long(udp, monkeypatch):
    monkeypatch.setattr(link, "LOOKUP_S", 0.01)
    names = Names(place(udp))
    pair = named(udp, names)
    names.hangs = Event()
    try:
        assert await pair.fails(counter(1.0)) == "statsd.example:8125: its address could not be found"
        assert await pair.fails(counter(1.0), is_last=True) == "statsd.example:8125: its address could not be found"
        # The first has the one thread there is for it.
        assert await pair.fails(counter(1.0)) == "statsd.example:8125: its address could not be found"
        assert names.asked == 1
    finally:
        names.hangs.set()


async def test_while_a_look_up_hangs_the_last_address_is_used_in_half_of_the_time_of_a_push(udp, mock_clock):
    names = Names(place(udp))
    pair = named(udp, names)
    await pair.push(counter(1.0))
    names.hangs = Event()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.push, counter(2.0))
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(0.49)
            await trio.testing.wait_all_tasks_blocked()
            assert pair.daemon.counters == {"jobs_total": 1}
            mock_clock.jump(0.02)
            await trio.testing.wait_all_tasks_blocked()
            assert pair.daemon.counters == {"jobs_total": 2}
    finally:
        names.hangs.set()


async def test_an_address_that_comes_late_is_for_the_next_push(udp, monkeypatch):
    monkeypatch.setattr(link, "LOOKUP_S", 0.01)
    names = Names(place(udp))
    pair = named(udp, names)
    names.hangs = Event()
    assert "could not be found" in await pair.fails(counter(1.0))
    names.hangs.set()
    async with pair.link._limiter:
        # The thread has ended.
        pass
    await pair.push(counter(2.0), is_last=True)
    assert names.asked == 1
    assert pair.daemon.counters == {"jobs_total": 2}


async def test_a_number_is_no_name_and_needs_no_thread(pair, monkeypatch):
    async def no_thread(*args, **options):
        raise AssertionError("a thread")

    monkeypatch.setattr(trio.to_thread, "run_sync", no_thread)
    await pair.push(counter(1.0))
    assert pair.daemon.counters == {"jobs_total": 1}


async def test_the_socket_is_closed_after_the_last_push(pair):
    await pair.push(counter(1.0), is_last=True)
    assert pair.link._socket is None
