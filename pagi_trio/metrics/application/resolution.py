"""Which server a call of the application is for: that of its context, or the only one of the process."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from pagi_trio.metrics.application import callbacks
from pagi_trio.metrics.application.registry import REGISTRY
from pagi_trio.metrics.server_metrics import ServerMetrics, current_metrics

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOST: Final = (
    "the application has counted where several servers run and none was told, as in a thread of its own; nothing is "
    "counted then. Start threads with trio.to_thread.run_sync, or in a copy of the context"
)


class _Nowhere(Enum):
    NOWHERE = auto()


NOWHERE: Final = _Nowhere.NOWHERE
"""Stands for a context that no server has made, where None is a server without metrics."""


class Running:
    """The servers of this process that count.

    Attributes:
        servers: All of them; another tuple after each change.
        only: The one that runs, if it is only one.
    """

    __slots__ = ("_lock", "_watches_forks", "only", "servers")

    def __init__(self) -> None:
        self.servers: tuple[ServerMetrics, ...] = ()
        self.only: ServerMetrics | None = None
        self._lock = threading.RLock()
        self._watches_forks = False

    def add(self, server: ServerMetrics) -> None:
        """Let a server count."""
        with self._lock:
            if not self._watches_forks:
                self._watches_forks = True
                os.register_at_fork(after_in_child=self.begin_in_child)
            self._become((*self.servers, server))

    def remove(self, server: ServerMetrics) -> None:
        """Let it count no more."""
        with self._lock:
            self._become(tuple(one for one in self.servers if one is not server))

    def _become(self, servers: tuple[ServerMetrics, ...]) -> None:
        self.only = servers[0] if len(servers) == 1 else None
        self.servers = servers

    def count_lost(self) -> None:
        """Count a call that did not say which server it is for: in all of them, logged by one."""
        with self._lock:
            for number, server in enumerate(self.servers):
                server.ledger.lost += 1
                if not number:
                    server.ledger.note(_LOST)

    def begin_in_child(self) -> None:
        """Count nothing in a process that was forked: it shares the memory, and no page shows it."""
        self._lock = threading.RLock()
        for server in self.servers:
            server.meter.begin_in_child()
            server.ledger.close_in_child()
            callbacks.drop_in_child(server)
        self._become(())
        REGISTRY.begin_in_child()


RUNNING: Final = Running()


def find_server() -> ServerMetrics | None:
    """Return the server that counts here; None if there is none, or there are several."""
    metrics = current_metrics.get(NOWHERE)
    if metrics is NOWHERE:
        return RUNNING.only
    return metrics if metrics is not None and metrics.ledger.is_open else None


def is_before_servers() -> bool:
    """Tell whether this is where no server runs yet, as while an application is imported."""
    return not RUNNING.servers and is_untold()


def is_untold() -> bool:
    """Tell whether this context is of no server, neither of one without metrics nor of one that has stopped."""
    return current_metrics.get(NOWHERE) is NOWHERE


@contextmanager
def serving(metrics: ServerMetrics | None) -> Iterator[None]:
    """Have what the application counts in this context, and in those that are copied from it, counted by a server.

    Args:
        metrics: The server's; None where metrics are off, and nothing is counted.
    """
    token = current_metrics.set(metrics)
    if metrics is None:
        try:
            yield
        finally:
            current_metrics.reset(token)
        return
    metrics.ledger.open()
    # What was defined before is there from the start.
    metrics.ledger.look(metrics)
    RUNNING.add(metrics)
    try:
        yield
    finally:
        RUNNING.remove(metrics)
        metrics.ledger.close(metrics)
        callbacks.drop(metrics)
        current_metrics.reset(token)
