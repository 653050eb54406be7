"""StatsD: the numbers as datagrams to a daemon, which may be there or not.

A counter is sent as what it has grown by since the last push that arrived, as far as that can be known: a datagram
counts as arrived unless the system says otherwise. UDP to a host that is up says so if no daemon is there; what is
lost on the way, nobody says.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import trio

from pagi_trio.errors import PushFailedError
from pagi_trio.metrics.push.link import Link
from pagi_trio.metrics.push.statsd_format import DATAGRAM_BYTES, pack

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pagi_trio.bind import Bind
    from pagi_trio.metrics.application.aggregation import Sample
    from pagi_trio.metrics.push.link import Place
    from pagi_trio.metrics.push.protocol import FamilySnapshot
    from pagi_trio.metrics.push.statsd_format import Writer

_log = logging.getLogger("pagi_trio")


_Key: TypeAlias = "tuple[str, tuple[tuple[str, str], ...]]"
"""A counter's name and labels."""

_SUFFIXES: Final = ("", "_total", "_bucket", "_count", "_sum")
"""What the names of a family's samples end in."""


class _Counted(NamedTuple):
    """A counter, and how far a line brings its daemon."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


class StatsD:
    """Pushes to one daemon.

    A counter's line is sent when it has grown, and the first time, so that it is known; a gauge's always.

    Args:
        daemon: Where it is.
        writer: Writes what it reads.
        interval_s: Between two pushes, seconds.
        has_buckets: Whether a histogram's buckets are sent, as counters, and not its count and sum alone.
        link: How it is reached, if not as usual.
    """

    name: Final = "statsd"

    def __init__(
        self, daemon: Bind, writer: Writer, interval_s: float, *, has_buckets: bool = True, link: Link | None = None
    ) -> None:
        self.interval_s = interval_s
        # Half of what a push may take, so that the rest is left to send to the address that was found before.
        self._look_up_s = max(interval_s, 1.0) / 2
        self._link = Link(daemon) if link is None else link
        self._writer = writer
        self._has_buckets = has_buckets
        self._sent: dict[_Key, float] = {}
        # What the last push has replaced in it.
        self._before: dict[_Key, float | None] = {}
        # Whether nobody took what was sent last.
        self._is_doubted = False
        self._too_long = False
        # The how-many-th sample a push begins with, is at, and has not sent yet.
        self._first = self._reached = self._next = 0

    async def push(self, families: Sequence[FamilySnapshot], *, is_last: bool) -> None:
        """Send what has changed.

        Raises:
            PushFailedError: If nobody is there, or too slow.

        Cancellation: what was sent counts as sent.
        """
        await trio.lowlevel.checkpoint()
        if self._link.was_refused():
            self._take_back()
            self._link.close()
        self._before.clear()
        try:
            places = await self._link.places(0.0 if is_last else self._look_up_s)
            await self._send_to_any(places, families)
        except OSError as error:
            raise PushFailedError(f"{self._link}: {error.strerror or error}") from None
        finally:
            if is_last:
                self._link.close()

    async def _send_to_any(self, places: list[Place], families: Sequence[FamilySnapshot]) -> None:
        """Send to the first place where somebody is: a name may have several addresses, and a daemon only one."""
        for number, place in enumerate(places, 1):
            try:
                self._link.connect(place)
                await self._send(families)
            except BlockingIOError:
                # Where a slow daemon has had enough, the next push goes on, or the last series would never come.
                self._first = self._next
                raise
            except OSError:
                self._take_back()
                self._link.close()
                if number == len(places):
                    raise
            else:
                self._is_doubted = False
                self._first = 0
                self._forget_gone(families)
                return

    async def _send(self, families: Sequence[FamilySnapshot]) -> None:
        self._next = self._first
        for datagram, counted in pack(self._lines(families)):
            await self._link.send(datagram)
            # That is the one which did not fit into the datagram.
            self._next = self._reached
            for one in counted:
                if one is not None:
                    key = one.name, one.labels
                    self._before.setdefault(key, self._sent.get(key))
                    self._sent[key] = one.value
        if self._is_doubted:
            await self._link.hear()
        self._link.check()

    def _take_back(self) -> None:
        """Take what the last push has sent for lost."""
        self._is_doubted = True
        for key, value in self._before.items():
            if value is None:
                self._sent.pop(key, None)
            else:
                self._sent[key] = value
        self._before.clear()

    def _forget_gone(self, families: Sequence[FamilySnapshot]) -> None:
        """Let go of counters that the application has removed, once they are the most of what is kept.

        Not before: one that is missing for a while goes on from where it was. Nor where the whole family is missing,
        as when a collector fails.
        """
        if len(self._sent) > 2 * sum(len(family.samples) for family in families):
            names = {family.name + suffix for family in families for suffix in _SUFFIXES}
            there = {
                (family.name + one.suffix, tuple(one.labels.items())) for family in families for one in family.samples
            }
            self._sent = {key: value for key, value in self._sent.items() if key in there or key[0] not in names}

    def _lines(self, families: Sequence[FamilySnapshot]) -> Iterator[tuple[bytes, _Counted | None]]:
        """Yield what there is to say."""
        samples = [(family, sample) for family in families for sample in family.samples]
        for number in range(self._first, self._first + len(samples)):
            self._reached = number % len(samples)
            family, sample = samples[self._reached]
            # What a summary has beside its count and its sum, are quantiles.
            if family.kind == "gauge" or (family.kind == "summary" and not sample.suffix):
                line, counted = self._writer.gauge(family.name + sample.suffix, sample.labels, sample.value), None
            elif sample.suffix != "_bucket" or self._has_buckets:
                line, counted = self._grown(family.name, sample)
            else:
                continue
            if len(line) > DATAGRAM_BYTES:
                self._note_too_long(family.name)
            elif line:
                yield line, counted

    def _grown(self, family: str, sample: Sample) -> tuple[bytes, _Counted | None]:
        """Return the line of what a counter has grown by; empty if it has not."""
        name = family + sample.suffix
        labels = tuple(sample.labels.items())
        sent = self._sent.get((name, labels))
        increment = sample.value - (sent or 0.0)
        if sent is not None and not increment:
            return b"", None
        if increment < 0 and sample.suffix != "_sum":
            # The application has defined it anew.
            increment = sample.value
            if sample.suffix == "_count":
                # The sum comes behind it, and may itself go down at any time.
                self._sent.pop((f"{family}_sum", labels), None)
        return self._writer.counter(name, sample.labels, increment), _Counted(name, labels, sample.value)

    def _note_too_long(self, name: str) -> None:
        if not self._too_long:
            self._too_long = True
            _log.warning("the labels of the metric %s are too long for StatsD; such series are not sent", name)
