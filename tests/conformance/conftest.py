"""What the conformance tests share."""

from __future__ import annotations

from functools import partial

import pytest


@pytest.fixture
def pagi_serve(pagi_serve):
    """Serve so that the test sees what every client does of an application that fails: most of these do."""
    return partial(pagi_serve, raise_app_exceptions=False)
