"""What the page must show, by what the clients have counted."""

from __future__ import annotations

import trio

from pagi_trio.metrics.meter import FLUSH_INTERVAL_S

from .clients import EVENTS


def expected(crowd, watch, late=None):
    """Return each series' least and most value; the two are equal unless a connection was cut.

    Of a cut connection, the page has at least what its client got, less what its worker had not folded yet; and at
    most what its client asked for.

    Args:
        crowd: The clients, all at their end.
        watch: The scrapers, after they have left the workers.
        late: What may not have been folded; if left out, what came within `GRACE_S`.
    """
    done, cut = crowd.done, crowd.cut
    late = crowd.late if late is None else late

    def got(name, asked=None):
        """Bound what is counted when it is complete, and folded a moment later."""
        whole, part = getattr(done, name), getattr(cut, name)
        return whole + part - getattr(late, name), whole + (part if asked is None else getattr(cut, asked))

    def taken(name, back):
        """Bound what the server got: what came back it certainly had."""
        whole = getattr(done, name)
        return whole + getattr(cut, back) - getattr(late, back), whole + getattr(cut, name)

    streams = done.streams + cut.streams, done.streams + cut.asked_streams
    answers = done.answers + cut.answers, done.answers + cut.requests
    unanswered = cut.requests - cut.answers
    size = done.size + cut.size
    small = done.small + cut.small
    connections = done.connections + watch.connections
    bounds = {
        "pagi_server_connections_total": (
            connections - watch.unanswered + cut.used,
            connections + cut.connections,
        ),
        "pagi_websocket_connections_total": (done.sessions + cut.proven, done.sessions + cut.sessions),
        "pagi_websocket_messages_received_total": taken("sent", "received"),
        "pagi_websocket_bytes_received_total": taken("sent_bytes", "received_bytes"),
        "pagi_websocket_messages_sent_total": got("received", "sent"),
        "pagi_websocket_bytes_sent_total": got("received_bytes", "sent_bytes"),
        "pagi_sse_connections_total": streams,
        "pagi_sse_events_sent_total": (got("events")[0], streams[1] * EVENTS),
        "pagi_sse_bytes_sent_total": got("stream_bytes"),
        'orders_total{kind="http"}': answers,
        'orders_total{kind="events"}': streams,
        # What is under way when a session is closed by the server comes too late for the application.
        'orders_total{kind="message"}': (done.received + cut.received, done.sent + cut.sent),
        "order_size_count": answers,
        "order_size_sum": (size / 4, (size + 11 * unanswered) / 4),
        'order_size_bucket{le="1.0"}': (small, small + unanswered),
        # Whoever has died, and however.
        "pagi_server_connections_active": (0, 0),
        "pagi_websocket_connections_active": (0, 0),
        "pagi_sse_connections_active": (0, 0),
        "orders_open": (0, 0),
    }
    stream_bytes = bounds["pagi_sse_bytes_sent_total"]
    most = stream_bytes[1] + (cut.asked_streams - cut.streams) * 10 * EVENTS
    return bounds | {"pagi_sse_bytes_sent_total": (stream_bytes[0], most)}


def differences(page, bounds):
    """Return the series that are out of their bounds: name, least, value, most."""
    return [
        (series, least, page.values.get(series), most)
        for series, (least, most) in bounds.items()
        if not least <= page.values.get(series, 0.0) <= most
    ]


BALANCES = [
    ("server", "pagi_server_connections_closed_total", "connection"),
    ("websocket", "pagi_websocket_closes_total", "session"),
    ("sse", "pagi_sse_closes_total", "stream"),
]


def check_balance(page):
    """Check that what has begun has ended or is open, whoever was killed."""
    for kind, ended, lasted in BALANCES:
        begun = page[f"pagi_{kind}_connections_total"]
        active = page[f"pagi_{kind}_connections_active"]
        ends = sum(value for series, value in page.values.items() if series.startswith(ended + "{"))
        assert begun == active + ends, (kind, begun, active, ends)
        assert page[f"pagi_{kind}_{lasted}_seconds_count"] == ends, (kind, ends)


async def check(server, bounds):
    """Check that every series gets within its bounds, and stays there, and that the ends add up; return the page.

    The last fold of a worker may be 50 ms away; a machine that is busy gets a hundred times that.
    """
    deadline = trio.current_time() + 100 * FLUSH_INTERVAL_S
    while (wrong := differences(page := await server.page(), bounds)) and trio.current_time() < deadline:
        await trio.sleep(FLUSH_INTERVAL_S / 10)
    assert not wrong, wrong
    # What comes later than that would have been counted twice.
    await trio.sleep(2 * FLUSH_INTERVAL_S)
    wrong = differences(page := await server.page(), bounds)
    assert not wrong, wrong
    check_balance(page)
    return page
