"""Read what proxies say of the client: who it is, and by which scheme it came.

Each proxy appends whom it got the request from, so what counts is read from the right: the last entry was written by
the peer, the one before it by the proxy that the last entry names, and so on. Whatever stands left of the first
address that is not trusted was written by nobody who is, and is never looked at.

X-Forwarded-Host and its like are not read: a proxy can pass Host on, which then is what the application sees and its
URLs are made of, instead of a second name for the server that caches and the application may not agree on.

Source: RFC 7239 sections 4, 5.2, 5.4 and 6; X-Forwarded-For and X-Forwarded-Proto by what proxies do.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from pagi_trio.trust import Trust, read_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pagi_trio.asgi import Address, Headers
    from pagi_trio.trust import IPAddress

HOPS: Final = 32
"""The most entries looked at, empty ones included, which lists may have (RFC 9110 section 5.6.1.2)."""

NODE_BYTES: Final = 96
"""The longest name of a client looked at: any address in brackets with its port, or a hidden one."""

ELEMENT_BYTES: Final = 512
"""The longest element of Forwarded looked at: some names of that length, and a host's."""

UNKNOWN_PORT: Final = 0
"""The port of a client whose proxy does not tell it: applications expect a number there, and 0 is nobody's."""

# With a port, which some proxies add to X-Forwarded-For too, and which may be hidden (RFC 7239 section 6.2).
_NODE = re.compile(rb"(?:\[([0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)\]|([0-9.]+))(?::(?:([0-9]{1,5})|_[A-Za-z0-9._-]+))?")
_BARE_IPV6 = re.compile(rb"[0-9A-Fa-f:.]+")

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED: Final = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
_PAIR: Final = rb"(%b)=(%b|%b)" % (_TOKEN, _TOKEN, _QUOTED)
_pair = re.compile(_PAIR)
# White space is taken once: an element of nothing else, before what is none, had 100,000 ways to be read.
_ELEMENT = re.compile(rb"[ \t]*+(?:%b)?(?:;(?:%b)?)*[ \t]*+" % (_PAIR, _PAIR))
_ESCAPE = re.compile(rb"\\(.)")

# What a proxy may say the client speaks, and what that is called before anybody knows of a WebSocket.
_SCHEMES: Final = {b"http": "http", b"https": "https", b"ws": "http", b"wss": "https"}


class Node(NamedTuple):
    """A client or a proxy, as the next proxy saw it."""

    address: IPAddress
    port: int

    @property
    def client(self) -> Address:
        """As in a scope."""
        return str(self.address), self.port


class Forwarded:
    """Reads the headers of requests that come from trusted peers.

    Args:
        trusted: Entries as `Trust` takes them.
        headers: The family that the proxies set, ``x-forwarded`` or ``forwarded``; the other is the client's.

    Attributes:
        trust: Which peers are.
    """

    __slots__ = ("_read", "trust")

    def __init__(self, trusted: Iterable[str], headers: str) -> None:
        self.trust = Trust(trusted)
        self._read = _READERS[headers]

    def origin(self, headers: Headers, client: Address | None, scheme: str) -> tuple[Address | None, str]:
        """Return where a request came from.

        Args:
            headers: Of the request; names in lower case.
            client: The peer, which must be trusted.
            scheme: Of the connection, http or https.

        Returns:
            Client and scheme; what the headers do not tell stays as it is.
        """
        return self._read(headers, self.trust, client, scheme)


def _read_x_forwarded(
    headers: Headers, trust: Trust, client: Address | None, scheme: str
) -> tuple[Address | None, str]:
    """Read X-Forwarded-For, and the last value of X-Forwarded-Proto, which is the peer's."""
    clients: list[bytes] = []
    proto = b""
    for name, value in headers:
        if name == b"x-forwarded-for":
            clients.append(value)
        elif name == b"x-forwarded-proto":
            proto = value
    rest = b",".join(clients)
    for _ in range(HOPS):
        if not rest:
            break
        rest, _, entry = rest.rpartition(b",")
        entry = entry.strip(b" \t")
        if entry:
            node = _read_node(entry, bare=True)
            if node is None:
                break
            client = node.client
            if not trust.covers(node.address):
                break
    return client, _read_scheme(proto.rpartition(b",")[2].strip(b" \t"), scheme)


def _read_forwarded(headers: Headers, trust: Trust, client: Address | None, scheme: str) -> tuple[Address | None, str]:
    """Read Forwarded; client and scheme are those of the same element.

    A comma may stand in a quoted string, so what is no element from there on may be one from the next comma to the
    left. It cannot be one from both: the part behind a comma in quotes has one quote too few. So the elements that
    proxies have appended are found whatever a client wrote in front of them, an open quote included.
    """
    value = b",".join([value for name, value in headers if name == b"forwarded"])
    start = end = len(value)
    for _ in range(HOPS):
        start = value.rfind(b",", 0, start)
        if end - start > ELEMENT_BYTES:
            break
        if _ELEMENT.fullmatch(value, start + 1, end) is not None:
            found = _pair.findall(value, start + 1, end)
            pairs = {name.lower(): _unquote(text) for name, text in found}
            end = start
            if len(pairs) < len(found):
                # Given twice, and so neither (RFC 7239 section 4).
                break
            if pairs:
                scheme = _read_scheme(pairs.get(b"proto", b""), scheme)
                node = _read_node(pairs.get(b"for", b""), bare=False)
                if node is None:
                    break
                client = node.client
                if not trust.covers(node.address):
                    break
        if start < 0:
            break
    return client, scheme


_READERS: Final[Mapping[str, Callable[[Headers, Trust, Address | None, str], tuple[Address | None, str]]]] = {
    "x-forwarded": _read_x_forwarded,
    "forwarded": _read_forwarded,
}


def _read_scheme(text: bytes, scheme: str) -> str:
    """Return the scheme that a text names; if it names none, the one given."""
    return _SCHEMES.get(text.lower(), scheme)


def _unquote(text: bytes) -> bytes:
    return _ESCAPE.sub(rb"\1", text[1:-1]) if text.startswith(b'"') else text


def _read_node(text: bytes, *, bare: bool) -> Node | None:
    """Read the name of a client.

    Args:
        text: As the proxy wrote it.
        bare: Whether an IPv6 address may come without brackets; it has no port then.

    Returns:
        The client; None if it is hidden (``unknown``, ``_name``) or none at all.
    """
    return _parse_node(text, bare) if len(text) <= NODE_BYTES else None


# Proxies name the same clients again and again; what is remembered is bounded by number and length.
@lru_cache(maxsize=1024)
def _parse_node(text: bytes, bare: bool) -> Node | None:
    match = _NODE.fullmatch(text)
    if match is not None:
        address, port = read_address((match[1] or match[2]).decode("ascii")), int(match[3] or UNKNOWN_PORT)
    else:
        address, port = None, UNKNOWN_PORT
        if bare and _BARE_IPV6.fullmatch(text) is not None:
            address = read_address(text.decode("ascii"))
    return None if address is None or port > 65535 else Node(address, port)
