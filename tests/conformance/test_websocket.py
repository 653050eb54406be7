"""The Autobahn cases against the command, over ws and wss: each is OK, with nothing that is only non-strict.

Groups 1 to 7 and 10 run with everything else; group 9 and some of 12 and 13 with ``-m slow``; all of the slow ones
with ``-m autobahn``, which takes half an hour. Many cases run at once: most of their time is the suite's own waiting.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.bench.servers import KINDS, OURS

from .websocket import FAILED, GROUPS, OK, UNIMPLEMENTED, WITHOUT_VERDICT, Certificates, run, serving

QUICK = ("1", "2", "3", "4", "5", "6", "7", "10")
SLOW = ("9", "12", "13")


@pytest.fixture(scope="module", params=["ws", "wss"])
def certificates(request, tmp_path_factory):
    """Files for a server, where it is to speak TLS."""
    return Certificates(tmp_path_factory.mktemp("tls")) if request.param == "wss" else None


@pytest.fixture
def conforms(certificates):
    """``conforms(patterns, {group: cases})``: so many cases match, and each of them is OK."""

    def check(patterns, counts, at_once):
        with serving(KINDS[OURS], certificates) as server:
            report = run(server, patterns, certificates, at_once=at_once)
        assert report.faults == []
        assert report.per_group == counts
        return report

    return check


def test_the_quick_groups_conform(conforms):
    report = conforms([f"{group}.*" for group in QUICK], {group: GROUPS[group] for group in QUICK}, at_once=16)
    assert {one.case for one in report.outcomes if one.verdict != OK} == WITHOUT_VERDICT


@pytest.mark.slow
def test_a_sample_of_the_slow_groups_conforms(conforms):
    # Of the deflated groups each takes 1,000 messages of 8 KiB, in fragments of 256 bytes.
    conforms(["9.*", "12.1.11", "12.5.11", "13.*.11"], {"9": GROUPS["9"], "12": 2, "13": 7}, at_once=8)


@pytest.mark.autobahn
@pytest.mark.parametrize("group", SLOW)
def test_the_slow_groups_conform(conforms, group):
    conforms([f"{group}.*"], {group: GROUPS[group]}, at_once=1)


def test_what_does_not_conform_is_seen():
    short_of = ["--websocket-max-message-size", "100", "--no-websocket-deflate"]
    with serving(KINDS[OURS], flags=short_of) as server:
        report = run(server, ["1.1.1", "1.1.2", "12.1.1"])
    assert [one.verdict for one in report.outcomes] == [OK, FAILED, UNIMPLEMENTED]
    assert len(report.faults) == 2
    assert report.verdicts == Counter((OK, FAILED, UNIMPLEMENTED))
