"""Who a request came from, by what proxies say: X-Forwarded-For and its like, and RFC 7239."""

from __future__ import annotations

from ipaddress import ip_address
from time import process_time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pagi_trio.wire.forwarded import HOPS, Forwarded

PEER = ("10.0.0.1", 4711)

TRUSTED = ("10.0.0.0/8", "2001:db8:1::/48", "unix")

X_FORWARDED = Forwarded(TRUSTED, "x-forwarded")
RFC7239 = Forwarded(TRUSTED, "forwarded")


def said(value, *, proto=()):
    """Return the fields of X-Forwarded-For and X-Forwarded-Proto, each one or several."""
    fors = [value] if isinstance(value, bytes) else value
    protos = [proto] if isinstance(proto, bytes) else proto
    return [(b"x-forwarded-for", one) for one in fors] + [(b"x-forwarded-proto", one) for one in protos]


def told(*values):
    return [(b"host", b"x"), *((b"forwarded", value) for value in values)]


# X-Forwarded-For


@pytest.mark.parametrize(
    ("value", "client"),
    [
        (b"192.0.2.1", ("192.0.2.1", 0)),
        (b"2001:DB8::0:1", ("2001:db8::1", 0)),
        (b"[2001:db8::1]", ("2001:db8::1", 0)),
        (b"192.0.2.1:80", ("192.0.2.1", 80)),
        (b"[2001:db8::1]:80", ("2001:db8::1", 80)),
        (b"::ffff:192.0.2.1", ("192.0.2.1", 0)),
        (b" \t192.0.2.1\t ", ("192.0.2.1", 0)),
        # From the right, over those that are trusted, to the first that is not.
        (b"192.0.2.9, 192.0.2.1", ("192.0.2.1", 0)),
        (b"192.0.2.9, 192.0.2.1, 10.0.0.2,10.0.0.3", ("192.0.2.1", 0)),
        (b"192.0.2.1, 2001:db8:1::1, ::ffff:10.9.9.9", ("192.0.2.1", 0)),
        (b"192.0.2.1, 10.0.0.2:99, [2001:db8:1::1]:99", ("192.0.2.1", 0)),
        # All of them are: the one furthest away.
        (b"10.0.0.4, 10.0.0.3", ("10.0.0.4", 0)),
        (b"10.0.0.4:5", ("10.0.0.4", 5)),
        # Empty entries of a list mean nothing (RFC 9110 section 5.6.1.2).
        (b"192.0.2.1, , 10.0.0.2,,", ("192.0.2.1", 0)),
        (b"", PEER),
        (b",, ,", PEER),
        # Several fields are one list.
        ([b"192.0.2.1", b"10.0.0.2"], ("192.0.2.1", 0)),
        ([b"192.0.2.9, 192.0.2.1", b"", b"10.0.0.2, 10.0.0.3"], ("192.0.2.1", 0)),
        # What is no address ends the walk, and what is known by then stands.
        (b"192.0.2.1, unknown", PEER),
        (b"192.0.2.1, unknown, 10.0.0.2", ("10.0.0.2", 0)),
        (b"192.0.2.1, _hidden, 10.0.0.2", ("10.0.0.2", 0)),
        (b"192.0.2.1, example.org, 10.0.0.2", ("10.0.0.2", 0)),
        *(
            (b"192.0.2.1, " + garbage, PEER)
            for garbage in (
                *(b"1", b"1.2.3", b"1.2.3.4.5", b"1.2.3.256", b"01.2.3.4", b"1.2.3.4:", b"1.2.3.4:65536", b":80"),
                *(b"1.2.3.4:-1", b"1.2.3.4:+1", b"1.2.3.4: 80", b"1.2.3.4 5.6.7.8", b"1.2.3.4:80:80", b"1.2.3.4/32"),
                *(b"[1.2.3.4]x", b"[::1", b"::1]", b"[]", b"[::1]:x", b"[::1]80", b":::", b"[::1%lo]", b"::1%lo"),
                *(b'"1.2.3.4"', b"for=1.2.3.4", b"\xd9\xa1.1.1.1", b"::1%\x1b[31m", b"*", b"1.2.3.4;", b"1" * 97),
            )
        ),
    ],
)
def test_the_client_by_x_forwarded_for(value, client):
    assert X_FORWARDED.origin(said(value), PEER, "http") == (client, "http")


def test_a_bracket_around_ipv4_is_no_address():
    """RFC 3986 section 3.2.2: brackets are for IPv6."""
    assert X_FORWARDED.origin(said(b"[192.0.2.1]"), PEER, "http") == (PEER, "http")


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("proto", "found"),
    [
        (b"https", "https"),
        (b"http", "http"),
        (b"HTTPS", "https"),
        (b"wss", "https"),
        (b"ws", "http"),
        (b"http, https", "https"),
        (b"https,http ", "http"),
        ([b"http", b"https"], "https"),
        *((nothing, None) for nothing in ((), b"", b"ftp", b"https,", b"https, ftp", b"https:", b'"https"')),
        ([b"https", b"ftp"], None),
    ],
)
def test_the_scheme_by_x_forwarded_proto(proto, found, scheme):
    assert X_FORWARDED.origin(said(b"192.0.2.1", proto=proto), PEER, scheme) == (("192.0.2.1", 0), found or scheme)
    assert X_FORWARDED.origin(said((), proto=proto), PEER, scheme) == (PEER, found or scheme)


def test_no_more_than_so_many_entries_are_looked_at():
    for filling in (b", 10.0.0.2", b","):
        assert X_FORWARDED.origin(said(b"192.0.2.1" + filling * (HOPS - 1)), PEER, "http")[0] == ("192.0.2.1", 0)
        assert X_FORWARDED.origin(said(b"192.0.2.1" + filling * HOPS), PEER, "http")[0] != ("192.0.2.1", 0)


def test_the_client_of_a_unix_socket_has_an_address_if_the_proxy_tells():
    assert X_FORWARDED.origin(said(b"192.0.2.1"), None, "http") == (("192.0.2.1", 0), "http")
    assert X_FORWARDED.origin(said(b"unknown"), None, "http") == (None, "http")


# RFC 7239


@pytest.mark.parametrize(
    ("values", "client", "scheme"),
    [
        # The examples of section 4.
        ([b'For="[2001:db8:cafe::17]:4711"'], ("2001:db8:cafe::17", 4711), "http"),
        ([b"for=192.0.2.60;proto=http;by=203.0.113.43"], ("192.0.2.60", 0), "http"),
        ([b'for=192.0.2.43, for="[2001:db8:1::17]"'], ("192.0.2.43", 0), "http"),
        ([b"for=192.0.2.43", b'for="[2001:db8:1::17]"'], ("192.0.2.43", 0), "http"),
        ([b'for="_gazonk"'], PEER, "http"),
        # Client and scheme are those of the same element, the nearest to the client.
        ([b"for=192.0.2.1;proto=https,for=10.0.0.2;proto=http"], ("192.0.2.1", 0), "https"),
        ([b"for=192.0.2.9;proto=https,for=192.0.2.1;proto=http"], ("192.0.2.1", 0), "http"),
        ([b"for=192.0.2.1,for=10.0.0.2;proto=https"], ("192.0.2.1", 0), "https"),
        ([b"for=192.0.2.9;proto=http,for=_hidden;proto=https"], PEER, "https"),
        ([b"for=192.0.2.9;proto=http,proto=https"], PEER, "https"),
        ([b'FOR=192.0.2.1;PROTO="HTTPS"'], ("192.0.2.1", 0), "https"),
        ([b"proto=wss;for=192.0.2.1"], ("192.0.2.1", 0), "https"),
        ([b"for=192.0.2.1;proto=ftp"], ("192.0.2.1", 0), "http"),
        # Quoted strings (RFC 9110 section 5.6.4), with commas and escapes in them.
        ([b'for="192.0.2.1:80"'], ("192.0.2.1", 80), "http"),
        ([b'for="192.0.2.1:_port"'], ("192.0.2.1", 0), "http"),
        ([b'for="192.0.\\2.1"'], ("192.0.2.1", 0), "http"),
        ([b'for=192.0.2.9, for=192.0.2.1;x="a, for=192.0.2.2, b"'], ("192.0.2.1", 0), "http"),
        ([b'for=192.0.2.9, for=192.0.2.1;x="\\", for=192.0.2.2;y=\\"";proto=https'], ("192.0.2.1", 0), "https"),
        ([b'for=192.0.2.9;x="a=b", for=192.0.2.1'], ("192.0.2.1", 0), "http"),
        # What a client has written in front does not reach what a proxy has appended.
        *(
            ([before + b", for=192.0.2.1;proto=https, for=10.0.0.2"], ("192.0.2.1", 0), "https")
            for before in (b'for="', b'a="\\', b"garbage", b'for=192.0.2.9;x="', b"=;,", b"\\", b'",a="')
        ),
        ([b'for=192.0.2.9;x="', b'for="[2001:db8::1]:80";by="[::1]"'], ("2001:db8::1", 80), "http"),
        # Empty elements and pairs.
        ([b", for=192.0.2.1, ,"], ("192.0.2.1", 0), "http"),
        ([b";for=192.0.2.1;;by=_x;"], ("192.0.2.1", 0), "http"),
        ([], PEER, "http"),
        ([b""], PEER, "http"),
        # What is no element, or names nobody, ends the walk.
        *(
            ([b"for=192.0.2.9, " + garbage], PEER, "http")
            for garbage in (
                *(b"192.0.2.1", b"for", b"for=", b"for =192.0.2.1", b"for= 192.0.2.1", b"for=192.0.2.1 ;proto=https"),
                *(b"for=192.0.2.1; proto=https", b"for=192.0.2.1:80", b"for=[::1]", b'for="2001:db8::1"', b'for="::1"'),
                *(b'for="192.0.2.1', b"for='192.0.2.1'", b"for=unknown", b'for=""', b"for=192.0.2.1;for=192.0.2.2"),
                *(b"for=192.0.2.1;For=192.0.2.1", b"for=192.0.2.1;proto=https;proto=https", b'for="192.0.2.1"x'),
                *(b'for=192.0.2.1;x="\x7f"', b"for=192.0.2.1;x=" + b"y" * 512),
            )
        ),
        ([b"for=192.0.2.9, garbage, for=10.0.0.2;proto=https"], ("10.0.0.2", 0), "https"),
    ],
)
def test_client_and_scheme_by_forwarded(values, client, scheme):
    assert RFC7239.origin(told(*values), PEER, "http") == (client, scheme)


def test_no_more_than_so_many_elements_are_looked_at():
    for filling in (b", for=10.0.0.2", b","):
        assert RFC7239.origin(told(b"for=192.0.2.1" + filling * (HOPS - 1)), PEER, "http")[0] == ("192.0.2.1", 0)
        assert RFC7239.origin(told(b"for=192.0.2.1" + filling * HOPS), PEER, "http")[0] != ("192.0.2.1", 0)


def test_only_the_family_that_the_proxies_set_is_believed():
    both = [*said(b"192.0.2.1", proto=b"https"), (b"forwarded", b"for=192.0.2.2;proto=http")]
    assert X_FORWARDED.origin(both, PEER, "http") == (("192.0.2.1", 0), "https")
    assert RFC7239.origin(both, PEER, "https") == (("192.0.2.2", 0), "http")
    assert X_FORWARDED.origin(both[2:], PEER, "http") == (PEER, "http")
    assert RFC7239.origin(both[:2], PEER, "http") == (PEER, "http")


def test_where_everybody_is_trusted_the_client_is_who_it_says():
    everybody = Forwarded(("*",), "x-forwarded")
    assert everybody.origin(said(b"198.51.100.7, 192.0.2.1"), ("203.0.113.5", 1), "http")[0] == ("198.51.100.7", 0)


# Whatever comes

pieces = st.sampled_from(
    [
        *(b",", b" ", b", ", b";", b"=", b'"', b"\\", b"for=", b";proto=https", b'for="[::1]:80"', b"unknown", b"_x"),
        *(b"10.0.0.9", b"192.0.2.1", b"2001:db8:1::5", b"2001:db8::1", b"[2001:db8::1]:80", b"192.0.2.1:8", b"%"),
    ]
)
values = st.lists(pieces | st.binary(max_size=4), max_size=12).map(b"".join)
names = st.sampled_from([b"x-forwarded-for", b"x-forwarded-proto", b"forwarded", b"x-forwarded-host", b"host"])
readers = st.sampled_from([X_FORWARDED, RFC7239])


@settings(max_examples=300)
@given(readers, st.lists(st.tuples(names, values), max_size=6), st.sampled_from([PEER, None]))
def test_the_client_is_an_address_or_the_peer(reader, headers, peer):
    client, scheme = reader.origin(headers, peer, "http")
    assert scheme in {"http", "https"}
    if client != peer:
        host, port = client
        assert str(ip_address(host)) == host
        assert 0 <= port < 65536


def hops_of(family, addresses, port):
    """Write what honest proxies say of addresses, in the spellings of the family."""
    if family is X_FORWARDED:
        return b", ".join(address.encode() for address in addresses)
    shown = [f'"[{one}]:{port}"' if ":" in one else one for one in addresses]
    return b", ".join(b"for=" + one.encode() for one in shown)


outside = st.sampled_from(["192.0.2.1", "2001:db8::1", "8.8.8.8"])
inside = st.sampled_from(["10.1.1.1", "10.255.0.1", "2001:db8:1::1"])


@settings(max_examples=300)
@given(readers, st.lists(values, max_size=4), outside, st.lists(inside, max_size=5), st.integers(1, 65535))
@example(RFC7239, [b'for="'], "2001:db8::1", ["2001:db8:1::1"], 80)
def test_what_a_client_writes_never_hides_who_it_is(reader, before, client, proxies, port):
    """Whatever stands in front of what the trusted proxies appended, in the same field or in others."""
    appended = hops_of(reader, [client, *proxies], port)
    name = b"x-forwarded-for" if reader is X_FORWARDED else b"forwarded"
    found = reader.origin([(name, appended)], PEER, "http")
    assert found[0][0] == client
    assert reader.origin([*((name, one) for one in before), (name, appended)], PEER, "http") == found
    assert reader.origin([(name, b", ".join([*before, appended]))], PEER, "http") == found


def test_white_space_before_what_is_no_element_costs_no_more_than_other_letters():
    """It could belong to the element or to what follows, so that all ways to share it were tried."""

    def spent_s(text):
        spent = []
        for _ in range(9):
            began = process_time()
            for _ in range(20):
                RFC7239.origin(told(text), PEER, "http")
            spent.append(process_time() - began)
        return sorted(spent)[len(spent) // 2]

    assert spent_s(b" " * 480 + b"?") < 20 * spent_s(b"a" * 480 + b"?")
