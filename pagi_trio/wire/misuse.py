"""Say what is wrong with an event that could not be taken as the application sent it.

No event is looked over before it is used: that would cost each message time. Where its use fails, the event is looked
over here, and the error says which part of it is none and what it should be.

Source: the ASGI HTTP & WebSocket message format 2.4 and the lifespan message format 2.0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from pagi_trio.errors import AppProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

    _Check: TypeAlias = Callable[[object], str | None]

MALFORMED: Final = (AttributeError, TypeError, ValueError, LookupError, OverflowError)
"""What the use of an event raises where the event is not of the shape that ASGI gives it."""


def explain(message: object, error: Exception) -> AppProtocolError:
    """Return the error that tells an application what it sent.

    Args:
        message: The event.
        error: What its use raised, one of `MALFORMED`.

    Raises:
        Exception: That error, where nothing is wrong with the event.
    """
    fault = _find_fault(message)
    if fault is None:
        raise error
    return AppProtocolError(fault)


def as_bytes(data: object, what: str) -> bytes:
    """Return a copy of what is like bytes: whoever sent it may change it, while a part of it still waits to leave.

    Args:
        data: What an application sent.
        what: What it is, with its article, for the error.

    Raises:
        AppProtocolError: If it is not like bytes.
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise AppProtocolError(f"{what} must be bytes, not {type(data).__name__}{_hint(data)}")
    return bytes(data)


def _hint(data: object) -> str:
    return "; encode it" if isinstance(data, str) else ""


def _find_fault(message: object) -> str | None:
    if not isinstance(message, dict):
        return f"an event must be a dict with a 'type', not {type(message).__name__}"
    kind = message.get("type")
    if not isinstance(kind, str):
        return f"an event needs a 'type' that is a str{_instead(message, 'type')}"
    for name, check in _FIELDS.get(kind, {}).items():
        if name in message:
            fault = check(message[name])
            if fault is not None:
                return f"the event's {name!r} {fault}"
        elif name == "status":
            return f"{kind} needs a 'status', an int from 200 to 999"
    return None


def _instead(message: dict[object, object], name: str) -> str:
    return f", not {type(message[name]).__name__}" if name in message else ""


def _check_status(value: object) -> str | None:
    return None if isinstance(value, int) else f"must be an int, not {type(value).__name__}"


def _check_headers(value: object) -> str | None:
    if hasattr(value, "__iter__") and not isinstance(value, (dict, str, bytes)):
        return None
    return f"must be a list of pairs of name and value, both bytes, not {type(value).__name__}"


def _check_text(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        return f"must be a str, not {type(value).__name__}"
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        return (
            f"has {value[error.start]!r} at index {error.start}, one half of a surrogate pair, which UTF-8 cannot "
            "carry; send bytes, or take it out"
        )
    return None


_TEXT: Final[dict[str, _Check]] = {"text": _check_text}
_START: Final[dict[str, _Check]] = {"status": _check_status, "headers": _check_headers}

_FIELDS: Final[dict[str, dict[str, _Check]]] = {
    "http.response.start": _START,
    "websocket.http.response.start": _START,
    "websocket.accept": {"headers": _check_headers},
    "websocket.send": _TEXT,
    "websocket.close": {"reason": _check_text},
}
