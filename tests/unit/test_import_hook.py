"""A callback once a module is imported, and not before."""

from __future__ import annotations

import importlib
import importlib.resources
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import pagi_trio
from pagi_trio.import_hook import when_imported

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place to import from; the interpreter is left as it was."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    modules = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def test_it_calls_back_after_the_import_and_before_the_importer_goes_on(directory: Path) -> None:
    (directory / "hooked.py").write_text("value = 1\n")
    seen: list[int] = []
    when_imported("hooked", lambda: seen.append(sys.modules["hooked"].value))
    import_module = importlib.import_module
    import_module("json")
    assert seen == []
    import_module("hooked")
    assert seen == [1]
    # Once.
    del sys.modules["hooked"]
    import_module("hooked")
    assert seen == [1]


def test_what_is_imported_already_is_called_back_at_once() -> None:
    seen: list[str] = []
    when_imported("sys", lambda: seen.append("sys"))
    assert seen == ["sys"]


def test_a_package_is_loaded_as_ever(directory: Path) -> None:
    package = directory / "hooked"
    package.mkdir()
    (package / "__init__.py").write_text("from hooked import inner\n")
    (package / "inner.py").write_text("value = 2\n")
    (package / "data.txt").write_text("found")
    loaders = type(importlib.import_module("json").__loader__)
    when_imported("hooked", lambda: None)
    module = importlib.import_module("hooked")
    assert module.inner.value == 2
    assert type(module.__loader__) is loaders
    assert module.__spec__ is not None
    assert module.__spec__.loader is module.__loader__
    assert importlib.resources.files("hooked").joinpath("data.txt").read_text() == "found"


def test_a_module_that_fails_or_is_not_there_is_not_called_back(directory: Path) -> None:
    (directory / "broken.py").write_text("raise RuntimeError('broken')\n")
    for name, error in (("broken", RuntimeError), ("nowhere_at_all", ModuleNotFoundError)):
        when_imported(name, lambda: pytest.fail("it was called"))
        with pytest.raises(error):
            importlib.import_module(name)


def test_asking_for_it_or_failing_to_import_it_is_not_importing_it(directory: Path) -> None:
    seen: list[int] = []
    (directory / "hooked.py").write_text("raise RuntimeError('not yet')\n")
    when_imported("hooked", lambda: seen.append(1))
    assert importlib.util.find_spec("hooked") is not None
    with pytest.raises(RuntimeError, match="not yet"):
        importlib.import_module("hooked")
    assert seen == []
    (directory / "hooked.py").write_text("value = 100\n")
    importlib.invalidate_caches()
    assert importlib.import_module("hooked").value == 100
    assert seen == [1]


def test_a_forked_child_is_not_called_back(directory: Path) -> None:
    (directory / "hooked.py").write_text("")
    seen: list[int] = []
    when_imported("hooked", lambda: seen.append(1))
    child = os.fork()
    if child == 0:
        importlib.import_module("hooked")
        os._exit(len(seen))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    importlib.import_module("hooked")
    assert seen == [1]


def test_the_exporters_are_whole_when_prometheus_client_is() -> None:
    pytest.importorskip("prometheus_client")
    # In an interpreter of its own, where neither has been imported yet.
    program = """
from pagi_trio.import_hook import when_imported

def share():
    from pagi_trio.metrics.exporters.prometheus import Collector

when_imported("prometheus_client", share)
import pagi_trio.metrics.exporters.prometheus
"""
    path = str(Path(pagi_trio.__file__).parents[1])
    subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": path}, check=True)
