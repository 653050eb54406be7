"""What applications may call their metrics, and what a definition says: checked when it is made.

Source: the data model of Prometheus (prometheus.io/docs/concepts/data_model) and OpenMetrics 1.0.0.
"""

from __future__ import annotations

import re
from math import inf, isfinite
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from pagi_trio.metrics.application.region import Family

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pagi_trio.metrics.application.region import Kind

Workers: TypeAlias = Literal["sum", "max", "min", "latest", "each"]
"""How a gauge's values in several workers become one: their sum, the largest, the smallest, the one that was set last,
or none, but a series for each worker, labelled by its slot. Those of a worker that has ended are gone."""

DEFAULT_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds that suit the seconds of a request; those of the Prometheus client libraries."""

MODES: Final[dict[Workers, str]] = {
    "sum": "livesum",
    "max": "livemax",
    "min": "livemin",
    "latest": "livemostrecent",
    "each": "liveall",
}
"""The same in the words of `Family.mode`."""

RESERVED: Final = "pagi_"
"""What the server's own metrics begin with."""

_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")

_EXPONENT_FROM: Final = 6
"""Bounds with more digits than this before the point are written with an exponent, as Go does and so Prometheus."""

_SUFFIXES: Final[dict[Kind, tuple[str, ...]]] = {
    "counter": ("_total", "_created"),
    "gauge": (),
    "histogram": ("_bucket", "_count", "_sum", "_created"),
    "summary": ("_count", "_sum", "_created"),
}


def check_prefix(prefix: str) -> None:
    """Refuse a prefix that no name can begin with.

    Raises:
        ValueError: If it is one.
        TypeError: If it is no text.
    """
    if not isinstance(prefix, str):
        raise TypeError(f"the prefix of metrics is text, not {prefix!r}")
    if prefix and not _NAME.fullmatch(prefix):
        raise ValueError(f"{prefix!r} is no prefix of metrics: it has letters, digits, _ and :, no digit first")


def describe(  # noqa: PLR0913 - what a definition consists of, most by name
    kind: Kind,
    name: str,
    text: str,
    *,
    labels: Iterable[str] | None = None,
    unit: str = "",
    buckets: Iterable[float] = (),
    workers: Workers | None = None,
) -> Family:
    """Check a definition and return it.

    Args:
        kind: The type of the metric.
        name: Its name, prefix included, as its samples have it.
        text: What it is, for HELP.
        labels: Names of its labels; None if it has none.
        unit: What one is; then the name ends with it.
        buckets: A histogram's upper bounds, rising; the last one, infinity, may be left out.
        workers: A gauge's way to become one of several.

    Raises:
        ValueError: If something is not allowed; the message names the metric.
        TypeError: If something is of a wrong type.
    """
    _check_name(kind, name, unit)
    if not isinstance(text, str):
        raise TypeError(f"{name}: its description must be text, not {text!r}")
    mode = ""
    if workers is not None:
        if not isinstance(workers, str) or workers not in MODES:
            raise ValueError(f"{name}: workers={workers!r}: must be one of {', '.join(MODES)}")
        mode = MODES[workers]
    bounds = _read_bounds(name, buckets) if kind == "histogram" else ()
    labels = _read_labels(kind, name, labels)
    return Family(name.removesuffix("_total"), kind, text, labels, mode, unit, bounds)


def sample_names(family: Family) -> list[str]:
    """Return every name that its samples may have, its own included: no other metric may have one of them."""
    return [family.name, *(family.name + suffix for suffix in _SUFFIXES[family.kind])]


def full_name(family: Family) -> str:
    """Return the name by which it was defined."""
    return f"{family.name}_total" if family.kind == "counter" else family.name


def _check_name(kind: Kind, name: str, unit: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a metric: it has letters, digits, _ and :, no digit first")
    if name.startswith(RESERVED):
        raise ValueError(f"{name}: names that begin with {RESERVED} are the server's own")
    if not isinstance(unit, str):
        raise TypeError(f"{name}: its unit must be text, not {unit!r}")
    base = name.removesuffix("_total")
    if (kind == "counter") != (base != name):
        rule = "a counter's name must" if kind == "counter" else "only a counter's name may"
        raise ValueError(f"{name}: {rule} end with _total")
    if not base:
        raise ValueError(f"{name}: there is no name in front of _total")
    if unit and not base.endswith(f"_{unit}"):
        raise ValueError(f"{name}: its unit is {unit!r}, so its name must end with _{unit}{name[len(base) :]}")


def _read_labels(kind: Kind, name: str, labels: Iterable[str] | None) -> tuple[str, ...]:
    if labels is None:
        return ()
    if isinstance(labels, str):
        raise TypeError(f"{name}: labels must be a list of names, [{labels!r}]")
    try:
        names = tuple(labels)
    except TypeError:
        raise TypeError(f"{name}: labels must be a list of names, not {labels!r}") from None
    if not names:
        raise ValueError(f"{name}: labels is empty; leave it out")
    for label in names:
        if not isinstance(label, str):
            raise TypeError(f"{name}: a label's name must be text, not {label!r}")
        if not _LABEL.fullmatch(label) or label.startswith("__"):
            raise ValueError(
                f"{name}: {label!r} is no name of a label: it has letters, digits and _, no digit and no __ first"
            )
        if label == "le" and kind == "histogram":
            raise ValueError(f"{name}: a histogram has a label le of its own")
    if len(set(names)) < len(names):
        raise ValueError(f"{name}: it has a label twice: {', '.join(names)}")
    return names


def _read_bounds(name: str, buckets: Iterable[float]) -> tuple[str, ...]:
    try:
        bounds = [float(bound) for bound in buckets]
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{name}: buckets must be numbers, not {buckets!r}") from None
    if bounds and bounds[-1] == inf:
        bounds.pop()
    if not bounds or not all(map(isfinite, bounds)) or bounds != sorted(set(bounds)):
        raise ValueError(f"{name}: buckets must be one or more rising numbers, not {buckets!r}")
    return (*map(write_bound, bounds), "+Inf")


def write_bound(bound: float) -> str:
    """Write an upper bound as the label ``le`` has it."""
    text = repr(bound)
    digits = text.find(".")
    if bound > 0 and digits > _EXPONENT_FROM:
        mantissa = f"{text[0]}.{text[1:digits]}{text[digits + 1 :]}".rstrip("0").rstrip(".")
        return f"{mantissa}e+{digits - 1:02d}"
    return text
