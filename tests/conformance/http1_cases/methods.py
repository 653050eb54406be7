"""Methods that mean something to a server: HEAD, CONNECT, OPTIONS, TRACE, and bodies where few have them."""

from __future__ import annotations

from .case import REJECTED, SHOULD, Case, refused, request, taken

FIVE = b"Content-Length: 5"


def plain(method: str) -> Case:
    return Case(f"{method} without a body", "RFC 9110 9.1", request(method.encode() + b" / HTTP/1.1"), taken(method=method) + refused(405, 501), SHOULD)  # fmt: skip


def with_body(method: str, clause: str) -> Case:
    """Framing does not depend on the method; a body where none is usual may be refused, but never left over."""
    sent = request(method.encode() + b" / HTTP/1.1", FIVE, body=b"hello")
    return Case(
        f"{method} with a body", clause, sent, taken(method=method, body=b"hello") + refused(400, 405, 413, 501)
    )


def connect(name: str, target: bytes) -> Case:
    """RFC 9110 section 9.3.6: a port that is empty or invalid must be rejected."""
    return Case(name, "RFC 9110 9.3.6", request(b"CONNECT " + target + b" HTTP/1.1"), REJECTED)


CASES = (
    Case("HEAD", "RFC 9110 9.1", request(b"HEAD / HTTP/1.1"), taken(method="HEAD")),
    plain("PUT"),
    plain("DELETE"),
    plain("PATCH"),
    plain("OPTIONS"),
    plain("TRACE"),
    with_body("PUT", "RFC 9112 6.3"),
    with_body("DELETE", "RFC 9110 9.3.5"),
    with_body("OPTIONS", "RFC 9110 9.3.7"),
    with_body("BREW", "RFC 9112 6.3"),
    Case(
        "HEAD with a body",
        "RFC 9110 9.3.2",
        request(b"HEAD / HTTP/1.1", FIVE, body=b"hello"),
        taken(method="HEAD", body=b"hello"),
        SHOULD,
    ),
    Case("OPTIONS *", "RFC 9112 3.2.4", request(b"OPTIONS * HTTP/1.1"), taken(method="OPTIONS", path=None) + refused(405, 501), SHOULD),
    Case("OPTIONS * with a body", "RFC 9110 9.3.7", request(b"OPTIONS * HTTP/1.1", FIVE, body=b"hello"), taken(method="OPTIONS", path=None, body=b"hello") + refused(400, 405, 501)),
    Case("OPTIONS with an absolute target", "RFC 9112 3.2.2", request(b"OPTIONS http://a HTTP/1.1"), taken(method="OPTIONS", path=None) + refused(405, 501)),
    # No ASGI application can be a tunnel, so an answer of 200 would be a lie.
    connect("CONNECT", b"a:443"),
    connect("CONNECT without a port", b"a"),
    connect("CONNECT with an empty port", b"a:"),
    connect("CONNECT with a port that is a name", b"a:https"),
    connect("CONNECT with a port that no machine has", b"a:99999"),
    connect("CONNECT with a path", b"/"),
    connect("CONNECT with an absolute target", b"http://a/"),
    connect("CONNECT with an asterisk", b"*"),
)  # fmt: skip
