"""What the tests of the store share: stores of memory that others attach to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pagi_trio.metrics.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def share() -> Iterator[Callable[[int], Store]]:
    """Make stores that others can attach to; closed at the end."""
    stores: list[Store] = []

    def make(slots: int) -> Store:
        stores.append(Store(slots, shared=True))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def attach() -> Iterator[Callable[[Store], Store]]:
    """Share a store's memory, as another process does; closed at the end."""
    stores: list[Store] = []

    def make(store: Store) -> Store:
        stores.append(Store.attach(os.dup(store.fd)))
        return stores[-1]

    yield make
    for store in stores:
        store.close()
