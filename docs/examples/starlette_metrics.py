"""A Starlette application with a metric of its own beside the server's, on one page."""

from __future__ import annotations

from prometheus_client import Counter
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from pagi_trio import MetricsApp

orders = Counter("shop_orders_total", "Orders taken.")


async def order(_request):
    orders.inc()
    return PlainTextResponse("thank you\n")


app = Starlette(routes=[Route("/order", order, methods=["POST"]), Mount("/metrics", MetricsApp())])
