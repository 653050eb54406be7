"""Keep the measurements out of a plain run of the tests."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).resolve().parent


def pytest_ignore_collect(collection_path, config):
    """Collect this directory only where it is named, as in ``pytest tests/bench``, or with ``-m bench``."""
    paths = [Path(arg.partition("::")[0]).resolve() for arg in config.invocation_params.args if "bench" in arg]
    named = any(path.is_relative_to(HERE) for path in paths)
    return None if named or config.option.markexpr == "bench" else True
