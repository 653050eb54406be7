"""Who sends the numbers: one task for each exporter, in the one process that has them all.

With workers that is the parent, else the server itself. The last push comes from `Pushing.finish`, once everything
else has ended.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Final

import trio
from trio.lowlevel import enable_ki_protection

from pagi_trio.config_statsd import parse_daemon
from pagi_trio.errors import PushFailedError
from pagi_trio.metrics import catalog
from pagi_trio.metrics.push.protocol import families_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pagi_trio.config_statsd import StatsDSettings
    from pagi_trio.metrics.push.protocol import Exporter, FamilySnapshot
    from pagi_trio.metrics.server_metrics import ServerMetrics

LAST_PUSH_S: Final = 1.0
"""How long the last push may take: a datagram takes no time at all, and nobody waits longer for a server to end. Any
other may take as long, however short its interval: on a busy machine, a tenth of a second is soon gone."""

_PUSHES: Final = {
    tuple(value for _, value in series.labels): series.index
    for series in catalog.SERIES
    if series.metric.name == "pagi_metrics_pushes_total"
}
"""By exporter and outcome."""

_COLLECT_ERRORS: Final = catalog.index("pagi_metrics_errors_total", part="render")

_log = logging.getLogger("pagi_trio")


def make_exporters(settings: StatsDSettings) -> tuple[Exporter, ...]:
    """Make what the settings ask for."""
    if settings.address is None:
        return ()
    # Only where it is wanted.
    from pagi_trio.metrics.push.statsd import StatsD  # noqa: PLC0415
    from pagi_trio.metrics.push.statsd_format import DogStatsDWriter, StatsDWriter  # noqa: PLC0415

    prefix = settings.prefix.rstrip(".") + "." if settings.prefix else ""
    writer = DogStatsDWriter(prefix, settings.tags) if settings.flavor == "dogstatsd" else StatsDWriter(prefix)
    has_buckets = settings.histograms == "buckets"
    return (StatsD(parse_daemon(settings.address), writer, settings.interval_s, has_buckets=has_buckets),)


class Pushing:
    """The tasks that push.

    Args:
        metrics: What they push; None where metrics are off, and nothing is.
        exporters: Where to; any number.
    """

    def __init__(self, metrics: ServerMetrics | None, exporters: Sequence[Exporter]) -> None:
        self._metrics = metrics
        self._exporters = exporters if metrics is not None else ()
        self._logged: set[int] = set()
        self._collect_failed = False

    def start(self, nursery: trio.Nursery) -> None:
        """Push, now and then after each interval, in tasks of a nursery, for ever; without exporters there are none.

        Cancellation: ends them; a push under way is given up.
        """
        for exporter in self._exporters:
            nursery.start_soon(self._repeat, exporter)

    @enable_ki_protection
    async def finish(self) -> None:
        """Push a last time to all exporters at once; called when nothing counts any more.

        Cancellation: shielded, for hardly more than a second.
        """
        if not self._exporters:
            return
        with trio.move_on_after(2 * LAST_PUSH_S, shield=True):
            async with trio.open_nursery() as nursery:
                for exporter in self._exporters:
                    nursery.start_soon(self._push, exporter, LAST_PUSH_S, True)

    @enable_ki_protection
    async def _repeat(self, exporter: Exporter) -> None:
        due = trio.current_time()
        while True:
            # After a loop that stood still, one push makes up for all that it missed.
            due = max(due, trio.current_time()) + exporter.interval_s
            await self._push(exporter, max(exporter.interval_s, LAST_PUSH_S), is_last=False)
            await trio.sleep_until(due)

    @enable_ki_protection
    async def _push(self, exporter: Exporter, limit_s: float, is_last: bool) -> None:
        """Push once; count how that went."""
        assert self._metrics is not None
        outcome = "failed"
        try:
            with trio.move_on_after(limit_s) as limit:
                await exporter.push(self._collect(self._metrics), is_last=is_last)
                outcome = "ok"
            if limit.cancelled_caught:
                self._log_once(exporter, f"it took more than {limit_s:g} s")
        except PushFailedError as error:
            self._log_once(exporter, str(error))
        except Exception as error:  # noqa: BLE001 - an exporter may be anybody's, and raise anything
            self._log_once(exporter, repr(error), error)
        index = _PUSHES.get((exporter.name, outcome), _PUSHES["other", outcome])
        self._metrics.meter.add(index)

    def _collect(self, metrics: ServerMetrics) -> tuple[FamilySnapshot, ...]:
        """Return every family; without those of prometheus_client's registry, if one of its collectors fails."""
        snapshot = metrics.snapshot()
        families = families_of(snapshot)
        if snapshot.pids or "prometheus_client" not in sys.modules:
            # Workers share theirs, and they are among the others.
            return families
        from pagi_trio.metrics.exporters.registered import registered  # noqa: PLC0415 - only where it is in use

        try:
            return *families, *registered({family.name for family in families})
        except Exception:  # noqa: BLE001 - a collector may be anybody's, and raise anything
            metrics.meter.add(_COLLECT_ERRORS)
            if not self._collect_failed:
                self._collect_failed = True
                _log.exception(
                    "what prometheus_client has registered was not pushed; further failures are only counted"
                )
            return families

    def _log_once(self, exporter: Exporter, why: str, error: Exception | None = None) -> None:
        if id(exporter) not in self._logged:
            self._logged.add(id(exporter))
            _log.warning(
                "metrics were not pushed to %s: %s; further failures are only counted",
                exporter.name,
                why,
                exc_info=error,
            )
