"""The reference page of ``pagi_trio.testing`` has every name that a test may use, and every parameter."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import trio

from pagi_trio import testing

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "testing.md").read_text(encoding="utf-8")

INTERNAL = {
    "Servers": {"finish", "abandon", "made"},
    "Served": {"close_clients"},
    "Network": {"errors", "note_client"},
    "Wire": {"call_at_end"},
    "Delta": {"end"},
    "ServerLog": {"add", "owned"},
}
"""What the package's own modules call of each other's objects."""

OF_TRIO = [name for name in dir(trio.abc.HalfCloseableStream) if not name.startswith("_")]
"""What a wire has as a stream of Trio."""


async def events(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    await send({"type": "http.response.body", "body": b"data: x\n\n"})


def written(thing, name):
    """Return a name as the page has it: with the parameters, if it is called."""
    value = inspect.getattr_static(thing, name, None)
    if not inspect.isroutine(value):
        return name
    signature = inspect.signature(getattr(thing, name))
    bare = [one.replace(annotation=one.empty) for one in signature.parameters.values() if one.name != "self"]
    return name + str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def public(thing):
    return {written(thing, name) for name in dir(thing) if not name.startswith("_")}


def described(kind):
    """Return the first cells of the table of a class."""
    _, _, rest = PAGE.partition(f"\n| of {kind} | ")
    table, _, _ = rest.partition("\n\n")
    return set(re.findall(r"^\| `([^`]+)` \| ", table, re.MULTILINE))


def named(entries):
    return {entry.partition("(")[0] for entry in entries}


@pytest.mark.trio
async def test_each_object_has_a_table_of_all_that_it_can():
    async with (
        testing.open_servers() as servers,
        testing.serve(events) as server,
        server.sse() as source,
        server.connect() as wire,
    ):
        with server.metrics.delta() as delta:
            tables = {
                "a `Servers`": servers,
                "a `Served`": server,
                "an `EventSource`": source,
                "an `Event`": await anext(source),
                "`Readings`": server.metrics,
                "a `Delta`": delta,
                "a `ServerLog`": server.log,
                "a `Network`": server.network,
                "a `Wire`": wire,
            }
            has = {kind: public(thing) for kind, thing in tables.items()}
    for kind, thing in tables.items():
        elsewhere = INTERNAL.get(type(thing).__name__, set()) | (set(OF_TRIO) if kind == "a `Wire`" else set())
        assert described(kind) == {entry for entry in has[kind] if entry.partition("(")[0] not in elsewhere}, kind
    assert [name for name in OF_TRIO if f"`{name}`" not in PAGE] == []


@pytest.mark.trio
async def test_the_client_in_memory_has_the_requests_that_are_named():
    async with testing.client(events) as client:
        requests = named(public(client)) - named(described("a `Served`")) - INTERNAL["Served"]
    sentence = PAGE.partition("what its `http` has as its own:")[2].partition(". Its cookies")[0]
    assert set(re.findall(r"`(\w+)`", sentence)) == requests


def test_all_that_the_module_exports_is_there():
    for name in testing.__all__:
        thing = getattr(testing, name)
        entry = name if inspect.isclass(thing) else written(testing, name)
        assert f"`{entry}`" in PAGE, entry
