"""The fixtures in projects of strangers that use them as they should, each run by a pytest of its own.

A run takes a second, so each case is a whole suite.
"""

from __future__ import annotations

from .strangers import COUNT, MARKED, SUITE

pytest_plugins = ["pytester"]


def test_every_fixture_works_in_strict_mode(project, run_project):
    project.makepyfile(test_it=MARKED)
    run_project().assert_outcomes(passed=COUNT)


def test_every_fixture_works_in_trio_mode(project, run_project):
    project.makeini("[pytest]\ntrio_mode = true")
    project.makepyfile(test_it=SUITE)
    run_project().assert_outcomes(passed=COUNT)


def test_anyio_runs_them_on_trio(project, run_project):
    project.makepyfile("""
        import pytest
        from app import app
        from pagi_trio import testing

        pytestmark = pytest.mark.anyio

        @pytest.fixture
        def anyio_backend():
            return "trio"

        async def test_a_block_over_sockets():
            async with testing.serve(app) as server:
                assert (await server.http.get("/here")).text == "/here"

        async def test_a_block_in_memory():
            async with testing.client(app) as client:
                assert (await client.get("/here")).text == "/here"

        async def test_fixtures(pagi_serve, pagi_client):
            server, client = await pagi_serve(app), await pagi_client(app)
            assert (await server.http.get("/here")).text == "/here"
            assert (await client.get("/here")).text == "/here"
        """)
    run_project().assert_outcomes(passed=3)


def test_the_fixtures_are_listed_with_what_they_do(run_project):
    result = run_project("--fixtures")
    result.stdout.re_match_lines([r"pagi_serve.*", r" +Serve applications .*"], consecutive=True)
    result.stdout.re_match_lines([r"pagi_client.*", r" +Serve applications in memory.*"], consecutive=True)
    assert result.ret == 0
    assert run_project("--help").ret == 0


def test_a_suite_that_uses_no_fixture_imports_nothing(project, run_project):
    project.makeconftest("""
        import sys

        def pytest_unconfigure():
            ours = sorted(name for name in sys.modules if name.split(".")[0] in ("pagi_trio", "trio", "httpx"))
            print("\\nimported:", *ours)
        """)
    project.makepyfile("def test_nothing():\n    pass")
    # AnyIO's plugin and pytest-trio's import Trio themselves.
    others = ("trio", "anyio", "hypothesispytest")
    result = run_project("-s", *(argument for name in others for argument in ("-p", f"no:{name}")))
    result.assert_outcomes(passed=1)
    assert [line for line in result.outlines if line.startswith("imported:")] == [
        # The root is imported with any module in it, and imports what it shows only where that is asked for.
        "imported: pagi_trio pagi_trio.pytest_plugin"
    ]
