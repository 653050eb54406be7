"""How one setting is declared, checked and looked up.

A setting is declared once, as a field of a `Group`. Its TOML key, its command line flag, its line in the
reference page and its validation all come from that declaration.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from types import NoneType, UnionType
from typing import ClassVar, Final, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from pagi_trio.errors import ConfigError

T = TypeVar("T")
Kind = type[bool] | type[int] | type[float] | type[str]
Value = bool | int | float | str | tuple[str, ...] | None

_DECLARATION: Final = "pagi_trio.setting"
# No size or time is greater; what a float or a clock cannot hold would fail later, and elsewhere.
_GREATEST: Final = 2**62

# The first that fits counts.
_UNITS: Final = {"_bytes_per_s": "bytes per second", "_s": "seconds", "_bytes": "bytes"}
_KIND_NAMES: Final = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


@dataclass(frozen=True, kw_only=True)
class _Declaration:
    meaning: str
    flags: tuple[str, ...]
    minimum: float | None
    maximum: float | None
    check: Callable[[str], object] | None
    separator: str
    secret: bool


def setting(  # noqa: PLR0913  # what can be said of a setting, all but two by name
    default: T,
    meaning: str,
    *flags: str,
    minimum: float | None = None,
    maximum: float | None = None,
    check: Callable[[str], object] | None = None,
    separator: str = "",
    secret: bool = False,
) -> T:
    """Declare a field of a group.

    Args:
        default: What holds when nobody says anything.
        meaning: One sentence for ``--help`` and the reference page.
        flags: The spellings on the command line, ``--on/--off`` for a boolean.
        minimum: The least number allowed.
        maximum: The greatest number allowed.
        check: Raises ConfigError for a text (or one text of several) that is not allowed.
        separator: What several texts may also be joined by in one.
        secret: Whether the value is kept out of what is printed.
    """
    declaration = _Declaration(
        meaning=meaning,
        flags=flags,
        minimum=minimum,
        maximum=maximum,
        check=check,
        separator=separator,
        secret=secret,
    )
    return field(default=default, repr=not secret, metadata={_DECLARATION: declaration})


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A declared setting, as its users see it.

    Attributes:
        key: Dotted, as in TOML: ``timeouts.graceful_s``.
        kind: The Python type of the value, or of one of several values.
        optional: Whether None is allowed; it always is the default then.
        several: Whether the value is a tuple; it may be empty where the default is.
        choices: The texts allowed, if not any.
    """

    key: str
    kind: Kind
    default: Value
    optional: bool
    several: bool
    choices: tuple[str, ...]
    declaration: _Declaration

    @property
    def name(self) -> str:
        """The key without its group."""
        return self.key.rpartition(".")[2]

    @property
    def flags(self) -> tuple[str, ...]:
        """The spellings on the command line."""
        return self.declaration.flags

    @property
    def meaning(self) -> str:
        """One sentence that says what it does."""
        return self.declaration.meaning

    @property
    def unit(self) -> str | None:
        """``seconds``, ``bytes`` or ``bytes per second``, from the end of the name."""
        return next((unit for suffix, unit in _UNITS.items() if self.name.endswith(suffix)), None)

    @property
    def allowed(self) -> str:
        """What values are allowed, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        words = _KIND_NAMES[self.kind] + (f" of {self.unit}" if self.unit else "")
        if self.several:
            words = "a list of texts, at least one" if self.default else "a list of texts"
        if self.declaration.minimum is not None:
            words += f", at least {self.declaration.minimum:g}"
        if self.declaration.maximum is not None:
            words += f", at most {self.declaration.maximum:.0f}"
        return words

    def check(self, value: object, *, name: str | None = None) -> Value:
        """Return the value in its one normal form.

        Args:
            value: What was configured.
            name: What the error calls the setting, if not by its key.

        Raises:
            ConfigError: The value is not allowed.
        """
        if value is None and self.optional:
            return None
        name = name or self.key
        if not self.several:
            return self._check_one(value, name)
        values = (value,) if isinstance(value, str) else value
        if not isinstance(values, tuple | list) or not all(isinstance(one, str) for one in values):
            raise self._refusal(value, name)
        texts = tuple(self._check_text(one, name) for text in values for one in self._split(text))
        if not texts and self.default:
            raise self._refusal(value, name)
        return texts

    def _split(self, text: str) -> list[str]:
        separator = self.declaration.separator
        return [one for part in text.split(separator) if (one := part.strip(" "))] if separator else [text]

    def _check_one(self, value: object, name: str) -> bool | int | float | str:
        if isinstance(value, str) and self.kind is str:
            return self._check_text(value, name)
        if isinstance(value, bool) and self.kind is bool:
            return value
        if isinstance(value, int | float) and not isinstance(value, bool) and self.kind in {int, float}:
            return self._check_number(value, name)
        raise self._refusal(value, name)

    def _check_text(self, value: str, name: str) -> str:
        if self.choices:
            if value.lower() not in self.choices:
                raise self._refusal(value, name)
            return value.lower()
        if not value.isprintable() and not self.declaration.secret:
            raise ConfigError(f"{name} = {value!r}: must not contain control characters")
        if self.declaration.check is not None:
            try:
                self.declaration.check(value)
            except ConfigError as error:
                raise ConfigError(f"{name} = {value!r}: {error}") from None
        return value

    def _check_number(self, value: float, name: str) -> int | float:
        low, high = self.declaration.minimum, self.declaration.maximum
        whole = isinstance(value, int)
        if self.kind is int and not whole:
            raise self._refusal(value, name)
        if (not whole and not math.isfinite(value)) or abs(value) > _GREATEST:
            raise self._refusal(value, name)
        if (low is not None and value < low) or (high is not None and value > high):
            raise self._refusal(value, name)
        return float(value) if self.kind is float else value

    def _refusal(self, value: object, name: str) -> ConfigError:
        shown = "(hidden)" if self.declaration.secret else repr(value)
        return ConfigError(f"{name} = {shown}: must be {self.allowed}")


class Group:
    """Base of a frozen dataclass of settings, which are checked when it is made.

    Attributes:
        table: The TOML table of the group; empty for the top level.
    """

    table: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for one in settings_of(type(self)):
            object.__setattr__(self, one.name, one.check(getattr(self, one.name)))


# Each configuration that is made asks again, and reading the hints takes a while.
_READ: Final[dict[type[Group], tuple[Setting, ...]]] = {}


def settings_of(group: type[Group]) -> tuple[Setting, ...]:
    """Return the settings declared by one group itself, in order."""
    if group not in _READ:
        _READ[group] = _read_group(group)
    return _READ[group]


def _read_group(group: type[Group]) -> tuple[Setting, ...]:
    hints = get_type_hints(group)
    prefix = f"{group.table}." if group.table else ""
    return tuple(
        _read_hint(prefix + one.name, hints[one.name], cast("Value", one.default), one.metadata[_DECLARATION])
        for one in fields(group)  # type: ignore[arg-type]  # every group is decorated as a dataclass
        if _DECLARATION in one.metadata
    )


def _read_hint(key: str, hint: object, default: Value, declaration: _Declaration) -> Setting:
    arguments = get_args(hint)
    optional = get_origin(hint) is UnionType and NoneType in arguments
    inner = next(one for one in arguments if one is not NoneType) if optional else hint
    choices = get_args(inner) if get_origin(inner) is Literal else ()
    several = get_origin(inner) is tuple
    kinds: dict[object, Kind] = {bool: bool, int: int, float: float}
    return Setting(
        key=key,
        kind=kinds.get(inner, str),
        default=default,
        optional=optional,
        several=several,
        choices=choices,
        declaration=declaration,
    )


def flatten(changes: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Turn nested tables into dotted keys; an empty one stays, so that its name can be checked."""
    flat: dict[str, object] = {}
    for key, value in changes.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def refuse_unknown(key: str, settings: Mapping[str, Setting]) -> ConfigError:
    """Return the error for a key that does not exist, naming the nearest that does.

    The last part of a key and the flag count as well: ``graceful_timeout`` finds ``timeouts.graceful_s``.
    """
    spellings = {flag.lstrip("-").replace("-", "_"): one.key for one in settings.values() for flag in one.flags}
    spellings |= {one.name: one.key for one in settings.values()} | {one: one for one in settings}
    near = difflib.get_close_matches(key, spellings, n=1)
    if not near:
        near = difflib.get_close_matches(key.rpartition(".")[2], spellings, n=1)
    hint = f", did you mean {spellings[near[0]]!r}?" if near else ""
    return ConfigError(f"unknown setting {key!r}{hint}")
