from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagi_trio.metrics.negotiation import FIELD_LIMIT, OPENMETRICS, TEXT, prefers_gzip, prefers_openmetrics

OM = "application/openmetrics-text"


@pytest.mark.parametrize(
    "accept",
    [
        OM,
        f"{OM};version=1.0.0",
        f'{OM}; version="1.0.0"; charset=utf-8',
        f'{OM}; version="1\\.0.0"',
        "Application/OpenMetrics-Text; VERSION=1.0.0; Q=0.5",
        # Prometheus 2.42
        f"{OM};version=1.0.0,{OM};version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
        # Prometheus 3
        (
            f"{OM};version=1.0.0;escaping=allow-utf-8;q=0.5,{OM};version=0.0.1;q=0.4,"
            "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
        ),
        f"{OM}, */*",
        f"{OM};q=0.001",
        f"{OM};q=0.5, text/plain;q=0.4",
        "application/*, text/plain;q=0.9",
        "*/*, text/plain;q=0",
        "*/*, text/*;q=0.5",
        f"text/plain, {OM};version=1.0.0",
        f",, ,{OM},",
        f"no such thing, {OM}",
        f'x;y="a,b", {OM}',
        f"text/plain;version=0.0.5, {OM};q=0.1",
        f"{OM};;q=1",
    ],
)
def test_openmetrics_where_it_is_preferred_rfc9110_12_5_1(accept: str) -> None:
    assert prefers_openmetrics(accept)


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "text/plain",
        "text/plain;version=0.0.4",
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
        f"{OM};version=0.0.1",
        f"{OM};version=2.0.0",
        f"{OM};version=1.0",
        f"{OM};version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
        f"{OM};q=0",
        f"{OM};q=0.0, */*",
        f"{OM};version=1.0.0;q=0, {OM};q=1",
        "application/*;q=0",
        "*/*;q=0",
        f"{OM};q=0.4, text/plain;q=0.5",
        f"{OM};version=1.0.0;q=0.4, */*;q=0.5",
        f"{OM}, text/plain",
        "image/png",
        "*",
        "/",
        ";;;",
        f"{OM}\n",
        f"{OM};q=nan",
        f"{OM};q=-1",
        f"{OM};q=1.5",
        f"{OM};q=0.1234",
        f"{OM};q=",
        f"{OM};q",
        f'{OM};version="1.0.0',
        f"{OM} version=1.0.0",
        f"{OM}/x",
        '"' + OM + '"',
        "\xff\xfe",
        f"{OM}," + "a," * FIELD_LIMIT,
    ],
)
def test_text_where_it_is_preferred_or_nothing_else_can_be_read_rfc9110_12_5_1(accept: str) -> None:
    assert not prefers_openmetrics(accept)


@given(st.text(alphabet=st.sampled_from('ap/*;=",q01. \\\t\xff'), max_size=80))
def test_no_field_fails(field: str) -> None:
    assert prefers_openmetrics(field) in {True, False}
    assert prefers_gzip(field) in {True, False}


@pytest.fixture
def _bounded_time():
    """Interrupt what takes over two seconds, a thousand times what it should."""

    def give_up(*_):
        raise AssertionError("it takes too long")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, 2)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("_bounded_time")
@pytest.mark.parametrize("repeated", [";  ", ";", "; \t ;", ";a=b", ' ; a="b" ', "a;  ,", '\\"', "  "])
@pytest.mark.parametrize("end", ["@", "", '"', "="])
def test_no_field_takes_longer_than_its_length_allows(repeated: str, end: str) -> None:
    field = ("a" + repeated * FIELD_LIMIT)[: FIELD_LIMIT - len(end)] + end
    assert prefers_openmetrics(field) is False
    assert prefers_gzip(field) is False


@pytest.mark.parametrize(
    "accept_encoding",
    [
        "gzip",
        "x-gzip",
        "GZIP",
        "gzip, deflate, br, zstd",
        "gzip;q=0.5",
        "deflate;q=1, gzip;q=0.001",
        "*",
        "*;q=0.1",
        "identity;q=0, *",
        "*;q=0, gzip",
        "gzip;q=0.5, identity;q=0.5",
        "identity;q=0.5, *;q=1",
    ],
)
def test_gzip_where_it_is_preferred_rfc9110_12_5_3(accept_encoding: str) -> None:
    assert prefers_gzip(accept_encoding)


@pytest.mark.parametrize(
    "accept_encoding",
    [
        "",
        "identity",
        "br",
        "gzip;q=0",
        "gzip;q=0.000",
        "gzip;q=0, *",
        "*;q=0",
        "identity;q=0",
        "gzip;q=0.5, identity",
        "gzip;q=0.5, *;q=1",
        "gzip;q=x",
        "gzipped",
        "gzip/1",
        ";",
    ],
)
def test_no_gzip_where_it_is_not_rfc9110_12_5_3(accept_encoding: str) -> None:
    assert not prefers_gzip(accept_encoding)


def test_the_content_types_are_the_formats_own() -> None:
    assert TEXT.content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert OPENMETRICS.content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
