"""The flags of the command line: one for each setting, from its declaration, and those that set nothing."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final

import click

from pagi_trio.bind import DEFAULT_PORT, parse_bind
from pagi_trio.config import SETTINGS
from pagi_trio.config_statsd import parse_daemon
from pagi_trio.errors import ConfigError
from pagi_trio.trust import parse_trusted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pagi_trio.settings import Kind, Setting, Value

DEFAULT_HOST: Final = "127.0.0.1"

_EXAMPLE: Final = "pagi-trio -w 4 package.module:app --bind 0.0.0.0:8000 --metrics-bind 127.0.0.1:9100"

_EXIT_CODES: Final = (
    ("0", "Stopped as asked, by one signal or two."),
    ("1", "The application did not end in time after a signal or a failed start, or the server failed."),
    ("2", "Usage, configuration, an address or a certificate is wrong."),
    ("3", "The application cannot be imported, or refuses to start; with workers, in every one of them."),
    ("130", "Without workers: Ctrl-C while the application was imported, or the third one; 143, the third SIGTERM."),
)

# Of the texts that name a file; nothing else in their declaration says so.
_FILES: Final = frozenset({"access_log", "tls.ca_certs", "tls.certfile", "tls.keyfile"})


class SettingOption(click.Option):
    """The flag of a setting."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        super().__init__(
            [*setting.flags, _parameter(setting)],
            type=_click_type(setting),
            default=None,
            multiple=setting.several,
            help=_help_text(setting),
            metavar=_metavar(setting),
        )


class GroupedCommand(click.Command):
    """A command whose help shows the flags group by group, and ends with an example and the exit codes."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for the flags that are no settings, then one for each group of settings."""
        options = [one for one in self.get_params(ctx) if isinstance(one, click.Option)]
        # click adds --help and --version behind everything else.
        options.sort(key=lambda one: isinstance(one, SettingOption))
        for title, parameters in groupby(options, _section):
            records = [record for one in parameters if (record := one.get_help_record(ctx)) is not None]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_epilog(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example and the exit codes."""
        with formatter.section("Example"):
            # Not as text, which would be wrapped.
            formatter.write(f"{'':{formatter.current_indent}}{_EXAMPLE}\n")
        with formatter.section("Exit codes"):
            formatter.write_dl(_EXIT_CODES)


def make_options() -> list[click.Parameter]:
    """Make all arguments and options, in the order of the help."""
    return [
        click.Argument(["app"], required=False),
        click.Option(["--factory"], is_flag=True, help="Call what APP names, to get the application."),
        click.Option(["-c", "--config", "config_file"], metavar="FILE", help="A configuration file, TOML."),
        click.Option(["--hypercorn-config"], metavar="FILE", help="A configuration file of hypercorn's, TOML."),
        click.Option(["--print-config"], is_flag=True, help="Print the configuration as TOML, and exit."),
        click.Option(
            ["-k", "--worker-class"],
            type=click.Choice(["trio"]),
            help="As hypercorn has it; always trio here.",
        ),
        click.Option(
            ["--host"], metavar="HOST", help=f"The host to listen on, instead of --bind.  [default: {DEFAULT_HOST}]"
        ),
        click.Option(
            ["--port"],
            type=int,
            metavar="PORT",
            help=f"The port to listen on, instead of --bind.  [default: {DEFAULT_PORT}]",
        ),
        *(SettingOption(setting) for setting in SETTINGS.values()),
    ]


def settings_given(given: Mapping[str, object]) -> dict[str, Value]:
    """Return the settings that flags were given for, by key.

    Args:
        given: What click hands over, by parameter name; None or () where no flag was given.

    Raises:
        ConfigError: A value is not allowed, or flags contradict each other; the message names the flag.
    """
    settings: dict[str, Value] = {}
    for key, setting in SETTINGS.items():
        value = given.get(_parameter(setting))
        if value not in (None, ()):
            settings[key] = setting.check(value, name=_spelling(setting, value))
    host, port = given.get("host"), given.get("port")
    if host is not None or port is not None:
        if "bind" in settings:
            raise ConfigError("--bind contradicts --host and --port; use one or the other")
        settings["bind"] = SETTINGS["bind"].check(_join(host, port), name="--host and --port")
    if settings.get("metrics.enabled") is False:
        # Against a file that sets an address, the flag wins; against the flag it is a contradiction.
        settings.setdefault("metrics.bind", None)
        settings.setdefault("statsd.address", None)
    return settings


def _join(host: object, port: object) -> str:
    name = str(DEFAULT_HOST if host is None else host)
    shown = f"[{name}]" if ":" in name and not name.startswith("[") else name
    return f"{shown}:{DEFAULT_PORT if port is None else port}"


def _parameter(setting: Setting) -> str:
    """Return the name of a setting's parameter, which click wants to be an identifier."""
    return setting.key.replace(".", "__")


def _spelling(setting: Setting, value: object) -> str:
    longest = max(setting.flags, key=len)
    on, _, off = longest.partition("/")
    return off if off and value is False else on


def _click_type(setting: Setting) -> click.Choice[str] | Kind:
    return click.Choice(setting.choices, case_sensitive=False) if setting.choices else setting.kind


def _metavar(setting: Setting) -> str | None:
    """Return what the help shows for a value; None leaves it to click, which shows the type or the choices."""
    if setting.declaration.check in {parse_bind, parse_daemon, parse_trusted}:
        return "ADDRESS"
    if setting.key in _FILES:
        return "FILE"
    return setting.unit.upper() if setting.unit else None


def _help_text(setting: Setting) -> str:
    default = format_default(setting)
    return f"{setting.meaning}  [default: {default}]" if default else setting.meaning


def format_default(setting: Setting) -> str:
    """Return a setting's default as a person would write it; empty if it is unset."""
    default = setting.default
    if default is None:
        return ""
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, tuple):
        return ", ".join(default)
    return f"{default:g}" if isinstance(default, float) else str(default)


def _section(option: click.Option) -> str:
    if not isinstance(option, SettingOption):
        return "Options"
    table = option.setting.key.rpartition(".")[0]
    return f"Settings [{table}]" if table else "Settings"
