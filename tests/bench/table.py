"""Show what was measured as rows of a Markdown table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from .measure import Costs

Show = Callable[[float], str]
"""How a median cost is written."""


def header(names: Sequence[str]) -> str:
    """Make the head of the table: a column for each server, then one for each ratio to the first."""
    ratios = [f"{names[0]} : {other}" for other in names[1:]]
    columns = ["work", *names, *ratios]
    return f"{_row(columns)}\n{_row(['---', *['--:'] * (len(columns) - 1)])}"


def row(title: str, names: Sequence[str], costs: Costs, show: Show) -> str:
    """Make one row: median and spread of each server, and how many times better the first one does."""
    figures = [_figure(costs[name], show) if name in costs else "not installed" for name in names]
    ratios = [_ratio(costs, names[0], other) for other in names[1:]]
    return _row([title, *figures, *ratios])


def share_row(title: str, names: Sequence[str], name: str, part_ns: float, whole_ns: float) -> str:
    """Make a row that one server alone has a figure in: how much of a whole a part of it is."""
    share = f"{part_ns / whole_ns:.2%} ({part_ns:.0f} of {whole_ns:,.0f} ns)"
    return _row([title, *[share if other == name else "" for other in names], *[""] * (len(names) - 1)])


def per_second(cost_ns: float) -> str:
    """Write a cost in nanoseconds of CPU time as units per second of it."""
    rate = 1e9 / cost_ns
    return f"{rate:,.0f}"


def microseconds(cost_ns: float) -> str:
    """Write a cost in nanoseconds as microseconds."""
    return f"{cost_ns / 1e3:,.0f} µs"


def kibibytes(cost_bytes: float) -> str:
    """Write a cost in bytes as KiB."""
    return f"{cost_bytes / 1024:.1f} KiB"


def ratio(costs: Costs, ours: str, other: str) -> float:
    """Divide the median cost of another server by that of ours: how many times better ours does."""
    return median(costs[other]) / median(costs[ours])


def _ratio(costs: Costs, ours: str, other: str) -> str:
    return f"{ratio(costs, ours, other):.2f}" if ours in costs and other in costs else ""


def _figure(values: Sequence[float], show: Show) -> str:
    middle = median(values)
    spread = (max(values) - min(values)) / 2 / middle
    return f"{show(middle)} ±{spread:.0%}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
