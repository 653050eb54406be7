"""What the log says of a phase that was left by an exception."""

from __future__ import annotations

import pytest
import trio

from pagi_trio.nurseries.phase import Phase


@pytest.mark.trio
@pytest.mark.parametrize(("error", "outcome"), [(KeyboardInterrupt, "cancelled"), (ValueError, "failed")])
async def test_ctrl_c_is_no_failure(
    autojump_clock: trio.abc.Clock,
    caplog: pytest.LogCaptureFixture,
    error: type[BaseException],
    outcome: str,
) -> None:
    caplog.set_level("INFO")
    with pytest.raises(error), Phase("lifespan startup"):
        await trio.sleep(2)
        raise error
    assert caplog.messages == [f"lifespan startup {outcome} in 2.000 s"]
