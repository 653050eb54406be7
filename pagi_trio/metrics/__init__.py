"""What the server counts, and how it is read: catalog, tallies, flush task, store, snapshots and the page.

For applications, `Metrics`: what they define metrics of their own with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pagi_trio.metrics.facade import Metrics

__all__ = ["Metrics"]


def __getattr__(name: str) -> object:
    # When it is asked for: every module of this package imports this one.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pagi_trio.metrics import facade  # noqa: PLC0415

    globals()[name] = facade.Metrics
    return facade.Metrics


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
