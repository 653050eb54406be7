"""Reading a configuration that was written for hypercorn.

What its user never touched gets our default, not hypercorn's; what cannot be honoured is named.
"""

from __future__ import annotations

import logging
import os
import ssl
from typing import TYPE_CHECKING, Final

from hypercorn.config import Config as HypercornConfig

from pagi_trio.config import GROUPS, SETTINGS, Config, read_toml
from pagi_trio.errors import ConfigError
from pagi_trio.settings import refuse_unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

_OURS: Final[Mapping[str, str]] = {
    "accesslog": "access_log",
    "backlog": "backlog",
    "bind": "bind",
    "ca_certs": "tls.ca_certs",
    "certfile": "tls.certfile",
    "ciphers": "tls.ciphers",
    "graceful_timeout": "timeouts.graceful_s",
    "h11_max_incomplete_size": "limits.head_bytes",
    "keep_alive_timeout": "timeouts.keep_alive_s",
    "keyfile": "tls.keyfile",
    "keyfile_password": "tls.keyfile_password",
    "loglevel": "log_level",
    "max_requests": "max_requests",
    "max_requests_jitter": "max_requests_jitter",
    "root_path": "root_path",
    "shutdown_timeout": "timeouts.shutdown_s",
    "ssl_handshake_timeout": "timeouts.tls_handshake_s",
    "startup_timeout": "timeouts.startup_s",
    "statsd_host": "statsd.address",
    "statsd_prefix": "statsd.prefix",
    "use_reloader": "reload",
    "verify_mode": "tls.verify_mode",
    "websocket_max_message_size": "websocket.message_max_bytes",
    "websocket_ping_interval": "websocket.ping_interval_s",
    "workers": "workers",
    "wsgi_max_body_size": "wsgi_body_max_bytes",
}

# What is so here anyway, if it is set to this.
_AGREED: Final[Mapping[str, object]] = {
    "alpn_protocols": ["http/1.1"],
    "include_server_header": False,
    "worker_class": "trio",
}

_VERIFY_MODES: Final = {
    ssl.VerifyMode.CERT_NONE: "none",
    ssl.VerifyMode.CERT_OPTIONAL: "optional",
    ssl.VerifyMode.CERT_REQUIRED: "required",
}

# Not settings: what hypercorn keeps beside them.
_BESIDE: Final = frozenset({"application_path", "log", "quic_addresses"})


def from_hypercorn(theirs: HypercornConfig) -> tuple[Config, list[str]]:
    """Translate hypercorn's configuration.

    Returns:
        Ours, and the names of their settings that differ from hypercorn's default but have no effect here.

    Raises:
        ConfigError: It is none, or a value is not allowed here.
    """
    if not isinstance(theirs, HypercornConfig):
        raise ConfigError(f"config must be a Config, of pagi_trio or of hypercorn, not {theirs!r}")
    changes: dict[str, object] = {}
    unused: list[str] = []
    untouched = HypercornConfig()
    for name, value in _touched(theirs):
        if name in _OURS and not isinstance(value, logging.Logger):
            key = _OURS[name]
            convert = _CONVERSIONS.get(name, _decode_path)
            changes[key] = SETTINGS[key].check(convert(value), name=f"hypercorn's {name}")
        elif value not in (getattr(untouched, name, None), _AGREED.get(name)):
            unused.append(name)
    return Config().replace(**changes), unused


def load_hypercorn_file(path: str | Path) -> tuple[Config, list[str]]:
    """Read and translate a ``hypercorn.toml``; the rest is as in `from_hypercorn`."""
    try:
        return from_hypercorn(_from_mapping(read_toml(path)))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def load_config_file(path: str | Path) -> tuple[Config, list[str]]:
    """Read our own configuration file, in which a ``[hypercorn]`` table may hold theirs; ours wins.

    Returns:
        The configuration, and the names of hypercorn's settings that have no effect here.

    Raises:
        ConfigError: It cannot be read, is not TOML, or says something that is not allowed.
    """
    try:
        ours = read_toml(path)
        theirs = ours.pop("hypercorn", {})
        if not isinstance(theirs, dict):
            raise ConfigError(f"hypercorn = {theirs!r}: must be a table of hypercorn's settings")
        config, unused = from_hypercorn(_from_mapping(theirs))
        _refuse_theirs(ours)
        return config.replace(**ours), unused
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _refuse_theirs(settings: Mapping[str, object]) -> None:
    """Tell who names a file of hypercorn's as ours, by a flag that both have, where it belongs."""
    known = SETTINGS.keys() | GROUPS.keys()
    for name in settings:
        if name not in known and hasattr(HypercornConfig, name):
            reason = refuse_unknown(name, SETTINGS)
            raise ConfigError(f"{reason} (a file of hypercorn's is named by --hypercorn-config)")


def _from_mapping(settings: Mapping[str, object]) -> HypercornConfig:
    try:
        return HypercornConfig.from_mapping(settings)
    except ValueError as error:
        # It keeps most as they are, but cert_reqs, which was the name of verify_mode, is converted at once.
        raise ConfigError(f"hypercorn refuses a setting: {error}") from None


def _touched(theirs: HypercornConfig) -> Iterator[tuple[str, object]]:
    """Yield what was set, on the object or by a class derived from hypercorn's."""
    derived = type(theirs).__mro__[: type(theirs).__mro__.index(HypercornConfig)]
    attributes = {name for cls in derived for name, value in vars(cls).items() if not callable(value)}
    for name in sorted({one.removeprefix("_") for one in attributes | set(vars(theirs))} - _BESIDE):
        if not name.startswith("_"):
            yield name, getattr(theirs, name)


def _decode_path(value: object) -> object:
    return os.fsdecode(value) if isinstance(value, bytes | os.PathLike) else value


def _convert_log_level(value: object) -> object:
    return "warning" if isinstance(value, str) and value.lower() == "warn" else value


def _convert_verify_mode(value: object) -> object:
    """Translate a member of ssl.VerifyMode, its name or its number; hypercorn takes None for CERT_NONE."""
    if value is None:
        return "none"
    for mode, ours in _VERIFY_MODES.items():
        if value in (mode, mode.name):
            return ours
    return value


def _convert_ping_interval(value: object) -> object:
    return 0 if value is None else value


_CONVERSIONS: Final[Mapping[str, Callable[[object], object]]] = {
    "loglevel": _convert_log_level,
    "verify_mode": _convert_verify_mode,
    "websocket_ping_interval": _convert_ping_interval,
}
