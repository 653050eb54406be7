"""Whatever a client sends, what the server writes about it can be read, and does nothing else."""

from __future__ import annotations

import logging
import re
import signal
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from .command import LIMIT_S, read_to_end, running, until
from .hostile_app import app
from .test_access_log import LINE

APP = Path(__file__).with_name("hostile_app.py")

RECORD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ ")

FORGED = "2026-01-01 00:00:00,000 ERROR forged"

# Escape, newlines, NUL, backspace, DEL, a C1 control in UTF-8 and bare, quotes, and text turned round.
HOSTILE = {
    "escape": b"\x1b[2J\x1b]0;x\x07",
    "lf": b"a\n" + FORGED.encode(),
    "cr": b"a\r" + FORGED.encode(),
    "crlf": b"a\r\n" + FORGED.encode(),
    "nel": "a\x85".encode() + FORGED.encode(),
    "separators": "a\u2028b\u2029c\x1c\x1d\x1e\v\f".encode() + FORGED.encode(),
    "nul": b"a\x00b",
    "backspace": b"a\x08\x7f",
    "c1": b"\x9b31m",
    "c1 in utf-8": "\x9b31m".encode(),
    "quote": b'" 200 0\\',
    "bidi": "\u202egpj.exe\u2066".encode(),
    "invisible": "\u200b\u00ad\ufeff\u00a0".encode(),
    "not utf-8": b"\xff\xfe\xed\xa0\x80",
}


def percent(text):
    return b"".join(b"%%%02x" % byte for byte in text)


def with_head(*fields, line=b"GET / HTTP/1.1", host=b"x"):
    return b"\r\n".join((line, b"Host: " + host, *fields, b"Connection: close", b"", b""))


def requests(bad):
    """Return requests with something hostile in each place."""
    encoded = percent(bad)
    chunked = b"Transfer-Encoding: chunked"
    return [
        with_head(line=b"GET /" + encoded + b"?" + encoded + b" HTTP/1.1"),
        with_head(line=b"GET /header" + encoded + b" HTTP/1.1"),
        with_head(line=b"GET /" + bad + b" HTTP/1.1"),
        with_head(line=b"GET /?" + bad + b" HTTP/1.1"),
        with_head(line=b"G" + bad + b"T / HTTP/1.1"),
        with_head(line=b"GET / HTTP/" + bad),
        with_head(line=b"GET http://" + bad + b"/ HTTP/1.1"),
        with_head(host=bad),
        with_head(b"X" + bad + b": x"),
        with_head(b"X: " + bad),
        with_head(b"X-Forwarded-For: " + bad, b"X-Forwarded-Proto: " + bad),
        with_head(b"X-Forwarded-For: ::1%" + bad),
        with_head(b"Content-Length: " + bad),
        with_head(b"Transfer-Encoding: " + bad),
        with_head(b"Expect: " + bad),
        with_head(b"Content-Length: %d" % len(bad)) + bad,
        with_head(chunked) + bad + b"\r\n\r\n",
        with_head(chunked) + b"1;" + bad + b"\r\nx\r\n0\r\n" + bad + b": x\r\n\r\n",
        websocket(b"Sec-WebSocket-Protocol: " + bad),
        websocket(b"Sec-WebSocket-Extensions: " + bad),
        websocket(b"X: x") + frame(8, struct.pack("!H", 1000) + bad),
        websocket(b"X: x") + frame(1, bad) + frame(8, struct.pack("!H", 4000) + bad),
        websocket(b"X: x") + bad * 3,
    ]


def websocket(field):
    handshake = (b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")
    return b"\r\n".join((b"GET /ws HTTP/1.1", b"Host: x", b"Connection: upgrade", *handshake, field, b"", b""))


def frame(opcode, payload):
    """A frame masked with zeros, which change nothing."""
    return bytes((0x80 | opcode, 0x80 | len(payload))) + bytes(4) + payload


@pytest.fixture
def served(tmp_path):
    """``with served(*arguments) as program``: the command on a unix socket; its standard error goes to a file."""
    errors, path = str(tmp_path / "errors"), str(tmp_path / "app.sock")
    # Not through a pipe that is read as text, which takes a CR for the end of a line.
    redirect = ("/bin/sh", "-c", 'exec "$@" 2>"$0"', errors)

    def start(*arguments):
        command = (sys.executable, "-m", "pagi_trio", f"{APP}:app", "--bind", f"unix:{path}", "--lifespan", "off")
        return running(*redirect, *command, *arguments)

    return start


def connect(path):
    with suppress(FileNotFoundError, ConnectionRefusedError):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(LIMIT_S)
        sock.connect(str(path))
        return sock
    sock.close()
    return None


def send(path, data):
    """Send what is hostile and nothing more; return all that comes back."""
    with connect(path) as sock:
        with suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        try:
            return read_to_end(sock)
        except ConnectionResetError:
            return b""


def read_lines(file):
    """Return the lines of a file by LF alone, which every one of them ends with."""
    *lines, rest = file.read_bytes().decode("utf-8").split("\n")
    assert rest == ""
    return lines


def test_every_line_of_both_logs_is_printable_and_none_is_forged(served, tmp_path):
    path = tmp_path / "app.sock"
    arguments = ("--access-logfile", str(tmp_path / "access"), "--forwarded-allow-ips", "unix")
    everything = [(bad, request) for bad in HOSTILE.values() for request in requests(bad)]
    with served(*arguments) as program:
        until(lambda: connect(path)).close()
        for bad, request in everything:
            answer = send(path, request)
            assert b"\r\nserver:" not in answer
            # Frames of a WebSocket may repeat what its client sent, and its Close does.
            if not request.startswith(b"GET /ws"):
                assert bad not in answer
                assert answer.replace(b"\r\n", b"").replace(b"\n", b"").decode("ascii").isprintable(), request
        program.send_signal(signal.SIGTERM)
        assert program.finish() == (0, "")
    errors, access = read_lines(tmp_path / "errors"), read_lines(tmp_path / "access")
    assert [line for line in errors + access if not line.isprintable()] == []
    assert [line for line in access if LINE.fullmatch(line) is None] == []
    # Nothing of it was taken for an address.
    assert {line.split(" ")[0] for line in access} == {"-"}
    assert [line for line in errors if RECORD.match(line) is None and not line.startswith("  ")] == []
    assert [line for line in errors if line.startswith(FORGED)] == []
    # It is all there, and readable: refusals, errors of the application, and what was in them.
    text = "\n".join(errors)
    for known in ("answered 400: ", "answered 417: ", "application failed in http GET /header%1b", FORGED):
        assert known in text
    for escaped in (r"\x1b[2J", r"\x00", r"\x9b31m", r"\u202egpj.exe\u2066", r"\u200b\xad\ufeff\xa0"):
        assert escaped in text


@pytest.mark.trio
async def test_what_the_server_itself_says_needs_no_escaping(pagi_serve, tmp_path, caplog):
    """Where a program sets up logging in its own way, what is escaped is up to it."""
    caplog.set_level(logging.DEBUG, "pagi_trio")
    path = tmp_path / "app.sock"
    await pagi_serve(
        app, lifespan="off", bind=(f"unix:{path}",), forwarded={"trusted": "unix"}, raise_app_exceptions=False
    )
    everything = [request for bad in HOSTILE.values() for request in requests(bad)]
    for request in everything:
        await trio.to_thread.run_sync(send, path, request)
    messages = [record.getMessage() for record in caplog.records if record.name == "pagi_trio"]
    assert len(messages) > len(everything) / 2
    assert [message for message in messages if not message.isprintable()] == []


def test_garbage_in_place_of_tls_is_not_repeated(served, tmp_path):
    trustme = pytest.importorskip("trustme")
    certificate = trustme.CA().issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    path = tmp_path / "app.sock"
    both = str(tmp_path / "both.pem")
    with served("--certfile", both, "--keyfile", both, "--log-level", "debug") as program:
        until(lambda: connect(path)).close()
        for bad in HOSTILE.values():
            assert b"HTTP" not in send(path, bad)
            assert b"HTTP" not in send(path, b"\x16\x03\x01\x00\x05" + bad)
        program.send_signal(signal.SIGTERM)
        assert program.finish() == (0, "")
    errors = read_lines(tmp_path / "errors")
    assert [line for line in errors if RECORD.match(line) is None or not line.isprintable()] == []
    failures = [line for line in errors if "the TLS handshake failed: " in line]
    assert len(failures) == 1 + 2 * len(HOSTILE)
    assert [line for line in failures if re.search(r"failed: [A-Za-z_]+$", line) is None] == []
