"""Every property of every target, with inputs that Hypothesis makes; atheris looks for the same at length."""

from __future__ import annotations

import re

import h11
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pagi_trio.metrics import negotiation
from pagi_trio.wire import body, decoder, deflate, frames, handshake, head, response, sse
from tests.fuzz import coverage_guided
from tests.fuzz.targets import TARGETS, Target

PROFILE = settings(
    max_examples=120,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
"""New inputs every time, and few enough for all targets to take ten seconds; what failed once is tried again first."""


def edited(seeds: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """Make inputs that differ from a seed in a few places."""
    edit = st.tuples(st.floats(0, 1), st.integers(0, 3), st.binary(max_size=3))

    def apply(seed: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
        for share, removed, added in edits:
            place = int(share * len(seed))
            seed = seed[:place] + added + seed[place + removed :]
        return seed

    return st.builds(apply, st.sampled_from(seeds), st.lists(edit, max_size=4))


def inputs(target: Target) -> st.SearchStrategy[bytes]:
    pieces = st.one_of(st.sampled_from(target.words or (b"\0",)), st.sampled_from(target.seeds), st.binary(max_size=8))
    return st.one_of(edited(target.seeds), st.lists(pieces, max_size=12).map(b"".join)).map(
        lambda data: data[: target.longest]
    )


@pytest.mark.parametrize("name", TARGETS)
def test_every_property_holds(name: str) -> None:
    target = TARGETS[name]

    @PROFILE
    @given(inputs(target))
    def holds(data: bytes) -> None:
        target.check(data)

    holds()


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_are_good(name: str) -> None:
    for seed in TARGETS[name].seeds:
        TARGETS[name].check(seed)
        for end in range(len(seed)):
            TARGETS[name].check(seed[:end])


def test_what_was_found_is_run_again(monkeypatch, tmp_path):
    found = tmp_path / "crash-1"
    found.write_bytes(TARGETS["events"].seeds[0])
    monkeypatch.setattr("sys.argv", ["coverage_guided", "--target", "events", "--replay", str(found)])
    coverage_guided.main()
    monkeypatch.setattr(sse, "_LINE_START_BYTES", 4)
    found.write_bytes(b"database\n\n")
    with pytest.raises(AssertionError):
        coverage_guided.main()


@pytest.mark.parametrize(
    ("target", "file", "said"),
    [("evnts", "found", "there is no evnts, but head,"), ("events", "gone", "cannot be read")],
)
def test_what_cannot_be_run_again_is_said(monkeypatch, tmp_path, capsys, target, file, said):
    (tmp_path / "found").write_bytes(b"")
    monkeypatch.setattr("sys.argv", ["coverage_guided", "--target", target, "--replay", str(tmp_path / file)])
    with pytest.raises(SystemExit):
        coverage_guided.main()
    assert said in capsys.readouterr().err


# What must be found: faults like those that other servers had, each planted in one place.


def _stripped(value: bytes) -> int:
    return head.CONTENT_LENGTH if value.strip(b"+").isdigit() else 0


def _white(pattern: re.Pattern[bytes]) -> re.Pattern[bytes]:
    return re.compile(pattern.pattern.replace(rb"[\t\x20", rb"[\r\n\t\x20"), re.DOTALL)


def _reader(name: bytes, read: object) -> dict[bytes, object]:
    return {**head._MEANINGS, name: read}


@pytest.mark.parametrize(
    ("name", "module", "attribute", "planted", "data"),
    [
        pytest.param(
            *("request", head, "_MEANINGS", _reader(b"content-length", _stripped)),
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
            id="a length with a sign",
        ),
        pytest.param(
            *("head", head, "_ONCE", 0),
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
            id="two lengths",
        ),
        pytest.param(
            *("head", head, "_FIELD_LINE", _white(head._FIELD_LINE)),
            b"GET / HTTP/1.1\r\nHost: a\r\nB: c\nd\r\n\r\n",
            id="a line end in a value of a request",
        ),
        pytest.param(
            *("response", response, "_VALUE", _white(response._VALUE)),
            b"\0\0\0\0\1\0\7a: b\r\nc\0",
            id="a line end in a value of a response",
        ),
        pytest.param(
            *("request", body, "_SIZE_LINE", re.compile(rb"(?:0x)?([0-9A-Fa-f]{1,15})")),
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
            id="a chunk size with a prefix",
        ),
        pytest.param(
            *("chunked", body, "FEED_STEPS", 0),
            b"1\r\na\r\n0\r\n\r\n",
            id="a body that takes nothing",
        ),
        pytest.param(
            *("frames", decoder, "apply_mask", lambda data, mask: bytes(data)),
            b"\0\0\x81\x82\1\1\1\1ab",
            id="a mask that is not applied",
        ),
        pytest.param(
            *("frames", frames, "_FIRST_BYTES", frozenset((*frames._FIRST_BYTES, 0x08, 0x09))),
            b"\0\0\x09\x80\0\0\0\0",
            id="a fragmented control frame",
        ),
        pytest.param(
            *("inflate", deflate, "_TAIL", b""),
            b"\0\0\6\xf2H\xcd\xc9\xc9\x07\0",
            id="messages without the end that senders leave out",
        ),
        pytest.param(
            *("extensions", deflate, "_VALID_BITS", {"16": 16, "10": 15}),
            b"\0permessage-deflate; server_max_window_bits=16",
            id="windows that no client can have",
        ),
        pytest.param(
            *("handshake", handshake, "_GUID", b""),
            TARGETS["handshake"].seeds[0],
            id="an answer that proves nothing",
        ),
        pytest.param(*("events", sse, "_LINE_START_BYTES", 4), b"database\n\n", id="fields told apart too early"),
        pytest.param(
            *(
                "accept",
                negotiation,
                "_MEMBER",
                re.compile(r"[ \t]*([a-z/]+)((?:[ \t]*;[ \t]*(?:q=1)?)*)[ \t]*(?:,|$)"),
            ),
            b"a" + b";  " * 14 + b"@",
            id="two ways to read white space",
        ),
    ],
)
def test_a_planted_fault_is_found(monkeypatch, name, module, attribute, planted, data):
    TARGETS[name].check(data)
    # Without what was learned before, and nobody after may learn from the fault.
    for owner, memo in ((head, "_request_lines"), (head, "_field_lines"), (response, "_fields")):
        monkeypatch.setattr(owner, memo, {})
    monkeypatch.setattr(module, attribute, planted)
    with pytest.raises((AssertionError, h11.RemoteProtocolError)):
        TARGETS[name].check(data)
