"""TLS of a test's clients: no certificate is verified, since the server is in the very process."""

from __future__ import annotations

import ssl
from functools import cache
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from pagi_trio.testing.wire import Wire


@cache
def make_context() -> ssl.SSLContext:
    """Return the context that believes every certificate.

    One for all, since it takes 0.4 ms to make, and tens of milliseconds where certificates are read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def encrypt(wire: Wire, context: ssl.SSLContext, server_hostname: str | None = None) -> trio.SSLStream[Wire]:
    """Speak TLS over a connection; the handshake comes with the first bytes. Closing it closes the wire."""
    return trio.SSLStream(wire, context, server_hostname=server_hostname, https_compatible=True)
