"""The settings of the numbers that are sent to a StatsD daemon."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from pagi_trio.bind import Bind, parse_bind
from pagi_trio.errors import ConfigError
from pagi_trio.settings import Group, setting

_PREFIX: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*\.?")
_PORT: Final = re.compile(r".*:[0-9]+")
_TAG: Final = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*:[\w.:/-]+")

_PATH_BYTES: Final = 107
"""The longest path of a unix socket: ``sockaddr_un`` of Linux has room for a zero behind it."""

_SAME_BYTES: Final = 1000
"""The most of a line that is the same in all. Lines have 1,432 bytes: the server's own need fewer than 200 of them, and
an application's name and a label's value are cut at 200 characters."""


def parse_daemon(text: str) -> Bind:
    """Parse ``HOST:PORT``, ``[IPV6]:PORT`` or ``unix:PATH``.

    Raises:
        ConfigError: It is none of these; the message says why, and leaves naming the text to the caller.
    """
    host, _, port = text.partition(":")
    # A listener has one more choice, which its own refusal would offer.
    if not text.startswith("unix:") and ("/" in text or " " in text or (not host and ":" not in port)):
        raise ConfigError("use HOST:PORT, [IPV6]:PORT or unix:PATH")
    daemon = parse_bind(text)
    if daemon.kind == "tcp" and not (daemon.port and _PORT.fullmatch(text)):
        raise ConfigError("the port is missing; StatsD's own is 8125")
    if len(os.fsencode(daemon.path)) > _PATH_BYTES:
        raise ConfigError(f"the path of a unix socket has at most {_PATH_BYTES} bytes")
    try:
        # As the system's look-up will.
        daemon.host.encode("idna")
    except UnicodeError:
        raise ConfigError(f"{daemon.host!r} is no name of a host") from None
    return daemon


def check_prefix(text: str) -> None:
    """Refuse what no name can begin with.

    Raises:
        ConfigError: If it is that.
    """
    if text and not _PREFIX.fullmatch(text):
        raise ConfigError("use letters, digits, _ and -, in parts that are joined by dots, the first a letter")


def check_tag(text: str) -> None:
    """Refuse what is no tag.

    Raises:
        ConfigError: If it is that.
    """
    if not _TAG.fullmatch(text):
        raise ConfigError(
            "a tag is KEY:VALUE, of letters, digits and any of _ - . /, the key from a letter on, the value also of :"
        )


@dataclass(frozen=True, kw_only=True)
class StatsDSettings(Group):
    """The metrics, sent every now and then; without `address` they can only be read."""

    table: ClassVar[str] = "statsd"

    address: str | None = setting(
        None,
        "The StatsD daemon that gets the metrics of all workers: HOST:PORT, [IPV6]:PORT, or unix:PATH for a datagram "
        "socket.",
        "--statsd",
        check=parse_daemon,
    )
    flavor: Literal["statsd", "dogstatsd"] = setting(
        "statsd",
        "What it speaks. DogStatsD has tags for labels; in StatsD the values of labels become parts of the name.",
        "--statsd-flavor",
    )
    prefix: str = setting(
        "", "What every name begins with, and a dot behind it.", "--statsd-prefix", check=check_prefix
    )
    tags: tuple[str, ...] = setting(
        (),
        "A tag of everything that is sent, KEY:VALUE, for dogstatsd; may be repeated or joined by commas.",
        "--statsd-tags",
        check=check_tag,
        separator=",",
    )
    interval_s: float = setting(
        10.0, "The metrics are sent this often, and once more at the end.", "--statsd-interval", minimum=0.1
    )
    histograms: Literal["buckets", "totals"] = setting(
        "buckets",
        "What is sent of a histogram: a counter for each bucket, beside those of count and sum, or these two alone.",
        "--statsd-histograms",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tags and self.flavor != "dogstatsd":
            raise ConfigError(f"statsd.tags = {', '.join(self.tags)!r}: needs statsd.flavor = 'dogstatsd'")
        same = len(",".join((self.prefix, *self.tags)).encode())
        if same > _SAME_BYTES:
            raise ConfigError(
                f"statsd.prefix and statsd.tags take {same:,} bytes of each line: {_SAME_BYTES:,} at most leave room "
                "for what is sent"
            )
