"""Watching the sources, for a restart on change.

By watchfiles' generator in turns of a thread. Its own asynchronous one holds a cancellation up for the rest of its
five seconds on Trio, since AnyIO there waits for the thread before it tells it to stop.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from pagi_trio.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from watchfiles.main import FileChange

# Changes that follow each other are one, but no longer than this: saving all files, or changing a branch.
_DEBOUNCE_MS: Final = 800

# The longest turn of the thread while nothing changes, and so the longest that a cancellation waits then. Ten turns
# a second take 0.7% of a processor; four would take 0.4%.
_TURN_MS: Final = 100

# What is below is not the application; directories with a leading dot, as .git and .venv, are left out besides.
_IGNORED: Final = frozenset({"__pycache__", "node_modules", "site-packages", "venv"})

_log = logging.getLogger("pagi_trio")


def require_watchfiles() -> None:
    """Make sure that files can be watched.

    Raises:
        ConfigError: watchfiles is not installed.
    """
    try:
        import watchfiles  # noqa: F401, PLC0415 - an extra, and only for those who want it
    except ImportError:
        raise ConfigError("--reload needs watchfiles; run: pip install 'pagi-trio[reload]'") from None


async def watch(
    directories: Sequence[Path],
    changed: Callable[[list[Path]], None],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Tell which Python files were added, modified or deleted, for ever.

    Args:
        directories: Where to look, with all that is below; hidden directories, virtual environments and caches in
            them are left out.
        changed: Called in the Trio thread with the files, absolute and sorted, once a burst of changes is over.
        task_status: Started once no change is missed any more.

    Raises:
        ConfigError: watchfiles is not installed, or a directory cannot be watched.

    Cancellation: waits for the turn of the thread to end, 0.1 s, and while files change at most 0.9 s.
    """
    require_watchfiles()
    with closing(wait_for_changes(directories)) as changes:
        files = await trio.to_thread.run_sync(next, changes)
        task_status.started()
        while True:
            if files:
                changed(files)
            files = await trio.to_thread.run_sync(next, changes)


def wait_for_changes(directories: Iterable[Path]) -> Generator[list[Path], None, None]:
    """Yield the Python files that have changed; none after each turn in which nothing did.

    Raises:
        ConfigError: A directory cannot be watched.
    """
    from watchfiles import watch as watch_files  # noqa: PLC0415 - an extra, and only for those who want it

    roots = [directory.resolve() for directory in directories]
    has_watched = is_failing = False
    while True:
        try:
            with closing(
                watch_files(
                    *roots, watch_filter=None, debounce=_DEBOUNCE_MS, rust_timeout=_TURN_MS, yield_on_timeout=True
                )
            ) as batches:
                for batch in batches:
                    has_watched, is_failing = True, False
                    yield _sources(batch, roots)
        except (OSError, RuntimeError) as error:
            if not has_watched:
                names = ", ".join(map(str, roots))
                raise ConfigError(f"--reload cannot watch {names}: {error}") from None
            # As after a change to a file whose name is not UTF-8, which is the end of its watcher.
            if is_failing:
                # Whatever it is, it is not over; the directory may be gone.
                time.sleep(_TURN_MS / 1000)
                yield []
            else:
                is_failing = True
                _log.warning("changes may have been missed, watching anew: %s", error)


def _sources(batch: set[FileChange], roots: list[Path]) -> list[Path]:
    found: set[Path] = set()
    for change, name in batch:
        path = Path(name)
        if _is_watched(path, roots):
            found.add(path)
            if change.name == "added":
                # What was in a directory before it was seen, because it was moved or is just being made, goes
                # unmentioned. For a file this walks nothing.
                found.update(Path(above, file) for above, _, files in os.walk(path) for file in files)
    return sorted(path for path in found if path.suffix == ".py" and _is_watched(path, roots))


def _is_watched(path: Path, roots: list[Path]) -> bool:
    """Tell whether nothing between a directory that is watched and the path is to be left out."""
    return any(
        path.is_relative_to(root)
        and not any(part.startswith(".") or part in _IGNORED for part in path.relative_to(root).parts)
        for root in roots
    )
