"""Host: what it may be, how often, and what an absolute target has to do with it."""

from __future__ import annotations

from .case import SHOULD, Case, Then, get, refused, request, taken


def valid(name: str, value: bytes, strength: str = "MUST") -> Case:
    seen = value.strip().decode("latin-1")
    return Case(name, "RFC 9110 7.2", get(host=b"Host:" + value), taken(fields={"host": seen}), strength)


def invalid(name: str, value: bytes) -> Case:
    return Case(name, "RFC 9112 3.2", get(host=b"Host: " + value), refused(400))


CASES = (
    Case("no Host", "RFC 9112 3.2", get(host=b""), refused(400)),
    Case("no Host over HTTP/1.0", "RFC 9112 3.2", request(b"GET / HTTP/1.0", host=b""), taken(then=Then.CLOSED)),
    Case("two Hosts", "RFC 9112 3.2", get(b"Host: b"), refused(400)),
    Case("the same Host twice", "RFC 9112 3.2", get(b"Host: a"), refused(400)),
    Case("two Hosts in another case", "RFC 9112 3.2", get(b"hOST: b"), refused(400)),
    Case("two Hosts far apart", "RFC 9112 3.2", get(b"X: y", b"Z: z", b"Host: b"), refused(400)),
    Case("two Hosts, the first one empty", "RFC 9112 3.2", get(b"Host: b", host=b"Host:"), refused(400)),
    Case("two Hosts over HTTP/1.0", "RFC 9112 3.2", request(b"GET / HTTP/1.0", b"Host: b"), refused(400)),
    # With an absolute target
    Case(
        "an absolute target overrules Host",
        "RFC 9112 3.2.2",
        request(b"GET http://b:81/x HTTP/1.1"),
        taken(path="/x", fields={"host": "b:81"}),
    ),
    Case(
        "an absolute target overrules an empty Host",
        "RFC 9112 3.2.2",
        request(b"GET http://b/x HTTP/1.1", host=b"Host:"),
        taken(path="/x", fields={"host": "b"}),
    ),
    Case(
        "an absolute target does without Host over HTTP/1.0",
        "RFC 9112 3.2.2",
        request(b"GET http://b/x HTTP/1.0", host=b""),
        taken(path="/x", then=Then.CLOSED),
    ),
    Case("an absolute target without Host", "RFC 9112 3.2", request(b"GET http://a/ HTTP/1.1", host=b""), refused(400)),
    Case("an absolute target and two Hosts", "RFC 9112 3.2", request(b"GET http://a/ HTTP/1.1", b"Host: a"), refused(400)),
    # Valid
    valid("a name", b" a.example"),
    valid("a name without white space in front", b"a.example"),
    valid("a name in white space", b"\t a.example \t"),
    valid("an empty Host", b""),
    valid("a Host of white space", b"  "),
    valid("a name and a port", b" a.example:8000"),
    valid("a name and an empty port", b" a.example:"),
    valid("a name that ends in a dot", b" a.example."),
    valid("an underscore in the name", b" a_b"),
    valid("a percent-encoded name", b" a%20b", SHOULD),
    valid("sub-delimiters in the name", b" a!$&'()*+,;=b", SHOULD),
    valid("a port that no machine has", b" a:99999", SHOULD),
    valid("an IPv4 address", b" 127.0.0.1:80"),
    valid("an IPv6 address", b" [::1]"),
    valid("an IPv6 address and a port", b" [2001:db8::1]:8000"),
    valid("an IPv6 address that ends like one of IPv4", b" [::ffff:192.0.2.1]"),
    valid("an address of a later version", b" [v7.a:b]", SHOULD),
    # Invalid
    invalid("a space in the name", b"a b"),
    invalid("a tab in the name", b"a\tb"),
    invalid("two names", b"a, b"),
    invalid("a slash in the name", b"a/b"),
    invalid("a backslash in the name", b"a\\b"),
    invalid("a query in the name", b"a?b"),
    invalid("a fragment in the name", b"a#b"),
    invalid("a quote in the name", b'"a"'),
    invalid("angle brackets around the name", b"<a>"),
    invalid("UTF-8 in the name", b"\xc3\xa9"),
    invalid("a non-breaking space behind the name", b"a\xa0"),
    invalid("a user", b"u@a"),
    invalid("a URL", b"http://a"),
    invalid("half of a percent-encoded character", b"a%2"),
    invalid("a percent sign with other characters", b"a%zz"),
    invalid("a port that is a name", b"a:http"),
    invalid("a port with a sign", b"a:+80"),
    invalid("a port in other digits", b"a:\xd9\xa8\xd9\xa0"),
    invalid("two ports", b"a:80:80"),
    invalid("an IPv6 address without brackets", b"::1"),
    invalid("an IPv6 address with one bracket", b"[::1"),
    invalid("an IPv6 address with text behind it", b"[::1]a"),
    invalid("empty brackets", b"[]"),
    invalid("a name in brackets", b"[a.example]"),
    invalid("an IPv4 address in brackets", b"[127.0.0.1]"),
    invalid("an IPv6 address that is too short", b"[1:2]"),
    invalid("an IPv6 address that is too long", b"[1:2:3:4:5:6:7:8:9]"),
    invalid("an IPv6 address with too many digits", b"[12345::]"),
    invalid("an IPv6 address with two gaps", b"[1::2::3]"),
)  # fmt: skip
