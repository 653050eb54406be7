"""The application's own metrics over all worker processes: what is on the page, and what outlives a process.

The rules are those of prometheus_client's multiprocess mode, with the slot of a worker in place of its process id:
counters, histograms and summaries are sums, and each gauge says itself how several become one. What a dead process
leaves is absorbed into the retired region, by name and labels, so that only distinct series take room.

The newest process that defines a name says what it is. Figures that do not fit that definition are left out of
the page, and dropped when their process is absorbed: the name starts anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, filterfalse
from math import fsum, isfinite, isnan, nan
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pagi_trio.metrics.application.region import Family, Group, Kind, Region
    from pagi_trio.metrics.application.region_reader import Reading

REMOVED: Final = -1.0
"""The time stamp of a gauge's series that its process has removed. What was counted is never removed."""

WRITTEN: Final = 1.0
"""The time stamp of a gauge that was set and keeps no time; one that was never set has 0."""

_LIVE: Final = "live"
"""What the modes of a gauge begin with that ends with its process."""


@dataclass(frozen=True, slots=True)
class Source:
    """One process's share, or that of all dead ones.

    Attributes:
        reading: Its region.
        instance: The how many-th process of this server it is: it rises with every spawn. Unused for the dead.
        slot: Its slot; None for the retired region.
    """

    reading: Reading
    instance: int = 0
    slot: int | None = None


class Sample(NamedTuple):
    """One line of the page; its name is the family's and a suffix."""

    suffix: str
    labels: dict[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class AppFamily:
    """One family over all processes; it may have no samples yet."""

    family: Family
    samples: list[Sample]


class Absorbed(NamedTuple):
    """What became of a dead process's figures.

    Attributes:
        replaced: The names that start anew, because older processes defined them differently.
        dropped: How many series found no room.
    """

    replaced: list[str]
    dropped: int


Choose: TypeAlias = "Callable[[list[float], list[float]], float]"
"""Makes one value of a gauge's time stamps and values in several processes."""

Part: TypeAlias = "tuple[Source, Group]"
"""One source's series of a family."""


def aggregate(sources: Iterable[Source]) -> Iterator[AppFamily]:
    """Make one family per name out of all figures, as it is asked for: of many series, each takes milliseconds.

    Args:
        sources: In any order; at most one of them without a slot.
    """
    return map(_put_together, _by_name(sources).values())


def _put_together(parts: list[Part]) -> AppFamily:
    # What is said to people may differ, and the newest comes right behind the dead.
    first, *others = parts
    family = (others[0] if first[0].slot is None and others else first)[1].family
    return AppFamily(family, list(_SAMPLES[family.kind](family, parts)))


def _by_name(sources: Iterable[Source]) -> dict[str, list[Part]]:
    """Return the parts of each name that fit its newest definition."""
    named: dict[str, list[Part]] = {}
    # The retired region, then the newest process: of the processes, the first to bring a name defines it.
    for source in sorted(sources, key=lambda source: (source.slot is not None, -source.instance)):
        for name, group in source.reading.groups.items():
            parts = named.get(name)
            if parts is None:
                named[name] = [(source, group)]
            elif parts[0][1].family.fits(group.family):
                parts.append((source, group))
            else:
                first, other = parts[0]
                if first.slot is None and first.reading.values[other.cell] < source.instance:
                    named[name] = [(source, group)]
    return named


def _sums(family: Family, parts: list[Part]) -> Iterator[tuple[dict[str, str], list[float]]]:
    """Yield the labels of each series, and the sum of each of its cells."""
    width = family.width
    rows: dict[tuple[str, ...], list[Sequence[float]]] = {}
    for source, group in parts:
        values, stamps = source.reading.values, source.reading.stamps
        for labels, cell in group.series:
            row = rows.setdefault(labels, [])
            row.append(values[cell : cell + width])
            if source.slot is None:
                row.append(stamps[cell : cell + width])
    for labels, row in rows.items():
        yield dict(zip(family.labels, labels, strict=True)), [_total(column) for column in zip(*row, strict=True)]


def _total(column: Sequence[float]) -> float:
    """Add up exactly: sum() rounds differently in another order, and a counter would step back when a worker dies."""
    try:
        return fsum(column)
    except (OverflowError, ValueError):
        # Infinities of both signs, or a sum that is one.
        return sum(column)


def _counter(family: Family, parts: list[Part]) -> Iterator[Sample]:
    # As `_sums`, without a list for each number: applications have more of these than of all else.
    rows: dict[tuple[str, ...], list[float]] = {}
    for source, group in parts:
        values, stamps = source.reading.values, source.reading.stamps
        for labels, cell in group.series:
            row = rows.get(labels)
            if row is None:
                row = rows[labels] = []
            row.append(values[cell])
            if source.slot is None:
                row.append(stamps[cell])
    for labels, row in rows.items():
        yield Sample("_total", dict(zip(family.labels, labels, strict=True)), _total(row))


def _summary(family: Family, parts: list[Part]) -> Iterator[Sample]:
    for labels, (count, total) in _sums(family, parts):
        yield Sample("_count", labels, count)
        yield Sample("_sum", labels, total)


def _histogram(family: Family, parts: list[Part]) -> Iterator[Sample]:
    for labels, (total, *counts) in _sums(family, parts):
        cumulative = list(accumulate(counts))
        for bound, count in zip(family.bounds, cumulative, strict=True):
            yield Sample("_bucket", {**labels, "le": bound}, count)
        yield Sample("_count", labels, cumulative[-1])
        # OpenMetrics has no sum where an observation may be negative.
        if float(family.bounds[0]) >= 0:
            yield Sample("_sum", labels, total)


def _gauge(family: Family, parts: list[Part]) -> Iterator[Sample]:
    choose = _CHOICES.get(family.mode.removeprefix(_LIVE))
    if choose is None:
        yield from _gauge_by_slot(family, parts)
        return
    rows: dict[tuple[str, ...], tuple[list[float], list[float]]] = {}
    for source, group in parts:
        values, stamps = source.reading.values, source.reading.stamps
        for labels, cell in group.series:
            if stamps[cell] != REMOVED:
                row = rows.get(labels)
                if row is None:
                    row = rows[labels] = [], []
                row[0].append(stamps[cell])
                row[1].append(values[cell])
    for labels, row in rows.items():
        yield Sample("", dict(zip(family.labels, labels, strict=True)), choose(*row))


def _numbers(values: Iterable[float]) -> Iterator[float]:
    """Leave out NaN, as Prometheus' own min and max do: nothing is less than it or more, so the order would decide."""
    return filterfalse(isnan, values)


def _gauge_by_slot(family: Family, parts: list[Part]) -> Iterator[Sample]:
    """Yield a gauge's value in each slot; the retired one until the slot's next process has set its own."""
    names = (*family.labels, worker_label(family.labels))
    rows: dict[tuple[str, ...], float] = {}
    for source, group in parts:
        values, stamps = source.reading.values, source.reading.stamps
        # A retired series has its slot among its label values.
        place = () if source.slot is None else (str(source.slot),)
        for labels, cell in group.series:
            key = labels + place
            if stamps[cell] == REMOVED:
                rows.pop(key, None)
            elif stamps[cell] or key not in rows:
                rows[key] = values[cell]
    for key, value in rows.items():
        yield Sample("", dict(zip(names, key, strict=True)), value)


def worker_label(taken: Iterable[str]) -> str:
    """Return the label that tells the slot: ``worker``, or ``worker_slot`` where the application has that one."""
    name = "worker"
    while name in taken:
        name += "_slot"
    return name


_SAMPLES: Final[dict[Kind, Callable[[Family, list[Part]], Iterator[Sample]]]] = {
    "counter": _counter,
    "gauge": _gauge,
    "histogram": _histogram,
    "summary": _summary,
}

_CHOICES: Final[dict[str, Choose]] = {
    "min": lambda _, values: min(_numbers(values), default=nan),
    "max": lambda _, values: max(_numbers(values), default=nan),
    "sum": lambda _, values: _total(values),
    "mostrecent": lambda stamps, values: max(zip(stamps, values, strict=True))[1],
}
"""By the mode of the gauge; the other mode, and any that a later prometheus_client may bring, is a value per slot."""


def absorb(retired: Region, reading: Reading, *, slot: int, instance: int) -> Absorbed:
    """Add what a dead process leaves to the retired region.

    Args:
        retired: A region that nobody reads meanwhile.
        reading: The dead process's region.
        slot: The slot it had.
        instance: The how many-th process of this server it was.
    """
    replaced = []
    welcome = []
    for name, group in reading.groups.items():
        before = retired.family(name)
        if before is None or before.family.fits(group.family):
            welcome.append(group)
        elif retired.values[before.cell] < instance:
            replaced.append(name)
            welcome.append(group)
    if replaced:
        retired.drop(replaced)
    # What must never step back finds room first.
    welcome.sort(key=lambda group: group.family.kind == "gauge")
    dropped = sum(_absorb_group(retired, group, reading, slot, instance) for group in welcome)
    return Absorbed(replaced, dropped)


def _absorb_group(retired: Region, group: Group, reading: Reading, slot: int, instance: int) -> int:
    """Add one family, and return how many series found no room."""
    # One that ends with its process is known as well: it has replaced what an older process meant by its name.
    home = retired.add_family(group.family)
    if home is None:
        return len(group.series)
    retired.values[home.cell] = max(retired.values[home.cell], instance)
    family = home.family
    if family.mode.startswith(_LIVE):
        return 0
    choose = _CHOICES.get(family.mode)
    place = (str(slot),) if family.kind == "gauge" and choose is None else ()
    dropped = 0
    for labels, cell in group.series:
        values = reading.values[cell : cell + family.width]
        stamps = reading.stamps[cell : cell + family.width]
        home_cell = retired.find(family, labels + place)
        if home_cell is None:
            if stamps[0] != REMOVED:
                dropped += not _add_series(retired, family, labels + place, values, stamps)
        elif family.kind != "gauge":
            for offset, value in enumerate(values):
                _add(retired, home_cell + offset, value)
        else:
            _absorb_gauge(retired, home_cell, values[0], stamps[0], choose)
    return dropped


def _add_series(
    retired: Region, family: Family, labels: tuple[str, ...], values: Sequence[float], stamps: Sequence[float]
) -> bool:
    """Add a series and tell whether it found room; gauges that have a series for each slot make way for counters."""
    if retired.add_series(family, labels, values, stamps) is not None:
        return True
    if family.kind == "gauge":
        return False
    in_the_way = [one.name for one in retired.families() if one.kind == "gauge" and one.mode not in _CHOICES]
    if not in_the_way:
        return False
    retired.drop(in_the_way)
    return retired.add_series(family, labels, values, stamps) is not None


def _add(retired: Region, cell: int, amount: float) -> None:
    """Add to a cell exactly: what the rounding takes away is kept in its time stamp."""
    before = retired.values[cell]
    after = before + amount
    if isfinite(after):
        part = after - before
        retired.stamps[cell] += (before - (after - part)) + (amount - part)
    retired.values[cell] = after


def _absorb_gauge(retired: Region, cell: int, value: float, stamp: float, choose: Choose | None) -> None:
    """Make one value of a dead process's gauge and that of those before it."""
    if choose is None:
        # The same slot: what was never set or removed leaves as much.
        if stamp:
            retired.values[cell] = value
            retired.stamps[cell] = stamp
    elif stamp != REMOVED:
        stamps = [retired.stamps[cell], stamp]
        retired.values[cell] = choose(stamps, [retired.values[cell], value])
        retired.stamps[cell] = max(stamps)
