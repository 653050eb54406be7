"""Finding the application that a path on the command line names."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import inspect
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from pagi_trio.errors import AppLoadError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType, TracebackType

    from pagi_trio.asgi import App

DEFAULT_ATTRIBUTE: Final = "app"

# Names as far apart as "app" and "application" are still worth suggesting.
_LIKENESS: Final = 0.4


def load_app(path: str, *, factory: bool = False) -> App:
    """Import an application; the only place that changes `sys.path`.

    Modules are found from the current directory too, and what a file imports from the file's directory.

    Args:
        path: ``module:attr``, ``module.sub:obj.attr`` or ``path/file.py:attr``; attr defaults to ``app``.
        factory: Whether what the path names is to be called, without arguments, and returns the application.

    Raises:
        AppLoadError: It cannot be found, raised while it was imported, or cannot be called. Where the
            application's own code raised, that error is the cause, its traceback cut to its own frames.
    """
    target, _, attribute = path.partition(":")
    module = _load_file(target) if "/" in target or target.endswith(".py") else _load_module(target)
    found = _find_attribute(path, module, attribute or DEFAULT_ATTRIBUTE)
    if factory:
        found = _call_factory(path, found)
    elif inspect.isfunction(found) and not inspect.signature(found).parameters:
        raise AppLoadError(f"{path} takes no arguments, so it is no application; is it a factory? Use --factory")
    if not callable(found):
        raise AppLoadError(f"{path} is no application but of type {type(found).__name__}")
    return cast("App", found)


def _load_module(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise AppLoadError(f"{name!r} is not a module name; write module:attr or path/file.py:attr")
    directory = _current_directory()
    _make_importable(directory)
    with _own_code(name):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            raise AppLoadError(f"there is no module {error.name!r}, neither installed nor in {directory}") from None


def _load_file(target: str) -> ModuleType:
    file = Path(target)
    file = (file if file.is_absolute() else _current_directory() / file).resolve()
    if not file.is_file():
        raise AppLoadError(f"there is no file {target}")
    _make_importable(file.parent)
    loaded = sys.modules.get(file.stem)
    if loaded is not None and getattr(loaded, "__file__", None) == str(file):
        return loaded
    # A file may be named like a module that is in use already, which must not be replaced.
    name = file.stem if loaded is None else str(file)
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise AppLoadError(f"{target} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _own_code(target):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _current_directory() -> Path:
    try:
        return Path.cwd()
    except OSError as error:
        # As that of an older release that has been removed while its server ran.
        raise AppLoadError(f"the current directory cannot be used: {error.strerror}; start the server anew") from None


def _make_importable(directory: Path) -> None:
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))


def _find_attribute(path: str, module: ModuleType, attribute: str) -> object:
    found: object = module
    for name in attribute.split("."):
        # A module, too, may do anything when it is asked for what it has.
        with _own_code(path):
            try:
                found = getattr(found, name)
            except AttributeError:
                raise AppLoadError(f"{path}: there is no {name!r}{_suggestion(found, name)}") from None
    return found


def _suggestion(holder: object, name: str) -> str:
    if name.endswith("()"):
        return f", to call {name[:-2]!r} use --factory"
    public = [one for one in dir(holder) if not one.startswith("_")]
    near = difflib.get_close_matches(name, public, n=1, cutoff=_LIKENESS)
    return f", did you mean {near[0]!r}?" if near else ""


def _call_factory(path: str, factory: object) -> object:
    if not callable(factory):
        raise AppLoadError(f"{path} is no factory but of type {type(factory).__name__}")
    with _own_code(path):
        made: object = factory()
    if inspect.iscoroutine(made):
        made.close()
        raise AppLoadError(f"{path} is an async function; a factory must be a plain one")
    return made


@contextmanager
def _own_code(name: str) -> Iterator[None]:
    try:
        yield
    except (AppLoadError, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001  # whatever an application raises, its path is named
        text = str(error).partition("\n")[0]
        raise AppLoadError(f"{name} raised {type(error).__name__}" + (f": {text}" if text else "")) from _trim(error)


def _trim(error: BaseException) -> BaseException:
    """Leave out the frames above the application's own."""
    traceback: TracebackType | None = error.__traceback__
    while traceback is not None and _is_machinery(traceback.tb_frame.f_code.co_filename):
        traceback = traceback.tb_next
    return error.with_traceback(traceback)


def _is_machinery(file: str) -> bool:
    return file in {__file__, importlib.__file__, contextlib.__file__} or file.startswith("<frozen importlib")
