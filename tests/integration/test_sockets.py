"""Listening sockets, on real addresses."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from pagi_trio.errors import BindError
from pagi_trio.nurseries.sockets import close_all, open_listeners


@pytest.fixture
def listen():
    """Open listeners that are closed at the end."""
    opened = []

    def open_them(*binds, backlog=16, scheme="http"):
        listeners = open_listeners(binds, backlog, scheme=scheme)
        opened.extend(listeners)
        return listeners

    yield open_them
    close_all(opened)


def open_files():
    return {one.name for one in Path("/proc/self/fd").iterdir()}


def refusal(*binds):
    with pytest.raises(BindError) as caught:
        open_listeners(binds, 16)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"cannot listen on {binds[-1]}: ")
    return message.removeprefix(f"cannot listen on {binds[-1]}: ")


def talk(listener, address):
    """Connect, and check that the listener accepts; return the accepted end."""
    with socket.socket(listener.sock.family) as client:
        client.connect(address)
        accepted, _ = listener.sock.accept()
        with accepted:
            client.sendall(b"hello")
            accepted.settimeout(5)
            assert accepted.recv(5) == b"hello"
            return (
                accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                listener.sock.family == socket.AF_UNIX or accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
            )


# TCP


@pytest.mark.parametrize(
    ("bind", "host", "shown"),
    [("127.0.0.1:0", "127.0.0.1", "127.0.0.1"), ("[::1]:0", "::1", "[::1]"), ("0.0.0.0:0", "0.0.0.0", "0.0.0.0")],
)
def test_a_tcp_address_is_listened_on(listen, bind, host, shown):
    [listener] = listen(bind)
    port = listener.sock.getsockname()[1]
    assert (listener.bind, listener.url) == (bind, f"http://{shown}:{port}")
    assert (listener.server, listener.is_unix, listener.path) == ((host, port), False, None)
    assert listener.sock.getblocking() is False
    talk(listener, ("127.0.0.1" if host == "0.0.0.0" else host, port))


def test_the_scheme_is_in_the_url(listen):
    [listener] = listen("127.0.0.1:0", scheme="https")
    assert listener.url.startswith("https://127.0.0.1:")


def test_accepted_connections_inherit_keepalive_and_nodelay(listen):
    [listener] = listen("127.0.0.1:0")
    keepalive, nodelay = talk(listener, listener.sock.getsockname())
    assert keepalive
    assert nodelay


def test_ports_are_not_shared(listen):
    [listener] = listen("127.0.0.1:0")
    assert not listener.sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
    port = listener.sock.getsockname()[1]
    assert refusal(f"127.0.0.1:{port}") == "address in use; stop what listens there, or choose another"


def test_a_port_can_be_used_again_at_once(listen):
    [listener] = listen("127.0.0.1:0")
    address = listener.sock.getsockname()
    with socket.create_connection(address):
        accepted, _ = listener.sock.accept()
        accepted.close()
    listener.close()
    [again] = listen(f"127.0.0.1:{address[1]}")
    talk(again, address)


def test_the_ipv6_wildcard_leaves_ipv4_alone(listen):
    [six] = listen("[::]:0")
    port = six.sock.getsockname()[1]
    [four] = listen(f"0.0.0.0:{port}")
    talk(four, ("127.0.0.1", port))
    talk(six, ("::1", port))


def test_a_name_is_listened_on_at_every_address_on_one_port(listen, monkeypatch):
    both = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]

    def resolve(host, port, **_):
        return [(family, kind, proto, name, (where[0], port, *where[2:])) for family, kind, proto, name, where in both]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    [first] = listen("two-addresses:0")
    assert first.url.startswith("http://[::1]:")
    port = first.sock.getsockname()[1]
    first.close()
    six, four = listen(f"two-addresses:{port}")
    assert (six.url, four.url) == (f"http://[::1]:{port}", f"http://127.0.0.1:{port}")


def test_an_address_that_this_machine_lacks_does_not_keep_a_name_from_being_served(listen, monkeypatch):
    # 192.0.2.0/24 is for documentation (RFC 5737), so nobody has it.
    lacking = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))
    here = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [lacking, here])
    [listener] = listen("some-name:0")
    assert listener.server[0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("bind", "reason"),
    [
        ("192.0.2.1:0", "this machine has no such address"),
        ("::1", "put an IPv6 address in brackets, as in [::1]:8000"),
        ("x..y:1", "the host is not a host name"),
        ("unix:/nothing/here", "its directory does not exist"),
        ("unix:/" + "long" * 40, "AF_UNIX path too long"),
        ("fd://x", "the number of an open file must follow 'fd://'"),
        ("fd://9999", "Bad file descriptor"),
    ],
)
def test_an_address_that_cannot_be_listened_on_is_named(bind, reason):
    assert refusal(bind) == reason


def test_a_host_that_does_not_resolve_is_named(monkeypatch):
    def fail(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert refusal("nobody.invalid:80") == "cannot find the host: Name or service not known"


def test_one_failure_closes_what_was_open(tmp_path):
    path = tmp_path / "app.sock"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = f"127.0.0.1:{taken.getsockname()[1]}"
        before = open_files()
        refusal("127.0.0.1:0", f"unix:{path}", busy)
        assert open_files() == before
    assert not path.exists()


# Unix sockets


def test_a_unix_socket_is_listened_on_and_removed(listen, tmp_path):
    path = tmp_path / "app.sock"
    [listener] = listen(f"unix:{path}", scheme="https")
    assert (listener.url, listener.server, listener.is_unix) == (f"unix:{path}", (str(path), None), True)
    talk(listener, str(path))
    listener.close()
    assert not path.exists()
    listener.close()


def test_a_relative_path_is_removed_from_another_directory(listen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [listener] = listen("unix:app.sock")
    monkeypatch.chdir("/")
    listener.close()
    assert not (tmp_path / "app.sock").exists()


def test_a_live_unix_socket_is_in_use(listen, tmp_path):
    path = tmp_path / "app.sock"
    [listener] = listen(f"unix:{path}")
    assert refusal(f"unix:{path}") == "address in use; stop what listens there, or choose another"
    talk_after_probe = listener.sock.accept()[0]
    talk_after_probe.close()
    talk(listener, str(path))


def test_a_live_unix_socket_with_a_full_backlog_is_in_use(listen, tmp_path):
    path = tmp_path / "app.sock"
    listen(f"unix:{path}", backlog=1)
    waiting = []
    try:
        with pytest.raises(BlockingIOError):
            while True:
                client = socket.socket(socket.AF_UNIX)
                waiting.append(client)
                client.setblocking(False)
                client.connect(str(path))
        assert refusal(f"unix:{path}").startswith("address in use")
    finally:
        for client in waiting:
            client.close()


def test_a_stale_unix_socket_is_replaced(listen, tmp_path):
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
    [listener] = listen(f"unix:{path}")
    talk(listener, str(path))


def test_what_is_not_a_socket_is_never_removed(tmp_path):
    path = tmp_path / "precious.txt"
    path.write_text("precious")
    assert refusal(f"unix:{path}") == "the path exists and is not a socket; remove it, or choose another"
    assert refusal(f"unix:{tmp_path}") == "the path exists and is not a socket; remove it, or choose another"
    assert path.read_text() == "precious"


def test_a_link_to_a_stale_socket_is_never_removed(tmp_path):
    path, link = tmp_path / "app.sock", tmp_path / "link.sock"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
    link.symlink_to(path)
    assert "is not a socket" in refusal(f"unix:{link}")
    assert link.is_symlink()


def test_a_socket_of_another_type_is_never_removed(tmp_path):
    path = tmp_path / "datagrams.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        refusal(f"unix:{path}")
    assert stat.S_ISSOCK(path.stat().st_mode)


def test_a_path_that_another_took_over_is_left_alone(listen, tmp_path):
    path = tmp_path / "app.sock"
    [first] = listen(f"unix:{path}")
    path.unlink()
    [second] = listen(f"unix:{path}")
    first.close()
    talk(second, str(path))
    second.close()
    assert not path.exists()


# Adopted files


def test_a_tcp_socket_is_adopted(listen):
    given = socket.create_server(("127.0.0.1", 0))
    address = given.getsockname()
    [listener] = listen(f"fd://{given.detach()}")
    assert (listener.url, listener.server) == (f"http://127.0.0.1:{address[1]}", address)
    assert listener.sock.getblocking() is False
    assert all(talk(listener, address))


def test_an_ipv6_socket_is_adopted(listen):
    given = socket.create_server(("::1", 0), family=socket.AF_INET6)
    port = given.getsockname()[1]
    [listener] = listen(f"fd://{given.detach()}")
    assert listener.url == f"http://[::1]:{port}"


def test_a_unix_socket_is_adopted_and_its_file_stays(listen, tmp_path):
    path = tmp_path / "given.sock"
    given = socket.socket(socket.AF_UNIX)
    given.bind(str(path))
    given.listen()
    [listener] = listen(f"fd://{given.detach()}")
    assert (listener.url, listener.server, listener.is_unix) == (f"unix:{path}", (str(path), None), True)
    talk(listener, str(path))
    listener.close()
    assert path.exists()


def test_an_abstract_unix_socket_is_adopted(listen):
    given = socket.socket(socket.AF_UNIX)
    # An empty name has the kernel choose one.
    given.bind(b"")
    given.listen()
    name = given.getsockname()
    [listener] = listen(f"fd://{given.detach()}")
    assert listener.url == "unix:@" + name[1:].decode()
    talk(listener, name)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: socket.socket(socket.AF_INET), "is not listening; call listen before handing it over"),
        (lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM), "is not a stream socket"),
        (lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), "is not a stream socket"),
        (lambda: socket.socket(socket.AF_UNIX), "is not listening; call listen before handing it over"),
    ],
)
def test_a_socket_that_does_not_listen_is_refused_and_left_open(make, reason):
    with make() as given:
        assert refusal(f"fd://{given.fileno()}") == reason
        assert given.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def test_a_file_that_is_no_socket_is_refused_and_left_open(tmp_path):
    with (tmp_path / "file").open("w") as file:
        assert refusal(f"fd://{file.fileno()}") == "Socket operation on non-socket"
        file.write("still open")
