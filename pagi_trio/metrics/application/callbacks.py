"""Batch callbacks: functions of the application that are called before each scrape or push.

A hot path may so keep a plain integer, and have it set as a metric's value only when somebody looks.
"""

from __future__ import annotations

import inspect
import logging
import threading
from typing import TYPE_CHECKING, Final

from pagi_trio.metrics import catalog

if TYPE_CHECKING:
    from collections.abc import Callable

    from pagi_trio.metrics.writer import Writer

_ERRORS: Final = catalog.index("pagi_metrics_errors_total", part="callback")

_log = logging.getLogger("pagi_trio")


class _Entry:
    """One registration of a callback.

    Attributes:
        function: What is called.
        server: Which server's scrapes it is called for; None is all that run in the process.
        has_failed: Whether its failure has been logged.
    """

    __slots__ = ("function", "has_failed", "server")

    def __init__(self, function: Callable[[], object], server: object) -> None:
        self.function = function
        self.server = server
        self.has_failed = False


class _Callbacks:
    """All of the process, in the order of their registration; another tuple after each change."""

    def __init__(self) -> None:
        self.entries: tuple[_Entry, ...] = ()
        self.lock = threading.RLock()

    def add(self, entry: _Entry) -> None:
        with self.lock:
            self.entries = (*self.entries, entry)

    def keep(self, wanted: Callable[[_Entry], bool]) -> None:
        with self.lock:
            self.entries = tuple(filter(wanted, self.entries))


_CALLBACKS: Final = _Callbacks()


def check(function: Callable[[], object]) -> None:
    """Refuse what cannot be a callback.

    Raises:
        TypeError: If it cannot be called, or a call of it does nothing yet.
    """
    if not callable(function):
        raise TypeError(f"a batch callback is a function, not {function!r}")
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"a batch callback is no async function, as {_name(function)} is")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"a batch callback is no generator, as {_name(function)} is: nothing of it would run")


def add(function: Callable[[], object], server: object) -> Callable[[], None]:
    """Register a callback.

    Args:
        function: What is called.
        server: Whose scrapes it is called for, until that stops; None is every server's of the process.

    Returns:
        What removes it.
    """
    entry = _Entry(function, server)
    _CALLBACKS.add(entry)
    return lambda: _CALLBACKS.keep(lambda one: one is not entry)


def drop(server: object) -> None:
    """Remove what a server has been given, which has stopped."""
    _CALLBACKS.keep(lambda one: one.server is not server)


def drop_in_child(server: object) -> None:
    """Do the same in a process that was forked, where a thread that is gone may have the lock."""
    _CALLBACKS.lock = threading.RLock()
    drop(server)


def has_any(server: object) -> bool:
    """Tell whether there is something to be called for a server."""
    return any(one.server in (None, server) for one in _CALLBACKS.entries)


def call_all(server: object, errors: Writer) -> None:
    """Call what there is for a server. What it raises stops nothing: it is counted, and logged the first time."""
    for entry in _CALLBACKS.entries:
        if entry.server is not None and entry.server is not server:
            continue
        try:
            _call(entry.function)
        except Exception:  # noqa: BLE001 - whatever the application raises, the scrape goes on
            errors.add(_ERRORS)
            if not entry.has_failed:
                entry.has_failed = True
                name = _name(entry.function)
                _log.exception("the batch callback %s failed; its further failures are only counted", name)


def _call(function: Callable[[], object]) -> None:
    result = function()
    if inspect.iscoroutine(result):
        result.close()
        raise TypeError(f"{_name(function)} returned a coroutine, which nobody awaits")


def _name(function: object) -> str:
    return str(getattr(function, "__qualname__", None) or repr(function))
