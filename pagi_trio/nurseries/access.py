"""The access log: one line for each response, written a few times a second."""

from __future__ import annotations

import logging
import os
import sys
from errno import EAGAIN
from pathlib import Path
from time import localtime, perf_counter, strftime, time
from typing import IO, TYPE_CHECKING, Final, Self

from pagi_trio.errors import ConfigError

if TYPE_CHECKING:
    from types import TracebackType

    from pagi_trio.asgi import Address
    from pagi_trio.wire.head import RequestLine

_BUFFER_BYTES: Final = 131072
"""How much gathers before it is written without waiting for the reaper: a thousand ordinary lines, or sixteen of those
whose targets are as long as they may be, a thousand of which would take 25 MiB on their way out."""

_log = logging.getLogger("pagi_trio")


class AccessLog:
    """Lines in the common log format, followed by the seconds from the head to the last byte.

    Ownership: opens its file, and closes it when left; standard output (``-``) stays open.

    Raises:
        ConfigError: If it cannot write there.
    """

    def __init__(self, target: str) -> None:
        self._lines: list[str] = []
        self._bytes = 0
        self._second = 0
        self._stamp = ""
        self._owned = target != "-"
        self._file: IO[bytes]
        self._failed = False
        try:
            # Unbuffered, so that nothing waits to be written, or to fail, at the end.
            self._file = Path(target).open("ab", buffering=0) if self._owned else _standard_output()  # noqa: SIM115 - left by __exit__
        except OSError as error:
            raise ConfigError(f"access_log: cannot write to {target!r}: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.flush()
        if self._owned:
            self._file.close()

    def add(self, client: Address | None, line: RequestLine | None, status: int, size: int, started: float) -> None:
        """Add a line.

        Args:
            client: The peer; None for a unix socket.
            line: The request line; None for what was no request.
            status: Of the response.
            size: Body bytes of the response.
            started: `perf_counter` when the head was read.
        """
        second = int(time())
        if second != self._second:
            self._second = second
            self._stamp = strftime("%d/%b/%Y:%H:%M:%S %z", localtime(second))
        host = client[0] if client is not None else "-"
        request = "-" if line is None else _describe(line)
        seconds = perf_counter() - started
        text = f'{host} - - [{self._stamp}] "{request}" {status} {size} {seconds:.6f}\n'
        self._lines.append(text)
        self._bytes += len(text)
        if self._bytes >= _BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what has gathered."""
        if self._lines:
            text = memoryview("".join(self._lines).encode("utf-8"))
            self._lines.clear()
            self._bytes = 0
            try:
                while text:
                    # A full disk takes a part of it, and so does a pipe where a signal ends the wait for its reader.
                    taken = self._file.write(text)
                    if not taken:
                        raise BlockingIOError(EAGAIN, os.strerror(EAGAIN))
                    text = text[taken:]
                self._file.flush()
            except (OSError, ValueError) as error:
                # A full disk, or a standard output that the application has closed, costs the log its lines, and nobody
                # a response.
                if not self._failed:
                    self._failed = True
                    reason = error.strerror if isinstance(error, OSError) else error
                    _log.error("cannot write the access log, lines are lost: %s", reason)


def _standard_output() -> IO[bytes]:
    """Return standard output as a file of bytes."""
    # None where the process was started without one; a program may have put a file of text in its place.
    binary: IO[bytes] | None = getattr(sys.stdout, "buffer", None)
    if binary is None:
        what = "is closed" if sys.stdout is None else f"is {type(sys.stdout).__name__}, which takes no bytes"
        raise ConfigError(f"access_log: cannot write to '-': standard output {what}; name a file")
    return binary


def _describe(line: RequestLine) -> str:
    """Return a request line as it came, but for quotes; what was parsed has no control characters."""
    target = line.raw_path + b"?" + line.query if line.query else line.raw_path
    return f"{line.method} {target.decode('ascii')} HTTP/{line.version}".replace('"', "%22")
