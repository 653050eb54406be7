"""What takes a minute or more is left out of a plain run, and nothing fails since the machine is busy."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Both judge by the time of day.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

ON_REQUEST = ("slow", "autobahn")
"""Markers of tests that run where ``-m`` says their marker, or where the test is named."""


def pytest_collection_modifyitems(config, items):
    """Leave out what takes long, unless it is asked for by its marker or its name."""
    if any("::" in argument for argument in config.invocation_params.args):
        return
    unasked = [name for name in ON_REQUEST if name not in config.option.markexpr]
    left_out = [item for item in items if any(item.get_closest_marker(name) for name in unasked)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
