"""The cases by area, in the order in which they are shown."""

from __future__ import annotations

from . import (
    chunks,
    content_length,
    expect,
    field_lines,
    hosts,
    methods,
    persistence,
    pipelining,
    request_lines,
    responses,
    smuggling,
    trailers,
    transfer_encoding,
    upgrade,
)
from .case import Case

AREAS: dict[str, tuple[Case, ...]] = {
    "request line": request_lines.CASES,
    "methods": methods.CASES,
    "Host": hosts.CASES,
    "field lines": field_lines.CASES,
    "Content-Length": content_length.CASES,
    "Transfer-Encoding": transfer_encoding.CASES,
    "chunks": chunks.CASES,
    "trailers": trailers.CASES,
    "Expect": expect.CASES,
    "Upgrade": upgrade.CASES,
    "pipelining": pipelining.CASES,
    "persistence": persistence.CASES,
    "responses": responses.CASES,
    "smuggling": smuggling.CASES,
}
