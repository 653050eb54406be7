"""Imports point down only: who may know of whom.

The layers are those of the architecture page. Imports for type checking count as well: a type from above is
knowledge of above.
"""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import pagi_trio

ROOT = "pagi_trio"
PACKAGE = Path(pagi_trio.__file__).parent

# From the top down; a package stands for all that is in it.
LAYERS = (
    {
        *("__main__", "cli", "cli_options", "config_reference", "cpu_limit", "import_hook"),
        *("launch", "loader", "process", "pytest_plugin", "testing", "worker_process"),
    },
    {
        *("failure", "fanout", "health", "hypercorn_config", "interface", "page", "server", "supervisor", "systemd"),
        *("urlmap", "watchdog"),
    },
    {"nurseries"},
    {"metrics", "wire"},
    {
        *(
            "asgi",
            "bind",
            "config",
            "config_groups",
            "config_statsd",
            "errors",
            "foreign_loop",
            "mount",
            "recruits",
            "settings",
        ),
        *("trust", "version"),
    },
)

# Beside each other, and strangers.
STRANGERS = {"metrics", "wire"}

# wire/ is bytes in, bytes out.
IMPURE = {"asyncio", "hypercorn", "io", "os", "pathlib", "select", "selectors", "socket", "ssl", "threading", "trio"}


class Import(NamedTuple):
    """One import: by whom, of what, and whether it happens when the program runs."""

    importer: str
    imported: str
    runs: bool


def module_name(path, package):
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def read_imports(package):
    """Return every import in a package, wherever it stands, with ``from package import module`` resolved."""
    paths = {module_name(path, package): path for path in package.rglob("*.py")}
    found = []

    def visit(importer, node, runs):
        if isinstance(node, ast.Import):
            found.extend(Import(importer, alias.name, runs) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{importer} has a relative import; write it in full"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.append(Import(importer, whole if whole in paths else node.module, runs))
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for child in node.body:
                visit(importer, child, runs=False)
            for child in node.orelse:
                visit(importer, child, runs)
        else:
            for child in ast.iter_child_nodes(node):
                visit(importer, child, runs)

    for name, path in paths.items():
        visit(name, ast.parse(path.read_text(encoding="utf-8")), runs=True)
    return found


def layer_of(part):
    for number, layer in enumerate(LAYERS):
        if part in layer:
            return number
    raise AssertionError(f"{part} has no layer: give it one in LAYERS")


def fault_of(importer, imported):
    """Say what is wrong with an import inside the package; None if nothing is."""
    if imported == ROOT:
        return f"{importer} imports the package root"
    above, below = (name.removeprefix(f"{ROOT}.").split(".")[0] for name in (importer, imported))
    if layer_of(below) < layer_of(above):
        return f"{importer} imports {imported}, which is above it"
    if above != below and {above, below} == STRANGERS:
        return f"{importer} imports {imported}: metrics and wire do not know each other"
    return None


def find_faults(imports):
    return [
        fault
        for importer, imported, _ in imports
        # The root itself is the surface, and may import whatever it shows.
        if importer != ROOT and imported.split(".")[0] == ROOT and (fault := fault_of(importer, imported))
    ]


def find_cycle(imports):
    """Return the modules of a cycle of imports that run; empty if there is none."""
    graph = {}
    for importer, imported, runs in imports:
        if runs:
            graph.setdefault(importer, set()).add(imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


@pytest.fixture(scope="module")
def imports():
    return read_imports(PACKAGE)


def test_imports_point_down_only(imports):
    assert find_faults(imports) == []


def test_imports_have_no_cycle(imports):
    assert find_cycle(imports) == []


def test_wire_does_no_io(imports):
    impure = [
        one for one in imports if one.importer.startswith("pagi_trio.wire") and one.imported.split(".")[0] in IMPURE
    ]
    assert impure == []


def test_only_the_exporters_know_prometheus_client(imports):
    importers = {one.importer for one in imports if one.imported.split(".")[0] == "prometheus_client"}
    exporters = "pagi_trio.metrics.exporters"
    modules = ("definitions", "families", "prometheus", "prometheus_values", "registered")
    assert importers == {exporters, *(f"{exporters}.{name}" for name in modules)}


@pytest.fixture
def imports_of(tmp_path):
    """Read the imports of a package of the same shape: ``imports_of(path=source, ...)``."""

    def write(**sources):
        root = tmp_path / ROOT
        for name, source in sources.items():
            path = root.joinpath(*name.split("__")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source, encoding="utf-8")
        return read_imports(root)

    return write


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("errors", "import pagi_trio.server", "is above it"),
        ("wire__head", "from pagi_trio.nurseries.scope import ActiveScope", "is above it"),
        ("nurseries__call", "def f():\n    from pagi_trio.server import serve", "is above it"),
        ("metrics__store", "if TYPE_CHECKING:\n    from pagi_trio.urlmap import URLMap", "is above it"),
        ("wire__head", "from pagi_trio.metrics import catalog", "do not know each other"),
        ("metrics__store", "import pagi_trio.wire.head", "do not know each other"),
        ("server", "from pagi_trio import Config", "imports the package root"),
    ],
)
def test_a_wrong_import_is_found(imports_of, module, source, fault):
    (found,) = find_faults(imports_of(**{module: source, "metrics__catalog": "", "wire__date": ""}))
    assert fault in found


def test_right_imports_are_no_fault(imports_of):
    source = "import trio\nfrom pagi_trio.wire import date\nfrom pagi_trio.errors import PagiError"
    assert find_faults(imports_of(nurseries__call=source, wire__date="import time")) == []


def test_a_module_without_a_layer_is_found(imports_of):
    with pytest.raises(AssertionError, match="helpers has no layer"):
        find_faults(imports_of(server="import pagi_trio.helpers", helpers=""))


def test_a_cycle_is_found_unless_it_is_of_types_alone(imports_of):
    types_alone = "if TYPE_CHECKING:\n    import pagi_trio.wire.head"
    assert find_cycle(imports_of(wire__head="import pagi_trio.wire.body", wire__body=types_alone)) == []
    found = find_cycle(imports_of(wire__body="import pagi_trio.wire.head"))
    assert set(found) == {"pagi_trio.wire.head", "pagi_trio.wire.body"}
