"""What must hold of every Accept and Accept-Encoding: `metrics.negotiation`, which reads what any client sends."""

from __future__ import annotations

import re
from time import process_time

from pagi_trio.metrics.negotiation import FIELD_LIMIT, prefers_gzip, prefers_openmetrics

_TIME_S = 0.5
"""A field takes 2 ms at most; what has two ways to read each byte takes hours."""


def check_accept(data: bytes) -> None:
    """Check that no field fails or takes long, and that what cannot be read changes nothing."""
    field = data.decode("latin-1")
    began = process_time()
    answers = prefers_openmetrics(field), prefers_gzip(field)
    assert process_time() - began < _TIME_S
    # Unless it opens a quoted string, which is then without an end and takes all that follows with it.
    if re.search(r'["\\]', field) is None and len(field) < FIELD_LIMIT - 4:
        assert (prefers_openmetrics(f"@,{field}"), prefers_gzip(f"@,{field}")) == answers
        assert (prefers_openmetrics(f"{field},@"), prefers_gzip(f"{field},@")) == answers
