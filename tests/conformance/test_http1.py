"""HTTP/1.1 by the book: every case of the table, sent whole and byte by byte."""

from __future__ import annotations

import pytest

from tests.bench.servers import KINDS, OURS, running

from .http1_cases import AREAS
from .http1_judge import VARIANTS, hold

APP = "tests.conformance.http1_app:app"

LIMIT_S = 10
"""No case takes more than some milliseconds; a server that is silent for this long does not answer."""

CASES = [
    pytest.param(case, id=f"{area}: {case.name} ({case.clause})".replace("::", ":").replace("[", "(").replace("]", ")"))
    for area, cases in AREAS.items()
    for case in cases
]


@pytest.fixture(scope="module")
def server():
    with running(KINDS[OURS], APP) as running_server:
        yield running_server


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("case", CASES)
def test_what_rfc_9110_and_9112_allow(server, case, variant):
    assert hold(case, variant, server.port, LIMIT_S) == ""


def test_the_cases_are_many_and_each_has_a_name_of_its_own():
    for cases in AREAS.values():
        assert len({case.name for case in cases}) == len(cases)
        assert all(case.clause.startswith(("RFC 9110 ", "RFC 9112 ", "RFC 6455 ")) for case in cases)
    assert sum(len(cases) for cases in AREAS.values()) >= 200
