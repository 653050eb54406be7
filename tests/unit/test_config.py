"""The configuration: one declaration, checked when made, and everything derived from it."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagi_trio import config_reference
from pagi_trio.bind import Bind, parse_bind
from pagi_trio.config import GROUPS, SETTINGS, TLS, WORKERS_MAX, Config, Limits, MetricsSettings, Timeouts
from pagi_trio.errors import ConfigError

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "configuration.md"


def refusal(mapping: dict[str, object]) -> str:
    with pytest.raises(ConfigError) as caught:
        Config.from_mapping(mapping)
    message = str(caught.value)
    assert "\n" not in message
    return message


# Defaults


def test_the_defaults_are_those_of_the_design():
    config = Config()
    assert config.bind == ("127.0.0.1:8000",)
    assert config.backlog == 2048
    assert (config.root_path, config.lifespan, config.interface, config.log_level) == ("", "auto", "auto", "info")
    assert config.access_log is None
    assert config.timeouts == Timeouts(
        keep_alive_s=75,
        head_s=10,
        body_grace_s=5,
        tls_handshake_s=10,
        write_stall_s=60,
        sse_write_stall_s=30,
        graceful_s=20,
        startup_s=60,
        shutdown_s=8,
        worker_s=30,
        worker_start_s=60,
    )
    assert (config.workers, config.max_requests, config.max_requests_jitter) == (1, None, 0)
    assert (config.reload, config.reload_dirs) == (False, (".",))
    assert config.limits == Limits(
        request_line_bytes=8192,
        head_bytes=65536,
        header_bytes=16384,
        headers=128,
        body_bytes=None,
        body_bytes_per_s=240,
        chunk_extension_bytes=16384,
        trailer_bytes=8192,
        connections=None,
    )
    assert (config.websocket.message_max_bytes, config.websocket.deflate) == (16 * 2**20, True)
    assert (config.websocket.ping_interval_s, config.websocket.ping_timeout_s) == (20, 20)
    assert (config.websocket.fragments, config.websocket.inflate_ratio) == (131072, 100)
    assert (config.websocket.pings_outstanding, config.websocket.idle_s) == (100, 0)
    assert config.metrics == MetricsSettings(enabled=True, bind=None, flush_interval_s=0.05)
    assert config.scheme == "http"


def test_graceful_and_lifespan_shutdown_fit_into_the_thirty_seconds_of_kubernetes():
    timeouts = Config().timeouts
    assert timeouts.graceful_s + timeouts.shutdown_s + 1 < 30


def test_a_configuration_is_frozen_and_hashable():
    config = Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.backlog = 1  # type: ignore[misc]
    assert hash(config) == hash(Config())


def test_every_setting_has_a_flag_and_no_flag_is_given_twice():
    flags = [part for one in SETTINGS.values() for flag in one.flags for part in flag.split("/")]
    assert all(one.flags and one.meaning.endswith(".") for one in SETTINGS.values())
    assert len(flags) == len(set(flags))


def test_every_field_is_a_setting_or_a_group():
    fields = {one.name for one in dataclasses.fields(Config)}
    assert fields == {key for key in SETTINGS if "." not in key} | set(GROUPS)
    for table, group in GROUPS.items():
        assert {f"{table}.{one.name}" for one in dataclasses.fields(group)} <= set(SETTINGS)


# Values


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("backlog", 0),
        ("backlog", True),
        ("backlog", 1.0),
        ("backlog", "1"),
        ("backlog", 2**31),
        ("backlog", None),
        ("lifespan", "maybe"),
        ("lifespan", 1),
        ("interface", "rsgi"),
        ("log_level", "trace"),
        ("access_log", ""),
        ("access_log", "a\nb"),
        ("root_path", "api"),
        ("root_path", "/api/"),
        ("root_path", "/"),
        ("bind", []),
        ("bind", [1]),
        ("bind", 8000),
        ("bind", {"a"}),
        ("wsgi_body_max_bytes", -1),
        ("workers", 0),
        ("workers", WORKERS_MAX + 1),
        ("workers", "x"),
        ("max_requests", 0),
        ("max_requests_jitter", -1),
        ("reload_dirs", ""),
        ("timeouts.worker_s", 0.5),
        ("timeouts.worker_start_s", 0),
        ("timeouts.keep_alive_s", -0.1),
        ("timeouts.keep_alive_s", float("nan")),
        ("timeouts.keep_alive_s", float("inf")),
        ("timeouts.keep_alive_s", 10**400),
        ("timeouts.keep_alive_s", False),
        ("timeouts.keep_alive_s", "75"),
        ("timeouts.head_s", 0),
        ("limits.headers", 0),
        ("limits.body_bytes", -1),
        ("limits.body_bytes", 1.5),
        ("limits.connections", 0),
        ("websocket.deflate", 1),
        ("websocket.deflate", "yes"),
        ("metrics.bind", "::1"),
        ("tls.certfile", ""),
        ("tls.verify_mode", "sometimes"),
    ],
)
def test_a_wrong_value_is_refused_by_name(key, value):
    message = refusal({key: value})
    assert message.startswith(f"{key} = {value!r}: ")


@pytest.mark.parametrize(
    ("key", "value", "normal"),
    [
        ("bind", "[::1]:0", ("[::1]:0",)),
        ("bind", ["a:1", "unix:/b"], ("a:1", "unix:/b")),
        ("log_level", "WARNING", "warning"),
        ("timeouts.keep_alive_s", 0, 0.0),
        ("websocket.ping_interval_s", 0, 0.0),
        ("limits.body_bytes", 0, 0),
        ("root_path", "/api/v1", "/api/v1"),
    ],
)
def test_a_value_takes_its_one_normal_form(key, value, normal):
    config = Config.from_mapping({key: value})
    table, _, name = key.rpartition(".")
    found = getattr(getattr(config, table) if table else config, name)
    assert found == normal
    assert type(found) is type(normal)


def test_a_group_made_directly_is_checked_too():
    with pytest.raises(ConfigError, match=r"timeouts\.head_s = -1: must be a number of seconds, at least 0\.001"):
        Timeouts(head_s=-1)


def test_a_group_of_the_wrong_class_is_refused():
    with pytest.raises(ConfigError, match="tls must be a TLS"):
        Config(tls=Limits())  # type: ignore[arg-type]


# Contradictions


def test_tls_needs_both_files():
    assert refusal({"tls": {"certfile": "c"}}) == "tls.certfile is set without tls.keyfile: TLS needs both"
    assert refusal({"tls": {"keyfile": "k"}}) == "tls.keyfile is set without tls.certfile: TLS needs both"
    assert Config(tls=TLS(certfile="c", keyfile="k")).scheme == "https"


def test_verifying_clients_needs_authorities():
    assert "needs tls.ca_certs" in refusal({"tls": {"certfile": "c", "keyfile": "k", "verify_mode": "required"}})


def test_a_metrics_address_contradicts_no_metrics():
    assert "contradicts" in refusal({"metrics": {"enabled": False, "bind": "127.0.0.1:9000"}})


def test_reload_contradicts_several_workers():
    assert refusal({"reload": True, "workers": 2}).startswith("reload contradicts workers = 2: ")
    assert Config(reload=True, workers=1).is_supervised


@pytest.mark.parametrize("setting", [{"workers": 2}, {"max_requests": 1}, {"reload": True}])
def test_what_needs_a_second_process_needs_a_parent(setting):
    assert Config.from_mapping(setting).is_supervised
    assert not Config(max_requests_jitter=3, reload_dirs=("src",)).is_supervised


def test_a_secret_is_in_no_message_and_not_printed():
    assert "hunter2" not in refusal({"tls.keyfile_password": ["hunter2"]})
    config = Config.from_mapping({"tls": {"certfile": "c", "keyfile": "k", "keyfile_password": "hunter2"}})
    assert "hunter2" not in repr(config)
    assert "hunter2" not in config.as_toml()
    assert "# keyfile_password is set" in config.as_toml()


# Keys


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("backlogg", "backlog"),
        ("timeouts.gracefull_s", "timeouts.graceful_s"),
        ("timeout.graceful_s", "timeouts.graceful_s"),
        ("graceful_s", "timeouts.graceful_s"),
        ("graceful_timeout", "timeouts.graceful_s"),
        ("keep_alive", "timeouts.keep_alive_s"),
        ("certfile", "tls.certfile"),
        ("tls.cert_file", "tls.certfile"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(key, nearest):
    assert refusal({key: 1}) == f"unknown setting {key!r}, did you mean {nearest!r}?"


def test_a_key_like_no_other_is_refused_without_a_suggestion():
    assert refusal({"zzz": {"qqq": 1}}) == "unknown setting 'zzz.qqq'"


def test_an_empty_unknown_table_is_refused():
    assert refusal({"tsl": {}}).startswith("unknown setting 'tsl'")


def test_a_value_where_a_group_belongs_is_refused():
    assert refusal({"timeouts": 5}) == "timeouts = 5: is a group, use timeouts.keep_alive_s and so on"


def test_replace_takes_names_groups_mappings_and_dotted_keys():
    config = Config(backlog=7).replace(
        bind=("a:1",), limits=Limits(headers=9), timeouts={"head_s": 3}, **{"limits.head_bytes": 1000}
    )
    assert (config.backlog, config.bind) == (7, ("a:1",))
    assert (config.limits.headers, config.limits.head_bytes, config.timeouts.head_s) == (9, 1000, 3)
    assert config.timeouts.graceful_s == 20


# TOML


def test_the_defaults_survive_a_round_trip():
    assert Config.from_mapping(tomllib.loads(Config().as_toml())) == Config()


texts = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1)


@settings(max_examples=25)
@given(
    backlog=st.integers(1, 2**31 - 1),
    graceful=st.floats(0, 1e17),
    log=st.none() | texts,
    cert=texts,
    path=texts,
    deflate=st.booleans(),
    body=st.none() | st.integers(0, 2**62),
)
def test_any_configuration_survives_a_round_trip(backlog, graceful, log, cert, path, deflate, body):
    config = Config(backlog=backlog, access_log=log, bind=(f"unix:{path}", "[::1]:1")).replace(
        **{
            "timeouts.graceful_s": graceful,
            "tls": {"certfile": cert, "keyfile": "k"},
            "websocket.deflate": deflate,
            "limits.body_bytes": body,
        }
    )
    assert Config.from_mapping(tomllib.loads(config.as_toml())) == config


def test_a_worker_is_told_every_setting_secrets_too():
    config = Config(workers=2, bind=("unix:/a", "b:1"), max_requests=3).replace(
        **{"tls": {"certfile": "c", "keyfile": "k", "keyfile_password": "secret"}, "timeouts.worker_s": 4}
    )
    told = config.as_mapping()
    assert told.keys() == SETTINGS.keys()
    assert Config.from_mapping(json.loads(json.dumps(told))) == config


def test_a_file_is_read(tmp_path):
    file = tmp_path / "server.toml"
    file.write_text('bind = "unix:/x"\n[timeouts]\nhead_s = 2\n')
    assert Config.from_toml(file) == Config(bind=("unix:/x",), timeouts=Timeouts(head_s=2))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"bind = ", "is not TOML: "),
        (b"# \xff\xfe", "is not TOML: "),
        (b"bakclog = 1", "unknown setting 'bakclog', did you mean 'backlog'?"),
        (b"backlog = 0", "backlog = 0: must be"),
    ],
)
def test_a_bad_file_is_named(tmp_path, content, reason):
    file = tmp_path / "server.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        Config.from_toml(file)
    assert str(caught.value).startswith(f"{file}: {reason}")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.toml: cannot be read: No such file"):
        Config.from_toml(tmp_path / "nothing.toml")


# Addresses


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("127.0.0.1:80", Bind(kind="tcp", host="127.0.0.1", port=80)),
        ("localhost:8000", Bind(kind="tcp", host="localhost", port=8000)),
        ("localhost", Bind(kind="tcp", host="localhost", port=8000)),
        ("[::1]:0", Bind(kind="tcp", host="::1", port=0)),
        ("[::]", Bind(kind="tcp", host="::", port=8000)),
        ("[fe80::1%eth0]:65535", Bind(kind="tcp", host="fe80::1%eth0", port=65535)),
        ("unix:/run/a b:c.sock", Bind(kind="unix", path="/run/a b:c.sock")),
        ("unix:app.sock", Bind(kind="unix", path="app.sock")),
        ("fd://3", Bind(kind="fd", fd=3)),
    ],
)
def test_addresses(text, bind):
    assert parse_bind(text) == bind


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "use HOST:PORT"),
        (":8000", "use HOST:PORT"),
        ("http://127.0.0.1:8000", "use HOST:PORT"),
        ("/run/app.sock", "use HOST:PORT"),
        ("a b:1", "use HOST:PORT"),
        ("8000", "the host is missing, as in 127.0.0.1:8000"),
        ("::1", "put an IPv6 address in brackets"),
        ("::1:8000", "put an IPv6 address in brackets"),
        ("[::1", "write it as"),
        ("[::1]8000", "write it as"),
        ("[127.0.0.1]:80", "not an IPv6 address"),
        ("localhost:", "'' is not a port"),
        ("localhost:65536", "'65536' is not a port"),
        ("localhost:-1", "'-1' is not a port"),
        ("localhost:http", "'http' is not a port"),
        ("localhost:٣", "is not a port"),
        ("unix:", "the path is missing"),
        ("fd://", "the number of an open file"),
        ("fd://x", "the number of an open file"),
        ("fd://-1", "the number of an open file"),
    ],
)
def test_what_is_no_address(text, reason):
    with pytest.raises(ConfigError, match=reason.replace("[", r"\[")):
        parse_bind(text)


# The reference page


def test_the_reference_page_is_what_the_declarations_say():
    assert REFERENCE.read_text(encoding="utf-8") == config_reference.render()
