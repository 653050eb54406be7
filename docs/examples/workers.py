"""A metric of the application over worker processes; run it with ``pagi-trio -w 2 docs/examples/workers.py``."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from pagi_trio import MetricsApp, URLMap

hits = Counter("shop_hits_total", "Requests answered.", ["path"])
busy = Gauge("shop_busy", "Requests being answered now.", multiprocess_mode="livesum")


async def shop(scope, receive, send):  # noqa: ARG001 - ASGI calls with it
    """Say which worker has answered."""
    if scope["type"] == "http":
        hits.labels(path=scope["path"]).inc()
        with busy.track_inprogress():
            text = f"worker {scope['extensions']['pagi.worker']['number']}\n"
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": text.encode()})


app = URLMap({"/metrics": MetricsApp(), "/": shop})
