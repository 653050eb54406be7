"""The reference page of the metrics, rendered from the catalog.

Run ``python -m pagi_trio.metrics.reference > docs/reference/metrics.md`` after a change of the catalog.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from pagi_trio.metrics.table import CATALOG, INFO

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pagi_trio.metrics.table import Metric

_INTRODUCTION: Final = """\
# Metrics

<!-- Rendered from pagi_trio/metrics/table.py by `python -m pagi_trio.metrics.reference`; do not edit. -->

Every series below is on the page from the first scrape, with 0 where nothing has happened yet. No label ever
carries a path, an address or a process id. The page also has `process_*`, `python_*` and the
[application's own metrics](../how-to/metrics.md#your-own-metrics);
[how to read them](../how-to/metrics.md#several-workers) over several workers.

## What the words mean

- **Connection** (`pagi_server_connections_*`): one accepted TCP or unix connection, its TLS handshake included. One
  that a limit refuses does not count. *Active* includes idle keep-alive, and a scraper that keeps its connection
  open. Connections to the metrics listener do not count.
- **WebSocket connection**: a handshake that was answered with 101.
- **WebSocket message**: one data message, however many fragments it came in; never a control frame. *Received*
  counts when its last byte is decoded and valid, whether or not the application takes it. *Sent* counts when the
  kernel has taken its last byte. A message that is refused or cut off does not count. Its **bytes** are the
  application's payload: after inflating, before deflating, text as UTF-8.
- **Event stream** (`pagi_sse_*`): a response of status 200 and type `text/event-stream` to any method but HEAD.
- **Event**: a block that a browser would dispatch, with at least one `data` field and a blank line at its end.
  Comments, and blocks with only an id or a retry, are none. A **comment** is a line that begins with a colon; a
  heartbeat is usually one. An event stream's **bytes** are those of its body, framing and comments included, before
  chunking and TLS. With a `Content-Encoding`, streams and bytes count, events and comments do not.
- **Seconds** of what has ended (`*_seconds`, histograms): they count when it does, and so know nothing of what is
  still open. A session or a stream may be over long before its connection is. Of what a killed worker had open, only
  the mean age is known: each counts with that.
- **Worker** (`pagi_server_worker*`): a process that serves. A server of one process is its own one worker. While
  workers are replaced, the old and the new are active together; one that waits to be started again is not active.
- **Slot**: the number of a worker, the value of the label `worker`. It is used again once its worker has ended, and
  there are more slots than workers, for those that take over.

## How fresh and how exact

- A scrape first adds up what waits in the process that answers it, so of that it misses nothing. Of other workers it
  may miss the messages and events of the last 50 ms (`--metrics-flush-interval`); one whose event loop stands still
  adds them when it goes on.
- Counters never decrease while the server lives, whichever page is read and whatever becomes of a worker. Its
  connections are no longer active once the parent knows of its end, and count in the same moment as closed: by
  `server_error`, as event streams do, and WebSockets by 1006, if it was killed.
- At every moment `pagi_server_connections_total` is the active connections and the sum of
  `pagi_server_connections_closed_total`, and the same goes for WebSockets and `pagi_websocket_closes_total`, and for
  event streams and `pagi_sse_closes_total`. The `_count` of their seconds is the number of the ends. Of workers that
  count meanwhile, a page may meet one halfway, and is then off by that one. A client that leaves behind more messages
  than its application takes counts as 1006 when that is seen, though a Close may come behind them.
- The numbers equal what the clients count, for connections that ended by a close handshake or a completed response.
  Where a connection was cut, a client may have received less than was sent, never more. After `kill -9` of a worker
  its messages and events of the last 50 ms may be missing.

## The metrics

*Over processes* says how the values of several processes become one: their sum, their maximum, the value of the
parent process, or that of the last process that ended. Where it says slot they do not: each live worker has a series
of its own, labelled `worker` with the number of its slot.
"""


def render() -> str:
    """Return the page, as Markdown."""
    rows = [
        ["name", "type", "unit", "labels", "over processes", "meaning"],
        ["---"] * 6,
        *(_row(metric) for metric in CATALOG),
    ]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return f"{_INTRODUCTION}\n{table}"


def _bounds(metric: Metric) -> Iterator[tuple[str, tuple[str, ...]]]:
    if metric.buckets:
        yield "le", (*(f"{bound:g}" for bound in metric.buckets), "+Inf")


def _row(metric: Metric) -> list[str]:
    labels = "; ".join(
        # The versions in use are no part of the contract.
        f"`{label}`" if metric is INFO else f"`{label}`: {', '.join(values)}"
        for label, values in (*metric.labels, *_bounds(metric))
    )
    return [f"`{metric.name}`", metric.kind, metric.unit, labels, metric.aggregation, metric.help]


if __name__ == "__main__":
    sys.stdout.write(render())
