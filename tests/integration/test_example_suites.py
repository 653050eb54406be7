"""The examples that are suites, each run by a pytest of its own, as its readers run it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"

pytest_plugins = ["pytester"]


@pytest.mark.parametrize(("suite", "count"), [("test_with_fixture.py", 1), ("test_recipes.py", 12)])
def test_a_file_passes_by_itself(suite, count, project, run_project):
    """Takes a second, in which pytest starts."""
    shutil.copy(EXAMPLES / suite, project.path)
    run_project().assert_outcomes(passed=count)


def test_the_sample_project_passes_with_its_own_configuration(project, run_project):
    """Takes a second, in which pytest starts."""
    shutil.copytree(EXAMPLES / "testing", project.path, dirs_exist_ok=True)
    result = run_project()
    result.assert_outcomes(passed=10)
    result.stdout.fnmatch_lines(["configfile: pyproject.toml*"])


def test_the_projects_own_suite_is_without_the_examples(pytestconfig):
    assert pytestconfig.getini("testpaths") == ["tests"]
