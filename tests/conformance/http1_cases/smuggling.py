"""Request smuggling: a second request hidden where two readers of the same bytes might disagree.

Wherever one is hidden, it is to ``/smuggled``: a call for that is one too many.
"""

from __future__ import annotations

from .case import (
    BAD,
    BAD_BODY,
    ERRORS,
    REJECTED,
    REJECTED_BODY,
    SHOULD,
    Allowed,
    Call,
    Case,
    Outcome,
    Step,
    Then,
    answered,
    by_app,
    by_server,
    dropped,
    get,
    post,
    refused,
    request,
    taken,
    too_late,
)

HIDDEN = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
LENGTH = b"Content-Length: %d" % len(HIDDEN)
CHUNKED = b"Transfer-Encoding: chunked"
LAST = b"0\r\n\r\n"
# A chunk of the hidden request, and the last one.
CHUNKS = b"%x\r\n%b\r\n" % (len(HIDDEN), HIDDEN) + LAST

IN_BODY = taken(method="POST", body=HIDDEN)
NO_BODY_CLOSED = taken(method="POST", then=Then.CLOSED)


def hidden_chunk(path: bytes = b"/") -> bytes:
    return request(b"POST " + path + b" HTTP/1.1", CHUNKED, body=CHUNKS)


def disguised(name: str, clause: str, line: bytes, allowed: Allowed, strength: str = "MUST") -> Case:
    """A length that covers the hidden request, and a coding that only some would see."""
    sent = post(b"Content-Length: %d" % (len(LAST) + len(HIDDEN)), line, body=LAST + HIDDEN)
    return Case(f"TE.TE: {name}", clause, sent, allowed, strength)


def chunk_trick(name: str, clause: str, body: bytes, allowed: Allowed, strength: str = "MUST") -> Case:
    return Case(f"chunks: {name}", clause, post(CHUNKED, body=body), allowed, strength)


UNREAD = Call("POST", "/unread", body=None)
UNREAD_EITHER = answered(UNREAD, then=Then.EITHER)
# Nothing is answered, since the connection was closed over it.
LOST = (Outcome((), Then.CLOSED, unanswered=1),)

# What becomes of a chunk that does not end: an error, or nothing.
UNFINISHED = refused(*ERRORS, then=Then.CLOSED, begun=True) + dropped(begun=True)
COVERED = taken(method="POST", body=LAST + HIDDEN)

PLAIN = (
    Case("in a body", "RFC 9112 6.3", post(LENGTH, body=HIDDEN), IN_BODY),
    Case("in a chunk", "RFC 9112 7.1", hidden_chunk(), IN_BODY),
    Case("in a body that is not read", "RFC 9112 9.3", request(b"POST /unread HTTP/1.1", LENGTH, body=HIDDEN), UNREAD_EITHER),
    Case("in a chunk that is not read", "RFC 9112 9.3", hidden_chunk(b"/unread"), UNREAD_EITHER),
    Case("in a long body that is not read", "RFC 9112 9.3", request(b"POST /unread HTTP/1.1", b"Content-Length: %d" % (len(HIDDEN) * 4000), body=HIDDEN * 4000), UNREAD_EITHER),
    Case("in a body of a GET", "RFC 9110 9.3.1", get(LENGTH) + HIDDEN, taken(body=HIDDEN) + refused(*range(400, 500), then=Then.CLOSED)),
    Case("in a body of a HEAD", "RFC 9110 9.3.2", request(b"HEAD / HTTP/1.1", LENGTH, body=HIDDEN), (Outcome((by_app(Call("HEAD", body=HIDDEN)),), Then.EITHER), Outcome((by_server(*range(400, 500), to_head=True),), Then.CLOSED))),
    Case("in a body over HTTP/1.0 with keep-alive", "RFC 9112 6.3", request(b"POST / HTTP/1.0", LENGTH, b"Connection: keep-alive", body=HIDDEN), taken(method="POST", body=HIDDEN, then=Then.EITHER)),
    Case("behind an expectation that is not met", "RFC 9110 10.1.1", post(b"Expect: tea", LENGTH, body=HIDDEN), IN_BODY + refused(417)),
    Case("behind an expectation that is disguised", "RFC 9110 10.1.1", post(b"Expect: y 100-continue", LENGTH, body=HIDDEN), IN_BODY + refused(400, 417)),
    Case("behind an upgrade by POST", "RFC 9112 6.3", post(b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", LENGTH, body=HIDDEN), IN_BODY + refused(*range(400, 500))),
    Case("in a value", "RFC 9112 2.2", get(b"X: y\r\n\r", b"GET /smuggled HTTP/1.1"), REJECTED),
    Case("in a target", "RFC 9112 3.2", request(b"GET /a HTTP/1.1\nGET /smuggled HTTP/1.1"), BAD, SHOULD),
)  # fmt: skip

LENGTHS = (
    Case("a length of 0 and another", "RFC 9112 6.3", post(b"Content-Length: 0", LENGTH, body=HIDDEN), BAD),
    Case("a length and one of 0", "RFC 9112 6.3", post(LENGTH, b"Content-Length: 0", body=HIDDEN), BAD),
    Case("a length with a sign", "RFC 9112 6.3", post(b"Content-Length: +%d" % len(HIDDEN), body=HIDDEN), BAD),
    Case("a length of 0 with a sign", "RFC 9112 6.3", post(b"Content-Length: -0", body=HIDDEN), BAD),
    Case("a length behind a NUL", "RFC 9112 6.3", post(b"Content-Length: 0\0%d" % len(HIDDEN), body=HIDDEN), BAD),
    Case("a length with a space in front of its colon", "RFC 9112 5.1", post(b"Content-Length : %d" % len(HIDDEN), body=HIDDEN), refused(400, then=Then.CLOSED)),
    Case("a length in a folded line", "RFC 9112 5.2", post(b"X: y\r\n " + LENGTH, body=b""), taken(method="POST") + refused(400)),
)  # fmt: skip

BOTH = (
    Case("CL.TE: a last chunk, and the start of a request", "RFC 9112 6.1", post(b"Content-Length: 6", CHUNKED, body=LAST + b"G"), NO_BODY_CLOSED + BAD),
    Case("CL.TE: a last chunk, and a request", "RFC 9112 6.1", post(b"Content-Length: %d" % (len(LAST) + len(HIDDEN)), CHUNKED, body=LAST + HIDDEN), NO_BODY_CLOSED + BAD),
    Case("TE.CL: a request in a chunk", "RFC 9112 6.1", post(CHUNKED, b"Content-Length: 4", body=CHUNKS), taken(method="POST", body=HIDDEN, then=Then.CLOSED) + BAD),
    Case("TE.CL: over HTTP/1.0 with keep-alive", "RFC 9112 6.1", request(b"POST / HTTP/1.0", CHUNKED, b"Content-Length: 4", b"Connection: keep-alive", body=CHUNKS), taken(method="POST", body=HIDDEN, then=Then.CLOSED) + BAD),
    Case("TE.0: over HTTP/1.0 with keep-alive", "RFC 9112 6.1", request(b"POST / HTTP/1.0", CHUNKED, b"Connection: keep-alive", body=LAST + HIDDEN), NO_BODY_CLOSED + BAD + too_late(400) + LOST),
    disguised("a letter in front", "RFC 9112 6.3", b"Transfer-Encoding: xchunked", BAD),
    disguised("another coding behind", "RFC 9112 6.3", b"Transfer-Encoding: chunked, x", BAD),
    disguised("another coding in a second line", "RFC 9112 6.3", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x", BAD),
    disguised("another coding in a first line", "RFC 9112 6.1", b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked", NO_BODY_CLOSED + refused(400, 501, then=Then.CLOSED)),
    disguised("a vertical tab in front", "RFC 9112 6.3", b"Transfer-Encoding: \x0bchunked", BAD),
    disguised("a NUL behind", "RFC 9110 5.5", b"Transfer-Encoding: chunked\0", NO_BODY_CLOSED + BAD),
    disguised("a space in front of its colon", "RFC 9112 5.1", b"Transfer-Encoding : chunked", refused(400)),
    disguised("a tab in front of its colon", "RFC 9112 5.1", b"Transfer-Encoding\t: chunked", refused(400)),
    disguised("folded", "RFC 9112 5.2", b"Transfer-Encoding:\r\n chunked", NO_BODY_CLOSED + BAD),
    disguised("in a folded line", "RFC 9112 5.2", b"X: y\r\n Transfer-Encoding: chunked", COVERED + refused(400)),
    disguised("behind a line feed alone", "RFC 9110 5.5", b"X: y\nTransfer-Encoding: chunked", COVERED + NO_BODY_CLOSED + REJECTED),
    disguised("behind a bare CR", "RFC 9112 2.2", b"X: y\rTransfer-Encoding: chunked", COVERED + REJECTED),
    disguised("an underscore for the hyphen", "RFC 9110 5.1", b"Transfer_Encoding: chunked", COVERED + REJECTED),
    disguised("in quotes", "RFC 9112 6.3", b'Transfer-Encoding: "chunked"', BAD),
    disguised("a control character in its name", "RFC 9112 2.2", b"Transfer-Encoding\x01: chunked", BAD, SHOULD),
)  # fmt: skip

CHUNK_TRICKS = (
    chunk_trick("a request behind the last one", "RFC 9112 9.3.2", LAST + HIDDEN.replace(b"smuggled", b"second"), answered(Call("POST"), Call(path="/second")) + NO_BODY_CLOSED),
    chunk_trick("a size in front of 0x", "RFC 9112 7.1", b"0x%x\r\n%b\r\n" % (len(HIDDEN), HIDDEN) + LAST, BAD_BODY, SHOULD),
    chunk_trick("a negative size", "RFC 9112 7.1", b"-1\r\n" + HIDDEN + LAST, BAD_BODY, SHOULD),
    Case("chunks: a size that overflows to 0", "RFC 9112 7.1", (post(CHUNKED, body=b"10000000000000000\r\n\r\n" + HIDDEN), Step.FINISH), UNFINISHED),
    chunk_trick("a line feed that ends an extension", "RFC 9112 7.1.1", b"2;\nxx\r\n%x\r\n%b\r\n" % (len(HIDDEN), HIDDEN) + LAST, BAD_BODY, SHOULD),
    chunk_trick("a line end in the quotes of an extension", "RFC 9112 7.1.1", b'5;a="\r\nhello\r\n0\r\n\r\n' + HIDDEN, BAD_BODY, SHOULD),
    chunk_trick("a bare CR that ends a size", "RFC 9112 2.2", b"2\rxx\r\n%x\r\n%b\r\n" % (len(HIDDEN), HIDDEN) + LAST, REJECTED_BODY),
    chunk_trick("two bytes too many behind the data", "RFC 9112 7.1", b"2\r\nxx45\r\n0\r\n\r\n" + HIDDEN, BAD_BODY, SHOULD),
    chunk_trick("a request instead of trailers", "RFC 9112 7.1.2", b"0\r\n" + HIDDEN, BAD_BODY, SHOULD),
    chunk_trick("a length among the trailers", "RFC 9110 6.5.1", b"0\r\n" + LENGTH + b"\r\n\r\n", taken(method="POST") + REJECTED_BODY),
)  # fmt: skip

CASES = (*PLAIN, *LENGTHS, *BOTH, *CHUNK_TRICKS)
