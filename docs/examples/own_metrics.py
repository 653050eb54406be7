"""Metrics of an application's own, without a library; run it with ``pagi-trio docs/examples/own_metrics.py``."""

from __future__ import annotations

from pagi_trio import Metrics, MetricsApp, URLMap

metrics = Metrics(prefix="shop")
orders = metrics.counter("orders_total", "Orders taken.", labels=["country"])
waiting = metrics.gauge("orders_waiting", "Orders that nobody has packed yet.")
sizes = metrics.histogram("upload_bytes", "Uploads by size.", unit="bytes", buckets=(1e3, 1e6, 1e9))
packing = metrics.timer("packing_seconds", "How long packing takes.")

queue = []


def measure():
    waiting.set(len(queue))


metrics.add_batch_callback(measure)


@packing.time()
async def pack():
    queue.pop()


async def shop(scope, receive, send):
    if scope["type"] != "http":
        return
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    sizes.observe(size)
    orders.labels(country=scope["query_string"].decode() or "at").inc()
    queue.append(scope["path"])
    if scope["path"] == "/express":
        await pack()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"thank you\n"})


app = URLMap({"/metrics": MetricsApp(), "/": shop})
