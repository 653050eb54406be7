"""What is thought of a server's memory: growth is found, and what goes up and down is none."""

from __future__ import annotations

import pytest

from tests.endurance.run import GROWTH_MOST
from tests.endurance.samples import Growth, Sample

MIB = 2**20


def samples(sizes):
    rest = {
        "cpu_s": 0.0,
        "pss": 0,
        "rss": 0,
        "fds": 0,
        "threads": 0,
        "tasks": 0,
        "objects": 0,
        "types": {},
        "gauges": {},
    }
    return [Sample(at_s=300.0 + 5 * i, own=int(size), **rest) for i, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("sizes", "grew"),
    [
        ([30 * MIB] * 600, False),
        ([(30 + (i % 3 == 0)) * MIB for i in range(600)], False),
        ([33 * MIB] * 20 + [30 * MIB] * 580, False),
        ([(30 + 0.0005 * i) * MIB for i in range(600)], False),
        ([(30 + 0.002 * i) * MIB for i in range(600)], True),
        ([30 * MIB] * 300 + [31 * MIB] * 300, True),
        ([30 * MIB] * 585 + [31 * MIB] * 15, True),
    ],
    ids=["flat", "up and down", "less", "slowly", "steadily", "by a step", "late"],
)
def test_growth_is_found(sizes, grew):
    assert (Growth.of(samples(sizes)).share > GROWTH_MOST) is grew
