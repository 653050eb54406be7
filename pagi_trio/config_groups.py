"""The groups of settings: what belongs together, each with its defaults and what it means.

`pagi_trio.config` puts them together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from pagi_trio.bind import parse_bind
from pagi_trio.errors import ConfigError
from pagi_trio.settings import Group, setting
from pagi_trio.trust import parse_trusted

# The shortest time that is a time: zero would fail every connection or start at once.
_SHORTEST_S: Final = 0.001


def check_not_empty(text: str) -> None:
    """Refuse an empty text.

    Raises:
        ConfigError: If it is one.
    """
    if not text:
        raise ConfigError("must not be empty")


@dataclass(frozen=True, kw_only=True)
class TLS(Group):
    """Certificates; without `certfile` the server speaks plain HTTP."""

    table: ClassVar[str] = "tls"

    certfile: str | None = setting(
        None, "The server's certificate and its chain, PEM.", "--certfile", check=check_not_empty
    )
    keyfile: str | None = setting(None, "The private key of the certificate, PEM.", "--keyfile", check=check_not_empty)
    keyfile_password: str | None = setting(None, "What decrypts the private key.", "--keyfile-password", secret=True)
    ca_certs: str | None = setting(
        None,
        "The authorities whose client certificates are accepted, PEM; see verify_mode.",
        "--ca-certs",
        check=check_not_empty,
    )
    ciphers: str | None = setting(
        None,
        "OpenSSL's cipher list for TLS 1.2; unset is ECDHE with AES-GCM or ChaCha20-Poly1305.",
        "--ciphers",
        check=check_not_empty,
    )
    verify_mode: Literal["none", "optional", "required"] = setting(
        "none", "Whether clients are asked for a certificate.", "--verify-mode"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.certfile is None) != (self.keyfile is None):
            given, missing = ("certfile", "keyfile") if self.keyfile is None else ("keyfile", "certfile")
            raise ConfigError(f"tls.{given} is set without tls.{missing}: TLS needs both")
        if self.verify_mode != "none" and self.ca_certs is None:
            raise ConfigError(f"tls.verify_mode = {self.verify_mode!r}: needs tls.ca_certs, the authorities to accept")


@dataclass(frozen=True, kw_only=True)
class Forwarded(Group):
    """Whose word is taken for who the client is; without `trusted` nobody's, and such headers mean nothing."""

    table: ClassVar[str] = "forwarded"

    trusted: tuple[str, ...] = setting(
        (),
        "A proxy whose headers are believed: an address, a network like 10.0.0.0/8, `unix` for whoever connects to a "
        "unix socket, or `*` for everybody, which lets any client say who it is; may be repeated or joined by commas.",
        "--forwarded-allow-ips",
        check=parse_trusted,
        separator=",",
    )
    headers: Literal["x-forwarded", "forwarded"] = setting(
        "x-forwarded",
        "What the proxies set: X-Forwarded-For and X-Forwarded-Proto, or Forwarded of RFC 7239; the other is ignored.",
        "--forwarded-headers",
    )


@dataclass(frozen=True, kw_only=True)
class Timeouts(Group):
    """How long is waited for what."""

    table: ClassVar[str] = "timeouts"

    keep_alive_s: float = setting(
        75.0,
        "An idle connection is closed after this; 0 closes after each response.",
        "--keep-alive",
        minimum=0,
    )
    head_s: float = setting(
        10.0,
        "A request's line and headers must arrive within this, however they trickle in; later gets 408.",
        "--head-timeout",
        minimum=_SHORTEST_S,
    )
    body_grace_s: float = setting(
        5.0,
        "How long a request body may be slower than limits.body_bytes_per_s, to begin with; slower ones get 408.",
        "--body-grace",
        minimum=_SHORTEST_S,
    )
    tls_handshake_s: float = setting(
        10.0, "A TLS handshake must be done within this.", "--tls-handshake-timeout", minimum=_SHORTEST_S
    )
    write_stall_s: float = setting(
        60.0,
        "A client that takes nothing for this long, of what waits for it, is cut off.",
        "--write-timeout",
        minimum=_SHORTEST_S,
    )
    sse_write_stall_s: float = setting(
        30.0,
        "The same for an event stream; a browser that is cut off connects again.",
        "--sse-write-timeout",
        minimum=_SHORTEST_S,
    )
    graceful_s: float = setting(
        20.0, "What is in flight has this long to finish at shutdown.", "--graceful-timeout", minimum=0
    )
    startup_s: float = setting(
        60.0,
        "The application's lifespan startup must finish within this.",
        "--startup-timeout",
        minimum=_SHORTEST_S,
    )
    shutdown_s: float = setting(
        8.0, "The application's lifespan shutdown must finish within this.", "--shutdown-timeout", minimum=0
    )
    worker_s: float = setting(
        30.0,
        "A worker whose event loop stands still for this long is killed and replaced.",
        "--worker-timeout",
        minimum=1,
    )
    worker_start_s: float = setting(
        60.0,
        "A worker must be ready within this, or within startup_s if that is longer; its import is included.",
        "--worker-start-timeout",
        minimum=_SHORTEST_S,
    )


@dataclass(frozen=True, kw_only=True)
class Limits(Group):
    """How much is taken from a client."""

    table: ClassVar[str] = "limits"

    request_line_bytes: int = setting(
        8192, "The longest request line; a longer one gets 414.", "--limit-request-line", minimum=64
    )
    head_bytes: int = setting(
        65536,
        "The longest request line and headers together; longer ones get 431.",
        "--limit-head",
        minimum=64,
    )
    header_bytes: int = setting(
        16384, "The longest single header; a longer one gets 431.", "--limit-header", minimum=256
    )
    headers: int = setting(128, "The most headers of a request; more get 431.", "--limit-headers", minimum=1)
    body_bytes: int | None = setting(
        None,
        "The longest request body, a longer one gets 413; unset is unlimited.",
        "--limit-body",
        minimum=0,
    )
    body_bytes_per_s: int = setting(
        240,
        "A request body that an application waits for must bring this much a second; 0 is any speed.",
        "--limit-body-rate",
        minimum=0,
    )
    chunk_extension_bytes: int = setting(
        16384,
        "How much longer than its data a chunked body's extensions may be; longer ones get 400.",
        "--limit-chunk-extensions",
        minimum=0,
    )
    trailer_bytes: int = setting(
        8192, "The longest trailers of a chunked body; longer ones get 431.", "--limit-trailers", minimum=0
    )
    connections: int | None = setting(
        None,
        "The most connections of a process at a time; others get 503. Unset is 64 fewer than it may open files.",
        "--limit-connections",
        minimum=1,
    )


@dataclass(frozen=True, kw_only=True)
class WebSocketSettings(Group):
    """How WebSockets are spoken."""

    table: ClassVar[str] = "websocket"

    message_max_bytes: int = setting(
        16 * 1024 * 1024,
        "The longest message; a longer one is answered with close code 1009.",
        "--websocket-max-message-size",
        minimum=1,
    )
    inflate_ratio: int = setting(
        100,
        "How many times larger than what was sent a message may become by inflating, beyond 1 MiB; else 1009.",
        "--websocket-max-inflate-ratio",
        minimum=1,
    )
    # Autobahn sends 4 MiB in 65,536 frames of 64 bytes and an empty one that ends them (case 9.3.1).
    fragments: int = setting(
        131072,
        "The most fragments of a message; more are answered with close code 1009.",
        "--websocket-max-fragments",
        minimum=1,
    )
    pings_outstanding: int = setting(
        100,
        "The most pings of a client that does not read the pongs; more are answered with close code 1008.",
        "--websocket-max-pings",
        minimum=1,
    )
    idle_s: float = setting(
        0.0,
        "A WebSocket without a message in either direction is closed after this, pings or not; 0 is never.",
        "--websocket-idle-timeout",
        minimum=0,
    )
    ping_interval_s: float = setting(
        20.0, "A ping is sent this often; 0 sends none.", "--websocket-ping-interval", minimum=0
    )
    ping_timeout_s: float = setting(
        20.0,
        "A client that answers no ping within this is cut off.",
        "--websocket-ping-timeout",
        minimum=_SHORTEST_S,
    )
    deflate: bool = setting(
        True,
        "Whether messages are compressed where the client offers it.",
        "--websocket-deflate/--no-websocket-deflate",
    )


@dataclass(frozen=True, kw_only=True)
class MetricsSettings(Group):
    """What is measured, and where it can be read."""

    table: ClassVar[str] = "metrics"

    enabled: bool = setting(True, "Whether anything is measured.", "--metrics/--no-metrics")
    bind: str | None = setting(
        None,
        "An address of its own for the metrics page: HOST:PORT, unix:PATH or fd://NUMBER.",
        "--metrics-bind",
        check=parse_bind,
    )
    flush_interval_s: float = setting(
        0.05, "Message counters are folded into the store this often.", "--metrics-flush-interval", minimum=0
    )
    series_per_metric: int = setting(
        1000,
        "How many label sets a metric of the application may have in each process; the others count together.",
        "--metrics-series-per-metric",
        minimum=1,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bind is not None and not self.enabled:
            raise ConfigError(f"metrics.bind = {self.bind!r}: contradicts metrics.enabled = false")
