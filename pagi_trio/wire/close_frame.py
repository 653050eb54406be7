"""What a Close frame of a WebSocket carries: a code and a reason, or nothing.

Source: RFC 6455 sections 5.5.1 and 7.4.
"""

from __future__ import annotations

from codecs import utf_8_decode
from typing import Final, TypeAlias

from pagi_trio.errors import WebSocketError
from pagi_trio.wire.frames import CLOSE, CONTROL_MAX_BYTES, encode

Close: TypeAlias = tuple[int, str]
"""Close code and reason."""

NO_CLOSE_CODE: Final = 1005
"""Stands for a Close frame without a code (RFC 6455 section 7.1.5); never on the wire."""

REASON_MAX_BYTES: Final = CONTROL_MAX_BYTES - 2
"""What the code leaves."""


def is_sendable_close_code(code: int) -> bool:
    """Tell whether a Close frame may carry this code.

    Source: RFC 6455 sections 7.4.1 and 7.4.2, and the IANA registry it founds (1012 to 1014).
    """
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def read_close(payload: bytes) -> Close:
    """Read what a client's Close frame carries.

    Raises:
        WebSocketError: 1002 for a code that none may carry, 1007 for a reason that is not UTF-8.
    """
    if not payload:
        return NO_CLOSE_CODE, ""
    code = int.from_bytes(payload[:2], "big")
    if not is_sendable_close_code(code):
        raise WebSocketError(1002, "a Close frame has no valid code")
    try:
        return code, str(payload[2:], "utf-8")
    except UnicodeDecodeError:
        raise WebSocketError(1007, "the reason of a Close frame is not UTF-8") from None


def encode_close(code: int, reason: str = "") -> bytes:
    """Encode a Close frame.

    Args:
        code: A sendable code; NO_CLOSE_CODE makes an empty frame.
        reason: Cut to what fits, between two characters.
    """
    if code == NO_CLOSE_CODE:
        return encode(CLOSE, b"")
    text = reason.encode("utf-8", "replace")[:REASON_MAX_BYTES]
    whole = utf_8_decode(text, "strict", False)[1]
    return encode(CLOSE, code.to_bytes(2, "big") + text[:whole])
