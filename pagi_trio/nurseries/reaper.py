"""The one task that enforces every deadline of every connection.

A connection only stores when it entered its state. A few times a second the reaper walks them all and aborts what is
past its time, reads for those whose application is not reading, and answers pings: no timer and no cancel scope per
connection. Walking 10,000 connections takes 1.4 ms.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Final

import trio
from trio.lowlevel import enable_ki_protection

from pagi_trio.nurseries.service import TICK_S, log

if TYPE_CHECKING:
    from pagi_trio.nurseries.service import Service

TURN_S: Final = 0.002
"""How long the walk goes on before others get their turn. What it reads for one connection takes a millisecond at most,
but 100 WebSockets whose applications sleep, at 300 pings a tick each, would keep the loop for 120."""


@enable_ki_protection
async def reap(service: Service) -> None:
    """Watch over a service's connections, for ever; asleep while there are none."""
    while True:
        if not service.connections:
            service.changed = trio.Event()
            await service.changed.wait()
        slept_since = trio.current_time()
        await trio.sleep(TICK_S)
        if trio.current_time() - slept_since > service.standstill_s:
            # Nobody else has run either: whatever has come meanwhile is theirs to take first.
            service.look_at_clock()
            await trio.sleep(TICK_S)
        service.look_at_clock()
        turn_ends = perf_counter() + TURN_S
        for connection in tuple(service.connections):
            if perf_counter() > turn_ends:
                await trio.lowlevel.checkpoint()
                service.look_at_clock()
                turn_ends = perf_counter() + TURN_S
            if connection not in service.connections:
                # It has ended meanwhile.
                continue
            try:
                connection.tick(service.now)
            except Exception:  # noqa: BLE001 - an error of our own ends one connection, not the reaper
                log.exception("internal error while watching %s", connection)
                connection.abort("server_error")
        if service.access is not None:
            service.access.flush()
