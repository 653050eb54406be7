"""Versions with known vulnerabilities are kept out, by what the package requires."""

from __future__ import annotations

import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"

FLOORS = {
    "h11": "0.16",  # CVE-2025-43859: chunked bodies whose line ends were not checked, and so could smuggle a request
    "h2": "4.4.1",
}


def numbers(release):
    return [int(part) for part in release.split(".") if part.isdigit()]


@pytest.mark.parametrize(("name", "floor"), FLOORS.items())
def test_the_floor_is_required(name, floor):
    required = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    assert f"{name}>={floor}" in required


@pytest.mark.parametrize(("name", "floor"), FLOORS.items())
def test_the_installed_version_meets_it(name, floor):
    assert numbers(version(name)) >= numbers(floor)


def test_versions_compare_as_numbers():
    assert numbers("4.10.0") > numbers("4.4.1") > numbers("4.4") > numbers("0.16.0")
