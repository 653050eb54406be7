"""The kinds of work that are measured: which application, which load, what one unit of it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from . import apps
from .load import Echo, Handshakes, KeepAlive, Load, Reconnect, request

CONNECTIONS = 32
MANY = 2_000
"""As many as the metrics must not notice, and as an idle WebSocket's memory is averaged over."""

BULKY = 8
"""Connections for bodies of megabytes; more would only measure the caches of the machine."""

PAYLOAD = b"0123456789abcdef" * 4

VARIED = 16_384
"""Heads that differ: four times the lines that a server's memo of 4,096 can hold, asked for in turn."""


@dataclass(frozen=True)
class Work:
    """One kind of work.

    Attributes:
        unit: What is counted, in the plural.
        app: The name of the application in `apps`.
        load: Makes the client for a server's port.
        each: How many of what is counted the load makes at a time; one of its units is that many.
        most: No round does more of the load's units than these, whatever time they take.
        as_cost: Show microseconds per unit instead of units per second.
    """

    name: str
    title: str
    unit: str
    app: str
    load: Callable[[int], Load]
    each: int = 1
    most: int = 1_000_000
    as_cost: bool = False


def _hello(port: int) -> Load:
    return KeepAlive(port, CONNECTIONS, [request("GET", "/")], apps.GREETING)


def _varied(port: int) -> Load:
    return KeepAlive(port, CONNECTIONS, _varied_heads(), apps.GREETING)


@cache
def _varied_heads() -> list[bytes]:
    ids = (f"{i * 2_654_435_761 % 2**32:08x}" for i in range(VARIED))  # Knuth's multiplier scatters them
    return [request("GET", f"/item/{i}?page={i % 7}", f"X-Request-ID: {name}") for i, name in enumerate(ids)]


def _echo(port: int) -> Load:
    return Echo(port, CONNECTIONS, PAYLOAD)


def _echo_text(port: int) -> Load:
    return Echo(port, CONNECTIONS, PAYLOAD, text=True)


def _echo_many(port: int) -> Load:
    return Echo(port, MANY, PAYLOAD)


def _sse(port: int) -> Load:
    return KeepAlive(port, CONNECTIONS, [request("GET", "/")], apps.EVENT * apps.EVENTS)


def _download(port: int) -> Load:
    body = apps.CHUNK * (apps.DOWNLOAD_BYTES // len(apps.CHUNK))
    return KeepAlive(port, BULKY, [request("GET", "/")], body)


def _upload(port: int) -> Load:
    sent = request("POST", "/", body=bytes(apps.UPLOAD_BYTES))
    return KeepAlive(port, BULKY, [sent], str(apps.UPLOAD_BYTES).encode())


def _reconnect(port: int) -> Load:
    return Reconnect(port, request("GET", "/", "Connection: close"), apps.GREETING)


WORKS = {
    work.name: work
    for work in (
        Work("hello", "HTTP/1.1 hello, keep-alive, 32 connections", "requests", "hello", _hello),
        Work("varied", "the same, every head another", "requests", "hello", _varied),
        Work("echo", "WebSocket echo, 64 bytes, 32 connections", "messages", "echo", _echo),
        Work("echo-text", "the same, text", "messages", "echo", _echo_text),
        Work("echo-many", "WebSocket echo, 64 bytes, 2,000 connections", "messages", "echo", _echo_many),
        Work("sse", "SSE, responses of 100 events", "events", "events", _sse, each=apps.EVENTS),
        Work("download", "download, 10 MiB in chunks of 64 KiB", "downloads", "download", _download),
        Work("upload", "upload, 1 MiB", "uploads", "upload", _upload),
        # Fewer than the ephemeral ports, which stay in TIME_WAIT for a minute.
        Work("reconnect", "HTTP/1.1 hello, a connection each", "requests", "hello", _reconnect, most=5_000),
        Work("handshake", "WebSocket handshake", "handshakes", "echo", Handshakes, most=MANY, as_cost=True),
    )
}
