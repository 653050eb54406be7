"""The documentation says what is so: its code is that of the examples, its names and links exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from pagi_trio.cli import make_command
from pagi_trio.config import Config
from pagi_trio.metrics.catalog import CATALOG

ROOT = Path(__file__).resolve().parents[2]

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]

# Their code shows how a setting is written, not a program.
WRITTEN_BY_HAND = [page for page in PAGES if page.parent.name != "reference"]

DEPLOY = ROOT / "docs" / "deploy"

EXAMPLES = [path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "examples").glob("*.py")]


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands(text):
    """Return the arguments of every call of pagi-trio."""
    lines = "\n".join(blocks(text, "sh")).splitlines()
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [shlex.split(part)[1:] for part in parts if part.startswith(("pagi-trio ", ".venv/bin/pagi-trio "))]


def missing_names(text):
    """Return the names in code that look like a metric's and are not."""
    known = {metric.name for metric in CATALOG}
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


def test_what_is_wrong_is_found():
    assert missing_names("pagi_sse_events_sent_total pagi_server_connections pagi_sse_cats_total") == [
        "pagi_sse_cats_total"
    ]
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
    assert test.endswith('.venv/bin/pytest -m "not outside"')
    assert blocks(text, "sh")[:2] == [f"{run}\n", f"{test}\n"]
