"""Which peers are proxies whose word is taken, as people write them."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Final, TypeAlias

from pagi_trio.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pagi_trio.asgi import Address

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPNetwork: TypeAlias = IPv4Network | IPv6Network

EVERYONE: Final = "*"
UNIX: Final = "unix"

# Python also takes masks (10.0.0.0/255.0.0.0, or the same inverted) and zones, which are as easily mistaken.
_NETWORK = re.compile(r"[0-9A-Fa-f.:]+(?:/[0-9]{1,3})?")

# An IPv4 address as a socket of both families shows it (RFC 4291 section 2.5.5.2).
_MAPPED: Final = IPv6Network("::ffff:0:0/96")


def parse_trusted(text: str) -> IPNetwork | None:
    """Parse a network as ``ADDRESS/LENGTH``, an address, ``unix`` or ``*``.

    Returns:
        The network; None for the two words.

    Raises:
        ConfigError: It is none of these; the message says why, and leaves naming the text to the caller.
    """
    if text in {UNIX, EVERYONE}:
        return None
    network = None
    if _NETWORK.fullmatch(text) is not None:
        try:
            network = ip_network(text, strict=False)
        except ValueError:
            network = None
    if network is None:
        raise ConfigError("is neither an IP address nor a network like 10.0.0.0/8, nor unix or *")
    if "/" in text and ip_address(text.partition("/")[0]) != network.network_address:
        raise ConfigError(f"has bits set behind the length of its prefix; the network is {network}")
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        mapped = network.network_address.ipv4_mapped
        return IPv4Network(f"{mapped}/{network.prefixlen - _MAPPED.prefixlen}")
    return network


def read_address(text: str) -> IPAddress | None:
    """Return an address without its zone, an IPv4 address mapped into IPv6 as the former; None if it is none."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


class Trust:
    """The peers that are trusted.

    Args:
        entries: As `parse_trusted` takes them.
    """

    __slots__ = ("_everyone", "_networks", "_unix")

    def __init__(self, entries: Iterable[str]) -> None:
        entries = tuple(entries)
        self._everyone = EVERYONE in entries
        self._unix = UNIX in entries
        self._networks = [network for entry in entries if (network := parse_trusted(entry)) is not None]

    def covers(self, address: IPAddress) -> bool:
        """Whether an address, as `read_address` gives it, is a trusted one."""
        return self._everyone or any(address in network for network in self._networks)

    def covers_peer(self, peer: Address | None) -> bool:
        """Whether whoever has connected is trusted.

        Args:
            peer: As the kernel names it; None for the client of a unix socket.
        """
        if peer is None:
            return self._everyone or self._unix
        address = read_address(peer[0])
        return address is not None and self.covers(address)
