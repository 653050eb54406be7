"""An ASGI server on Trio: structured concurrency as the architecture, exact metrics as part of the server."""

from __future__ import annotations

from pagi_trio.config import Config
from pagi_trio.errors import (
    AppLoadError,
    AppProtocolError,
    BindError,
    ClientDisconnected,
    ConfigError,
    LifespanFailedError,
    PagiError,
)
from pagi_trio.metrics.endpoint import MetricsApp
from pagi_trio.metrics.facade import Metrics
from pagi_trio.server import Handle, serve
from pagi_trio.urlmap import URLMap

__all__ = [
    "AppLoadError",
    "AppProtocolError",
    "BindError",
    "ClientDisconnected",
    "Config",
    "ConfigError",
    "Handle",
    "LifespanFailedError",
    "Metrics",
    "MetricsApp",
    "PagiError",
    "URLMap",
    "serve",
]
