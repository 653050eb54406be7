"""The configuration: every setting, its default and what it means, declared once.

The command line flags, the TOML keys and the reference page derive from these declarations.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Self, TypeVar

from pagi_trio.bind import DEFAULT_PORT, parse_bind
from pagi_trio.config_groups import (
    TLS,
    Forwarded,
    Limits,
    MetricsSettings,
    Timeouts,
    WebSocketSettings,
    check_not_empty,
)
from pagi_trio.config_statsd import StatsDSettings
from pagi_trio.errors import ConfigError
from pagi_trio.settings import Group, Setting, Value, flatten, refuse_unknown, setting, settings_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "GROUPS",
    "SETTINGS",
    "TLS",
    "WORKERS_MAX",
    "Config",
    "Forwarded",
    "Limits",
    "MetricsSettings",
    "StatsDSettings",
    "Timeouts",
    "WebSocketSettings",
    "read_toml",
]

# listen(2) takes a C int.
_C_INT_MAX: Final = 2**31 - 1

WORKERS_MAX: Final = 256
"""The most workers: far more than a machine has processors, and few enough to have room for all their numbers."""

G = TypeVar("G", bound=Group)


def _check_root_path(text: str) -> None:
    if text and (not text.startswith("/") or text.endswith("/")):
        raise ConfigError("must start with '/' and not end with one, or be empty")


@dataclass(frozen=True, kw_only=True)
class Config(Group):
    """Everything that can be set; frozen, and valid once made."""

    bind: tuple[str, ...] = setting(
        (f"127.0.0.1:{DEFAULT_PORT}",),
        "An address to listen on: HOST:PORT, [IPV6]:PORT, unix:PATH or fd://NUMBER; may be repeated.",
        "-b",
        "--bind",
        check=parse_bind,
    )
    backlog: int = setting(
        2048,
        "Connections that wait in the kernel to be accepted.",
        "--backlog",
        minimum=1,
        maximum=_C_INT_MAX,
    )
    workers: int = setting(
        1,
        "How many worker processes serve; 1 serves in the process itself.",
        "-w",
        "--workers",
        minimum=1,
        maximum=WORKERS_MAX,
    )
    max_requests: int | None = setting(
        None,
        "A worker is replaced after this many requests, WebSockets and event streams; unset is never.",
        "--max-requests",
        minimum=1,
    )
    max_requests_jitter: int = setting(
        0,
        "Up to this many are added to max_requests at random, so that workers are not replaced all at once.",
        "--max-requests-jitter",
        minimum=0,
    )
    reload: bool = setting(False, "Whether to restart when Python files change.", "--reload/--no-reload")
    reload_dirs: tuple[str, ...] = setting(
        (".",), "A directory to watch for changes; may be repeated.", "--reload-dir", check=check_not_empty
    )
    root_path: str = setting(
        "", "The path below which a proxy mounts the application.", "--root-path", check=_check_root_path
    )
    lifespan: Literal["auto", "on", "off"] = setting(
        "auto", "Whether the application has a lifespan; auto asks it.", "--lifespan"
    )
    interface: Literal["asgi", "wsgi", "auto"] = setting(
        "auto", "What the application speaks; auto looks at it.", "--interface"
    )
    log_level: Literal["critical", "error", "warning", "info", "debug"] = setting(
        "info", "The least severe messages that are logged.", "--log-level"
    )
    access_log: str | None = setting(
        None,
        "The file that gets a line for each request, - for standard output.",
        "--access-logfile",
        check=check_not_empty,
    )
    wsgi_body_max_bytes: int = setting(
        16 * 1024 * 1024,
        "The longest request body for a WSGI application.",
        "--wsgi-max-body-size",
        minimum=0,
    )
    tls: TLS = field(default_factory=TLS)
    forwarded: Forwarded = field(default_factory=Forwarded)
    timeouts: Timeouts = field(default_factory=Timeouts)
    limits: Limits = field(default_factory=Limits)
    websocket: WebSocketSettings = field(default_factory=WebSocketSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    statsd: StatsDSettings = field(default_factory=StatsDSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, group in GROUPS.items():
            if not isinstance(getattr(self, name), group):
                raise ConfigError(f"{name} must be a {group.__name__}, not {getattr(self, name)!r}")
        if self.reload and self.workers > 1:
            raise ConfigError(f"reload contradicts workers = {self.workers}: it runs one, and restarts it")
        if self.statsd.address is not None and not self.metrics.enabled:
            raise ConfigError(f"statsd.address = {self.statsd.address!r}: contradicts metrics.enabled = false")

    @property
    def is_supervised(self) -> bool:
        """Whether a parent process watches over workers, instead of one process serving by itself."""
        return self.workers > 1 or self.reload or self.max_requests is not None

    @property
    def scheme(self) -> Literal["http", "https"]:
        """What clients write in front of the address."""
        return "http" if self.tls.certfile is None else "https"

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, object]) -> Self:
        """Make a configuration from nested tables or dotted keys.

        Raises:
            ConfigError: A key is unknown or a value is not allowed.
        """
        return cls().replace(**{str(key): value for key, value in mapping.items()})

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Read a configuration file.

        Raises:
            ConfigError: It cannot be read, is not TOML, or says something that is not allowed.
        """
        try:
            return cls.from_mapping(read_toml(path))
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    def replace(self, **changes: object) -> Self:
        """Return a copy with other values.

        Args:
            changes: By name; a group's settings as a mapping, or by dotted key.

        Raises:
            ConfigError: A key is unknown or a value is not allowed.
        """
        by_group: dict[str, dict[str, object]] = {}
        own: dict[str, object] = {}
        for key, value in flatten(changes).items():
            table, _, name = key.rpartition(".")
            if key in GROUPS and (isinstance(value, GROUPS[key]) or value == {}):
                own[key] = value or getattr(self, key)
            elif key in GROUPS:
                raise ConfigError(f"{key} = {value!r}: is a group, use {_first_key(key)} and so on")
            elif key not in SETTINGS:
                raise refuse_unknown(key, SETTINGS)
            else:
                (by_group.setdefault(table, {}) if table else own)[name] = value
        base = _changed(self, own)
        groups = {table: _changed(getattr(base, table), values) for table, values in by_group.items()}
        return _changed(base, groups)

    def as_mapping(self) -> dict[str, Value]:
        """Return every setting by its dotted key, secrets included; `from_mapping` reads it back."""
        groups = {"": self, **{table: getattr(self, table) for table in GROUPS}}
        return {key: getattr(groups[key.rpartition(".")[0]], one.name) for key, one in SETTINGS.items()}

    def as_toml(self) -> str:
        """Write the configuration as a file for `from_toml`; secrets and what is unset become comments."""
        lines = [_toml_line(one, getattr(self, one.name)) for one in settings_of(Config)]
        for table, group in GROUPS.items():
            lines += ["", f"[{table}]"]
            lines += [_toml_line(one, getattr(getattr(self, table), one.name)) for one in settings_of(group)]
        return "\n".join(lines) + "\n"


GROUPS: Final[Mapping[str, type[Group]]] = {
    group.table: group
    for group in (TLS, Forwarded, Timeouts, Limits, WebSocketSettings, MetricsSettings, StatsDSettings)
}

SETTINGS: Final[Mapping[str, Setting]] = {
    one.key: one for one in settings_of(Config) + sum(map(settings_of, GROUPS.values()), ())
}
"""Every setting by its dotted key, in the order of the file."""


def read_toml(path: str | Path) -> dict[str, object]:
    """Read a TOML file.

    Raises:
        ConfigError: It cannot be read or is not TOML; the message leaves naming the file to the caller.
    """
    import tomllib  # noqa: PLC0415 - only where there is a file

    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"is not TOML: {error}") from None


def _changed(group: G, values: Mapping[str, object]) -> G:
    return replace(group, **values)  # type: ignore[type-var]  # every group is a dataclass


def _first_key(table: str) -> str:
    return settings_of(GROUPS[table])[0].key


def _toml_line(one: Setting, value: Value) -> str:
    if value is None:
        return f"# {one.name} is not set"
    if one.declaration.secret:
        return f"# {one.name} is set, and not shown"
    return f"{one.name} = {_toml_value(value)}"


def _toml_value(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml_value(one) for one in value) + "]"
    if isinstance(value, str):
        # Settings hold no control characters, so that these two are all that TOML wants escaped.
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(value)
