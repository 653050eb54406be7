"""The documentation says what is so: its code is that of the examples, its names and links exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from pagi_trio.cli import make_command
from pagi_trio.cli_options import format_default
from pagi_trio.config import SETTINGS, Config
from pagi_trio.metrics.catalog import CATALOG, HISTOGRAM_PARTS

ROOT = Path(__file__).resolve().parents[2]

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]

# Their code shows how a setting is written, not a program.
WRITTEN_BY_HAND = [page for page in PAGES if page.parent.name != "reference"]

DEPLOY = ROOT / "docs" / "deploy"

EXAMPLES = [path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "examples").rglob("*.py")]


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands(text):
    """Return the arguments of every call of pagi-trio."""
    lines = "\n".join(blocks(text, "sh")).splitlines()
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [shlex.split(part)[1:] for part in parts if part.startswith(("pagi-trio ", ".venv/bin/pagi-trio "))]


def missing_names(text):
    """Return the names in code that look like a metric's and are not."""
    known = {metric.name for metric in CATALOG} | {
        metric.name + part for metric in CATALOG if metric.kind == "histogram" for part in HISTOGRAM_PARTS
    }
    names = re.findall(r"\bpagi_(?:server|websocket|sse|metrics)_\w+[a-z]\b", text)
    return sorted(name for name in set(names) - known if not any(one.startswith(f"{name}_") for one in known))


def broken_links(page, text):
    targets = re.findall(r"\]\(([^)#]+)", text)
    return [one for one in targets if "://" not in one and not (page.parent / one).exists()]


@pytest.fixture(params=PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def page(request):
    return request.param


def test_links_lead_somewhere(page):
    assert broken_links(page, page.read_text(encoding="utf-8")) == []


def test_each_page_is_reached_from_the_readme():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        one = waiting.pop()
        reached.add(one)
        targets = re.findall(r"\]\(([^)#]+\.md)", one.read_text(encoding="utf-8"))
        found = {(one.parent / target).resolve() for target in targets if "://" not in target}
        waiting += found - reached
    assert set(PAGES) - reached == {ROOT / "CHANGELOG.md"}


def test_metrics_are_in_the_catalog(page):
    assert missing_names(page.read_text(encoding="utf-8")) == []


def test_commands_have_only_flags_that_exist(page):
    for arguments in commands(page.read_text(encoding="utf-8")):
        make_command().make_context("pagi-trio", arguments)


@pytest.mark.parametrize("page", WRITTEN_BY_HAND, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_is_taken_from_the_examples(page):
    for block in blocks(page.read_text(encoding="utf-8"), "python"):
        assert any(block in example for example in EXAMPLES), f"no example has these lines:\n{block}"


def misfits(text):
    """Return the blocks in the language of a file of docs/deploy that are not part of one."""
    files = [path.read_text(encoding="utf-8") for path in DEPLOY.iterdir()]
    found = [block for language in ("ini", "nginx", "yaml") for block in blocks(text, language)]
    return [block for block in found if not any(block in file for file in files)]


def commands_of_files():
    """Return the arguments of pagi-trio in the files of docs/deploy."""
    unit = re.search(r"^ExecStart=(.*)$", (DEPLOY / "app.service").read_text(encoding="utf-8"), re.MULTILINE)
    container = re.search(r"^ +args: \[(.*)\]$", (DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8"), re.MULTILINE)
    return [shlex.split(unit[1])[1:], shlex.split(container[1].replace(",", " "))[1:]]


def test_the_deploy_page_shows_the_files_for_deployment():
    text = (ROOT / "docs" / "how-to" / "deploy.md").read_text(encoding="utf-8")
    assert misfits(text) == []
    assert {path.name for path in DEPLOY.iterdir()} <= set(re.findall(r"\(\.\./deploy/([^)]+)\)", text))


def test_the_files_for_deployment_have_only_flags_that_exist():
    for arguments in commands_of_files():
        context = make_command().make_context("pagi-trio", arguments)
        assert context.params["app"] == "package.module:app"


def test_the_code_of_the_configuration_page_runs():
    page = ROOT / "docs" / "reference" / "configuration.md"
    [block] = blocks(page.read_text(encoding="utf-8"), "python")
    names = {}
    exec(block, names)
    assert names["config"] == Config(bind=("0.0.0.0:8000",)).replace(timeouts={"graceful_s": 10})


def missing_tests(text):
    """Return the tests named in code that do not exist."""
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    return [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).is_file() or (name and f"def {name}(" not in (ROOT / path).read_text(encoding="utf-8"))
    ]


def wrong_defaults(text):
    """Return the rows of a table whose first cells are not a setting and its default."""
    rows = re.findall(r"^\| `(\w+\.\w+)` \| (\S+) \|", text, re.MULTILINE)
    return [
        f"{key} {default}"
        for key, default in rows
        if key not in SETTINGS or default != (f"`{shown}`" if (shown := format_default(SETTINGS[key])) else "unset")
    ]


def test_each_promise_of_the_security_page_has_its_tests_and_each_limit_its_default():
    text = (ROOT / "docs" / "explanation" / "security.md").read_text(encoding="utf-8")
    assert missing_tests(text) == []
    assert wrong_defaults(text) == []
    promises, _, rest = text.partition("\n## The defaults\n")
    for promise in promises.split("\n**")[1:]:
        assert "\n- `tests/" in promise, f"no test holds {promise[:40]!r}"
    limits = {key for key in SETTINGS if key.startswith(("limits.", "websocket."))} - {"websocket.deflate"}
    assert {key for key in limits if f"| `{key}` |" not in rest} == set()


def rows(text):
    """Return the cells of each row of a text's tables."""
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines() if line[:1] == "|"]


def test_the_readme_sums_up_what_the_reference_has():
    readme, conformance, abuse = (
        (ROOT / page).read_text(encoding="utf-8")
        for page in ("README.md", "docs/reference/conformance.md", "docs/reference/abuse.md")
    )
    requests, attacks, memory = rows(
        readme.partition("<!-- standing: begin -->")[2].partition("<!-- standing: end")[0]
    )[2:]
    assert requests[1:] == next(row[1:] for row in rows(conformance) if row[0] == "all")
    results = [row[1:] for row in rows(abuse) if "MiB" in row[1]]
    for number, cells in enumerate(zip(*results, strict=True)):
        harmful = sum("**frozen**" in cell or "**the server ended**" in cell for cell in cells)
        grown = [float(found[1]) for cell in cells if (found := re.search(r"\+([\d.]+) MiB", cell))]
        assert attacks[1 + number] == f"{harmful} of {len(cells)}"
        assert memory[1 + number] == f"{max(grown):.0f} MiB"


def misnamed_flags(text):
    """Return the flags that a table of another server's says wrongly: those that are here, and ours that are not."""
    ours = {name for option in make_command().params for name in (*option.opts, *option.secondary_opts)}
    found = []
    for theirs, here in (row for row in rows(text) if len(row) == 2):
        found += [name for name in re.findall(r"`(--[\w-]+)", theirs) if name in ours]
        found += [name for name in re.findall(r"`(--[\w-]+)", here) if name not in ours]
    return found


@pytest.mark.parametrize("server", ["hypercorn", "uvicorn"])
def test_flags_of_other_servers_lead_to_such_as_there_are(server):
    text = (ROOT / "docs" / "how-to" / f"move-from-{server}.md").read_text(encoding="utf-8")
    assert f"| {server} | here |" in text
    assert misnamed_flags(text) == []


def named_in(cell):
    """Return the metrics that a cell names, the later ones by what they end with instead."""
    first, *others = re.findall(r"`([a-z_]+)`", cell)
    stems = [first[:end] for end in range(len(first)) if first[end] == "_"]
    known = {metric.name for metric in CATALOG}
    return [first, *(next((x + one for x in ["", *reversed(stems)] if x + one in known), one) for one in others)]


def test_the_readmes_table_of_metrics_has_only_such_as_there_are():
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## What it counts\n")[2].partition("\n## ")[0]
    names = [name for cells in rows(text)[2:] for name in named_in(cells[0])]
    assert names
    assert [name for name in names if name not in {metric.name for metric in CATALOG}] == []


def test_what_is_wrong_is_found():
    assert missing_tests("`tests/unit/test_docs.py::test_nothing` `tests/no.py` `tests/unit/test_docs.py`") == [
        "tests/unit/test_docs.py::test_nothing",
        "tests/no.py::",
    ]
    assert wrong_defaults("| `limits.headers` | `127` |\n| `limits.body_bytes` | unset |\n| `no.such` | unset |") == [
        "limits.headers `127`",
        "no.such unset",
    ]
    assert missing_names("pagi_sse_events_sent_total pagi_server_connections pagi_sse_cats_total") == [
        "pagi_sse_cats_total"
    ]
    assert named_in("`pagi_sse_connections_total`, `_active`, `pagi_sse_bytes_sent_total`, `_cats`") == [
        "pagi_sse_connections_total",
        "pagi_sse_connections_active",
        "pagi_sse_bytes_sent_total",
        "_cats",
    ]
    assert misnamed_flags("| `--bind x`, `--uds` | `--bind`, `--sock` |\n") == ["--bind", "--sock"]
    assert broken_links(ROOT / "README.md", "[a](LICENSE) [b](docs/nowhere.md) [c](https://x.example)") == [
        "docs/nowhere.md"
    ]
    assert commands("```sh\ncd x && pagi-trio app:app --bind x\n```\n") == [["app:app", "--bind", "x"]]
    assert blocks("```python\na = 1\n```\n", "python") == ["a = 1\n"]
    assert misfits("```ini\nType=notify\n```\n```ini\nType=simple\n```\n") == ["Type=simple\n"]


def test_the_readme_has_two_commands_of_one_line_each():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    run, test = re.findall(r"^python3 -m venv \.venv && .*$", text, re.MULTILINE)
    assert run.endswith(".venv/bin/pagi-trio docs/examples/live.py:app")
    assert test.endswith('.venv/bin/pytest -n 2 --dist loadfile -m "not outside"')
    assert blocks(text, "sh")[:2] == [f"{run}\n", f"{test}\n"]
