"""Expect: when a 100 comes, when it must not, and what another expectation gets."""

from __future__ import annotations

from .case import (
    CONTINUE,
    SHOULD,
    Allowed,
    Call,
    Case,
    Outcome,
    Step,
    Then,
    by_app,
    by_server,
    get,
    post,
    refused,
    request,
    taken,
)

EXPECT = b"Expect: 100-continue"
FIVE = b"Content-Length: 5"
CHUNKED = b"Transfer-Encoding: chunked"
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"


def continued(call: Call, then: Then = Then.EITHER) -> Allowed:
    """A 100 comes in front of the application's answer."""
    return (Outcome((CONTINUE, by_app(call)), then),)


# Nothing forbids a 100 in front of a refusal, if nothing but the refusal comes behind it.
CONTINUED_400 = (Outcome((CONTINUE, by_server(400)), Then.CLOSED),)

HELLO = Call("POST", body=b"hello")
ONLY_ANSWERED = taken(method="POST", body=b"hello")
ASKED = continued(HELLO)

UNREAD = Call("POST", "/unread", body=None)


def unread(*answers: object) -> Allowed:
    return (Outcome((*answers, by_app(UNREAD)), Then.EITHER),)


CASES = (
    Case("the client waits", "RFC 9110 10.1.1", (post(EXPECT, FIVE), Step.CONTINUE, b"hello"), ASKED),
    Case("the client waits with a chunked body", "RFC 9110 10.1.1", (post(EXPECT, CHUNKED), Step.CONTINUE, CHUNKS), ASKED),
    Case("the client waits, and has written it in another case", "RFC 9110 10.1.1", (post(b"eXPECT: 100-Continue", FIVE), Step.CONTINUE, b"hello"), ASKED),
    Case("the client waits, with white space around it", "RFC 9110 5.5", (post(b"Expect: \t100-continue\t ", FIVE), Step.CONTINUE, b"hello"), ASKED),
    Case("the client waits, with an empty element in front", "RFC 9110 5.6.1.2", (post(b"Expect: , 100-continue", FIVE), Step.CONTINUE, b"hello"), ASKED),
    Case("the client waits, and has written it twice", "RFC 9110 10.1.1", (post(EXPECT, EXPECT, FIVE), Step.CONTINUE, b"hello"), ASKED),
    Case("the client waits over HTTP/1.2", "RFC 9110 2.5", (request(b"POST / HTTP/1.2", EXPECT, FIVE), Step.CONTINUE, b"hello"), ASKED, SHOULD),
    Case("the client waits, and closes afterwards", "RFC 9110 10.1.1", (post(EXPECT, FIVE, b"Connection: close"), Step.CONTINUE, b"hello"), continued(HELLO, Then.CLOSED)),
    Case("the client does not wait", "RFC 9110 10.1.1", post(EXPECT, FIVE, body=b"hello"), ASKED + ONLY_ANSWERED),
    Case("the client does not wait with a chunked body", "RFC 9110 10.1.1", post(EXPECT, CHUNKED, body=CHUNKS), ASKED + ONLY_ANSWERED),
    Case("the client waits twice", "RFC 9110 10.1.1", (post(EXPECT, FIVE), Step.CONTINUE, b"hello" + post(EXPECT, FIVE), Step.CONTINUE, Step.CONTINUE, b"hello"), (Outcome((CONTINUE, by_app(HELLO), CONTINUE, by_app(HELLO)), Then.EITHER), *continued(HELLO, Then.CLOSED))),
    Case("there is no body", "RFC 9110 10.1.1", get(EXPECT), taken() + continued(Call())),
    Case("a body of no bytes", "RFC 9110 10.1.1", post(EXPECT, b"Content-Length: 0"), taken(method="POST") + continued(Call("POST"))),
    Case("HTTP/1.0 gets no 100", "RFC 9110 10.1.1", request(b"POST / HTTP/1.0", EXPECT, FIVE, body=b"hello"), taken(method="POST", body=b"hello", then=Then.CLOSED)),
    Case("HTTP/1.0 with keep-alive gets no 100", "RFC 9110 10.1.1", request(b"POST / HTTP/1.0", EXPECT, FIVE, b"Connection: keep-alive", body=b"hello"), taken(method="POST", body=b"hello", then=Then.EITHER)),
    # An answer that does not wait for the body
    Case("the answer comes instead of a 100", "RFC 9110 10.1.1", (request(b"POST /unread HTTP/1.1", EXPECT, FIVE), Step.CONTINUE, b"hello"), unread() + unread(CONTINUE)),
    Case("the answer comes beside the body", "RFC 9110 10.1.1", request(b"POST /unread HTTP/1.1", EXPECT, FIVE, body=b"hello"), unread() + unread(CONTINUE)),
    Case("the head is refused, not continued", "RFC 9112 3.2", (request(b"POST / HTTP/1.1", EXPECT, FIVE, host=b""), Step.CONTINUE), refused(400) + CONTINUED_400),
    Case("an invalid length is refused, not continued", "RFC 9112 6.3", (post(EXPECT, b"Content-Length: x"), Step.CONTINUE), refused(400, then=Then.CLOSED) + CONTINUED_400),
    # Other expectations
    Case("another expectation", "RFC 9110 10.1.1", post(b"Expect: tea", FIVE, body=b"hello"), refused(417) + ONLY_ANSWERED),
    Case("another expectation with a value", "RFC 9110 10.1.1", post(b"Expect: tea=black;sugar=no", FIVE, body=b"hello"), refused(417) + ONLY_ANSWERED),
    Case("another expectation behind it", "RFC 9110 10.1.1", post(b"Expect: 100-continue, tea", FIVE, body=b"hello"), refused(417) + ONLY_ANSWERED + ASKED),
    Case("a word more in front of it", "RFC 9110 10.1.1", post(b"Expect: x 100-continue", FIVE, body=b"hello"), refused(400, 417) + ONLY_ANSWERED),
    Case("no expectation", "RFC 9110 10.1.1", post(b"Expect:", FIVE, body=b"hello"), ONLY_ANSWERED, SHOULD),
)  # fmt: skip
