"""How a test that has served fails: by its one error, and where it happened, in the test and in the application."""

from __future__ import annotations

from types import TracebackType
from typing import Final

import pytest

from pagi_trio.testing.app_errors import unwrap
from pagi_trio.testing.lifetime import OpenStreamError

_IN_BETWEEN: Final = frozenset(("contextlib", "httpx", "outcome", "pagi_trio", "trio", "trio_websocket"))
"""The packages between a call in the test and the application: their frames tell nobody anything."""


def what_failed(raised: BaseException, *, has_failed: bool, in_full: bool) -> BaseException | None:
    """Return what to report, if anything: of a group, the one error in it, or the group of several.

    A test that failed has left open what it would have closed later; that is left out.

    Args:
        raised: What came out of the test, or of the end of its fixtures.
        has_failed: Whether the test has been reported as failed before.
        in_full: Whether to leave all frames where they are.
    """
    first = raised.split(OpenStreamError)[1] if isinstance(raised, BaseExceptionGroup) else None
    error = unwrap(raised if first is None else first)
    if isinstance(error, OpenStreamError):
        if has_failed:
            return None
        # It happened at no line of the test.
        return pytest.fail.Exception(str(error), pytrace=False)
    return error if in_full else error.with_traceback(_shorten(error.__traceback__))


def _shorten(traceback: TracebackType | None) -> TracebackType | None:
    """Leave out the frames in between, and those behind the last line of the test or of the application.

    What is raised there is about that line, and says so in its message: a page of our source adds nothing. All stay if
    there would be none.
    """
    whole = traceback
    frames: list[TracebackType] = []
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__", "").partition(".")[0] not in _IN_BETWEEN:
            frames.append(traceback)
        traceback = traceback.tb_next
    shortened: TracebackType | None = None
    for frame in reversed(frames):
        shortened = TracebackType(shortened, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return shortened or whole
