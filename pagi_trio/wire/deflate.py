"""permessage-deflate: what is agreed on, and the two streams that a connection then may need.

Both streams are made by the first message that needs them, so that a connection that agreed on compression and is
idle pays nothing; where one side keeps no context, its stream is freed after every message.

Source: RFC 7692 section 7.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pagi_trio.errors import WebSocketError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pagi_trio.wire.handshake import Extension

# How much memory a stream may take. Measured with zlib 1.2.13: to deflate, 12 bits at memory level 5 take 38 KiB and
# zlib's own defaults (15 and 8) 262; of 220-byte JSON messages they leave 26% and 24%. To inflate, 12 bits take
# 11 KiB and 15 take 39.
_WINDOW_BITS: Final = 12
_MEMORY_LEVEL: Final = 5

_WINDOW_BITS_MOST: Final = 15

# Ends the last block of every message; neither side sends it (RFC 7692 section 7.2.1).
_TAIL: Final = b"\x00\x00\xff\xff"

# After a final block comes a new stream (section 7.2.3.4). A sender has one such block for each message or flush;
# a read full of empty ones would otherwise cost 32,000 streams, and a copy of what is left for each. What is counted
# is a message's, so that it does not depend on how the network has cut it.
_STREAMS_MAX: Final = 256

# No limit of ratio holds for what stays below this: honest messages may be of zeros, or repeat themselves.
_RATIO_FREE_BYTES: Final = 2**20

_VALID_BITS: Final = {str(bits): bits for bits in range(8, _WINDOW_BITS_MOST + 1)}


@dataclass(frozen=True, slots=True)
class DeflateParameters:
    """What server and client agreed on.

    Attributes:
        server_no_context_takeover: Whether each message of the server stands alone.
        client_no_context_takeover: Whether each message of the client does.
        server_max_window_bits: Largest window the server may use; None if the client set no limit.
        client_max_window_bits: Largest window the client may use; None if the client takes no limit.
    """

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int | None = None
    client_max_window_bits: int | None = None

    @property
    def header(self) -> bytes:
        """The value of Sec-WebSocket-Extensions that says so."""
        parts = ["permessage-deflate"]
        if self.server_no_context_takeover:
            parts.append("server_no_context_takeover")
        if self.client_no_context_takeover:
            parts.append("client_no_context_takeover")
        if self.server_max_window_bits is not None:
            parts.append(f"server_max_window_bits={self.server_max_window_bits}")
        if self.client_max_window_bits is not None:
            parts.append(f"client_max_window_bits={self.client_max_window_bits}")
        return "; ".join(parts).encode("ascii")

    def inflater(self, ratio_max: int) -> Inflater:
        """Make what reads the client's messages, which may grow by this factor."""
        bits = self.client_max_window_bits or _WINDOW_BITS_MOST
        return Inflater(bits, ratio_max, context_takeover=not self.client_no_context_takeover)

    def deflater(self) -> Deflater:
        """Make what writes the server's messages."""
        bits = self.server_max_window_bits or _WINDOW_BITS
        return Deflater(bits, context_takeover=not self.server_no_context_takeover)


def negotiate(extensions: Sequence[Extension]) -> DeflateParameters | None:
    """Accept the first offer of permessage-deflate that can be met.

    A parameter is answered only where it was offered: what clients make of others varies.

    Returns:
        None if there is none; an offer with a parameter that is unknown, repeated or has a wrong value is declined
        (section 7).
    """
    for name, parameters in extensions:
        if name == "permessage-deflate":
            agreed = _answer(parameters)
            if agreed is not None:
                return agreed
    return None


def _answer(parameters: list[tuple[str, str | None]]) -> DeflateParameters | None:
    offered = dict(parameters)
    if len(offered) != len(parameters):
        return None
    flags = {"server_no_context_takeover": False, "client_no_context_takeover": False}
    bits: dict[str, int | None] = {"server_max_window_bits": None, "client_max_window_bits": None}
    for name, value in parameters:
        if name in flags and value is None:
            flags[name] = True
        elif name == "client_max_window_bits" and value is None:
            bits[name] = _WINDOW_BITS
        elif name in bits and value in _VALID_BITS:
            bits[name] = min(_VALID_BITS[value], _WINDOW_BITS)
        else:
            return None
    # zlib reads windows of 8 bits, but does not write them (github.com/madler/zlib/issues/171).
    if bits["server_max_window_bits"] == 8:
        return None
    return DeflateParameters(*flags.values(), *bits.values())


class Inflater:
    """Inflates the messages of one client.

    Args:
        window_bits: Of the largest window that the client may use.
        ratio_max: How many times larger than what was sent a message may become, beyond 1 MiB.
        context_takeover: Whether a message may refer to those before it.

    Attributes:
        begun: How many streams the messages that have ended took, beyond one each; whoever counts them sets this to 0.
    """

    __slots__ = ("_bytes_left", "_context_takeover", "_ratio_max", "_stream", "_streams", "_window_bits", "begun")

    def __init__(self, window_bits: int, ratio_max: int, *, context_takeover: bool) -> None:
        self._ratio_max = ratio_max
        self._bytes_left = _RATIO_FREE_BYTES
        self._window_bits = window_bits
        self._context_takeover = context_takeover
        self._stream: zlib._Decompress | None = None
        self._streams = 0
        self.begun = 0

    def inflate(self, piece: bytes, max_bytes: int, *, final: bool) -> bytes:
        """Inflate the next piece of a message.

        Args:
            piece: Compressed bytes.
            max_bytes: The largest result allowed; nothing larger is ever made.
            final: Whether the piece ends its message.

        Raises:
            WebSocketError: 1009 for a result over the limit, or too large for what was sent; 1007 for what is not
                deflated data, since the message is then not of the type it says to be (RFC 6455 section 7.4.1).
        """
        earned = self._bytes_left + self._ratio_max * len(piece)
        try:
            data = self._inflate(piece + _TAIL if final else piece, min(max_bytes, earned), final=final)
        except zlib.error:
            raise WebSocketError(1007, "a compressed message cannot be inflated") from None
        self._bytes_left = _RATIO_FREE_BYTES if final else earned - len(data)
        return data

    def _inflate(self, piece: bytes, max_bytes: int, *, final: bool) -> bytes:
        # In parts: to add them up one by one would copy what there is for each final block.
        parts: list[bytes] = []
        left = max_bytes
        stream = self._stream
        while True:
            if stream is None or stream.eof:
                if stream is not None and final and piece == _TAIL:
                    # A final block ended the message: there is no last block for the tail to complete.
                    break
                if self._streams == _STREAMS_MAX:
                    raise WebSocketError(1007, f"a compressed message has more than {_STREAMS_MAX} final blocks")
                self._streams += 1
                stream = zlib.decompressobj(-self._window_bits)
            part = stream.decompress(piece, left + 1)
            left -= len(part)
            if left < 0:
                raise WebSocketError(1009, "a message is over a limit of size or ratio once inflated")
            parts.append(part)
            piece = stream.unused_data
            if not piece:
                break
        if final:
            self.begun += max(self._streams - 1, 0)
            self._streams = 0
        self._stream = None if final and not self._context_takeover else stream
        return parts[0] if len(parts) == 1 else b"".join(parts)


class Deflater:
    """Deflates the messages for one client."""

    __slots__ = ("_context_takeover", "_stream", "_window_bits")

    def __init__(self, window_bits: int, *, context_takeover: bool) -> None:
        self._window_bits = window_bits
        self._context_takeover = context_takeover
        self._stream: zlib._Compress | None = None

    def compress(self, payload: bytes) -> bytes:
        """Return the payload of the frame that carries this message with RSV1 set."""
        stream = self._stream
        if stream is None:
            stream = zlib.compressobj(wbits=-self._window_bits, memLevel=_MEMORY_LEVEL)
            if self._context_takeover:
                self._stream = stream
        return (stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH))[: -len(_TAIL)]
