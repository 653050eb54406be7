"""Every attack, made on the server as a user starts it, with deadlines that are short enough to wait for.

Each takes some seconds, since each has a server of its own, and a deadline to wait for, to attack and to stop.
"""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass

import pytest

from tests.bench.load import allow_sockets
from tests.bench.servers import OURS, ROOT, cores, free_port
from tests.integration.command import scrape, until

from .attacker import OPEN, attacking
from .client import CUT, LEFT
from .honest import ask
from .measure import peak_over
from .scenarios import SCENARIOS
from .servers import KINDS, running

pytest.importorskip("prometheus_client")

HONEST_S = 0.05
"""Within this an honest client has its answer, whatever goes on beside it."""

TRIES = 3
"""The machine may be busy with other things; what an attack does, it does each time."""

GRACEFUL_S, SHUTDOWN_S = 0.25, 8.0
STOP_S = GRACEFUL_S + SHUTDOWN_S + 1
"""The bound of a shutdown, whatever the application and its clients do; without them, a tenth of it would do."""

DEADLINES = (
    *("--head-timeout", "0.5"),
    *("--tls-handshake-timeout", "0.5"),
    *("--body-grace", "0.5"),
    *("--write-timeout", "0.5"),
    *("--sse-write-timeout", "0.5"),
    *("--graceful-timeout", str(GRACEFUL_S)),
    *("--shutdown-timeout", str(SHUTDOWN_S)),
)

PINGS = ("--websocket-ping-interval", "0.5", "--websocket-ping-timeout", "0.5")


def gauges(page):
    return [page[f"pagi_{part}_connections_active"] for part in ("server", "websocket", "sse")]


@dataclass(frozen=True)
class Expected:
    """What an attack comes to, and what the page says of it, once for each client.

    Attributes:
        end: What becomes of a client, see `client`.
        reason: Why its connection was closed, where no honest client's could be closed for that.
        close: The code of the Close frame that came first, and whose it was.
        handshake: What became of its TLS handshake, where that is no honest client's.
        flags: What the server is told besides the deadlines of all.
    """

    end: str
    reason: str = ""
    close: tuple[int, str] = ()
    handshake: str = ""
    flags: tuple[str, ...] = ()

    def counted(self):
        """Return the series, as they stand on the page."""
        if self.reason:
            yield f'pagi_server_connections_closed_total{{reason="{self.reason}"}}'
        if self.close:
            code, side = self.close
            yield f'pagi_websocket_closes_total{{code="{code}",side="{side}"}}'
        if self.handshake:
            yield f'pagi_server_tls_handshakes_total{{outcome="{self.handshake}"}}'


EXPECTED = {
    # The deadline of heads.
    "silent": Expected(CUT, "client_timeout"),
    "slow-heads": Expected("status 408", "client_timeout"),
    "fat-heads": Expected("status 408", "client_timeout"),
    "tls-silent-after": Expected(CUT, "client_timeout"),
    # The deadline of TLS handshakes.
    "tls-silent": Expected(CUT, "client_timeout", handshake="timeout"),
    "tls-slow-hello": Expected(CUT, "client_timeout", handshake="timeout"),
    # The least speed of bodies.
    "slow-bodies": Expected("status 408", "client_timeout"),
    "expectations": Expected("status 408", "client_timeout"),
    # The deadlines of those who do not read.
    "pipelining": Expected(CUT, "write_timeout"),
    "unread-downloads": Expected(CUT, "write_timeout"),
    "slow-downloads": Expected(CUT, "write_timeout"),
    "unread-events": Expected(CUT, "write_timeout"),
    "unread-messages": Expected(CUT, "write_timeout", (1006, "none")),
    "tls-unread-downloads": Expected(CUT, "write_timeout"),
    # Limits.
    "endless-header": Expected("status 431", "protocol_error"),
    "endless-headers": Expected("status 431", "protocol_error"),
    "chunk-extensions": Expected("status 400", "protocol_error"),
    "almost-sizes": Expected("status 400", "protocol_error"),
    "trailers": Expected("status 431", "protocol_error"),
    "deflate-bomb": Expected("close 1009", "body_too_large", (1009, "server")),
    "endless-message": Expected("close 1009", "body_too_large", (1009, "server")),
    "empty-fragments": Expected("close 1009", "body_too_large", (1009, "server")),
    "endless-fragments": Expected("close 1009", "body_too_large", (1009, "server")),
    # Behind the pongs that are not read the Close may be taken by the kernel or not, and the connection ends by that.
    "ping-flood": Expected(CUT, close=(1008, "server")),
    # Pings that are not answered.
    "slow-frames": Expected(CUT, "keepalive_timeout", (1006, "none"), flags=PINGS),
    # What is not the protocol.
    "invalid-host": Expected("status 400", "protocol_error"),
    "both-lengths": Expected("status 400", "protocol_error"),
    "tls-huge-hello": Expected(CUT, "protocol_error", handshake="failed"),
    "tls-garbage": Expected(CUT, "protocol_error", handshake="failed"),
    # Clients that are served, as far as they let themselves be.
    "half-heads": Expected(CUT),
    "header-names": Expected(LEFT),
    "idle": Expected(OPEN),
    "long-targets": Expected(OPEN, flags=("--access-logfile", os.devnull)),
    "absent-pings": Expected("close 1000", close=(1000, "server")),
    "final-blocks": Expected(OPEN, close=(1006, "none")),
    "tiny-chunks": Expected(OPEN),
    "tls-tiny-records": Expected(OPEN),
    "message-flood": Expected(OPEN, close=(1006, "none")),
    "early-bytes": Expected("close 1000", close=(1000, "client")),
    "unread-uploads": Expected("status 200"),
    "early-answers": Expected("status 200"),
    "unread-flood": Expected("close 1000", close=(1000, "server")),
    "no-end": Expected(CUT, close=(1000, "client")),
    "no-close": Expected(CUT, close=(1000, "server")),
    # Clients that leave.
    "resets": Expected(LEFT),
    "tls-resets": Expected(LEFT),
    "left-sender": Expected(LEFT),
    "left-receiver": Expected(LEFT),
    "left-publisher": Expected(LEFT, close=(1006, "none")),
    "left-stubborn-publisher": Expected(LEFT, close=(1006, "none")),
    "left-listener": Expected(LEFT, close=(1006, "none")),
}


@pytest.fixture(scope="module")
def processors():
    """Processors for the server and for its clients, where the tests now are, with files enough for every attack."""
    before, files = os.sched_getaffinity(0), resource.getrlimit(resource.RLIMIT_NOFILE)
    server, client = cores()
    allow_sockets()
    os.sched_setaffinity(0, {client})
    yield server, client
    os.sched_setaffinity(0, before)
    resource.setrlimit(resource.RLIMIT_NOFILE, files)


@pytest.fixture(scope="module")
def attacker(processors):
    with attacking(processors[1]) as attacker:
        yield attacker


def ends(attacker, expected):
    """Wait until no client is left that the server should end; return what became of all."""
    if expected.end != OPEN:
        until(lambda: OPEN not in attacker.report())
    return attacker.report()


def served(server, scenario):
    """Let the honest client make its requests while the attack goes on."""
    for _ in range(TRIES):
        service = ask(server.port, tls=scenario.tls)
        if service.median_s <= HONEST_S and not service.unanswered:
            break
    return service


@pytest.mark.parametrize("name", SCENARIOS)
def test_an_attack_harms_nobody_else_and_leaves_nothing(name, attacker, processors):
    scenario, expected = SCENARIOS[name], EXPECTED[name]
    page_port = free_port()
    flags = [*DEADLINES, *expected.flags, "--metrics-bind", f"127.0.0.1:{page_port}"]

    def page():
        return scrape(f"http://127.0.0.1:{page_port}/metrics")

    with running(KINDS[OURS], processors[0], tls=scenario.tls, flags=flags) as server:
        until(lambda: gauges(page()) == [0, 0, 0])
        files, memory, before = server.files(), server.memory_bytes(), page()

        attacker.attack(name, server.port)
        service = served(server, scenario)
        assert service.unanswered == 0
        assert service.median_s <= HONEST_S
        assert ends(attacker, expected) == {expected.end: scenario.clients}, server.words
        assert peak_over(server, memory) <= scenario.memory_bytes

        attacker.stop()
        until(lambda: gauges(page()) == [0, 0, 0])
        until(lambda: server.files() <= files)
        after = page()
        series = list(expected.counted())
        assert {one: after[one] - before[one] for one in series} == dict.fromkeys(series, scenario.clients)
        assert [value for one, value in after.items() if one.startswith("pagi_server_app_errors_total")] == [0] * 4
        assert "Traceback" not in server.words

        attacker.attack(name, server.port)
        stopped_s = server.terminate(10 * STOP_S)
        attacker.stop()
        assert stopped_s is not None
        assert stopped_s <= STOP_S
        assert server.process.returncode == 0


def test_the_documentation_shows_every_attack():
    page = (ROOT / "docs" / "reference" / "abuse.md").read_text(encoding="utf-8")
    rows = [line.split(" | ")[0].removeprefix("| ") for line in page.splitlines() if line.startswith("| ")]
    assert rows[2:] == [scenario.label for scenario in SCENARIOS.values()]
