"""Listening sockets: opened by address, or adopted from whoever started the process.

Made here and not by hypercorn, whose own take over a unix socket that is in use and share ports by
SO_REUSEPORT: a second server on the same address is an error that says so.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypedDict

from pagi_trio.bind import Bind, parse_bind
from pagi_trio.errors import BindError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pagi_trio.asgi import Address

    SocketAddress = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]

_log = logging.getLogger("pagi_trio")

_ADVICE: Final = {
    errno.EADDRINUSE: "address in use; stop what listens there, or choose another",
    errno.EACCES: "permission denied; ports below 1024 and foreign directories need privileges",
    errno.EADDRNOTAVAIL: "this machine has no such address",
    errno.ENOENT: "its directory does not exist",
}

# A name may have an IPv6 address on a machine without IPv6; the others will do.
_NOT_HERE: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A socket that listens.

    Ownership: whoever opened it closes it, by `close`.

    Attributes:
        sock: Non-blocking, and listening.
        bind: The address as it was configured.
        url: What to tell a person, as in ``http://[::1]:8000`` or ``unix:/run/app.sock``.
        server: What a scope's ``server`` says.
        is_unix: Whether it is a unix socket.
        path: The file of a unix socket that the server has made, absolute; None if there is none.
        inode: Device and inode of that file.
        is_owner: Whether closing removes that file.
    """

    sock: socket.socket
    bind: str
    url: str
    server: Address
    is_unix: bool = False
    path: Path | None = None
    inode: tuple[int, int] | None = None
    is_owner: bool = True

    def close(self) -> None:
        """Stop listening, and remove the unix socket's file if that is ours to do."""
        if self.sock.fileno() < 0:
            # Closed before: by now the path, and even its inode, may be another server's.
            return
        self.sock.close()
        if self.is_owner:
            self.remove_file()

    def remove_file(self) -> None:
        """Remove the unix socket's file, unless another has taken its place."""
        if self.path is not None:
            with suppress(OSError):
                if _inode(self.path) == self.inode:
                    self.path.unlink()

    def describe(self) -> Described:
        """Describe it to a process that the socket is handed to."""
        return {
            "bind": self.bind,
            "url": self.url,
            "server": self.server,
            "is_unix": self.is_unix,
            "path": None if self.path is None else str(self.path),
            "inode": self.inode,
        }

    @classmethod
    def inherit(cls, described: Described, fd: int) -> Listener:
        """Take over a socket that another process has handed on; its file stays with who opened it."""
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        host, port = described["server"]
        device, inode = described["inode"] or (0, 0)
        return cls(
            sock=sock,
            bind=described["bind"],
            url=described["url"],
            server=(host, port),
            is_unix=described["is_unix"],
            path=None if described["path"] is None else Path(described["path"]),
            inode=(device, inode),
            is_owner=False,
        )


class Described(TypedDict):
    """A listener, as a message can hold it; its fields are those of `Listener`."""

    bind: str
    url: str
    server: Address
    is_unix: bool
    path: str | None
    inode: tuple[int, int] | None


def open_listeners(binds: Iterable[str], backlog: int, *, scheme: str = "http") -> list[Listener]:
    """Listen on every address, or on none.

    A host name is listened on at every address it resolves to, on one port; port 0 takes a free port of the
    first only, since no port need be free on all of them. Names are looked up in the calling thread.

    Args:
        binds: As `parse_bind` reads them.
        backlog: Connections that wait in the kernel to be accepted.
        scheme: ``http`` or ``https``, for the URLs.

    Raises:
        BindError: An address cannot be listened on; nothing stays open.
    """
    listeners: list[Listener] = []
    try:
        for bind in binds:
            listeners += _open(bind, backlog, scheme)
    except BaseException:
        close_all(listeners)
        raise
    return listeners


def log_addresses(listeners: Iterable[Listener], page: Iterable[Listener]) -> None:
    """Tell where the server, and its metrics page, can be reached."""
    for listener in listeners:
        _log.info("serving on %s", listener.url)
    for listener in page:
        _log.info("metrics on %s", listener.url)


def close_all(listeners: Iterable[Listener]) -> None:
    """Close listeners."""
    for listener in listeners:
        listener.close()


def _open(bind: str, backlog: int, scheme: str) -> list[Listener]:
    try:
        parsed = parse_bind(bind)
        if parsed.kind == "tcp":
            return _open_tcp(bind, parsed, backlog, scheme)
        return [
            _open_unix(bind, Path(parsed.path), backlog) if parsed.kind == "unix" else _adopt(bind, parsed.fd, scheme)
        ]
    except ConfigError as error:
        raise BindError(f"cannot listen on {bind}: {error}") from None
    except socket.gaierror as error:
        raise BindError(f"cannot listen on {bind}: cannot find the host: {error.strerror}") from None
    except UnicodeError:
        raise BindError(f"cannot listen on {bind}: the host is not a host name") from None
    except OSError as error:
        reason = _ADVICE.get(error.errno or 0) or error.strerror or str(error)
        raise BindError(f"cannot listen on {bind}: {reason}") from None


def _open_tcp(bind: str, parsed: Bind, backlog: int, scheme: str) -> list[Listener]:
    found = socket.getaddrinfo(parsed.host, parsed.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # A hosts file may list an address twice.
    addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    listeners: list[Listener] = []
    missing: OSError | None = None
    try:
        for family, address in addresses:
            try:
                listeners.append(_describe(bind, _listen_tcp(family, address, backlog), scheme))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                missing = error
            if listeners and parsed.port == 0:
                break
    except BaseException:
        close_all(listeners)
        raise
    if not listeners and missing is not None:
        raise missing
    return listeners


def _listen_tcp(family: int, address: SocketAddress, backlog: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Or a restart would have to wait for the last connections' TIME_WAIT.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Or [::] would take the port of 0.0.0.0 as well.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        _prepare(sock)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _prepare(sock: socket.socket) -> None:
    sock.setblocking(False)
    if sock.family != socket.AF_UNIX:
        # Accepted connections inherit both from the listener on Linux, which saves two system calls for each.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _describe(bind: str, sock: socket.socket, scheme: str) -> Listener:
    """Make the listener of a socket whose file, if it has one, is not ours."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        # An abstract address is bytes that begin with a zero, commonly written as @.
        path = "@" + os.fsdecode(name[1:]) if isinstance(name, bytes) else name
        return Listener(sock=sock, bind=bind, url=f"unix:{path}", server=(path, None), is_unix=True)
    host, port = name[:2]
    shown = f"[{host.replace('%', '%25')}]" if sock.family == socket.AF_INET6 else host
    return Listener(sock=sock, bind=bind, url=f"{scheme}://{shown}:{port}", server=(host, port))


def _open_unix(bind: str, path: Path, backlog: int) -> Listener:
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    text = os.fspath(path)
    try:
        sock.bind(text)
        inode = _inode(path)
    except BaseException:
        sock.close()
        raise
    listener = Listener(
        sock=sock,
        bind=bind,
        url=f"unix:{text}",
        server=(text, None),
        is_unix=True,
        path=path.absolute(),
        inode=inode,
    )
    try:
        _prepare(sock)
        sock.listen(backlog)
    except BaseException:
        listener.close()
        raise
    return listener


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens on; leave everything else and say what is wrong."""
    try:
        before = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(before.st_mode):
        raise ConfigError("the path exists and is not a socket; remove it, or choose another")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # A blocking connect would wait where the backlog is full.
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            # Another server may have replaced it meanwhile.
            if _inode(path) == (before.st_dev, before.st_ino):
                path.unlink()
            return
        except BlockingIOError:
            pass
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _inode(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def _adopt(bind: str, fd: int, scheme: str) -> Listener:
    """Take over a socket that was opened by who started the process, as systemd does.

    Ownership: the file is ours once this has returned, and untouched if it raises.
    """
    sock = socket.socket(fileno=fd)
    try:
        if sock.family not in {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX}:
            raise ConfigError("is neither a TCP nor a unix socket")
        if sock.type != socket.SOCK_STREAM:
            raise ConfigError("is not a stream socket")
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ConfigError("is not listening; call listen before handing it over")
        _prepare(sock)
        return _describe(bind, sock, scheme)
    except BaseException:
        sock.detach()
        raise
