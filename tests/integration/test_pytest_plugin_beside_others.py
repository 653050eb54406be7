"""The fixtures beside pytest-xdist and pytest-asyncio, in projects of strangers.

A run takes a second, so each case is a whole suite.
"""

from __future__ import annotations

from .strangers import COUNT, MARKED, SUITE, why

pytest_plugins = ["pytester"]

FOR_ASYNCIO = """
import asyncio
import pytest

@pytest.fixture
async def loop_time():
    yield asyncio.get_running_loop().time()

async def test_plain(loop_time):
    await asyncio.sleep(0)
    assert loop_time <= asyncio.get_running_loop().time()

def test_sync(tmp_path):
    assert tmp_path.exists()
"""


def test_suites_run_over_several_processes(project, run_project):
    project.makeini("[pytest]\ntrio_mode = true")
    project.makepyfile(test_it=SUITE, test_more=SUITE)
    result = run_project("-n", "2")
    result.assert_outcomes(passed=2 * COUNT)


def test_asyncio_s_tests_run_beside_trio_s_in_strict_mode(project, run_project):
    project.makepyfile(
        test_trio=MARKED,
        test_asyncio="import pytest_asyncio\n"
        + FOR_ASYNCIO.replace("@pytest.fixture", "@pytest_asyncio.fixture").replace(
            "async def test_plain", "@pytest.mark.asyncio\nasync def test_plain"
        ),
    )
    run_project(asyncio="strict").assert_outcomes(passed=COUNT + 2)


def test_asyncio_s_tests_run_in_auto_mode(project, run_project):
    project.makepyfile(test_asyncio=FOR_ASYNCIO)
    run_project(asyncio="auto").assert_outcomes(passed=2)


def test_a_fixture_in_a_test_of_asyncio_s_auto_mode_says_what_to_do(project, run_project):
    project.makepyfile("""
        async def test_for_asyncio(pagi_serve):
            pass
        """)
    result = run_project(asyncio="auto")
    assert "pytest.mark.trio" in why(result)["test_for_asyncio"]


def test_a_fixture_in_a_test_of_asyncio_s_strict_mode_says_what_to_do(project, run_project):
    project.makepyfile("""
        import pytest

        @pytest.mark.asyncio
        async def test_for_asyncio(pagi_serve):
            pass
        """)
    assert "pytest.mark.trio" in why(run_project(asyncio="strict"))["test_for_asyncio"]
