"""The shapes of ASGI 3: scopes, messages and the callables that carry them.

Source: the ASGI specification 3.0, its HTTP & WebSocket message format 2.5 and its lifespan message format 2.0.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Literal, NotRequired, TypeAlias, TypedDict

Headers: TypeAlias = list[tuple[bytes, bytes]]
"""Header fields in order: lower-cased name, value without surrounding white space."""

Address: TypeAlias = tuple[str, int | None]
"""Host and port; for a unix socket its path and None."""

Extensions: TypeAlias = dict[str, object]


class ASGIVersions(TypedDict):
    version: str
    spec_version: str


class ConnectionScope(TypedDict):
    asgi: ASGIVersions
    http_version: str
    scheme: str
    path: str
    raw_path: bytes
    query_string: bytes
    root_path: str
    headers: Headers
    client: Address | None
    server: Address | None
    state: dict[str, object]
    extensions: Extensions


class HTTPScope(ConnectionScope):
    type: Literal["http"]
    method: str


class WebSocketScope(ConnectionScope):
    type: Literal["websocket"]
    subprotocols: list[str]


class LifespanScope(TypedDict):
    type: Literal["lifespan"]
    asgi: ASGIVersions
    state: dict[str, object]
    extensions: Extensions


Scope: TypeAlias = HTTPScope | WebSocketScope | LifespanScope


class HTTPRequest(TypedDict):
    type: Literal["http.request"]
    body: bytes
    more_body: bool


class HTTPDisconnect(TypedDict):
    type: Literal["http.disconnect"]
    reason: NotRequired[str]


class HTTPResponseStart(TypedDict):
    type: Literal["http.response.start"]
    status: int
    headers: NotRequired[Iterable[tuple[bytes, bytes]]]
    trailers: NotRequired[bool]


class HTTPResponseBody(TypedDict):
    type: Literal["http.response.body"]
    body: NotRequired[bytes]
    more_body: NotRequired[bool]


class WebSocketConnect(TypedDict):
    type: Literal["websocket.connect"]


class WebSocketReceive(TypedDict):
    type: Literal["websocket.receive"]
    text: NotRequired[str | None]
    bytes: NotRequired[bytes | None]


class WebSocketDisconnect(TypedDict):
    type: Literal["websocket.disconnect"]
    code: int
    reason: str


class WebSocketAccept(TypedDict):
    type: Literal["websocket.accept"]
    subprotocol: NotRequired[str | None]
    headers: NotRequired[Iterable[tuple[bytes, bytes]]]


class WebSocketSend(TypedDict):
    type: Literal["websocket.send"]
    text: NotRequired[str | None]
    bytes: NotRequired[bytes | None]


class WebSocketClose(TypedDict):
    type: Literal["websocket.close"]
    code: NotRequired[int]
    reason: NotRequired[str | None]


class WebSocketDenialStart(TypedDict):
    type: Literal["websocket.http.response.start"]
    status: int
    headers: NotRequired[Iterable[tuple[bytes, bytes]]]


class WebSocketDenialBody(TypedDict):
    type: Literal["websocket.http.response.body"]
    body: NotRequired[bytes]
    more_body: NotRequired[bool]


class LifespanStartup(TypedDict):
    type: Literal["lifespan.startup"]


class LifespanShutdown(TypedDict):
    type: Literal["lifespan.shutdown"]


class LifespanAnswer(TypedDict):
    type: Literal[
        "lifespan.startup.complete",
        "lifespan.startup.failed",
        "lifespan.shutdown.complete",
        "lifespan.shutdown.failed",
    ]
    message: NotRequired[str]


ReceiveMessage: TypeAlias = (
    HTTPRequest
    | HTTPDisconnect
    | WebSocketConnect
    | WebSocketReceive
    | WebSocketDisconnect
    | LifespanStartup
    | LifespanShutdown
)
SendMessage: TypeAlias = (
    HTTPResponseStart
    | HTTPResponseBody
    | WebSocketAccept
    | WebSocketSend
    | WebSocketClose
    | WebSocketDenialStart
    | WebSocketDenialBody
    | LifespanAnswer
)

Receive: TypeAlias = Callable[[], Awaitable[ReceiveMessage]]
Send: TypeAlias = Callable[[SendMessage], Awaitable[None]]

App: TypeAlias = Callable[..., Awaitable[None]]  # type: ignore[explicit-any]  # see below
"""An ASGI 3 application: called with scope, receive and send.

The parameters are left open, since every framework types its own.
"""

HTTP_VERSIONS: ASGIVersions = {"version": "3.0", "spec_version": "2.4"}
"""2.4: ``send`` raises OSError once the client has left, instead of doing nothing."""

LIFESPAN_VERSIONS: ASGIVersions = {"version": "3.0", "spec_version": "2.0"}
