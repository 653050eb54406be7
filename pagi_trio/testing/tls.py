"""TLS of a test's clients: no certificate is verified, since the server is in the very process."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from pagi_trio.testing.wire import Wire


def make_context() -> ssl.SSLContext:
    """Return a context that believes every certificate; it reads none from disk, which takes tens of milliseconds."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def encrypt(wire: Wire, context: ssl.SSLContext, server_hostname: str | None = None) -> trio.SSLStream[Wire]:
    """Speak TLS over a connection; the handshake comes with the first bytes. Closing it closes the wire."""
    return trio.SSLStream(wire, context, server_hostname=server_hostname, https_compatible=True)
