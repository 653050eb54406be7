"""What an exporter is: something that gets all numbers every now and then, to send them where it will.

The contract, which one test holds every exporter to:

- A push brings every family, the server's and the application's, over all workers, with absolute values: counters
  since the server started, gauges as they are now. Who sends differences keeps what it has delivered, and takes them
  to the last push that succeeded.
- A push may wait, but only as Trio waits: it never blocks the event loop. It ends within the interval, or within
  a second where that is longer and for the last one, or is cancelled.
- What a push raises is a failed push: counted in ``pagi_metrics_pushes_total`` and logged the first time, by one line
  for a `PushFailedError`. Nobody else is hurt, and the next push comes as if nothing had happened.
- Pushes to one exporter never overlap. The first comes as the server starts; the last, ``is_last``, after everything
  has ended and is counted, and it waits for no name to be looked up.
- A push may be cancelled wherever it waits. What it has delivered by then is delivered, the rest is for the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pagi_trio.metrics.application.aggregation import Sample
    from pagi_trio.metrics.snapshot import Snapshot

Kind: TypeAlias = Literal["counter", "gauge", "histogram", "summary"]


@dataclass(frozen=True, slots=True)
class FamilySnapshot:
    """One family at one moment, as plain data.

    Attributes:
        name: As the samples have it, without their suffix (a counter's without ``_total``).
        kind: Its type.
        help: One or two sentences.
        unit: What one is, if that is known.
        labels: Label names, without a histogram's ``le``.
        samples: ``_total`` for a counter; ``_bucket`` (cumulative, with ``le``), ``_count`` and ``_sum`` for a
            histogram, which has no sum where observations may be negative; ``_count`` and ``_sum`` for a summary, and
            where a collector of the application has quantiles, these without a suffix.
    """

    name: str
    kind: Kind
    help: str
    unit: str
    labels: tuple[str, ...]
    samples: tuple[Sample, ...]


class Exporter(Protocol):
    """Sends numbers somewhere.

    Attributes:
        name: Whose pushes they count as: a value of the label ``exporter``, or ``other``.
        interval_s: Between the beginnings of two pushes, seconds.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - see above

    @property
    def interval_s(self) -> float: ...  # noqa: D102 - see above

    async def push(self, families: Sequence[FamilySnapshot], *, is_last: bool) -> None:
        """Send what there is.

        Args:
            families: All of one moment.
            is_last: Whether the server ends; what this one does not deliver, nobody will.

        Raises:
            PushFailedError: If it was not, or not all, delivered.
        """


def families_of(snapshot: Snapshot) -> tuple[FamilySnapshot, ...]:
    """Return every family: the server's in the order of the catalog, then the application's."""
    server = (
        FamilySnapshot(
            metric.name.removesuffix("_total"),
            metric.kind,
            metric.help,
            metric.unit,
            tuple(label for label in samples[0].labels if label != "le") if samples else (),
            tuple(one._replace(suffix="_total") if metric.kind == "counter" else one for one in samples),
        )
        for metric, samples in snapshot
    )
    application = (
        FamilySnapshot(
            one.family.name, one.family.kind, one.family.help, one.family.unit, one.family.labels, tuple(one.samples)
        )
        for one in snapshot.application()
    )
    return (*server, *application)
