from __future__ import annotations

import pytest

from pagi_trio.metrics import catalog
from pagi_trio.metrics.catalog import CATALOG, SERIES
from pagi_trio.metrics.store import Store

CONNECTIONS = catalog.index("pagi_server_connections_total")
STARTUP = catalog.index("pagi_server_lifespan_startup_seconds")
SHUTDOWN = catalog.index("pagi_server_lifespan_shutdown_seconds")
SPAWNS = catalog.index("pagi_server_worker_spawns_total")


def test_a_new_store_is_all_zero() -> None:
    values = [value for _, samples in Store(3).snapshot() for _, value in samples]
    assert values == [0.0] * len(SERIES)


def test_the_last_series_of_the_last_segment_has_a_place_of_its_own() -> None:
    store = Store(2)
    store.segment(1).set(SERIES[-1].index, 7.0)
    assert sum(value for _, samples in store.snapshot() for _, value in samples) == 7.0
    assert store.segment(1).values()[-1] == 7.0


@pytest.mark.parametrize(
    ("index", "whole"),
    [(CONNECTIONS, 9.0), (STARTUP, 5.0), (SPAWNS, 1.0), (SHUTDOWN, 1.0)],
    ids=["sum", "max", "parent", "last"],
)
def test_segments_become_one_number_as_the_catalog_says(index: int, whole: float) -> None:
    store = Store(3)
    for slot, value in enumerate([1.0, 5.0, 3.0]):
        store.segment(slot).set(index, value)
    series = SERIES[index]
    assert store.snapshot().value(series.metric.name, **dict(series.labels)) == whole


def test_a_snapshot_stays_as_it_was() -> None:
    store = Store()
    store.segment(0).add(CONNECTIONS, 2)
    snapshot = store.snapshot()
    store.segment(0).add(CONNECTIONS, 1)
    assert snapshot.value("pagi_server_connections_total") == 2.0
    assert store.snapshot().value("pagi_server_connections_total") == 3.0


def test_a_snapshot_goes_through_the_catalog_in_order() -> None:
    store = Store()
    store.segment(0).set(catalog.index("pagi_server_app_errors_total", scope="sse"), 4.0)
    families = list(store.snapshot())
    assert [metric for metric, _ in families] == list(CATALOG)
    errors = dict(families)[CATALOG[[metric.name for metric in CATALOG].index("pagi_server_app_errors_total")]]
    assert errors == [
        ({"scope": "http"}, 0.0),
        ({"scope": "websocket"}, 0.0),
        ({"scope": "sse"}, 4.0),
        ({"scope": "lifespan"}, 0.0),
    ]


def test_a_snapshot_names_what_it_misses() -> None:
    with pytest.raises(KeyError, match="did you mean"):
        Store().snapshot().value("pagi_server_connection_total")


def test_a_closed_store_keeps_its_snapshots_and_refuses_the_rest() -> None:
    store = Store(2)
    segment = store.segment(1)
    segment.add(CONNECTIONS, 1)
    snapshot = store.snapshot()
    store.close()
    store.close()
    assert snapshot.value("pagi_server_connections_total") == 1.0
    with pytest.raises(ValueError, match="released"):
        segment.add(CONNECTIONS, 1)
    with pytest.raises(ValueError, match="released"):
        store.snapshot()
