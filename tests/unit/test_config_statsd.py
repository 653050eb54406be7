"""The settings of what is sent to a StatsD daemon."""

from __future__ import annotations

import pytest

from pagi_trio.config import Config, StatsDSettings
from tests.unit.test_config import refusal


def test_the_defaults():
    assert Config().statsd == StatsDSettings(
        address=None, flavor="statsd", prefix="", tags=(), interval_s=10.0, histograms="buckets"
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("127.0.0.1", "the port is missing; StatsD's own is 8125"),
        ("[::1]", "the port is missing; StatsD's own is 8125"),
        ("localhost:0", "the port is missing; StatsD's own is 8125"),
        ("localhost:", "'' is not a port, use 0 to 65535"),
        ("8125", "the host is missing, as in 127.0.0.1:8125"),
        ("/run/statsd.sock", "use HOST:PORT, [IPV6]:PORT or unix:PATH"),
        ("fd://3", "use HOST:PORT, [IPV6]:PORT or unix:PATH"),
        *((text, "use HOST:PORT, [IPV6]:PORT or unix:PATH") for text in ("", ":8125", "a b:8125")),
        ("::1:8125", "put an IPv6 address in brackets, as in [::1]:8000"),
        ("unix:", "the path is missing after 'unix:'"),
        (f"unix:/{'x' * 107}", "the path of a unix socket has at most 107 bytes"),
        (f"unix:/{'ä' * 54}", "the path of a unix socket has at most 107 bytes"),
        ("a..b:8125", "'a..b' is no name of a host"),
        (f"{'x' * 64}.example:8125", f"'{'x' * 64}.example' is no name of a host"),
    ],
)
def test_a_daemon_has_an_address_and_a_port(text, why):
    assert refusal({"statsd": {"address": text}}) == f"statsd.address = {text!r}: {why}"


@pytest.mark.parametrize(
    "text",
    [
        *("127.0.0.1:8125", "[::1]:8125", "statsd.example:08125", "statsd.example.:8125", "zählt.example:8125"),
        *("[2001:0db8:85a3:0000:0000:8a2e:0370:7334]:8125", "unix:/run/statsd.sock", f"unix:/{'x' * 106}"),
    ],
)
def test_a_daemon_may_be_anywhere(text):
    assert Config(statsd=StatsDSettings(address=text)).statsd.address == text


@pytest.mark.parametrize("prefix", ["web", "web.", "prod.web-1", "a_b.c"])
def test_a_prefix_is_parts_with_dots_between(prefix):
    assert StatsDSettings(prefix=prefix).prefix == prefix


@pytest.mark.parametrize("prefix", [".", "a..b", "1a", ".a", "a:b", "a|b", "a b", "ä", "a.."])
def test_a_prefix_that_a_daemon_would_read_otherwise_is_refused(prefix):
    assert refusal({"statsd": {"prefix": prefix}}).startswith(f"statsd.prefix = {prefix!r}: use letters")


@pytest.mark.parametrize("tag", ["env", "env:", ":x", "1:x", "env:a|b", "env:a#b", "env:a b", "e=v:x"])
def test_a_tag_that_a_daemon_would_read_otherwise_is_refused(tag):
    assert "a tag is KEY:VALUE" in refusal({"statsd": {"tags": ["env:prod", tag], "flavor": "dogstatsd"}})


def test_tags_are_for_dogstatsd():
    tags = StatsDSettings(tags=("env:prod,az:a:b", "x:/y"), flavor="dogstatsd").tags
    assert tags == ("env:prod", "az:a:b", "x:/y")
    assert "needs statsd.flavor = 'dogstatsd'" in refusal({"statsd": {"tags": ["env:prod"]}})


def test_a_prefix_and_tags_leave_room_for_what_is_sent():
    tags = tuple(f"tag{number:03}:ä{'x' * 90}" for number in range(9))
    assert StatsDSettings(prefix="x" * 100, tags=tags, flavor="dogstatsd").tags == tags
    why = "statsd.prefix and statsd.tags take 1,001 bytes of each line: 1,000 at most leave room for what is sent"
    assert refusal({"statsd": {"prefix": "x" * 101, "tags": list(tags), "flavor": "dogstatsd"}}) == why
    assert "take 1,001 bytes" in refusal({"statsd": {"prefix": "x" * 1001}})


def test_pushing_contradicts_no_metrics():
    assert "contradicts" in refusal({"metrics": {"enabled": False}, "statsd": {"address": "127.0.0.1:8125"}})
