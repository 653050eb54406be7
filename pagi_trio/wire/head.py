"""Read HTTP/1.x request heads: the request line and the field lines, up to the blank line.

Two bounded memos map a raw line to what it was found to mean, since clients repeat themselves: a line that was
validated once costs one dictionary look-up from then on. Only valid lines are remembered, so an invalid one is
refused each time by the same code.

Source: RFC 9112 sections 2, 3 and 5; RFC 9110 sections 5 and 7.2.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote

from pagi_trio.errors import RequestError

if TYPE_CHECKING:
    from pagi_trio.asgi import Headers

# What a field line tells about the request, as bits: the head is the union of its lines.
HOST: Final = 1
CONTENT_LENGTH: Final = 2
CHUNKED: Final = 4
EXPECT_CONTINUE: Final = 8
COOKIE: Final = 16
COOKIES: Final = 32
CLOSE: Final = 64
KEEP_ALIVE: Final = 128
CONNECTION_UPGRADE: Final = 256
UPGRADE_WEBSOCKET: Final = 512
CODINGS: Final = 1024

_BODY: Final = CONTENT_LENGTH | CHUNKED | CODINGS
_WEBSOCKET: Final = CONNECTION_UPGRADE | UPGRADE_WEBSOCKET
# A second one of these makes the message ambiguous (RFC 9112 sections 3.2, 6.1 and 6.3).
_ONCE: Final = HOST | CONTENT_LENGTH | CHUNKED

# A memo is dropped whole when it is full, and a client that sends new lines for ever costs what parsing them costs.
# What is remembered of a line of 256 bytes takes 0.7 KiB, and 1.8 of a request line whose path is wide in Python, so
# that both memos and that of responses together stay below 5 MiB.
_MEMO_LINES: Final = 2048
_MEMO_REQUEST_LINES: Final = 1024
_MEMO_LINE_BYTES: Final = 256

_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
_FIELD_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t\x20-\x7e\x80-\xff]*)")
# The authority of RFC 3986 without user information; empty where the target has none (RFC 9110 section 7.2).
_HOST = re.compile(rb"(?:\[([^\[\]]*)\]|(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?")
# What may stand in brackets (RFC 3986 section 3.2.2): an IPv6 address, without a zone, or one of a later version.
_IPV6 = re.compile(rb"[0-9A-Fa-f:.]+")
_LATER_ADDRESS = re.compile(rb"[Vv][0-9A-Fa-f]+\.[A-Za-z0-9\-._~!$&'()*+,;=:]+")
_ABSOLUTE = re.compile(rb"([Hh][Tt][Tt][Pp][Ss]?)://([^/?#]+)([^#]*)")
# 19 digits hold every length below 2**63; int() itself would take far more, slowly. One way to read them, as in chunks.
_LENGTH = re.compile(rb"(?>0*[0-9]{1,19})")
_BARE_LF = re.compile(rb"(?<!\r)\n")


class RequestLine(NamedTuple):
    """A request line and its target, taken apart.

    Attributes:
        method: As sent; methods are case-sensitive (RFC 9110 section 9.1).
        path: Percent-decoded, invalid UTF-8 replaced by U+FFFD.
        raw_path: As sent, without the query.
        query: As sent, without the question mark.
        version: ``1.0`` or ``1.1``; a higher minor version is read as 1.1 (RFC 9110 section 2.5).
        authority: Of an absolute target, in place of Host; else None.
        scheme: Of an absolute target, ``http`` or ``https``; else None.
    """

    method: str
    path: str
    raw_path: bytes
    query: bytes
    version: str
    authority: bytes | None
    scheme: str | None


class Head:
    """One request head.

    Attributes:
        line: The request line.
        headers: The fields in order, names lower-cased, Cookie joined (RFC 9113 section 8.2.3 asks the same of 2).
        flags: The bits above.
        content_length: Bytes of body announced; 0 without a body and where it is chunked.
        keep_alive: Whether the client can take another response on this connection.
    """

    __slots__ = ("content_length", "flags", "headers", "keep_alive", "line")

    def __init__(self, line: RequestLine, headers: Headers, flags: int) -> None:
        self.line = line
        self.headers = headers
        self.flags = flags
        self.content_length = 0
        self.keep_alive = not flags & CLOSE if line.version == "1.1" else flags & (KEEP_ALIVE | CLOSE) == KEEP_ALIVE

    @property
    def has_body(self) -> bool:
        """Whether a body follows that has at least one byte or is chunked."""
        return self.content_length > 0 or self.flags & CHUNKED != 0

    @property
    def is_websocket(self) -> bool:
        """Whether this asks for a WebSocket; by any method but GET, over 1.0 or with a body, an upgrade is ignored."""
        if self.flags & _WEBSOCKET != _WEBSOCKET or self.has_body:
            return False
        return self.line.method == "GET" and self.line.version == "1.1"


_request_lines: dict[bytes, RequestLine] = {}
_field_lines: dict[bytes, tuple[tuple[bytes, bytes], int]] = {}


def parse_head(raw: bytes, headers_max: int, header_max_bytes: int) -> Head:
    """Parse a request head.

    Args:
        raw: From the first byte of the request line to before the blank line, line ends included.
        headers_max: How many field lines are allowed.
        header_max_bytes: The longest field line; at least 256, which is what is remembered.

    Raises:
        RequestError: 400 for what the grammar does not allow, 417, 431, 501 or 505 where it says more.
    """
    lines = raw.split(b"\r\n")
    line = _request_lines.get(lines[0])
    if line is None:
        line = _read_request_line(lines[0])
    if len(lines) > headers_max + 1:
        raise _too_many(headers_max)
    headers: Headers = []
    flags = 0
    del lines[0]
    for field_line in lines:
        field = _field_lines.get(field_line)
        if field is None:
            if len(field_line) > header_max_bytes:
                raise _too_long(header_max_bytes)
            field = _read_field_line(field_line)
        headers.append(field[0])
        meaning = field[1]
        if meaning:
            if meaning & flags:
                flags |= _repeated(meaning & flags, field[0][0])
            flags |= meaning
    if flags & HOST == 0 and line.version == "1.1":
        raise RequestError(400, "Host is missing")
    head = Head(line, headers, flags)
    if flags & (_BODY | COOKIES) or line.authority is not None:
        _finish(head)
    return head


def _read_request_line(raw: bytes) -> RequestLine:
    match = _REQUEST_LINE.fullmatch(raw)
    if match is None:
        raise RequestError(400, "the request line is not METHOD SP target SP HTTP/1.1")
    method, target, major, minor = match.groups()
    if major != b"1":
        raise RequestError(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
    if method == b"CONNECT":
        raise RequestError(501, "CONNECT is not served")
    authority = scheme = None
    if not target.startswith(b"/"):
        target, authority, scheme = _read_other_target(method, target)
    if b"#" in target:
        raise RequestError(400, "the target has a fragment")
    raw_path, _, query = target.partition(b"?")
    path = raw_path.decode("ascii")
    if "%" in path:
        path = unquote(path)
    version = "1.0" if minor == b"0" else "1.1"
    line = RequestLine(method.decode("ascii"), path, raw_path, query, version, authority, scheme)
    if len(raw) <= _MEMO_LINE_BYTES:
        if len(_request_lines) >= _MEMO_REQUEST_LINES:
            _request_lines.clear()
        _request_lines[raw] = line
    return line


def _read_other_target(method: bytes, target: bytes) -> tuple[bytes, bytes | None, str | None]:
    """Read a target that is not a path (RFC 9112 section 3.2): its path and query, its authority and its scheme."""
    if target == b"*" and method == b"OPTIONS":
        return target, None, None
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or not _is_host(absolute[2]) or absolute[2].startswith(b":"):
        raise RequestError(400, "the request target is neither a path nor an http URL")
    scheme, authority, rest = absolute.groups()
    return rest if rest.startswith(b"/") else b"/" + rest, authority, scheme.decode("ascii").lower()


def _read_field_line(raw: bytes) -> tuple[tuple[bytes, bytes], int]:
    match = _FIELD_LINE.fullmatch(raw)
    if match is None:
        raise RequestError(400, "a header line is not name, colon, value")
    name = match[1].lower()
    value = match[2].strip(b" \t")
    read = _MEANINGS.get(name)
    field = (name, value), read(value) if read is not None else 0
    if len(raw) <= _MEMO_LINE_BYTES:
        if len(_field_lines) >= _MEMO_LINES:
            _field_lines.clear()
        _field_lines[raw] = field
    return field


def _is_host(value: bytes) -> bool:
    match = _HOST.fullmatch(value)
    if match is None or match[1] is None:
        return match is not None
    if _IPV6.fullmatch(match[1]) is None:
        return _LATER_ADDRESS.fullmatch(match[1]) is not None
    try:
        IPv6Address(match[1].decode("ascii"))
    except AddressValueError:
        return False
    return True


def _elements(value: bytes) -> list[bytes]:
    """Return the elements of a list in lower case, without the empty ones (RFC 9110 section 5.6.1.2)."""
    return [element for part in value.lower().split(b",") if (element := part.strip(b" \t"))]


def _read_host(value: bytes) -> int:
    if not _is_host(value):
        raise RequestError(400, "Host is not a host and port")
    return HOST


def _read_content_length(value: bytes) -> int:
    if _LENGTH.fullmatch(value) is None:
        raise RequestError(400, "Content-Length is not a number of bytes")
    return CONTENT_LENGTH


def _read_transfer_encoding(value: bytes) -> int:
    return CHUNKED if value.lower() == b"chunked" else CODINGS


def _read_expect(value: bytes) -> int:
    expectations = _elements(value)
    if any(expectation != b"100-continue" for expectation in expectations):
        raise RequestError(417, "the only expectation understood is 100-continue")
    return EXPECT_CONTINUE if expectations else 0


def _read_connection(value: bytes) -> int:
    flags = 0
    for option in _elements(value):
        flags |= _CONNECTION_OPTIONS.get(option, 0)
    return flags


def _read_upgrade(value: bytes) -> int:
    return UPGRADE_WEBSOCKET if b"websocket" in _elements(value) else 0


def _read_cookie(_value: bytes) -> int:
    return COOKIE


_CONNECTION_OPTIONS: Final = {b"close": CLOSE, b"keep-alive": KEEP_ALIVE, b"upgrade": CONNECTION_UPGRADE}
_MEANINGS: Final = {
    b"host": _read_host,
    b"content-length": _read_content_length,
    b"transfer-encoding": _read_transfer_encoding,
    b"expect": _read_expect,
    b"connection": _read_connection,
    b"upgrade": _read_upgrade,
    b"cookie": _read_cookie,
}


def _repeated(again: int, name: bytes) -> int:
    """Say what it means that lines repeat each other: nothing, several cookies, or that the request is refused."""
    if again & _ONCE:
        raise RequestError(400, f"{name.decode('ascii')} is given twice")
    return COOKIES if again & COOKIE else 0


def _finish(head: Head) -> None:
    """Do what few heads need: read the body's framing, join cookies, put the target's authority into Host."""
    if head.flags & CODINGS:
        _check_codings(head.headers)
        head.flags |= CHUNKED
    flags = head.flags
    if flags & CHUNKED:
        if flags & CONTENT_LENGTH:
            raise RequestError(400, "Transfer-Encoding and Content-Length contradict each other")
        if head.line.version == "1.0":
            raise RequestError(400, "HTTP/1.0 has no Transfer-Encoding")
    elif flags & CONTENT_LENGTH:
        length = next(value for name, value in head.headers if name == b"content-length")
        # int() refuses more than 4,300 digits, whatever they are.
        head.content_length = int(length.lstrip(b"0") or b"0")
    if flags & COOKIES:
        crumbs = b"; ".join(value for name, value in head.headers if name == b"cookie")
        first = next(i for i, (name, _) in enumerate(head.headers) if name == b"cookie")
        rest = [field for field in head.headers[first:] if field[0] != b"cookie"]
        head.headers[first:] = [(b"cookie", crumbs), *rest]
    if head.line.authority is not None:
        # A target that names its host overrules the field (RFC 9112 section 3.2.2).
        others = [field for field in head.headers if field[0] != b"host"]
        head.headers = [(b"host", head.line.authority), *others]


def _check_codings(headers: Headers) -> None:
    """Check a Transfer-Encoding that is not simply chunked: a list, over several lines too (RFC 9112 section 6.3)."""
    codings = _elements(b",".join([value for name, value in headers if name == b"transfer-encoding"]))
    if not codings or codings[-1] != b"chunked":
        raise RequestError(400, "the last transfer coding is not chunked")
    if len(codings) > 1:
        raise RequestError(501, "the only transfer coding understood is chunked")


def check_field_line(raw: bytes) -> None:
    """Check a trailer field, which is read and dropped (RFC 9112 section 7.1.2).

    Raises:
        RequestError: 400 if it is not a field line.
    """
    if _FIELD_LINE.fullmatch(raw) is None:
        raise RequestError(400, "a trailer line is not name, colon, value")


def check_unfinished(raw: bytes | bytearray, line_max_bytes: int, head_max_bytes: int, checked: int = 0) -> None:
    """Check a head whose blank line has not come yet, so that what can only be refused is refused early.

    Args:
        raw: All of the head that has been received.
        line_max_bytes: The longest request line.
        head_max_bytes: The longest head.
        checked: How many bytes have passed before.

    Raises:
        RequestError: 414 for the request line, 431 for the fields, 400 for a line that ends without CR.
    """
    if _BARE_LF.search(raw, checked) is not None:
        raise RequestError(400, "lines end in CR LF")
    end = raw.find(b"\n")
    if (end if end >= 0 else len(raw)) > line_max_bytes + 1:
        raise RequestError(414, f"the request line is longer than {line_max_bytes} bytes")
    # The blank line may have come in part, and is no part of the head.
    if len(raw) > head_max_bytes and len(raw.rstrip(b"\r\n")) > head_max_bytes:
        raise RequestError(431, f"the header fields are longer than {head_max_bytes} bytes")


def check_unfinished_fields(raw: bytes, headers_max: int, header_max_bytes: int, checked: int = 0) -> None:
    """Check the field lines of a head whose blank line has not come yet, each as soon as it is too long or too many.

    Args:
        raw: All of the head that has been received.
        headers_max: How many field lines are allowed.
        header_max_bytes: The longest field line.
        checked: How many bytes have passed before.

    Raises:
        RequestError: 431 as by `parse_head`.
    """
    # All that ends lines but the request line.
    if raw.count(b"\n") > headers_max + 1:
        raise _too_many(headers_max)
    start = raw.rfind(b"\n", 0, checked) + 1 or raw.find(b"\n") + 1
    # The line ends are still there, or half of them.
    if start and any(len(line.rstrip(b"\r")) > header_max_bytes for line in raw[start:].split(b"\n")):
        raise _too_long(header_max_bytes)


def _too_many(headers_max: int) -> RequestError:
    return RequestError(431, f"more than {headers_max} header fields")


def _too_long(header_max_bytes: int) -> RequestError:
    return RequestError(431, f"a header field is longer than {header_max_bytes} bytes")
