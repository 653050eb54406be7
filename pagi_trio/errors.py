"""Every error this package raises, sorted by what can still be done about it.

- Nothing has started, mend the setting: `ConfigError`, `BindError`.
- Nothing is served, mend the application: `AppLoadError`, `LifespanFailedError`, `WorkerError`.
- The application broke the protocol it speaks with the server, mend its code: `AppProtocolError`.
- The client broke the protocol, answer it and close: `RequestError`, `WebSocketError`.
- The client has gone, stop sending: `ClientDisconnected`.
- Numbers were not delivered, the next push brings them: `PushFailedError`.
"""

from __future__ import annotations


class PagiError(Exception):
    """What all errors of this package have in common."""


class ConfigError(PagiError, ValueError):
    """A setting is unknown, has a wrong value or contradicts another; the message names it."""


class BindError(ConfigError):
    """An address cannot be listened on; the message names it and says why."""


class AppLoadError(PagiError):
    """The application could not be imported or is not callable; the message names the path."""


class LifespanFailedError(PagiError):
    """The application refused to start, or failed while starting or stopping."""


class WorkerError(PagiError):
    """A worker process cannot serve, or none of them could be started; the message says why."""


class AppProtocolError(PagiError, RuntimeError):
    """The application sent an event that ASGI does not allow here; the message says which and why."""


class RequestError(PagiError):
    """What the client sent is not HTTP as RFC 9112 defines it, or goes over a limit.

    Attributes:
        status: The HTTP status that says so to the client (400, 408, 413, 414, 417, 421, 426, 431, 501, 505).
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class WebSocketError(PagiError):
    """What the client sent is not WebSocket as RFC 6455 defines it, or goes over a limit.

    Attributes:
        code: The close code that says so to the client (1002, 1007, 1008, 1009).
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class ClientDisconnected(PagiError, OSError):  # noqa: N818 - what happened is no error of anybody's
    """Something was sent after the client had left (ASGI 2.4 asks for an OSError).

    Attributes:
        reason: One token of the vocabulary of disconnect reasons, such as ``client_closed``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the client has left ({reason})")
        self.reason = reason


class PushFailedError(PagiError):
    """Metrics could not be sent, or not all of them; the message says where to and why."""
