"""An ASGI server on Trio: structured concurrency as the architecture, exact metrics as part of the server."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
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
    from pagi_trio.metrics.server_metrics import ServerMetrics
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
    "ServerMetrics",
    "URLMap",
    "serve",
]

_HOMES: Final = {
    "Config": "config",
    "Handle": "server",
    "Metrics": "metrics.facade",
    "MetricsApp": "metrics.endpoint",
    "ServerMetrics": "metrics.server_metrics",
    "URLMap": "urlmap",
    "serve": "server",
}
"""The modules that the names come from, ``errors`` where none is said. They are imported when a name is asked for:
with the pytest plugin, every run of pytest imports this root, whether or not a test of it serves anything."""


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
