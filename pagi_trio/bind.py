"""The addresses to listen on, as people write them."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final, Literal

from pagi_trio.errors import ConfigError

DEFAULT_PORT: Final = 8000


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """A parsed address to listen on; which fields count depends on the kind."""

    kind: Literal["tcp", "unix", "fd"]
    host: str = ""
    port: int = 0
    path: str = ""
    fd: int = -1


def parse_bind(text: str) -> Bind:
    """Parse ``HOST[:PORT]``, ``[IPV6][:PORT]``, ``unix:PATH`` or ``fd://NUMBER``.

    Raises:
        ConfigError: It is none of these; the message says why, and leaves naming the text to the caller.
    """
    if text.startswith("unix:"):
        if not text[5:]:
            raise ConfigError("the path is missing after 'unix:'")
        return Bind(kind="unix", path=text[5:])
    if text.startswith("fd://"):
        if not _is_number(text[5:]):
            raise ConfigError("the number of an open file must follow 'fd://'")
        return Bind(kind="fd", fd=int(text[5:]))
    host, port = _split_host(text)
    if not _is_number(port) or int(port) > 65535:
        raise ConfigError(f"{port!r} is not a port, use 0 to 65535")
    return Bind(kind="tcp", host=host, port=int(port))


def _split_host(text: str) -> tuple[str, str]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ConfigError("what is in brackets is not an IPv6 address") from None
        if not bracket or (rest and not rest.startswith(":")):
            raise ConfigError("write it as [IPV6]:PORT")
        return host, rest[1:] if rest else str(DEFAULT_PORT)
    host, colon, port = text.partition(":")
    if ":" in port and "/" not in text:
        raise ConfigError(f"put an IPv6 address in brackets, as in [::1]:{DEFAULT_PORT}")
    if not host or "/" in text or " " in text:
        raise ConfigError("use HOST:PORT, [IPV6]:PORT, unix:PATH or fd://NUMBER")
    if _is_number(host):
        raise ConfigError(f"the host is missing, as in 127.0.0.1:{host}")
    return host, port if colon else str(DEFAULT_PORT)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
