"""Reading what was written for hypercorn."""

from __future__ import annotations

import logging
import re
import ssl

import pytest
from hypercorn.config import Config as HypercornConfig

from pagi_trio.config import TLS, Config, Timeouts
from pagi_trio.errors import ConfigError
from pagi_trio.hypercorn_config import from_hypercorn, load_config_file, load_hypercorn_file


def hypercorn(**settings: object) -> HypercornConfig:
    return HypercornConfig.from_mapping(settings)


def test_what_nobody_touched_gets_our_defaults():
    assert from_hypercorn(HypercornConfig()) == (Config(), [])


def test_every_setting_that_has_a_counterpart_is_translated(tmp_path):
    config, unused = from_hypercorn(
        hypercorn(
            bind=["0.0.0.0:9000", "unix:/x"],
            backlog=5,
            root_path="/api/",
            accesslog="-",
            loglevel="WARN",
            certfile=tmp_path / "c.pem",
            keyfile=b"/k.pem",
            keyfile_password="secret",
            ca_certs="/ca.pem",
            ciphers="ECDHE+AESGCM",
            verify_mode=ssl.CERT_REQUIRED,
            keep_alive_timeout=1,
            graceful_timeout=2,
            shutdown_timeout=3,
            startup_timeout=4,
            ssl_handshake_timeout=5,
            websocket_max_message_size=6,
            websocket_ping_interval=7,
            wsgi_max_body_size=8,
            h11_max_incomplete_size=9000,
            workers=3,
            max_requests=9,
            max_requests_jitter=10,
        )
    )
    assert unused == []
    assert (config.workers, config.max_requests, config.max_requests_jitter) == (3, 9, 10)
    assert (config.bind, config.backlog, config.root_path) == (("0.0.0.0:9000", "unix:/x"), 5, "/api")
    assert (config.access_log, config.log_level, config.wsgi_body_max_bytes) == ("-", "warning", 8)
    assert config.tls == TLS(
        certfile=str(tmp_path / "c.pem"),
        keyfile="/k.pem",
        keyfile_password="secret",
        ca_certs="/ca.pem",
        ciphers="ECDHE+AESGCM",
        verify_mode="required",
    )
    assert config.timeouts == Timeouts(keep_alive_s=1, graceful_s=2, shutdown_s=3, startup_s=4, tls_handshake_s=5)
    assert (config.websocket.message_max_bytes, config.websocket.ping_interval_s) == (6, 7)
    assert config.limits.head_bytes == 9000


def test_a_default_of_hypercorns_that_was_written_down_is_honoured():
    config, unused = from_hypercorn(hypercorn(graceful_timeout=3, workers=1, websocket_ping_interval=None))
    assert (config.timeouts.graceful_s, config.websocket.ping_interval_s, unused) == (3, 0, [])


def test_what_has_no_effect_is_named():
    _, unused = from_hypercorn(
        hypercorn(
            insecure_bind=["0.0.0.0:80"],
            quic_bind="0.0.0.0:443",
            accesslog=logging.getLogger("x"),
            worker_class="uvloop",
            gracefull_timeout=3,
        )
    )
    assert unused == ["accesslog", "gracefull_timeout", "insecure_bind", "quic_bind", "worker_class"]


def test_what_is_so_here_anyway_is_not_named():
    _, unused = from_hypercorn(
        hypercorn(worker_class="trio", alpn_protocols=["http/1.1"], include_server_header=False, application_path="a:b")
    )
    assert unused == []


def test_a_derived_class_counts_as_touched():
    class Theirs(HypercornConfig):
        backlog = 5
        statsd_host = "localhost:8125"
        dogstatsd_tags = "env:prod"

        def describe(self): ...

    config, unused = from_hypercorn(Theirs())
    assert (config.backlog, config.statsd.address, unused) == (5, "localhost:8125", ["dogstatsd_tags"])


@pytest.mark.parametrize(
    ("mode", "ours"),
    [(None, "none"), (0, "none"), (1, "optional"), ("CERT_OPTIONAL", "optional"), (ssl.CERT_REQUIRED, "required")],
)
def test_verify_modes(mode, ours):
    config, _ = from_hypercorn(hypercorn(verify_mode=mode, ca_certs="/ca.pem"))
    assert config.tls.verify_mode == ours


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep_alive_timeout": -1}, "hypercorn's keep_alive_timeout = -1: must be"),
        ({"bind": "::1"}, "hypercorn's bind = '::1': put an IPv6 address in brackets"),
        ({"verify_mode": "CERT_SOMETIMES"}, "hypercorn's verify_mode = 'CERT_SOMETIMES': must be"),
        ({"verify_mode": []}, "hypercorn's verify_mode = []: must be"),
        ({"root_path": "api"}, "hypercorn's root_path = 'api': must start"),
        ({"certfile": "c.pem"}, "tls.certfile is set without tls.keyfile"),
    ],
)
def test_a_value_that_is_not_allowed_is_named_as_they_name_it(settings, message):
    with pytest.raises(ConfigError) as caught:
        from_hypercorn(hypercorn(**settings))
    assert str(caught.value).startswith(message)


def test_their_file_is_read(tmp_path):
    file = tmp_path / "hypercorn.toml"
    file.write_text('bind = "0.0.0.0:9000"\ndebug = true\n')
    assert load_hypercorn_file(file) == (Config(bind=("0.0.0.0:9000",)), ["debug"])


def test_their_table_in_our_file_is_read_and_ours_wins(tmp_path):
    file = tmp_path / "server.toml"
    file.write_text("backlog = 1\n[hypercorn]\nbacklog = 2\ngraceful_timeout = 3\ndaemon = true\ndebug = true\n")
    assert load_config_file(file) == (Config(backlog=1, timeouts=Timeouts(graceful_s=3)), ["debug"])


# hypercorn warns of the old name of a setting.
@pytest.mark.filterwarnings("ignore:Please use verify_mode instead:Warning")
@pytest.mark.parametrize(
    ("load", "content", "reason"),
    [
        (load_hypercorn_file, "bind = ", "is not TOML"),
        (load_hypercorn_file, "backlog = 0", "hypercorn's backlog = 0: must be"),
        (load_config_file, "hypercorn = 1", "hypercorn = 1: must be a table"),
        (load_config_file, "[hypercorn]\nbacklog = 0", "hypercorn's backlog = 0: must be"),
        (load_hypercorn_file, "cert_reqs = 'some'", "hypercorn refuses a setting: 'some' is not a valid VerifyMode"),
        (load_config_file, "workerz = 1", "unknown setting 'workerz'"),
        (load_config_file, "[limits]\naccesslog = 1", "unknown setting 'limits.accesslog'"),
    ],
)
def test_a_bad_file_is_named(tmp_path, load, content, reason):
    file = tmp_path / "bad.toml"
    file.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert str(caught.value).startswith(f"{file}: {reason}")


def test_who_names_a_file_of_hypercorns_as_ours_is_told_the_flag(tmp_path):
    """Both have ``-c``, each for files of its own."""
    file = tmp_path / "hypercorn.toml"
    file.write_text("workers = 2\naccesslog = '-'\n")
    hint = "'accesslog', did you mean 'access_log'? (a file of hypercorn's is named by --hypercorn-config)"
    with pytest.raises(ConfigError, match=re.escape(hint)):
        load_config_file(file)
    assert load_hypercorn_file(file) == (Config(workers=2, access_log="-"), [])
