"""Doing something when a module is imported, and not before: many applications never import it."""

from __future__ import annotations

import os
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


def when_imported(name: str, callback: Callable[[], None]) -> None:
    """Call back once a package has been imported, before whoever imports it goes on.

    Args:
        name: Of the package.
        callback: Called at once if it has been imported already. It must not raise: whoever imports would get it.
    """
    if name in sys.modules:
        callback()
    else:
        sys.meta_path.insert(0, _Watch(name, callback))


class _Watch(MetaPathFinder):
    """Finds nothing itself, but hands out a loader that calls back.

    It stays until the package has been imported whole: programs ask for a spec without importing, and an import may
    fail and be tried again. A child that is forked meanwhile has nothing to be called back for.
    """

    def __init__(self, name: str, callback: Callable[[], None]) -> None:
        self._name = name
        self._callback = callback
        self._pid = os.getpid()
        self._is_asking = False

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name or self._is_asking or os.getpid() != self._pid:
            return None
        # The others are asked, and this one with them.
        self._is_asking = True
        try:
            spec = find_spec(fullname)
        finally:
            self._is_asking = False
        if spec is not None and spec.loader is not None:
            spec.loader = _CallingBack(spec.loader, self._imported)
        return spec

    def _imported(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            self._callback()


class _CallingBack(Loader):
    """Loads as another loader does, then calls back."""

    def __init__(self, loader: Loader, callback: Callable[[], None]) -> None:
        self._loader = loader
        self._callback = callback

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # What else the module's loader can do, such as reading its files, is to be found as ever.
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._callback()
