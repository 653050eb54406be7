"""Every metric of the server, in one table.

The store's layout, the series that are present with 0 from the start, HELP and TYPE, and the reference page
all derive from it; that page also says what its words mean (a connection, a message, an event, a byte).
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import trio

from pagi_trio.version import __version__

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
Aggregation: TypeAlias = Literal["sum", "max", "parent", "last", "slot"]
"""How one number comes from several processes: their sum, the maximum of those alive, the value that the parent
process owns, that of the last process that ended, or none, but a series for each worker, labelled by its slot."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One family of series.

    Attributes:
        name: As it stands on the page; a counter's ends in ``_total``.
        kind: What may happen to its value: a counter never decreases.
        help: One or two short sentences; the contract of what is counted.
        labels: Each label's name and the closed set of its values.
        aggregation: How the values of several processes become one; by ``slot``, the page adds a label ``worker``.
        unit: What one is, for the reference page; empty where the name says it.
        buckets: A histogram's upper bounds, from the least; above the last one there is another bucket, for the rest.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[tuple[str, tuple[str, ...]], ...] = ()
    aggregation: Aggregation = "sum"
    unit: str = ""
    buckets: tuple[float, ...] = ()


INFO: Final = Metric(
    "pagi_server_info",
    "gauge",
    "Always 1; its labels are the versions of the server, of Python and of Trio.",
    labels=(
        ("version", (__version__,)),
        ("python", (platform.python_version(),)),
        ("trio", (trio.__version__,)),
    ),
    aggregation="parent",
)

CLOSE_REASONS: Final = (
    *("done", "client_closed", "client_timeout", "idle_timeout", "keepalive_timeout", "write_timeout", "write_error"),
    *("read_error", "protocol_error", "server_shutdown", "server_error", "body_too_large", "queue_overflow"),
)
"""Why a connection ended: the disconnect reasons that applications are told, and ``done``."""

STREAM_CLOSE_REASONS: Final = ("done", "client_closed", "write_timeout", "server_shutdown", "server_error")
"""Why an event stream ended: the disconnect reasons that streams are told, and ``done``."""

CLOSE_CODES: Final = (
    *("1000", "1001", "1002", "1003", "1005", "1006", "1007", "1008", "1009", "1010", "1011", "1012", "1013", "1014"),
    *("3xxx", "4xxx", "other"),
)

CLOSE_SIDES: Final = ("client", "server", "none")

CONNECTION_BUCKETS: Final = (0.01, 0.1, 1.0, 10.0, 60.0, 300.0, 3600.0)
"""From one request to an hour of them, seconds."""

SESSION_BUCKETS: Final = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0)
"""From a page that is left again to a day in an open tab, seconds; proxies cut after some minutes, often five."""

CATALOG: Final[tuple[Metric, ...]] = (
    INFO,
    Metric(
        "pagi_server_start_time_seconds",
        "gauge",
        "When the server started, in seconds since the Unix epoch.",
        aggregation="parent",
        unit="seconds",
    ),
    Metric(
        "pagi_server_connections_total",
        "counter",
        "Accepted connections, the TLS handshake included; those refused by a limit do not count.",
    ),
    Metric(
        "pagi_server_connections_active",
        "gauge",
        "Connections that are open now, idle keep-alive included.",
    ),
    Metric(
        "pagi_server_connections_by_state",
        "gauge",
        "Open connections by what they are busy with, as of the last fold; the sum over state is then "
        "pagi_server_connections_active.",
        labels=(("state", ("tls", "head", "app", "idle", "websocket", "sse", "http2", "closing")),),
    ),
    Metric(
        "pagi_server_connections_limit",
        "gauge",
        "The most connections that may be open at a time, in all processes together.",
    ),
    Metric(
        "pagi_server_connections_rejected_total",
        "counter",
        "Connections turned away before a request of theirs was read: beyond the limit, which no other metric counts, "
        "because the server stops, or since their TLS handshake failed or took too long.",
        labels=(("reason", ("limit", "shutdown", "handshake")),),
    ),
    Metric(
        "pagi_server_connections_closed_total",
        "counter",
        "Connections that ended, by why; done is after a whole response or a WebSocket's closing handshake. "
        "With the open ones, these are all that were accepted: those of a worker that was killed are a server_error.",
        labels=(("reason", CLOSE_REASONS),),
    ),
    Metric(
        "pagi_server_connection_seconds",
        "histogram",
        "How long connections lasted that ended, from their acceptance. "
        "Those of a worker that was killed count by their mean.",
        unit="seconds",
        buckets=CONNECTION_BUCKETS,
    ),
    Metric(
        "pagi_server_accept_errors_total",
        "counter",
        "Times that accepting a connection failed: no file descriptors left in the process or on the machine, "
        "the connection gone already, or another error.",
        labels=(("kind", ("emfile", "enfile", "econnaborted", "other")),),
    ),
    Metric(
        "pagi_server_tls_handshakes_total",
        "counter",
        "TLS handshakes that ended, by how; those that only a stop of the server ended count as failed.",
        labels=(("outcome", ("ok", "failed", "timeout")),),
    ),
    Metric(
        "pagi_server_workers_active",
        "gauge",
        "Worker processes that are alive; a server of one process is its own one worker.",
        aggregation="parent",
    ),
    Metric(
        "pagi_server_worker_spawns_total",
        "counter",
        "Worker processes started; a server of one process is its own one worker.",
        aggregation="parent",
    ),
    Metric(
        "pagi_server_workers_configured",
        "gauge",
        "Worker processes that are wanted; TTIN and TTOU change it.",
        aggregation="parent",
    ),
    Metric(
        "pagi_server_worker_exits_total",
        "counter",
        "Worker processes that ended, by why: as told, recycled for max_requests, by an error or a signal of its own, "
        "by SIGKILL, because its loop stood, or before it was ready.",
        labels=(("reason", ("clean", "recycled", "crashed", "killed", "hung", "startup_failed")),),
        aggregation="parent",
    ),
    Metric(
        "pagi_server_worker_up",
        "gauge",
        "1 from the end of the worker's lifespan startup until it drains.",
        aggregation="slot",
    ),
    Metric(
        "pagi_server_worker_start_time_seconds",
        "gauge",
        "When the worker was started, in seconds since the Unix epoch.",
        aggregation="slot",
        unit="seconds",
    ),
    Metric(
        "pagi_server_worker_blocked_seconds",
        "gauge",
        "How long the worker's event loop has stood still; read from outside while it stands.",
        aggregation="slot",
        unit="seconds",
    ),
    Metric(
        "pagi_server_draining",
        "gauge",
        "1 once the server stops and takes no new connections.",
        aggregation="parent",
    ),
    Metric(
        "pagi_server_app_errors_total",
        "counter",
        "Exceptions that the application let out, by the type of the scope it was called with.",
        labels=(("scope", ("http", "websocket", "sse", "lifespan")),),
    ),
    Metric(
        "pagi_server_lifespan_startup_seconds",
        "gauge",
        "How long the application took to start; the longest of the live workers, or that of the last one.",
        aggregation="max",
        unit="seconds",
    ),
    Metric(
        "pagi_server_lifespan_shutdown_seconds",
        "gauge",
        "How long the application took to shut down; of the last worker that ended.",
        aggregation="last",
        unit="seconds",
    ),
    Metric(
        "pagi_server_lifespan_failures_total",
        "counter",
        "Application starts and shutdowns that failed or ran out of time.",
        labels=(("phase", ("startup", "shutdown")),),
    ),
    Metric(
        "pagi_websocket_connections_total",
        "counter",
        "WebSocket handshakes that were accepted.",
    ),
    Metric(
        "pagi_websocket_connections_active",
        "gauge",
        "WebSocket connections that are open now.",
    ),
    Metric(
        "pagi_websocket_handshakes_total",
        "counter",
        "Requests for a WebSocket, by what became of them: accepted, refused by another response, invalid, "
        "or abandoned, since the client left, or the server was stopped at once, before there was an answer.",
        labels=(("outcome", ("accepted", "refused", "invalid", "abandoned")),),
    ),
    Metric(
        "pagi_websocket_closes_total",
        "counter",
        "WebSocket connections that ended, by close code and by whose Close frame came first; "
        "1006 and none is without one, as are those of a worker that was killed. "
        "With the open ones, these are all that were accepted.",
        labels=(("code", CLOSE_CODES), ("side", CLOSE_SIDES)),
    ),
    Metric(
        "pagi_websocket_session_seconds",
        "histogram",
        "How long WebSocket connections lasted that ended, from their acceptance to the first Close frame, or to the "
        "loss of the connection. Those of a worker that was killed count by their mean.",
        unit="seconds",
        buckets=SESSION_BUCKETS,
    ),
    Metric(
        "pagi_websocket_messages_received_total",
        "counter",
        "WebSocket data messages received whole and valid, however fragmented; control frames do not count.",
    ),
    Metric(
        "pagi_websocket_messages_sent_total",
        "counter",
        "WebSocket data messages whose last byte the kernel has taken; control frames do not count.",
    ),
    Metric(
        "pagi_websocket_bytes_received_total",
        "counter",
        "Payload bytes of the WebSocket messages received, after inflating, text as UTF-8.",
        unit="bytes",
    ),
    Metric(
        "pagi_websocket_bytes_sent_total",
        "counter",
        "Payload bytes of the WebSocket messages sent, before deflating, text as UTF-8.",
        unit="bytes",
    ),
    Metric(
        "pagi_sse_connections_total",
        "counter",
        "Event streams started: responses of status 200 and type text/event-stream, to any method but HEAD.",
    ),
    Metric(
        "pagi_sse_connections_active",
        "gauge",
        "Event streams that are open now.",
    ),
    Metric(
        "pagi_sse_closes_total",
        "counter",
        "Event streams that ended, by why; client_closed is also for a connection that broke, and for a client whose "
        "request could not be read on. With the open ones, these are all that were started: those of a worker that "
        "was killed are a server_error.",
        labels=(("reason", STREAM_CLOSE_REASONS),),
    ),
    Metric(
        "pagi_sse_stream_seconds",
        "histogram",
        "How long event streams lasted that ended. Those of a worker that was killed count by their mean.",
        unit="seconds",
        buckets=SESSION_BUCKETS,
    ),
    Metric(
        "pagi_sse_events_sent_total",
        "counter",
        "Events sent: blocks with data, ended by a blank line; comments and heartbeats do not count.",
    ),
    Metric(
        "pagi_sse_comments_sent_total",
        "counter",
        "Comment lines of event streams sent, such as heartbeats.",
    ),
    Metric(
        "pagi_sse_bytes_sent_total",
        "counter",
        "Body bytes of event streams sent, comments included, before chunking and TLS.",
        unit="bytes",
    ),
    Metric(
        "pagi_metrics_scrapes_total",
        "counter",
        "GET requests for this page, this one included.",
    ),
    Metric(
        "pagi_metrics_flushes_total",
        "counter",
        "Times that waiting message counts were added to the totals.",
    ),
    Metric(
        "pagi_metrics_pushes_total",
        "counter",
        "Times that all metrics were handed to an exporter that sends them somewhere, by what came of it.",
        labels=(("exporter", ("statsd", "other")), ("outcome", ("ok", "failed"))),
    ),
    Metric(
        "pagi_metrics_dropped_series_total",
        "counter",
        "Label sets of the application's own metrics that have no series of their own: beyond the limit of their "
        "metric, so that they count as other, or because there was no room left.",
    ),
    Metric(
        "pagi_metrics_errors_total",
        "counter",
        "Failures inside the metrics themselves, by part: folding, writing the page, a batch callback of the "
        "application, or a call of it that does not say which of several servers it is for.",
        labels=(("part", ("flush", "render", "callback", "context")),),
    ),
)
