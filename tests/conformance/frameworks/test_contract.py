"""Every framework keeps the same contract, served by the fixture and by the command."""

from __future__ import annotations

import importlib
import signal
import sys
from types import SimpleNamespace

import pytest
import trio

from pagi_trio import testing
from tests.integration.command import TCP, running

from . import contract

pytestmark = [
    # Frameworks leave the generator of a client that has left to the garbage collector.
    pytest.mark.filterwarnings("ignore:Async generator .* was garbage collected:ResourceWarning"),
]

EACH = [(name, check) for name, checks in contract.CHECKS.items() for check in checks]

LIMIT_S = 30


def module_of(name):
    return f"{__package__}.apps.{name}_app"


@pytest.mark.trio
@pytest.mark.parametrize(("name", "check"), EACH, ids=[f"{name}-{check.__name__}" for name, check in EACH])
async def test_a_framework_keeps_the_contract(name, check, capsys):
    app = importlib.import_module(module_of(name)).make_app()
    with trio.fail_after(LIMIT_S):
        async with testing.serve(app, raise_app_exceptions=False, timeouts={"graceful_s": 5}) as server:
            await check(server)
        if name != "flask":
            assert "stopped" in capsys.readouterr().out
    if check is not contract.an_error_without_handler_is_a_500_and_the_connection_goes_on:
        for scope in ("http", "websocket", "sse", "lifespan"):
            assert server.metrics.value("pagi_server_app_errors_total", scope=scope) == 0
    for kind in ("server", "websocket", "sse"):
        assert server.metrics.value(f"pagi_{kind}_connections_active") == 0


@pytest.mark.trio
@pytest.mark.parametrize("name", contract.CHECKS)
async def test_a_framework_keeps_the_contract_by_the_command(name):
    command = (sys.executable, "-m", "pagi_trio", "--factory", f"{module_of(name)}:make_app", *TCP)
    with running(*command) as program:
        url = await trio.to_thread.run_sync(program.wait_for_url)
        server = SimpleNamespace(url=url, port=int(url.rpartition(":")[2]))
        with trio.fail_after(LIMIT_S):
            for check in contract.CHECKS[name]:
                await check(server)
        program.send_signal(signal.SIGTERM)
        assert await trio.to_thread.run_sync(program.finish) == (0, "" if name == "flask" else "stopped\n")
        assert not any("internal error" in line for line in program.errors)
