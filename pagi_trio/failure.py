"""Why a server did not start, as its command tells it."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Final

from pagi_trio.errors import AppLoadError, ConfigError, PagiError

EXIT_STUCK: Final = 1
EXIT_USAGE: Final = 2
EXIT_APP: Final = 3


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a server did not start.

    Attributes:
        line: What was wrong.
        details: The traceback of the application's own error, or what it said beyond a line; may be empty.
        code: What the process exits with.
    """

    line: str
    details: str
    code: int


def explain(error: PagiError) -> Failure:
    """Say what an error means for a command."""
    text = str(error).strip()
    if isinstance(error, ConfigError):
        return Failure(text, "", EXIT_USAGE)
    if isinstance(error, AppLoadError):
        cause = error.__cause__
        return Failure(text, "" if cause is None else "".join(traceback.format_exception(cause)), EXIT_APP)
    # A refusal to start may go on for lines, such as the traceback that Starlette sends.
    first, *more = text.splitlines()
    if not more:
        return Failure(first, "", EXIT_APP)
    return Failure(f"{first.partition(':')[0]}: {more[-1]}", text, EXIT_APP)
