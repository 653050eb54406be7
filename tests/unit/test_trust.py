"""Who is trusted: how it is written, and whom it covers."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from pagi_trio.config import Config, Forwarded
from pagi_trio.errors import ConfigError
from pagi_trio.trust import Trust, parse_trusted, read_address

NEITHER = "is neither an IP address nor a network like 10.0.0.0/8, nor unix or *"


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("192.0.2.1", "192.0.2.1/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("::1", "::1/128"),
        ("::/0", "::/0"),
        # RFC 4291 section 2.5.5.2: what a socket of both families shows of IPv4.
        ("::ffff:192.0.2.1", "192.0.2.1/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
    ],
)
def test_addresses_and_networks_are_read(text, network):
    assert parse_trusted(text) == ip_network(network)


def test_the_two_words_are_no_network():
    assert parse_trusted("unix") is parse_trusted("*") is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("10.0.0.1/8", "has bits set behind the length of its prefix; the network is 10.0.0.0/8"),
        ("2001:db8::1/32", "has bits set behind the length of its prefix; the network is 2001:db8::/32"),
        ("::ffff:10.0.0.1/104", "has bits set behind the length of its prefix; the network is ::ffff:a00:0/104"),
        *(
            (text, NEITHER)
            for text in (
                *("", "localhost", "10", "10.0.0", "10.0.0.256", "010.0.0.1", "10.0.0.0/33", "10.0.0.0/", "/8"),
                *("10.0.0.0/255.0.0.0", "10.0.0.0/0.255.255.255", "10.0.0.0/-1", "10.0.0.0/8/8", "10.0.0.0-10.0.0.9"),
                *("::1/129", ":::1", "[::1]", "fe80::1%eth0", "fe80::%eth0/10", "UNIX", "unix:/run/x", "**"),
                *("10.0.0.0/\uff18", "\u0661.1.1.1"),
            )
        ),
    ],
)
def test_anything_else_is_refused_with_the_reason(text, reason):
    with pytest.raises(ConfigError) as caught:
        parse_trusted(text)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("entries", "peer", "covered"),
    [
        ((), "127.0.0.1", False),
        (("127.0.0.1",), "127.0.0.1", True),
        (("127.0.0.1",), "127.0.0.2", False),
        (("10.0.0.0/8", "::1"), "10.255.255.255", True),
        (("10.0.0.0/8", "::1"), "11.0.0.0", False),
        (("10.0.0.0/8", "::1"), "::1", True),
        (("127.0.0.0/8",), "::ffff:127.0.0.1", True),
        (("::ffff:127.0.0.0/104",), "127.0.0.1", True),
        # An IPv4 address is none of IPv6, however a socket shows it.
        (("::/0",), "::ffff:127.0.0.1", False),
        (("0.0.0.0/0",), "::1", False),
        (("fe80::/10",), "fe80::1%eth0", True),
        (("unix",), "127.0.0.1", False),
        (("unix",), None, True),
        (("127.0.0.1", "::1"), None, False),
        (("*",), "2001:db8::1", True),
        (("*",), None, True),
    ],
)
def test_whom_it_covers(entries, peer, covered):
    assert Trust(entries).covers_peer(None if peer is None else (peer, 4711)) is covered


def test_an_address_has_one_form():
    assert read_address("::ffff:192.0.2.1") == read_address("192.0.2.1") == ip_address("192.0.2.1")
    assert read_address("fe80::1%\x1b[31m") == ip_address("fe80::1")
    assert read_address("example.org") is None


# The setting


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ([], ()),
        ("", ()),
        ("127.0.0.1, ::1,,unix", ("127.0.0.1", "::1", "unix")),
        (["10.0.0.0/8,*", "::1"], ("10.0.0.0/8", "*", "::1")),
    ],
)
def test_entries_may_be_joined_by_commas(given, normal):
    assert Config.from_mapping({"forwarded": {"trusted": given}}).forwarded.trusted == normal


def test_nobody_is_trusted_unless_said_so():
    assert Config().forwarded == Forwarded(trusted=(), headers="x-forwarded")


def test_a_bad_entry_among_good_ones_is_named():
    with pytest.raises(ConfigError) as caught:
        Forwarded(trusted=("127.0.0.1,10.0.0.1/8",))
    assert str(caught.value).startswith("forwarded.trusted = '10.0.0.1/8': has bits set")
