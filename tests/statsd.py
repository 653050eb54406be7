"""A StatsD daemon for tests: it reads the protocol strictly, as its text has it, and adds up what it is sent.

StatsD: https://github.com/statsd/statsd/blob/master/docs/metric_types.md. DogStatsD adds tags:
https://docs.datadoghq.com/developers/dogstatsd/datagram_shell.
"""

from __future__ import annotations

import re
import socket
from contextlib import contextmanager
from pathlib import Path

import trio

# No part of a name is empty, since a dot is a directory to Graphite.
NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
VALUE = re.compile(r"-?[0-9]+(\.[0-9]+)?")
TAG = re.compile(r"([A-Za-z_][A-Za-z0-9_./-]*):([\w.:/-]+)")
MOST_BYTES = 1432


def parse(datagram):
    """Yield the name (a tuple of name and tags where there are tags), the text of the value, and the type.

    Raises:
        ValueError: If it is anything but the protocol, to the byte.
    """
    if len(datagram) > MOST_BYTES:
        raise ValueError(f"{len(datagram)} bytes are too many")
    for line in datagram.decode("utf-8").split("\n"):
        name, colon, rest = line.partition(":")
        value, bar, rest = rest.partition("|")
        kind, more, tags = rest.partition("|#")
        found = [TAG.fullmatch(tag) for tag in tags.split(",")] if more else []
        if not (
            colon and bar and NAME.fullmatch(name) and VALUE.fullmatch(value) and kind in ("c", "g") and all(found)
        ):
            raise ValueError(f"not StatsD: {line!r}")
        yield (name, *(f"{one[1]}:{one[2]}" for one in found)) if found else name, value, kind


class Daemon:
    """What a daemon knows after some datagrams.

    Attributes:
        counters: The sum of each counter's increments.
        gauges: Each gauge's value.
        datagrams: How many have come.
        increments: How many lines there were for each counter.
    """

    def __init__(self):
        self.counters = {}
        self.gauges = {}
        self.datagrams = 0
        self.increments = {}
        self._came = trio.Event()

    def take(self, datagram):
        for name, text, kind in parse(datagram):
            if kind == "c":
                self.counters[name] = self.counters.get(name, 0) + float(text)
                self.increments[name] = self.increments.get(name, 0) + 1
            elif text.startswith("-"):
                self.gauges[name] = self.gauges.get(name, 0) + float(text)
            else:
                self.gauges[name] = float(text)
        self.datagrams += 1
        self._came.set()
        self._came = trio.Event()

    def take_all(self, sock):
        """Take what a socket has."""
        while True:
            try:
                self.take(sock.recv(65536))
            except BlockingIOError:
                return

    async def listen(self, sock):
        """Take what comes, for ever."""
        while True:
            await trio.lowlevel.wait_readable(sock)
            self.take_all(sock)

    async def until(self, condition):
        """Wait until it knows something."""
        with trio.fail_after(20):
            while not condition():
                await self._came.wait()


@contextmanager
def bound(address=("127.0.0.1", 0), family=socket.AF_INET):
    """Open a daemon's socket."""
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        sock.setblocking(False)
        try:
            yield sock
        finally:
            if family == socket.AF_UNIX:
                Path(address).unlink()


def address_of(sock):
    """Return a daemon's address, as the command line takes it."""
    name = sock.getsockname()
    return f"unix:{name}" if isinstance(name, str) else f"{name[0]}:{name[1]}"
