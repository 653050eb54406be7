"""The raw client, for what no ordinary client does."""

from __future__ import annotations

from tests.integration.conftest import raw  # noqa: F401 - a fixture
