"""StatsD's lines and datagrams, by https://github.com/statsd/statsd/blob/master/docs/metric_types.md."""

from __future__ import annotations

import math

import pytest

from pagi_trio.metrics.push.statsd_format import DATAGRAM_BYTES, DogStatsDWriter, StatsDWriter, number, pack
from tests.statsd import Daemon, parse


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (17.0, "17"),
        (-3.0, "-3"),
        (0.1, "0.1"),
        (-2.5, "-2.5"),
        (1e-5, "0.00001"),
        (1e22, "1" + "0" * 22),
        (2.0**53 - 1, "9007199254740991"),
        (5e-324, "0." + "0" * 323 + "5"),
    ],
)
def test_numbers_are_exact_and_have_no_exponent(value, text):
    assert number(value) == text
    assert float(text) == value


def test_in_statsd_the_values_of_labels_are_parts_of_the_name():
    writer = StatsDWriter("web.")
    assert writer.counter("closes_total", {}, 2.0) == b"web.closes_total:2|c"
    assert (
        writer.counter("closes_total", {"code": "1000", "side": "client"}, 2.0) == b"web.closes_total.1000.client:2|c"
    )
    assert writer.gauge("depth", {"queue": "mail"}, 1.5) == b"web.depth.mail:1.5|g"


def test_in_dogstatsd_labels_are_tags_behind_those_of_the_settings():
    writer = DogStatsDWriter("web.", ["env:prod"])
    assert writer.counter("closes_total", {}, 2.0) == b"web.closes_total:2|c|#env:prod"
    line = b"web.closes_total:2|c|#env:prod,code:1000,side:client"
    assert writer.counter("closes_total", {"code": "1000", "side": "client"}, 2.0) == line
    assert DogStatsDWriter("").gauge("depth", {}, 1.0) == b"depth:1|g"
    assert DogStatsDWriter("").gauge("depth", {"queue": ""}, 1.0) == b"depth:1|g"


def test_a_histograms_bounds_can_be_read_in_both_flavors():
    for bound, part, tag in (("0.01", b"0_01", b"0.01"), ("5", b"5", b"5"), ("+Inf", b"Inf", b"Inf")):
        assert StatsDWriter("").counter("seconds_bucket", {"le": bound}, 1.0) == b"seconds_bucket.%b:1|c" % part
        assert DogStatsDWriter("").counter("seconds_bucket", {"le": bound}, 1.0) == b"seconds_bucket:1|c|#le:%b" % tag


@pytest.mark.parametrize("writer", [StatsDWriter(""), DogStatsDWriter("")])
def test_a_negative_gauge_is_set_by_way_of_zero_since_a_sign_means_a_step(writer):
    daemon = Daemon()
    for value in (7.0, -5.0, -2.0):
        daemon.take(writer.gauge("depth", {}, value))
        assert daemon.gauges == {"depth": value}


@pytest.mark.parametrize("writer", [StatsDWriter(""), DogStatsDWriter("")])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_has_no_line(writer, value):
    assert writer.counter("x", {}, value) == b""
    assert writer.gauge("x", {}, value) == b""


@pytest.mark.parametrize(
    ("value", "plain", "tagged"),
    [
        ("a\nb:1|c", "a_b_1_c", "a_b:1_c"),
        ("a|#x:y", "a__x_y", "a__x:y"),
        ("a,b:c", "a_b_c", "a_b:c"),
        ("/users/1", "_users_1", "/users/1"),
        ("a.b", "a_b", "a.b"),
        ("", "_", None),
        ("+5|g", "5_g", "5_g"),
        ("grün", "gr_n", "grün"),
        ("\ud800\u2028\x00\r", "____", "____"),
        ("x" * 999, "x" * 200, "x" * 200),
    ],
)
def test_no_labels_value_says_more_than_itself(value, plain, tagged):
    assert StatsDWriter("").counter("n", {"l": value}, 1.0).decode() == f"n.{plain}:1|c"
    line = DogStatsDWriter("").counter("n", {"l": value}, 1.0).decode()
    assert line == ("n:1|c" if tagged is None else f"n:1|c|#l:{tagged}")


def test_datagrams_are_as_full_as_they_get_and_no_longer():
    lines = [(b"x" * size, size) for size in (700, 731, 1, 1432, 1431, 2, 3)]
    packed = list(pack(lines))
    assert [known for _, known in packed] == [[700, 731], [1], [1432], [1431], [2, 3]]
    assert [len(datagram) for datagram, _ in packed] == [1432, 1, 1432, 1431, 6]
    assert b"\n".join(datagram for datagram, _ in packed) == b"\n".join(line for line, _ in lines)
    assert DATAGRAM_BYTES == 1432


def test_nothing_makes_no_datagram():
    assert list(pack([])) == []


@pytest.mark.parametrize(
    "datagram",
    [
        *(
            b"",
            b"\n",
            b"a:1|c\n",
            b"a:1",
            b":1|c",
            b"a:|c",
            b"a:+1|g",
            b"a:1e5|c",
            b"a:nan|g",
            b"a:1|ms",
            b"a:1|c|@0.1",
        ),
        *(b"a b:1|c", b"a..b:1|c", b"a:1|c|#", b"a:1|c|#x", b"a:1|c|#x:", b"a:1|c|#x:y,", b"a:1|c|#x:y|z", b"x" * 1433),
    ],
)
def test_the_parser_of_these_tests_takes_nothing_else(datagram):
    with pytest.raises(ValueError):
        list(parse(datagram))
