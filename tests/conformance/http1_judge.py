"""Put a case to a server, and say whether what it did is one of the outcomes allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from .http1_cases.case import PRESENT, Answer, Call, Case, Outcome, Step, Then
from .http1_client import Client, MalformedError, Response, SilentError, calls_from

VARIANTS = ("whole", "cut")
"""All at once, and byte by byte."""

PIECES_MAX = 300
"""A long message is cut into so many pieces, since the server's reads are what is to be varied, not its patience."""

PROBE = b"GET /probe HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

# A masked Close frame without a payload, and the answer's first byte (RFC 6455 section 5.5.1).
CLOSE_FRAME = b"\x88\x80\x00\x00\x00\x00"
CLOSE_OPCODE = b"\x88"


@dataclass(frozen=True)
class Seen:
    """What a server did.

    Attributes:
        responses: Those to the case itself.
        end: OPEN, CLOSED or UPGRADED.
        calls: Those of the application, without that for the probe.
        trouble: What no outcome allows, if there is any.
    """

    responses: Sequence[Response]
    end: Then | None
    calls: Sequence[dict]
    trouble: str = ""


def hold(case: Case, variant: str, port: int, limit_s: float) -> str:
    """Put a case to a server.

    Args:
        case: The case.
        variant: One of `VARIANTS`.
        port: Where the server listens.
        limit_s: How long it may take for anything.

    Returns:
        Nothing if it holds, or else what is wrong with each of the outcomes allowed.
    """
    seen = _put(case, variant, port, limit_s)
    return judge(case, seen)


def answers(port: int, limit_s: float) -> bool:
    """Say whether a server answers at all."""
    try:
        calls_from(port, 0, limit_s)
    except (MalformedError, SilentError, OSError):
        return False
    return True


def judge(case: Case, seen: Seen) -> str:
    """Say what is wrong with what a server did; nothing if it is allowed."""
    if seen.trouble:
        return seen.trouble
    complaints = [_differs(outcome, seen) for outcome in case.allowed]
    return "" if "" in complaints else "; or ".join(dict.fromkeys(complaints))


# What the server does


def _put(case: Case, variant: str, port: int, limit_s: float) -> Seen:
    responses: list[Response] = []
    end: Then | None = None
    trouble = ""
    with Client(port, limit_s) as client:
        try:
            _send(case, variant, client, responses)
            end = _read(case, client, responses)
        except (MalformedError, SilentError) as error:
            answered = ", ".join(str(one.status) for one in responses) or "nothing"
            trouble = f"it answered {answered}, then {error}"
    try:
        calls = calls_from(port, client.port, limit_s)
    except (MalformedError, SilentError, OSError) as error:
        return Seen(responses, end, [], f"{trouble}; afterwards the server is out of order: {error}")
    if end is Then.OPEN:
        # The answer to the probe came last.
        *responses, last = responses
        probe = calls.pop() if calls else {"path": None}
        if last.status != 200 or probe["path"] != "/probe":
            trouble = f"the next request on the connection is answered {last.status}, for {probe['path']!r}"
    return Seen(responses, end, calls, trouble)


def _send(case: Case, variant: str, client: Client, responses: list[Response]) -> None:
    for step in case.steps:
        if step is Step.FINISH:
            client.finish()
        elif step is Step.CONTINUE:
            response = client.read_response(to_head=_to_head(case, responses))
            if response is not None:
                responses.append(response)
        elif step:
            size = len(step) if variant == "whole" else ceil(len(step) / PIECES_MAX)
            client.send([step[start : start + size] for start in range(0, len(step), size)])


def _read(case: Case, client: Client, responses: list[Response]) -> Then:
    """Read all answers to the case, then find out what has become of the connection."""
    while _more_expected(case, responses):
        response = client.read_response(to_head=_to_head(case, responses))
        if response is None:
            return Then.CLOSED
        responses.append(response)
        if response.until_close or not response.whole:
            return Then.CLOSED
    thens = {outcome.then for outcome in case.allowed if _count(outcome.answers) == len(_finals(responses))}
    if responses and responses[-1].status == 101:
        client.send([CLOSE_FRAME])
        if client.read_bytes(1) != CLOSE_OPCODE:
            raise MalformedError("it does not speak WebSocket")
        return Then.UPGRADED
    if thens != {Then.CLOSED}:
        client.send([PROBE])
    response = client.read_response()
    if response is None:
        return Then.CLOSED
    if thens == {Then.CLOSED}:
        raise MalformedError(f"it answered once more, with {response.status}")
    responses.append(response)
    return Then.OPEN


def _more_expected(case: Case, responses: Sequence[Response]) -> bool:
    """Say whether an outcome that fits so far has more answers than there are."""
    finals = _finals(responses)
    for outcome in case.allowed:
        answers = [answer for answer in outcome.answers if not _is_interim(answer)]
        fits = all(one.status in answer.statuses for one, answer in zip(finals, answers, strict=False))
        if fits and len(answers) > len(finals):
            return True
    return False


def _to_head(case: Case, responses: Sequence[Response]) -> bool:
    """Say whether the next answer is to a HEAD."""
    count = len(_finals(responses))
    answers = [[one for one in outcome.answers if not _is_interim(one)][count:] for outcome in case.allowed]
    return any(rest[0].to_head for rest in answers if rest)


def _finals(responses: Sequence[Response]) -> list[Response]:
    return [response for response in responses if not response.is_interim]


def _is_interim(answer: Answer) -> bool:
    return answer.statuses == {100}


def _count(answers: Sequence[Answer]) -> int:
    return sum(not _is_interim(answer) for answer in answers)


# What is allowed


def _differs(outcome: Outcome, seen: Seen) -> str:
    """Say how what was seen differs from an outcome, if it does."""
    statuses = [response.status for response in seen.responses]
    if len(statuses) != len(outcome.answers):
        return f"it answered {statuses}, not {len(outcome.answers)} times"
    expected = [answer.call for answer in outcome.answers if answer.call is not None]
    whole = [call for call in seen.calls if call["whole"] or call["path"] == "/unread" or call["type"] != "http"]
    if not len(expected) <= len(whole) <= len(expected) + outcome.unanswered:
        return f"the application was called for {[call['path'] for call in whole]}, not {len(expected)} times"
    if len(whole) < len(seen.calls) and not outcome.begun:
        return "the application was called for what is no request"
    for response, answer in zip(seen.responses, outcome.answers, strict=True):
        if complaint := _answer_differs(response, answer, seen.calls):
            return complaint
    if outcome.then is Then.EITHER or outcome.then is seen.end:
        return ""
    return f"{'nothing' if seen.end is None else seen.end.value}, and not: {outcome.then.value}"


def _answer_differs(response: Response, answer: Answer, calls: Sequence[dict]) -> str:
    if response.status not in answer.statuses:
        return f"it answered {response.status}, not {_shown(answer.statuses)}"
    if not response.whole:
        return f"its answer {response.status} breaks off"
    if answer.body is not None and response.body != answer.body:
        return f"its answer is {response.body[:100]!r}"
    if complaint := _fields_differ(response.fields, answer.fields):
        return f"its answer {response.status} has {complaint}"
    numbers = response.values("x-call")
    if answer.call is None:
        return f"the application answered {response.status}" if numbers else ""
    if len(numbers) != 1:
        return f"it answered {response.status} itself"
    call = calls[int(numbers[0])]
    if response.values("transfer-encoding") and call["version"] == "1.0":
        return "its answer to HTTP/1.0 has a Transfer-Encoding"
    return _call_differs(call, answer.call)


def _call_differs(call: Mapping, expected: Call) -> str:
    parts = {"type": expected.scope, "method": expected.method, "path": expected.path, "query": expected.query}
    if expected.body is not None:
        parts["body"] = expected.body.decode("latin-1")
    for part, value in parts.items():
        if value is not None and call[part] != value:
            return f"the application got the {part} {call[part][:100]!r}"
    complaint = _fields_differ(call["fields"], expected.fields)
    return f"the application got {complaint}" if complaint else ""


def _fields_differ(fields: Sequence[Sequence[str]], expected: Mapping[str, str | None]) -> str:
    for name, value in expected.items():
        values = [one for other, one in fields if other == name]
        found = "|".join(values) if values else None
        if found != value and (found is None or value != PRESENT):
            return f"{name}: {found!r}, not {value!r}"
    return ""


def _shown(statuses: frozenset[int]) -> str:
    return "an error" if len(statuses) > 10 else " or ".join(str(status) for status in sorted(statuses))
