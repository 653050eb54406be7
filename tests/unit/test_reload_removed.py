"""A directory that is watched and goes away: a change of branch may do that, and it may come back."""

from __future__ import annotations

import os
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING

import pytest

from pagi_trio.nurseries.reload import wait_for_changes

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

pytest.importorskip("watchfiles")


def test_watching_goes_on_once_a_removed_directory_is_there_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It takes some turns of 0.1 s."""
    watched = tmp_path / "watched"
    watched.mkdir()
    with closing(wait_for_changes([watched])) as changes:
        assert next(changes) == []
        # The end of its watcher, so that there must be another.
        bad = watched / os.fsdecode(b"latin-\xe9.txt")
        bad.touch()
        bad.unlink()
        watched.rmdir()
        assert [files for files in islice(changes, 3) if files] == []
        watched.mkdir()
        # Until it has a watcher, no change is seen.
        assert next(files for files in change_until_seen(changes, watched / "new.py") if files) == [watched / "new.py"]
    warnings = [record.getMessage() for record in caplog.records if record.name == "pagi_trio"]
    assert len(warnings) == 1
    assert warnings[0].startswith("changes may have been missed, watching anew: ")


def change_until_seen(changes: Generator[list[Path], None, None], file: Path) -> Iterator[list[Path]]:
    for number in range(100):
        file.write_text(str(number))
        yield next(changes)
