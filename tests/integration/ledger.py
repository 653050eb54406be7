"""What the server says of how everything ended, and what must be true of that at any moment."""

from __future__ import annotations

from collections import defaultdict

import trio


class Ledger:
    """The series that count ends, as they are now; of each metric those that are not zero.

    Attributes:
        closed: Connections that ended, by reason.
        closes: WebSockets that ended, by code and side.
        streams: Event streams that ended, by reason.
        handshakes: Requests for a WebSocket, by outcome.
        tls: TLS handshakes, by outcome.
        rejected: Connections that were turned away, by reason.
    """

    def __init__(self, metrics):
        samples = defaultdict(dict)
        for metric, found in metrics.snapshot():
            for suffix, labels, value in found:
                samples[metric.name + suffix][tuple(labels.values())] = value
        self._samples = samples
        self.closed = self._by_label("pagi_server_connections_closed_total")
        self.closes = self._by_label("pagi_websocket_closes_total")
        self.streams = self._by_label("pagi_sse_closes_total")
        self.handshakes = self._by_label("pagi_websocket_handshakes_total")
        self.tls = self._by_label("pagi_server_tls_handshakes_total")
        self.rejected = self._by_label("pagi_server_connections_rejected_total")

    def _by_label(self, name):
        found = {labels: int(value) for labels, value in self._samples[name].items() if value}
        return {labels if len(labels) > 1 else labels[0]: value for labels, value in found.items()}

    def value(self, name):
        [value] = self._samples[name].values()
        return value

    def check(self):
        """Check that what has begun has ended or is open, and nothing else has."""
        for kind, ended, lasted in (
            ("server", self.closed, "connection"),
            ("websocket", self.closes, "session"),
            ("sse", self.streams, "stream"),
        ):
            begun = self.value(f"pagi_{kind}_connections_total")
            active = self.value(f"pagi_{kind}_connections_active")
            assert begun == active + sum(ended.values()), (kind, begun, active, ended)
            assert self.value(f"pagi_{kind}_{lasted}_seconds_count") == sum(ended.values()), (kind, ended)
        assert self.handshakes.get("accepted", 0) == self.value("pagi_websocket_connections_total")
        states = self._samples["pagi_server_connections_by_state"].values()
        assert sum(states) == self.value("pagi_server_connections_active")


async def ended(server):
    """Wait until no connection is left; return how they all ended."""
    with trio.fail_after(10):
        while (ledger := Ledger(server.metrics)).value("pagi_server_connections_active"):
            ledger.check()
            await trio.sleep(0.01)
    ledger.check()
    return ledger
