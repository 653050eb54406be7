"""The part of a segment whose series are known only at run time: the application's own metrics.

One process writes, any process reads at any time, and nobody waits. What a series is called stands in records
that are only ever appended; its numbers stand in cells, eight aligned bytes each, written by plain stores.

::

    header   64 bytes: committed text bytes, used cells, epoch
    cells    one value each, then one time stamp for each
    text     records: length, checksum, JSON

A record is written first and committed afterwards by one store. Python has no memory barriers, so a reader may
see the count before the record: then the checksum is wrong, and it reads on the next time. The checksum is salted
with the epoch, which changes whenever the region is emptied, so that a record of an earlier writer is wrong too.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

REGION_BYTES: Final = 4 << 20
"""Memory that nobody touches is never allocated, so the size costs address space alone."""

CELLS: Final = 32_768
"""What dead processes leave takes up to all of them: processes that come and go need not have the same series."""

SHARES: Final = 4
"""A living process has one part of so many: an application of a thousand series fills an eighth of that, and more is
a mistake in its labels, which this bounds."""

# Where the parts are, in bytes from where the region begins.
HEADER_BYTES: Final = 64
VALUES_AT: Final = HEADER_BYTES
STAMPS_AT: Final = VALUES_AT + 8 * CELLS
TEXT_AT: Final = STAMPS_AT + 8 * CELLS
TEXT_BYTES: Final = REGION_BYTES - TEXT_AT

# Words of the header.
COMMITTED: Final = 0
USED_CELLS: Final = 1
EPOCH: Final = 2

HEAD: Final = struct.Struct("=II")
"""What a record begins with: its length and its checksum."""

SALT_MASK: Final = 0xFFFFFFFF
"""What of the epoch salts the checksum, which has four bytes."""

Kind: TypeAlias = Literal["counter", "gauge", "histogram", "summary"]


@dataclass(frozen=True, slots=True)
class Family:
    """What one metric of the application is.

    Attributes:
        name: As the samples have it, without their suffix (a counter's without ``_total``).
        kind: Its type.
        help: One or two sentences.
        labels: Label names.
        mode: How a gauge of several processes becomes one, in prometheus_client's words; empty for the others.
        unit: The last part of the name, where the metric has a unit.
        bounds: A histogram's upper bounds, as they stand on the page, the last one ``+Inf``.
    """

    name: str
    kind: Kind
    help: str = ""
    labels: tuple[str, ...] = ()
    mode: str = ""
    unit: str = ""
    bounds: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """How many cells a series has: a histogram's sum and buckets, a summary's count and sum, or one value."""
        if self.kind == "histogram":
            return 1 + len(self.bounds)
        return 2 if self.kind == "summary" else 1

    def fits(self, other: Family) -> bool:
        """Tell whether figures of the other may be added to those of this one: all but the texts are the same."""
        return self is other or (
            self.kind == other.kind
            and self.labels == other.labels
            and self.mode == other.mode
            and self.bounds == other.bounds
        )


class Series(NamedTuple):
    """One series: its label values, and the first of its cells."""

    labels: tuple[str, ...]
    cell: int


@dataclass(frozen=True, slots=True)
class Group:
    """One family of a region, with its series.

    Attributes:
        family: What it is.
        number: The how many-th family of the region.
        cell: A cell of the family itself, for whoever writes the region.
        series: In the order in which they came.
    """

    family: Family
    number: int
    cell: int
    series: tuple[Series, ...] = ()


class Region:
    """What the one process that writes a region sees of it.

    Not thread-safe: adding series from several threads takes a lock, and so does adding to a cell.

    Args:
        area: `REGION_BYTES` of memory, aligned to eight bytes. Making a region changes nothing in it, but series
            are added only to one that was empty: untouched or cleared.

    Attributes:
        values: The cells' values, to read and to store into, one at a time.
        stamps: The same of their time stamps.
    """

    __slots__ = ("_groups", "_octets", "_places", "_shares", "_words", "stamps", "values")

    def __init__(self, area: memoryview[int]) -> None:
        self._octets = area
        self._shares = 1
        self._words, self.values, self.stamps = views_of(area)
        self._groups: dict[str, Group] = {}
        self._places: dict[tuple[int, tuple[str, ...]], int] = {}

    def leave_room(self) -> None:
        """Take no more than a living process's part from now on."""
        self._shares = SHARES

    def clear(self) -> None:
        """Empty it, also of what another process that is gone has written."""
        used = self._words[USED_CELLS]
        self._words[COMMITTED] = 0
        self._words[USED_CELLS] = 0
        self._words[EPOCH] += 1
        # A reader may see the next writer's record before its cells.
        self.values[:used] = self.stamps[:used] = memoryview(bytes(8 * used)).cast("d")
        self._groups.clear()
        self._places.clear()

    def families(self) -> Iterator[Family]:
        """Yield what there is now."""
        return (group.family for group in self._groups.values())

    def family(self, name: str) -> Group | None:
        """Return the family that has this name now, without its series."""
        return self._groups.get(name)

    def find(self, family: Family, labels: tuple[str, ...]) -> int | None:
        """Return the first cell of a series; None if it is not there."""
        group = self._groups.get(family.name)
        if group is None or not group.family.fits(family):
            return None
        return self._places.get((group.number, labels))

    def add_family(self, family: Family) -> Group | None:
        """Make a family known, also if it has no series yet.

        One of the same name that does not fit loses its series: the name starts anew.

        Returns:
            The family and its cell; None if there is no room left.
        """
        group = self._groups.get(family.name)
        if group is not None and group.family.fits(family):
            return group
        record = [family.name, family.kind, family.help, family.labels, family.mode, family.unit, family.bounds]
        # Series name their family by the place of its record, so that a name may come again.
        number = self._words[COMMITTED]
        cell = self._append(record, (0.0,), (0.0,))
        if cell is None:
            return None
        group = self._groups[family.name] = Group(family, number, cell)
        return group

    def add_series(
        self,
        family: Family,
        labels: tuple[str, ...],
        values: Sequence[float] = (),
        stamps: Sequence[float] = (),
    ) -> int | None:
        """Give a series its cells; one that has them keeps them and their values.

        Args:
            family: What it belongs to.
            labels: Its label values.
            values: What its cells begin with; zeros if left out.
            stamps: Their time stamps; zeros if left out.

        Returns:
            The first of its ``family.width`` cells; None if there is no room left.
        """
        group = self.add_family(family)
        if group is None:
            return None
        cell = self._places.get((group.number, labels))
        if cell is None:
            zeros = (0.0,) * family.width
            cell = self._append([group.number, labels], values or zeros, stamps or zeros)
            if cell is not None:
                self._places[group.number, labels] = cell
        return cell

    def drop(self, names: Iterable[str]) -> None:
        """Remove families with their series, and close the gaps: every series gets other cells.

        Only for a region that nobody reads meanwhile.
        """
        dropped = set(names)
        kept = {group.number: group for group in self._groups.values() if group.family.name not in dropped}
        places = self._places.copy()
        used = self._words[USED_CELLS]
        values, stamps = self.values[:used].tolist(), self.stamps[:used].tolist()
        self.clear()
        for group in kept.values():
            fresh = self.add_family(group.family)
            assert fresh is not None, "what had room before has it now"
            self.values[fresh.cell] = values[group.cell]
        for (number, labels), cell in places.items():
            if number in kept:
                family = kept[number].family
                cells = slice(cell, cell + family.width)
                self.add_series(family, labels, values[cells], stamps[cells])

    def copy_from(self, other: Region) -> None:
        """Become equal to another region, touching no more memory than that one uses.

        Only for a region that nobody reads meanwhile.
        """
        cells, text = other._words[USED_CELLS], TEXT_AT + other._words[COMMITTED]
        self.values[:cells] = other.values[:cells]
        self.stamps[:cells] = other.stamps[:cells]
        self._octets[TEXT_AT:text] = other._octets[TEXT_AT:text]
        for word in (EPOCH, USED_CELLS, COMMITTED):
            self._words[word] = other._words[word]
        self._groups = other._groups.copy()
        self._places = other._places.copy()

    def release(self) -> None:
        """Let go of the memory; any further use raises ValueError."""
        for view in (self._words, self.values, self.stamps, self._octets):
            view.release()

    def _append(self, record: Sequence[object], values: Sequence[float], stamps: Sequence[float]) -> int | None:
        """Write and commit a record with its cells; return the first of them, or None without room."""
        # A label may be what os.fsdecode made of any bytes, which no page can have.
        text = json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
        start, first = self._words[COMMITTED], self._words[USED_CELLS]
        end = start + HEAD.size + len(text)
        if end > TEXT_BYTES // self._shares or first + len(values) > CELLS // self._shares:
            return None
        for cell, (value, stamp) in enumerate(zip(values, stamps, strict=True), first):
            self.values[cell] = value
            self.stamps[cell] = stamp
        head = HEAD.pack(len(text), zlib.crc32(text, self._words[EPOCH] & SALT_MASK))
        self._octets[TEXT_AT + start : TEXT_AT + end] = head + text
        self._words[USED_CELLS] = first + len(values)
        self._words[COMMITTED] = end
        return first


def views_of(area: memoryview[int]) -> tuple[memoryview[int], memoryview[float], memoryview[float]]:
    """Return the header's words, the values and the time stamps."""
    return (
        area[:HEADER_BYTES].cast("Q"),
        area[VALUES_AT:STAMPS_AT].cast("d"),
        area[STAMPS_AT:TEXT_AT].cast("d"),
    )
