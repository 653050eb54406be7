"""Whatever an application, or a client by way of it, puts into names and labels: to a daemon it is one value each."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pagi_trio.metrics.push.statsd_format import DATAGRAM_BYTES, DogStatsDWriter, StatsDWriter, pack
from tests.statsd import Daemon, parse

PROFILE = settings(max_examples=300)

# What the grammar uses, beside anything.
texts = st.one_of(
    st.text(alphabet='\n:|,#;@+-. \\"{}=ab1', max_size=12), st.text(), st.sampled_from(["1|c\nx", "g|#a:b"])
)
labels = st.dictionaries(texts, texts, max_size=4)
values = st.floats(allow_nan=True)
WRITERS = [StatsDWriter("web."), DogStatsDWriter("web.", ["env:prod"])]


@pytest.mark.parametrize("writer", WRITERS, ids=["statsd", "dogstatsd"])
@PROFILE
@given(name=texts, labels=labels, value=values)
@example(name="a:1|c\nb", labels={"x|#y": "z,env:test\nw:1|g"}, value=-1e-300)
def test_one_value_is_one_metric_and_has_its_value(writer, name, labels, value):
    for write, kind in ((writer.counter, "c"), (writer.gauge, "g")):
        line = write(name, labels, value)
        if not math.isfinite(value):
            assert line == b""
            continue
        if len(line) > DATAGRAM_BYTES:
            continue
        found = list(parse(line))
        assert len(found) == 1 + (kind == "g" and value < 0)
        assert {type_ for _, _, type_ in found} == {kind}
        assert len({who for who, _, _ in found}) == 1
        who = found[0][0]
        if isinstance(who, tuple):
            # One tag for each label that is not empty, and the settings' own first.
            assert who[1] == "env:prod"
            assert len(who) == 2 + sum(map(bool, labels.values()))
            assert not any(tag.startswith("env:") for tag in who[2:] if not any(k.startswith("env") for k in labels))
            assert "." not in who[0].removeprefix("web.")
        else:
            assert who.startswith("web.")
            assert who.count(".") == 1 + len(labels)
        daemon = Daemon()
        daemon.take(line)
        assert {**daemon.counters, **daemon.gauges} == {who: value}


@PROFILE
@given(st.lists(st.integers(1, DATAGRAM_BYTES), max_size=60))
def test_packing_keeps_every_line_and_its_order(sizes):
    lines = [(b"x" * size, number) for number, size in enumerate(sizes)]
    datagrams = list(pack(lines))
    assert [one for _, known in datagrams for one in known] == list(range(len(sizes)))
    assert b"\n".join(datagram for datagram, _ in datagrams) == b"\n".join(line for line, _ in lines)
    assert all(len(datagram) <= DATAGRAM_BYTES for datagram, _ in datagrams)
    # None would have fitted into the one before.
    firsts = [sizes[known[0]] for _, known in datagrams]
    assert all(
        len(before) + 1 + first > DATAGRAM_BYTES for (before, _), first in zip(datagrams, firsts[1:], strict=False)
    )
