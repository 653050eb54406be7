"""What numbers are written to."""

from __future__ import annotations

from typing import Protocol


class Writer(Protocol):
    """What takes single numbers: a segment, a meter, or nobody."""

    def add(self, index: int, amount: float = 1.0) -> None:
        """Add to a series at once, by its place in the store."""

    def set(self, index: int, value: float) -> None:
        """Overwrite a series at once, by its place in the store."""
