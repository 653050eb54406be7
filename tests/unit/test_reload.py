"""Watching the sources: which changes are told, once each, and how it ends.

Each test takes a few tenths of a second: watchfiles looks every 50 ms, and waits for a burst to end.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import asynccontextmanager, closing, suppress
from itertools import islice
from pathlib import Path

import pytest
import trio

from pagi_trio.errors import ConfigError
from pagi_trio.nurseries.reload import require_watchfiles, wait_for_changes, watch

# Changed last, so that all before it has been told when it is.
MARK = "zz_mark.py"


@asynccontextmanager
async def watching(*directories):
    """Watch while in the block, and give what is told as a channel."""
    send, receive = trio.open_memory_channel(100)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(watch, directories, send.send_nowait)
            yield receive
            nursery.cancel_scope.cancel()
        # Where it is found out that the cancellation took too long.
        await trio.lowlevel.checkpoint()


async def collect(told, last):
    """Return all that is told until one file is."""
    files = []
    while last not in files:
        files += await told.receive()
    return files


def watcher_threads():
    """Return the threads that watchfiles has started; Python does not know of them."""
    names = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it has just ended
            names.append((task / "comm").read_text())
    return [name for name in names if name.startswith("notify-rs")]


async def watcher_threads_end():
    # They are told to end, and not waited for.
    with trio.fail_after(5):
        while watcher_threads():
            await trio.lowlevel.checkpoint()


@pytest.fixture
def project(tmp_path):
    (tmp_path / "app.py").write_text("")
    (tmp_path / "old.py").write_text("")
    package = tmp_path / "package"
    package.mkdir()
    (package / "views.py").write_text("")
    return tmp_path


@pytest.mark.trio
async def test_files_that_are_added_modified_and_deleted_are_told(project):
    async with watching(project) as told:
        (project / "package" / "views.py").write_text("changed")
        (project / "old.py").unlink()
        (project / MARK).write_text("")
        assert set(await collect(told, project / MARK)) == {
            project / "old.py",
            project / "package" / "views.py",
            project / MARK,
        }


@pytest.mark.trio
async def test_a_burst_is_not_told_change_by_change(project):
    async with watching(project) as told:
        for number in range(50):
            (project / "app.py").write_text(str(number))
        (project / MARK).write_text("")
        assert len(await collect(told, project / MARK)) < 50


@pytest.mark.trio
async def test_changes_go_on_being_told(project):
    async with watching(project) as told:
        for file in (project / "app.py", project / "old.py"):
            file.write_text("changed")
            assert await told.receive() == [file]


@pytest.mark.trio
async def test_a_file_that_takes_the_place_of_another_is_told(project):
    # So do editors save.
    async with watching(project) as told:
        (project / "app.py.tmp").write_text("changed")
        (project / "app.py.tmp").replace(project / "app.py")
        assert await told.receive() == [project / "app.py"]


@pytest.mark.trio
async def test_what_is_not_the_application_is_not_told(project):
    names = [
        "__pycache__/app.py",
        ".git/hook.py",
        ".venv/lib/module.py",
        "venv/module.py",
        "env/lib/python3.11/site-packages/module.py",
        "node_modules/gyp/gyp.py",
        ".#app.py",
        "package/__pycache__/views.py",
        "package/data.json",
        "app.pyc",
        "app.py~",
        "py",
    ]
    for name in names:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
    async with watching(project) as told:
        for name in names:
            (project / name).write_text("")
        (project / MARK).write_text("")
        assert await collect(told, project / MARK) == [project / MARK]


@pytest.mark.trio
async def test_an_environment_that_is_made_while_watching_is_not_told(project):
    async with watching(project) as told:
        packages = project / "env" / "lib" / "site-packages"
        packages.mkdir(parents=True)
        (packages / "module.py").write_text("")
        (project / ".venv").mkdir()
        (project / ".venv" / "module.py").write_text("")
        (project / MARK).write_text("")
        assert await collect(told, project / MARK) == [project / MARK]


@pytest.mark.trio
async def test_only_what_is_below_decides_what_is_left_out(tmp_path):
    project = tmp_path / ".cache" / "node_modules" / "project"
    project.mkdir(parents=True)
    async with watching(project) as told:
        (project / "app.py").write_text("")
        assert await told.receive() == [project / "app.py"]


@pytest.mark.trio
async def test_a_new_directory_is_told_by_all_that_is_in_it(project):
    deep = project / "made" / "at" / "once"
    async with watching(project) as told:
        deep.mkdir(parents=True)
        (deep / "module.py").write_text("")
        (deep / "__pycache__").mkdir()
        (deep / "__pycache__" / "module.py").write_text("")
        assert await collect(told, deep / "module.py") == [deep / "module.py"]


@pytest.mark.trio
async def test_a_directory_that_is_moved_in_is_told_by_all_that_is_in_it_sorted(project, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "moved"
    (elsewhere / "e").mkdir(parents=True)
    names = ["a.py", "b.py", "c.py", "d.py", "e/a.py", "e/b.py", "e/c.py", "f.py"]
    for name in names:
        (elsewhere / name).write_text("")
    async with watching(project) as told:
        moved = elsewhere.rename(project / "moved")
        assert await told.receive() == [moved / name for name in names]


@pytest.mark.trio
async def test_several_directories_are_watched(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    async with watching(one, two) as told:
        (two / "b.py").write_text("")
        (one / "a.py").write_text("")
        assert sorted(await collect(told, one / "a.py")) == [one / "a.py", two / "b.py"]


@pytest.mark.trio
async def test_a_directory_may_be_relative_or_a_link(project, monkeypatch, tmp_path_factory):
    link = tmp_path_factory.mktemp("links") / "link"
    link.symlink_to(project)
    monkeypatch.chdir(link)
    async with watching(Path()) as told:
        (project / "app.py").write_text("changed")
        assert await told.receive() == [project.resolve() / "app.py"]


@pytest.mark.trio
async def test_a_cancellation_ends_it_and_its_thread(project):
    async with watching(project):
        assert watcher_threads()
    await watcher_threads_end()


@pytest.mark.trio
async def test_a_cancellation_ends_it_while_files_go_on_changing(project):
    stop = threading.Event()
    written = trio.Event()

    def write():
        number = 0
        while not stop.wait(0.005):
            (project / f"file_{number}.py").write_text("")
            number += 1
            trio.from_thread.run_sync(written.set)

    async with trio.open_nursery() as nursery:
        try:
            async with watching(project):
                nursery.start_soon(trio.to_thread.run_sync, write)
                await written.wait()
        finally:
            stop.set()


@pytest.mark.trio
async def test_a_cancellation_is_not_swallowed(project):
    async def watch_and_go_on():
        await watch([project], print)
        raise AssertionError("it came back")

    with trio.CancelScope() as scope:
        scope.cancel()
        await watch_and_go_on()
    assert scope.cancelled_caught


@pytest.mark.trio
async def test_what_the_callback_raises_ends_it(project):
    def fail(files):
        raise LookupError(files)

    with trio.fail_after(5), pytest.RaisesGroup(LookupError):
        async with trio.open_nursery() as nursery:
            await nursery.start(watch, [project], fail)
            (project / "app.py").write_text("changed")
    await watcher_threads_end()


@pytest.mark.trio
async def test_signal_handlers_stay_as_they_are(project):
    before = [signal.getsignal(number) for number in signal.valid_signals()]
    async with watching(project):
        assert [signal.getsignal(number) for number in signal.valid_signals()] == before


def test_a_file_name_that_is_not_utf_8_does_not_end_it(project, caplog):
    def warnings():
        return [record.getMessage() for record in caplog.records if record.name == "pagi_trio"]

    with closing(wait_for_changes([project])) as changes:
        assert next(changes) == []
        (project / os.fsdecode(b"latin-\xe9.txt")).write_text("")
        assert not next(files for files in islice(changes, 100) if files or warnings())
        (project / "app.py").write_text("changed")
        assert next(files for files in islice(changes, 100) if files) == [project / "app.py"]
    [warning] = warnings()
    assert warning.startswith("changes may have been missed, watching anew: ")


@pytest.mark.trio
async def test_a_directory_that_is_missing_is_refused_by_name(project):
    with pytest.raises(ConfigError, match=f"^--reload cannot watch {project}/missing: .+$"):
        await watch([project / "missing"], print)


@pytest.mark.trio
async def test_without_watchfiles_it_says_what_to_install(project, monkeypatch):
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    message = r"^--reload needs watchfiles; run: pip install 'pagi-trio\[reload\]'$"
    with pytest.raises(ConfigError, match=message):
        require_watchfiles()
    with pytest.raises(ConfigError, match=message):
        await watch([project], print)


def test_with_watchfiles_nothing_is_said():
    require_watchfiles()
