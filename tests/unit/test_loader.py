"""Finding the application that a path names."""

from __future__ import annotations

import sys
import traceback

import click
import pytest

from pagi_trio.errors import AppLoadError
from pagi_trio.loader import load_app

GOOD = """
async def app(scope, receive, send): ...
class Holder:
    inner = app
def create(): return app
async def create_async(): return app
def create_nothing(): return None
def explode(): raise RuntimeError("first line\\nsecond line")
number = 3
"""


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """A current directory with an application, leaving no trace in the interpreter."""
    (tmp_path / "good_app.py").write_text(GOOD)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "__init__.py").write_text("")
    (tmp_path / "inner" / "asgi.py").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def refusal(path, **options):
    with pytest.raises(AppLoadError) as caught:
        load_app(path, **options)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    "path",
    [
        "good_app:app",
        "good_app",
        "good_app:Holder.inner",
        "inner.asgi:app",
        "good_app.py",
        "good_app.py:app",
        "./good_app.py:Holder.inner",
        "inner/asgi.py",
    ],
)
def test_paths(directory, path):
    app = load_app(path)
    assert app.__qualname__ == "app"


def test_an_absolute_file_is_found(directory):
    assert load_app(f"{directory}/inner/asgi.py:app").__qualname__ == "app"


def test_a_file_may_import_its_neighbours(directory):
    (directory / "inner" / "neighbour_of_app.py").write_text("value = 5")
    (directory / "inner" / "main_app.py").write_text("from neighbour_of_app import value\ndef app(a, b, c): ...\n")
    assert callable(load_app("inner/main_app.py"))


def test_the_import_path_grows_once(directory):
    load_app("good_app:app")
    load_app("good_app:app")
    assert sys.path.count(str(directory)) == 1


def test_a_file_is_imported_once(directory):
    assert load_app("good_app:app") is load_app("good_app.py:app")
    assert load_app("good_app.py") is load_app("good_app.py")


def test_a_file_named_like_a_module_in_use_replaces_nothing(directory):
    (directory / "click.py").write_text(GOOD)
    app = load_app("click.py")
    assert app.__qualname__ == "app"
    assert sys.modules["click"] is click


def test_a_file_name_need_not_be_an_identifier(directory):
    (directory / "my-app.py").write_text(GOOD)
    assert callable(load_app("my-app.py"))


def test_a_factory_is_called(directory):
    assert load_app("good_app:create", factory=True) is load_app("good_app:app")


@pytest.mark.parametrize(
    ("path", "factory", "message"),
    [
        ("nothing_here:app", False, "there is no module 'nothing_here', neither installed nor in "),
        ("good_app.deeper:app", False, "there is no module 'good_app.deeper'"),
        ("inner.nothing:app", False, "there is no module 'inner.nothing'"),
        ("nothing.py", False, "there is no file nothing.py"),
        ("inner/", False, "there is no file inner/"),
        ("", False, "'' is not a module name"),
        (".good_app:app", False, "'.good_app' is not a module name"),
        ("good-app:app", False, "'good-app' is not a module name"),
        ("good_app:ap", False, "good_app:ap: there is no 'ap', did you mean 'app'?"),
        ("good_app:Holder.iner", False, "there is no 'iner', did you mean 'inner'?"),
        ("good_app:create()", False, "there is no 'create()', to call 'create' use --factory"),
        ("good_app:number", False, "good_app:number is no application but of type int"),
        ("good_app:create", False, "good_app:create takes no arguments, so it is no application"),
        ("good_app:number", True, "good_app:number is no factory but of type int"),
        ("good_app:create_nothing", True, "good_app:create_nothing is no application but of type NoneType"),
        ("good_app:create_async", True, "good_app:create_async is an async function"),
    ],
)
def test_what_is_not_there_is_named(directory, path, factory, message):
    error = refusal(path, factory=factory)
    assert message in str(error)
    assert error.__cause__ is None


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nothing_at_all", "broken_app raised ModuleNotFoundError: No module named 'nothing_at_all'"),
        ("1 / 0", "broken_app raised ZeroDivisionError: division by zero"),
        ("import sys; sys.exit(4)", "broken_app raised SystemExit: 4"),
        ("raise ValueError", "broken_app raised ValueError"),
        ("raise GeneratorExit", "broken_app raised GeneratorExit"),
        ("def __getattr__(name): raise ImportError('late')", "broken_app:app raised ImportError: late"),
        ("x = (", "broken_app raised SyntaxError: '(' was never closed (broken_app.py, line 1)"),
    ],
)
def test_an_application_that_raises_is_the_cause_with_its_own_frames(directory, source, message):
    (directory / "broken_app.py").write_text(source)
    error = refusal("broken_app:app")
    assert str(error) == message
    frames = traceback.extract_tb(error.__cause__.__traceback__)
    assert {frame.filename for frame in frames} <= {str(directory / "broken_app.py")}
    assert bool(frames) == ("x = (" not in source)


def test_a_file_that_raises_is_forgotten(directory):
    (directory / "broken_app.py").write_text("1 / 0")
    assert str(refusal("broken_app.py")).startswith("broken_app.py raised ZeroDivisionError")
    (directory / "broken_app.py").write_text(GOOD)
    assert callable(load_app("broken_app.py"))


def test_a_factory_that_raises_is_the_cause(directory):
    error = refusal("good_app:explode", factory=True)
    assert str(error) == "good_app:explode raised RuntimeError: first line"
    assert isinstance(error.__cause__, RuntimeError)
    assert [frame.name for frame in traceback.extract_tb(error.__cause__.__traceback__)] == ["explode"]


def test_ctrl_c_while_it_is_imported_is_no_error_of_the_application(directory):
    (directory / "broken_app.py").write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_app("broken_app:app")


@pytest.mark.parametrize("path", ["good_app:app", "good_app.py"])
def test_a_current_directory_that_has_been_removed_is_named(directory, monkeypatch, path):
    removed = directory / "removed"
    removed.mkdir()
    monkeypatch.chdir(removed)
    removed.rmdir()
    message = "the current directory cannot be used: No such file or directory; start the server anew"
    assert str(refusal(path)) == message
    assert callable(load_app(str(directory / "good_app.py")))
