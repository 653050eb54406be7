"""What a case is: the bytes that are sent, and what a server may do about them.

The cases of an area are a table, one in a line where it fits at all; the formatter would make ten of some.

Source of all cases: RFC 9110 (semantics), RFC 9112 (HTTP/1.1) and RFC 6455 (the upgrade); a clause is a section.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

MUST = "MUST"
SHOULD = "SHOULD"

PRESENT = "(anything)"


class Step(Enum):
    """What a client does between the bytes it sends."""

    CONTINUE = "wait for a 100 or for the answer"
    FINISH = "close its writing side"


class Then(Enum):
    """What becomes of the connection."""

    OPEN = "it takes another request"
    CLOSED = "the server has closed it"
    EITHER = "it takes another request, or the server has closed it"
    UPGRADED = "it speaks WebSocket"


@dataclass(frozen=True)
class Call:
    """What the application must have been called with.

    Attributes:
        method: As it was sent.
        path: Percent-decoded; None is not judged.
        query: None is not judged.
        body: Taken out of its framing; None where the application did not read it.
        fields: What the values of these fields must be, by their names in lower case, several joined by a bar;
            None must not be there, `PRESENT` must be there with any.
        scope: Of which type.
    """

    method: str = "GET"
    path: str | None = "/"
    query: str | None = ""
    body: bytes | None = b""
    fields: Mapping[str, str | None] = field(default_factory=dict)
    scope: str = "http"


@dataclass(frozen=True)
class Answer:
    """A response that is expected.

    Attributes:
        statuses: Those that are allowed.
        call: What the application was called with; None for an answer of the server's own, in front of which it must
            not have been called.
        fields: As those of `Call`.
        body: None is not judged.
        to_head: Whether the request was a HEAD, so that no body follows whatever the fields say.
    """

    statuses: frozenset[int]
    call: Call | None = None
    fields: Mapping[str, str | None] = field(default_factory=dict)
    body: bytes | None = None
    to_head: bool = False


@dataclass(frozen=True)
class Outcome:
    """One thing that a server may do.

    Attributes:
        answers: In order; a 100 that is not among them must not come.
        then: What becomes of the connection.
        begun: Whether the application may also have been called for a body that never came to its end.
        unanswered: How many whole calls more there may be, whose answers do not come.
    """

    answers: tuple[Answer, ...]
    then: Then
    begun: bool = False
    unanswered: int = 0


Allowed = tuple[Outcome, ...]


@dataclass(frozen=True)
class Case:
    """One case; any of the outcomes will do.

    Attributes:
        name: Unique in its area.
        clause: Of the RFC that says so.
        sent: Bytes, and what the client does between them.
        allowed: The outcomes.
        strength: MUST if any other outcome breaks one, SHOULD if it goes against advice or plain grammar only.
    """

    name: str
    clause: str
    sent: bytes | tuple[bytes | Step, ...]
    allowed: Allowed
    strength: str = MUST

    @property
    def steps(self) -> tuple[bytes | Step, ...]:
        return (self.sent,) if isinstance(self.sent, bytes) else self.sent


# Requests, written short.


def request(line: bytes, *fields: bytes, body: bytes = b"", host: bytes = b"Host: a") -> bytes:
    """Write a request; a host is added unless there is to be none."""
    lines = [line, *([host] if host else []), *fields]
    return b"".join(one + b"\r\n" for one in lines) + b"\r\n" + body


def get(*fields: bytes, host: bytes = b"Host: a") -> bytes:
    return request(b"GET / HTTP/1.1", *fields, host=host)


def post(*fields: bytes, body: bytes = b"") -> bytes:
    return request(b"POST / HTTP/1.1", *fields, body=body)


def chunked(body: bytes, *fields: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", *fields, body=body)


# What is allowed, written short. Outcomes are added up: ``refused(400) + taken()``.

ERRORS = range(400, 600)


def taken(*, then: Then = Then.EITHER, **call: object) -> Allowed:
    """The application is called, and its answer arrives; a server may close behind any (RFC 9112 section 9.3)."""
    return answered(Call(**call), then=then)


def answered(*calls: Call, then: Then = Then.EITHER) -> Allowed:
    """The application is called for each of these, and its answers arrive in order."""
    return (Outcome(tuple(by_app(call) for call in calls), then),)


def by_app(call: Call = Call(), status: int = 200, **expected: object) -> Answer:
    """An answer of the application's."""
    return Answer(frozenset([status]), call, to_head=call.method == "HEAD", **expected)


def by_server(*statuses: int, **expected: object) -> Answer:
    """An answer of the server's own."""
    return Answer(frozenset(statuses), **expected)


def refused(*statuses: int, then: Then = Then.EITHER, begun: bool = False) -> Allowed:
    """The server refuses with one of these, and the application is not called."""
    return (Outcome((by_server(*statuses),), then, begun),)


def dropped(*, begun: bool = False) -> Allowed:
    """The server closes without an answer, and the application is not called."""
    return (Outcome((), Then.CLOSED, begun),)


def too_late(*statuses: int) -> Allowed:
    """The server refuses what follows a request that ends the connection, instead of answering that."""
    return (Outcome((by_server(*statuses),), Then.CLOSED, unanswered=1),)


CONTINUE = by_server(100)

BAD = refused(400, then=Then.CLOSED)
"""What RFC 9112 section 2.2 advises for whatever does not match the grammar."""

BAD_BODY = refused(400, then=Then.CLOSED, begun=True)
"""The same where the grammar breaks behind the head."""

REJECTED = refused(*ERRORS) + dropped()
"""Any way of rejecting, where no clause asks for one status."""

REJECTED_BODY = refused(*ERRORS, then=Then.CLOSED, begun=True) + dropped(begun=True)
"""The same behind the head; nobody can tell where the next request would begin."""
