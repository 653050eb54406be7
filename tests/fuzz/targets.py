"""What is fuzzed: each check, inputs that reach far into what it checks, and the words of its language."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.fuzz.handshakes import check_extensions, check_handshake
from tests.fuzz.messages import check_frames, check_inflate, check_messages
from tests.fuzz.negotiations import check_accept
from tests.fuzz.requests import check_chunked, check_head, check_length, check_request
from tests.fuzz.responses import check_error_response, check_response
from tests.fuzz.streams import check_events


@dataclass(frozen=True)
class Target:
    """One check of arbitrary bytes.

    Attributes:
        check: Raises whatever it raises where a property does not hold.
        seeds: Inputs to begin with.
        words: What inputs are made of.
        longest: Bytes of an input; more find nothing more, and take longer.
    """

    check: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...] = ()
    longest: int = 512


_CHUNKED = b'3;a=b\r\nabc\r\n10 ; c="d"\r\n0123456789abcdef\r\n0\r\nX: y\r\n\r\nleft'
_HEADS = (
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /a%41?b=c HTTP/1.1\r\nHost: a:80\r\nContent-Length: 3\r\nCookie: a=b\r\nCookie: c=d\r\n\r\nabcGET /",
    b"PUT http://h/x?y HTTP/1.1\r\nHost: [::1]:8\r\nTransfer-Encoding: chunked\r\n\r\n" + _CHUNKED,
    b"PATCH /? HTTP/1.2\r\nHost:\r\nExpect: 100-Continue\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
    b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\nTransfer-Encoding: chunked, \r\n\r\n"
    + b"0" * 30
    + b"\r\n\r\n",
    b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0000000000000000000000000000000001\r\n\r\n\0",
    b"OPTIONS * HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, Upgrade\r\nUpgrade: h2c, websocket\r\n\r\n",
)
_FIELD_WORDS = (
    *(b"Host", b"Content-Length", b"Transfer-Encoding", b"chunked", b"Connection", b"close", b"keep-alive", b"Upgrade"),
    *(b"websocket", b"Expect", b"100-continue", b"Cookie", b"HTTP/1.1", b"HTTP/1.0", b"OPTIONS", b"http://", b"\r\n"),
    *(b"\r\n\r\n", b": ", b", ", b"%41", b"[::1]", b"18446744073709551616"),
)
_WEBSOCKET_WORDS = (
    *(b"Sec-WebSocket-Key", b"Sec-WebSocket-Version", b"Sec-WebSocket-Protocol", b"Sec-WebSocket-Extensions"),
    *(b"permessage-deflate", b"; ", b'="', b"server_no_context_takeover", b"client_no_context_takeover"),
    *(b"server_max_window_bits=", b"client_max_window_bits", b"13", b"15", b"8", b"10"),
)
_HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: a, b\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
)
_FRAMES = (
    b"\0\0\x81\x85\0\0\0\0hello",
    b"\0\0\x01\x82\1\2\3\4ab\x89\x81\0\0\0\0p\x80\x81\0\0\0\0c\x88\x82\0\0\0\0\x03\xe8",
    b"\0\0\x82\xfe\x00\x7e\0\0\0\0" + b"x" * 126,
    b"\0\1\xc1\x87\0\0\0\0\xf2H\xcd\xc9\xc9\x07\0",
    b"\0\2\x41\x83\0\0\0\0\xf2H\xcd\x80\x84\0\0\0\0\xc9\xc9\x07\0",
)
_FRAME_WORDS = (
    *(b"\x81\x80\0\0\0\0", b"\x01\x80\0\0\0\0", b"\x80\x80\0\0\0\0", b"\x88\x82\0\0\0\0\x03\xe8", b"\x89\x81\0\0\0\0p"),
    *(
        b"\xc1\x87\0\0\0\0\xf2H\xcd\xc9\xc9\x07\0",
        b"\xc2\x82\0\0\0\0\x03\0",
        b"\x82\xfe\0\x7e",
        b"\xff\xff",
        b"\xc3\xa9",
    ),
)

TARGETS = {
    "head": Target(check_head, _HEADS, _FIELD_WORDS, longest=300),
    "request": Target(check_request, _HEADS, _FIELD_WORDS),
    "chunked": Target(
        check_chunked,
        (_CHUNKED, b"0A\r\n0123456789\r\n1 ;x\r\na\r\n000\r\n\r\n"),
        (b"\r\n", b"\r\n0\r\n\r\n", b"1\r\na\r\n", b";", b"X: y\r\n", b"7fffffffffffffff", b"ffffffffffffffffffff"),
    ),
    "length": Target(check_length, (b"\3abcdef", b"\0"), longest=64),
    "frames": Target(check_frames, _FRAMES, _FRAME_WORDS, longest=300),
    "messages": Target(
        check_messages,
        (
            b"\1\0\5hello\0\0\3\1\2",
            b"\1\2\3abc\0\1\x7d" + b"x" * 125 + b"\2\0\3\1\5\7",
            b"\0\1\x7d" + b"x" * 125 + b"\xff\1\x40",
        ),
        longest=200,
    ),
    "inflate": Target(
        check_inflate,
        (b"\0\0\6\xf2H\xcd\xc9\xc9\x07\0\2\3\0\0", b"\0\0\x9f" + b"\3\0" * 80),
        (
            b"\3\0",
            b"\0\0\xff\xff",
            b"\xf2H\xcd\xc9\xc9\x07\0",
            b"\1\1\0\xfe\xffa",
            b"\0\1\0\xfe\xffa",
            b"\x4b\x04\x82\0",
        ),
    ),
    "handshake": Target(check_handshake, (_HANDSHAKE,), (*_FIELD_WORDS, *_WEBSOCKET_WORDS)),
    "extensions": Target(
        check_extensions,
        (b'\0permessage-deflate; server_max_window_bits=10, permessage-deflate\nx; a="b"', b"\1chat, superchat\nb"),
        _WEBSOCKET_WORDS,
    ),
    "events": Target(
        check_events,
        (b"data: a\n\ndata\r\n\r\n", b"\xef\xbb\xbfdata:a\r\rid: 1\ndata: b\n:c\n\n"),
        (b"data", b"data:", b"\r\n", b"\n\n", b"\xef\xbb\xbf", b"event: "),
        longest=128,
    ),
    "response": Target(
        check_response,
        (b"\0\0\0\0\2\1\0\5\7\1a\3abc", b"\1\1\0\3\1\7\4gzip\5hello", b"\0\0\0\0\1\1\1\4abcd\1\3abc\1d"),
        (b"chunked", b"close", b"\r\n", b"text/event-stream"),
    ),
    "error_response": Target(check_error_response, (b"\0no", b"\x04line\r\n\r\nend"), longest=64),
    "accept": Target(
        check_accept,
        (b'text/plain;version=0.0.4;q=0.5, application/openmetrics-text;version="1.0.0"', b"gzip;q=0, *;  ;q=1"),
        (
            b"application/openmetrics-text",
            b"version=1.0.0",
            b"text/plain",
            b";q=0.",
            b"gzip",
            b"*/*",
            b";  ",
            b'="',
            b"\\",
        ),
        longest=1024,
    ),
}
