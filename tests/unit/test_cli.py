"""The command line, called as the entry point calls it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import tomllib

import pytest
import trustme

from pagi_trio.cli import main, make_command
from pagi_trio.config import SETTINGS, Config

APP = """
import os, signal, trio

events = []

async def lifespan(receive, send, *, at_start=(), at_stop=()):
    events.append((await receive())["type"])
    await send({"type": "lifespan.startup.complete"})
    for number in at_start:
        os.kill(os.getpid(), number)
    events.append((await receive())["type"])
    for number in at_stop:
        os.kill(os.getpid(), number)
        await trio.sleep_forever()
    await send({"type": "lifespan.shutdown.complete"})
    events.append("done")

async def stopped_by_term(scope, receive, send):
    await lifespan(receive, send, at_start=[signal.SIGTERM])

async def stopped_by_interrupt(scope, receive, send):
    await lifespan(receive, send, at_start=[signal.SIGINT])

async def stopped_at_once(scope, receive, send):
    await lifespan(receive, send, at_start=[signal.SIGTERM], at_stop=[signal.SIGINT])

async def stopped_in_startup(scope, receive, send):
    os.kill(os.getpid(), signal.SIGTERM)
    await trio.sleep_forever()

async def stopped_twice_in_startup(scope, receive, send):
    os.kill(os.getpid(), signal.SIGTERM)
    try:
        await trio.sleep_forever()
    finally:
        os.kill(os.getpid(), signal.SIGTERM)

async def stopped_by_the_third(scope, receive, send):
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGTERM)
    while True:
        pass

async def refusing(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})

async def refusing_at_length(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "Traceback:\\n  somewhere\\nKeyError: 'db'\\n"})

def make():
    return stopped_by_term
"""


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """A current directory with an application; the interpreter is left as it was."""
    (tmp_path / "cli_app.py").write_text(APP)
    (tmp_path / "cli_broken.py").write_text("\nimport nothing_at_all\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    modules = set(sys.modules)
    logger = logging.getLogger("pagi_trio")
    state = logger.level, logger.propagate, [*logger.handlers]
    handlers = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
    yield tmp_path
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)] == handlers
    logger.setLevel(state[0])
    logger.propagate, logger.handlers = state[1:]
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def effective(capsys, *arguments: str) -> Config:
    assert main([*arguments, "--print-config"]) == 0
    return Config.from_mapping(tomllib.loads(capsys.readouterr().out))


def run(capsys, *arguments: str) -> tuple[int, list[str]]:
    """Run the command on a free port; return its exit code and what it wrote to standard error."""
    code = main([*arguments, "--bind", "127.0.0.1:0"])
    return code, capsys.readouterr().err.splitlines()


# Settings


def test_without_flags_the_defaults_hold(capsys):
    assert effective(capsys) == Config()


def test_every_setting_is_in_the_help(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for setting in SETTINGS.values():
        assert all(part in text for flag in setting.flags for part in flag.split("/"))


def test_every_flag_sets_its_setting(capsys):
    samples = {bool: False, int: 77, float: 7.5, str: "/sample"}
    special = {
        "bind": ("unix:/sample",),
        "forwarded.trusted": ("10.0.0.0/8, unix",),
        "metrics.bind": "127.0.0.1:77",
        "metrics.enabled": True,
        "limits.header_bytes": 777,
        "statsd.address": "127.0.0.1:78",
        "statsd.prefix": "sample",
        "statsd.tags": ("env:sample,x:y",),
    }
    expected: dict[str, object] = {}
    arguments: list[str] = []
    for key, setting in SETTINGS.items():
        value = special.get(key, setting.choices[-1] if setting.choices else samples[setting.kind])
        flag = max(setting.flags, key=len)
        if setting.kind is bool:
            arguments.append(flag.split("/")[0 if value else 1])
        else:
            arguments += [flag, *value] if isinstance(value, tuple) else [flag, str(value)]
        expected[key] = value
    found = effective(capsys, *arguments)
    # What is secret is not printed.
    assert found == Config.from_mapping(expected | {"tls.keyfile_password": None})


def test_a_flag_wins_over_the_file_and_the_file_over_the_default(capsys, tmp_path):
    file = tmp_path / "server.toml"
    file.write_text('bind = ["a:1", "b:2"]\nbacklog = 5\n[timeouts]\nhead_s = 6\ngraceful_s = 7\n')
    config = effective(capsys, "-c", str(file), "--bind", "c:3", "--bind", "unix:/d", "--graceful-timeout", "8")
    assert (config.bind, config.backlog) == (("c:3", "unix:/d"), 5)
    assert (config.timeouts.head_s, config.timeouts.graceful_s, config.timeouts.keep_alive_s) == (6, 8, 75)


@pytest.mark.parametrize(
    ("arguments", "bind"),
    [
        (["--port", "9"], "127.0.0.1:9"),
        (["--host", "0.0.0.0"], "0.0.0.0:8000"),
        (["--host", "::1", "--port", "0"], "[::1]:0"),
        (["--host", "[::1]"], "[::1]:8000"),
        (["-b", "localhost"], "localhost"),
    ],
)
def test_host_and_port_make_an_address(capsys, arguments, bind):
    assert effective(capsys, *arguments).bind == (bind,)


def test_no_metrics_wins_over_an_address_in_the_file(capsys, tmp_path):
    file = tmp_path / "server.toml"
    file.write_text('[metrics]\nbind = "127.0.0.1:9000"\n')
    assert effective(capsys, "-c", str(file)).metrics.bind == "127.0.0.1:9000"
    metrics = effective(capsys, "-c", str(file), "--no-metrics").metrics
    assert (metrics.enabled, metrics.bind) == (False, None)


def test_no_metrics_wins_over_a_daemon_in_the_file(capsys, tmp_path):
    file = tmp_path / "server.toml"
    file.write_text('[statsd]\naddress = "127.0.0.1:8125"\n')
    assert effective(capsys, "-c", str(file)).statsd.address == "127.0.0.1:8125"
    assert effective(capsys, "-c", str(file), "--no-metrics").statsd.address is None


def test_a_hypercorn_user_changes_one_word(capsys):
    config = effective(
        capsys, "-k", "trio", "-b", "0.0.0.0:80", "--keep-alive", "5", "--access-logfile", "-", "--log-level", "INFO"
    )
    assert config == Config(bind=("0.0.0.0:80",), access_log="-").replace(timeouts={"keep_alive_s": 5})


def test_versions_are_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("pagi-trio ")


def test_no_two_options_share_a_name():
    names = [one.name for one in make_command().params]
    assert len(names) == len(set(names))


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the application is missing: name it as module:attr or path/file.py:attr"),
        (["--bakclog", "1"], "No such option"),
        (["cli_app:make", "second"], "Got unexpected extra argument (second)"),
        (["--backlog", "many"], "Invalid value for '--backlog': 'many' is not a valid integer."),
        (["--backlog", "0"], "--backlog = 0: must be a whole number, at least 1, at most 2147483647"),
        (["--keep-alive", "nan"], "--keep-alive = nan: must be a number of seconds, at least 0"),
        (["--bind", "::1"], "--bind = '::1': put an IPv6 address in brackets, as in [::1]:8000"),
        (["--port", "70000"], "--host and --port = '127.0.0.1:70000': '70000' is not a port, use 0 to 65535"),
        (["--port", "1", "--bind", "a:1"], "--bind contradicts --host and --port; use one or the other"),
        (["-k", "uvloop"], "Invalid value for '-k' / '--worker-class': 'uvloop' is not 'trio'."),
        (["cli_app:make", "-w", "0"], "--workers = 0: must be a whole number, at least 1, at most 256"),
        (["cli_app:make", "-w", "257"], "--workers = 257: must be a whole number, at least 1, at most 256"),
        (["cli_app:make", "-w", "x"], "Invalid value for '-w' / '--workers': 'x' is not a valid integer."),
        (["cli_app:make", "-w", "2", "--reload"], "reload contradicts workers = 2: it runs one, and restarts it"),
        (["--certfile", "c"], "tls.certfile is set without tls.keyfile: TLS needs both"),
        (["--no-metrics", "--metrics-bind", "a:1"], "metrics.bind = 'a:1': contradicts metrics.enabled = false"),
        (["--no-metrics", "--statsd", "a:1"], "statsd.address = 'a:1': contradicts metrics.enabled = false"),
        (["--statsd-tags", "env:prod"], "statsd.tags = 'env:prod': needs statsd.flavor = 'dogstatsd'"),
        (["-c", "nothing.toml"], "nothing.toml: cannot be read: No such file or directory"),
        (["-c", "a", "--hypercorn-config", "b"], "--config contradicts --hypercorn-config"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(directory, capsys, arguments, message):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    [line] = captured.err.splitlines()
    assert line.startswith(f"pagi-trio: error: {message}")


def test_a_busy_port_is_named(directory, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["cli_app:stopped_by_term", "--port", str(port)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"pagi-trio: error: cannot listen on 127.0.0.1:{port}: address in use")


def test_a_bad_certificate_is_named(directory, capsys):
    (directory / "cert.pem").write_text("nonsense")
    code, lines = run(capsys, "cli_app:stopped_by_term", "--certfile", "cert.pem", "--keyfile", "cert.pem")
    assert (code, lines) == (2, ["pagi-trio: error: tls.certfile = 'cert.pem': holds no PEM certificate"])


def test_an_application_that_is_not_there_is_one_line_and_exit_code_3(directory, capsys):
    code, lines = run(capsys, "cli_app:nothing_like_it")
    assert code == 3
    [line] = lines
    assert line.startswith("pagi-trio: error: cli_app:nothing_like_it: there is no 'nothing_like_it'")


def test_an_application_that_raises_shows_its_own_frames_and_one_line(directory, capsys):
    code, lines = run(capsys, "cli_broken:app")
    assert code == 3
    assert lines[-1] == "pagi-trio: error: cli_broken raised ModuleNotFoundError: No module named 'nothing_at_all'"
    assert [line.split('"')[1] for line in lines if line.startswith("  File")] == [str(directory / "cli_broken.py")]


def test_an_application_that_refuses_to_start_is_one_line_and_exit_code_3(directory, capsys):
    code, lines = run(capsys, "cli_app:refusing", "--log-level", "error")
    assert (code, lines) == (3, ["pagi-trio: error: the application failed to start: no database"])


def test_a_refusal_of_many_lines_is_shown_and_summed_up(directory, capsys):
    code, lines = run(capsys, "cli_app:refusing_at_length", "--log-level", "error")
    assert code == 3
    assert lines[1:3] == ["  somewhere", "KeyError: 'db'"]
    assert lines[3:] == ["pagi-trio: error: the application failed to start: KeyError: 'db'"]


# Serving


@pytest.mark.parametrize("name", ["stopped_by_term", "stopped_by_interrupt"])
def test_one_signal_stops_gracefully(directory, capsys, name):
    code, lines = run(capsys, f"cli_app:{name}")
    assert code == 0
    assert sys.modules["cli_app"].events == ["lifespan.startup", "lifespan.shutdown", "done"]
    assert sum("serving on http://127.0.0.1:" in line for line in lines) == 1


def test_a_second_signal_stops_at_once(directory, capsys):
    code, _ = run(capsys, "cli_app:stopped_at_once", "--shutdown-timeout", "1000")
    assert code == 0
    assert sys.modules["cli_app"].events == ["lifespan.startup", "lifespan.shutdown"]


@pytest.mark.parametrize("name", ["stopped_in_startup", "stopped_twice_in_startup"])
def test_a_signal_stops_a_startup(directory, capsys, name):
    code, lines = run(capsys, f"cli_app:{name}", "--startup-timeout", "1000", "--shutdown-timeout", "1000")
    assert code == 0
    assert not any("serving on" in line for line in lines)


def test_a_third_signal_ends_an_application_that_keeps_trio_from_running(directory):
    # Takes a process of its own, and so longer than a quarter second.
    done = subprocess.run(
        [sys.executable, "-m", "pagi_trio", "cli_app:stopped_by_the_third", "--bind", "127.0.0.1:0"],
        check=False,
        capture_output=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stderr == b""


def test_a_factory_and_a_file_are_served(directory, capsys):
    assert run(capsys, "cli_app.py:make", "--factory")[0] == 0


def test_a_certificate_makes_it_https(directory, capsys):
    issued = trustme.CA(key_type=trustme.KeyType.ECDSA).issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(directory / "both.pem")
    code, lines = run(capsys, "cli_app:stopped_by_term", "--certfile", "both.pem", "--keyfile", "both.pem")
    assert code == 0
    assert any("serving on https://127.0.0.1:" in line for line in lines)


def test_hypercorn_settings_without_effect_are_named_in_one_warning(directory, capsys):
    (directory / "hypercorn.toml").write_text('quic_bind = "localhost:443"\nbacklog = 50\ndebug = true\n')
    code, lines = run(capsys, "cli_app:stopped_by_term", "--hypercorn-config", "hypercorn.toml")
    assert code == 0
    [warning] = [line for line in lines if "WARNING" in line]
    assert warning.endswith("these settings of hypercorn's have no effect here: debug, quic_bind")


def test_the_log_level_is_honoured(directory, capsys):
    assert run(capsys, "cli_app:stopped_by_term", "--log-level", "warning") == (0, [])


def test_an_application_that_handles_the_log_itself_keeps_it(directory, capsys):
    kept = logging.NullHandler()
    logging.getLogger("pagi_trio").addHandler(kept)
    assert run(capsys, "cli_app:stopped_by_term") == (0, [])
    assert logging.getLogger("pagi_trio").handlers == [kept]
