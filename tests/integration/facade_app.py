"""An application with metrics of its own, which tests of workers serve: each gets a copy, which it may change."""

from __future__ import annotations

import os
import threading

import trio

from pagi_trio import Metrics, MetricsApp, URLMap

metrics = Metrics(prefix="shop")
ORDERS = metrics.counter("orders_total", "What was asked for.", labels=["by"])
SIZES = metrics.histogram("order_size", "How much of it.", buckets=(1, 2))
OPEN = metrics.gauge("orders_open", "What is being done.")
SLOTS = metrics.gauge("number", "Whatever the worker was told.", workers="each")
HELD = metrics.counter("held_total", "What a callback brings.")

held = [0]
assert not metrics, "nothing counts while this is imported"
ORDERS.labels(by="import").inc()


def bring():
    HELD.inc(held[0])
    held[0] = 0


metrics.add_batch_callback(bring)


async def order(scope):
    """Count by a task and by threads of both kinds."""
    ORDERS.labels(by="task").inc()
    await trio.to_thread.run_sync(ORDERS.labels(by="thread").inc)
    thread = threading.Thread(target=ORDERS.labels(by="plain thread").inc)
    thread.start()
    thread.join()
    SIZES.observe(float(scope["query_string"] or 1))


async def hold(scope):
    held[0] += 1


async def number(scope):
    SLOTS.set(float(scope["query_string"]))


async def fork(scope):
    """Have a process that is forked count."""
    child = os.fork()
    if child == 0:
        ORDERS.labels(by="child").inc()
        os._exit(int(bool(metrics)))
    _, status = os.waitpid(child, 0)
    assert status == 0


async def wait(scope):
    OPEN.inc()
    await trio.sleep_forever()


PATHS = {f"/{one.__name__}": one for one in (order, hold, number, fork, wait)}


async def shop(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("only http")
    await PATHS[scope["path"]](scope)
    body = b"%d" % os.getpid()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


app = URLMap({"/metrics": MetricsApp(), "/": shop})
