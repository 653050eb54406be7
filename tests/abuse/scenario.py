"""What an attack is: so many hostile clients at once, each of which does the same."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from .client import Client

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class Scenario:
    """One attack; it knows nothing of the server that it is made on.

    Attributes:
        title: What is done, as a row of the table begins.
        run: What each client does; returns what became of it, see `client`.
        clients: How many of them there are.
        tls: Whether the server speaks TLS.
        memory_bytes: By how much a server's memory may grow at its peak.
        hold_s: How long the table looks at it, if it does not end before; a careful server's default deadlines have
            cut what they would cut by then.
    """

    name: str
    title: str
    run: Callable[[Client], Awaitable[str]]
    clients: int = 1
    tls: bool = False
    memory_bytes: int = 5 * MEBIBYTE
    hold_s: float = 3.0

    @property
    def label(self) -> str:
        """What its row of the table begins with."""
        return f"TLS: {self.title}" if self.tls else self.title
