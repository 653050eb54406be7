"""StatsD on the wire: names, numbers, lines and datagrams.

::

    name:1|c                       StatsD: a counter's increment, a gauge's value
    name:1|c|#tag:value,tag:value  DogStatsD, which has tags

Lines are joined by newlines. Nothing in a name, a tag or a value is ever one of the characters that this grammar
uses: names and labels come from applications, and may come from their clients.

Source: https://github.com/statsd/statsd/blob/master/docs/metric_types.md and
https://docs.datadoghq.com/developers/dogstatsd/datagram_shell.
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache
from math import isfinite
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

T = TypeVar("T")

DATAGRAM_BYTES: Final = 1432
"""What StatsD's documentation advises: it fits an Ethernet frame, with room for the headers of tunnels."""

PART_CHARACTERS: Final = 200
"""The most of a name or a label's value: Datadog cuts tags there, and a file name of Graphite's ends at 255."""

_WHOLE_MOST: Final = 2.0**53
"""Below this every whole float is written as the integer that it is."""

_CACHED: Final = 4096

_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_]")
_NOT_IN_PARTS: Final = re.compile(r"[^A-Za-z0-9_-]")
_NOT_IN_TAGS: Final = re.compile(r"[^A-Za-z0-9_./-]")
_NOT_IN_TAG_VALUES: Final = re.compile(r"[^\w.:/-]")


class Writer(Protocol):
    """Writes the lines of one flavor."""

    def counter(self, name: str, labels: Mapping[str, str], increment: float) -> bytes:
        """Write a counter's increment; empty if it is no finite number."""
        ...

    def gauge(self, name: str, labels: Mapping[str, str], value: float) -> bytes:
        """Write a gauge's value; empty if it is no finite number."""
        ...


class StatsDWriter:
    """Writes plain StatsD: the values of labels become parts of the name, in the order of the labels.

    Args:
        prefix: What all names begin with; empty, or with a dot at its end. It is taken as it is.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def counter(self, name: str, labels: Mapping[str, str], increment: float) -> bytes:
        """Write a counter's increment; empty if it is no finite number."""
        return f"{self._name(name, labels)}:{number(increment)}|c".encode() if isfinite(increment) else b""

    def gauge(self, name: str, labels: Mapping[str, str], value: float) -> bytes:
        """Write a gauge's value; empty if it is no finite number."""
        return _gauge(self._name(name, labels), value, "")

    def _name(self, name: str, labels: Mapping[str, str]) -> str:
        parts = [_clean_name(name), *map(_clean_part, labels.values())]
        return self._prefix + ".".join(parts)


class DogStatsDWriter:
    """Writes DogStatsD: labels become tags.

    Args:
        prefix: As for StatsD.
        tags: What all lines have as well, ``key:value``, taken as they are.
    """

    def __init__(self, prefix: str, tags: Iterable[str] = ()) -> None:
        self._prefix = prefix
        self._tags = tuple(tags)

    def counter(self, name: str, labels: Mapping[str, str], increment: float) -> bytes:
        """Write a counter's increment; empty if it is no finite number."""
        if not isfinite(increment):
            return b""
        return f"{self._prefix}{_clean_name(name)}:{number(increment)}|c{self._tagged(labels)}".encode()

    def gauge(self, name: str, labels: Mapping[str, str], value: float) -> bytes:
        """Write a gauge's value; empty if it is no finite number."""
        return _gauge(self._prefix + _clean_name(name), value, self._tagged(labels))

    def _tagged(self, labels: Mapping[str, str]) -> str:
        # An empty label is none, as in Prometheus.
        own = [f"{_clean_tag(key)}:{_clean_tag_value(value)}" for key, value in labels.items() if value]
        tags = ",".join((*self._tags, *own))
        return f"|#{tags}" if tags else ""


def _gauge(name: str, value: float, behind: str) -> bytes:
    if not isfinite(value):
        return b""
    # To StatsD a sign means a step, and only from zero is that the value. These two lines never part.
    zero = f"{name}:0|g{behind}\n" if value < 0 else ""
    return f"{zero}{name}:{number(value)}|g{behind}".encode()


def number(value: float) -> str:
    """Write a finite number exactly and without an exponent, which not every daemon reads."""
    value = float(value)
    if value.is_integer() and -_WHOLE_MOST < value < _WHOLE_MOST:
        return str(int(value))
    text = repr(value)
    return format(Decimal(text), "f") if "e" in text else text


@lru_cache(_CACHED)
def _clean_name(text: str) -> str:
    return _NOT_IN_NAMES.sub("_", text[:PART_CHARACTERS]) or "_"


@lru_cache(_CACHED)
def _clean_part(text: str) -> str:
    # As of le="+Inf".
    return _NOT_IN_PARTS.sub("_", text[:PART_CHARACTERS].removeprefix("+")) or "_"


@lru_cache(_CACHED)
def _clean_tag(text: str) -> str:
    key = _NOT_IN_TAGS.sub("_", text[:PART_CHARACTERS])
    return key if key[:1].isalpha() else f"_{key}"


@lru_cache(_CACHED)
def _clean_tag_value(text: str) -> str:
    return _NOT_IN_TAG_VALUES.sub("_", text[:PART_CHARACTERS].removeprefix("+")) or "_"


def pack(lines: Iterable[tuple[bytes, T]], most: int = DATAGRAM_BYTES) -> Iterator[tuple[bytes, list[T]]]:
    """Join lines to datagrams, each as full as it gets.

    Args:
        lines: None of them empty or longer than a datagram, each with what its sender wants to know it by.
        most: The longest datagram, bytes.

    Yields:
        Each datagram, and what its lines are known by.
    """
    taken: list[bytes] = []
    known: list[T] = []
    size = -1
    for line, one in lines:
        if taken and size + 1 + len(line) > most:
            yield b"\n".join(taken), known
            taken, known, size = [], [], -1
        taken.append(line)
        known.append(one)
        size += 1 + len(line)
    if taken:
        yield b"\n".join(taken), known
