"""What any process sees of the region that another one writes; see `pagi_trio.metrics.application.region`."""

from __future__ import annotations

import json
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from pagi_trio.metrics.application.region import (
    CELLS,
    COMMITTED,
    EPOCH,
    HEAD,
    SALT_MASK,
    SHARES,
    TEXT_AT,
    TEXT_BYTES,
    Family,
    Group,
    Series,
    views_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Reading(NamedTuple):
    """A copy of a region at one moment.

    Attributes:
        groups: The families by name. Never changed: a later reading has another.
        values: The value of each cell.
        stamps: The time stamp of each cell.
    """

    groups: Mapping[str, Group]
    values: Sequence[float]
    stamps: Sequence[float]


class _Parsed(NamedTuple):
    """What a reader has taken in, up to one record's end. Never changed: reading on makes another.

    Attributes:
        epoch: The region's when its first record was read.
        end: How many bytes of text that is.
        cells: How many cells the series have.
        families: By the place of their record.
        groups: By name, those that are in force.
    """

    epoch: int
    end: int
    cells: int
    families: Mapping[int, Family]
    groups: Mapping[str, Group]


class RegionReader:
    """What any process sees of a region. It parses each record once.

    Used from any thread, and by what interrupts a thread, such as a finalizer that reads as well, without a lock: it
    goes on from what was whole, by one step. Who comes in between may parse the same once more.

    Whether the numbers are still those of the same writer is for the caller to know: a region that is emptied
    while it is read gives a mixture.

    Args:
        area: `REGION_BYTES` of memory, aligned to eight bytes.
    """

    __slots__ = ("_octets", "_parsed", "_stamps", "_values", "_words")

    def __init__(self, area: memoryview[int]) -> None:
        self._octets = area
        self._words, self._values, self._stamps = views_of(area)
        self._parsed = self._nothing()

    def _nothing(self) -> _Parsed:
        return _Parsed(self._words[EPOCH], 0, 0, {}, {})

    def read(self) -> Reading:
        """Return all families, series and numbers as they are now."""
        parsed = self._parsed
        if self._words[EPOCH] != parsed.epoch:
            parsed = self._nothing()
        committed = min(self._words[COMMITTED], TEXT_BYTES)
        if committed < parsed.end:
            parsed = self._nothing()
        if committed > parsed.end:
            parsed = _parse(parsed, bytes(self._octets[TEXT_AT + parsed.end : TEXT_AT + committed]))
        self._parsed = parsed
        cells = parsed.cells
        return Reading(parsed.groups, self._values[:cells].tolist(), self._stamps[:cells].tolist())

    def release(self) -> None:
        """Let go of the memory; any further use raises ValueError."""
        for view in (self._words, self._values, self._stamps, self._octets):
            view.release()


def _parse(parsed: _Parsed, text: bytes) -> _Parsed:
    """Take in whole records; one that is not whole yet, and all after it, wait for the next time."""
    epoch, end, cells, _, _ = parsed
    families = dict(parsed.families)
    groups = dict(parsed.groups)
    fresh: dict[int, list[Series]] = {}
    at = 0
    while at + HEAD.size <= len(text):
        length, checksum = HEAD.unpack_from(text, at)
        payload = text[at + HEAD.size : at + HEAD.size + length]
        # Nothing has the checksum 0 of nothing, which is what untouched memory says.
        if not length or len(payload) < length or zlib.crc32(payload, epoch & SALT_MASK) != checksum:
            break
        number = end + at
        record = _decode(payload)
        if isinstance(record, Family):
            families[number] = record
            groups[record.name] = Group(record, number, cells)
            cells += 1
        else:
            number, labels = record
            fresh.setdefault(number, []).append(Series(labels, cells))
            cells += families[number].width
        at += HEAD.size + length
    for number, series in fresh.items():
        group = groups[families[number].name]
        # A family that another of its name has replaced is gone with its series.
        if group.number == number:
            groups[group.family.name] = Group(group.family, number, group.cell, (*group.series, *series))
    return _Parsed(epoch, end + at, cells, families, groups)


@lru_cache(maxsize=CELLS // SHARES)
def _decode(payload: bytes) -> Family | tuple[int, tuple[str, ...]]:
    """Return what a record says; the same object for every process that has the same record."""
    record = json.loads(payload)
    if isinstance(record[0], str):
        name, kind, text, labels, mode, unit, bounds = record
        return Family(name, kind, text, tuple(labels), mode, unit, tuple(bounds))
    number, labels = record
    return number, tuple(labels)
