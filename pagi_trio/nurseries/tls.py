"""The TLS context of the listeners.

Python's own server context and not hypercorn's, of which nothing would be left: it takes away OpenSSL's
default options, offers protocols that are not served, and asks for a password at the terminal.
"""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pagi_trio.errors import ConfigError

if TYPE_CHECKING:
    from pagi_trio.config import TLS

# What is served, and no more: a client that agrees on h2 would get an error.
ALPN_PROTOCOLS: Final = ("http/1.1",)

CIPHERS: Final = "@SECLEVEL=2:ECDHE+AESGCM:ECDHE+CHACHA20"
"""The suites of TLS 1.2: keys that are made for one connection, and ciphers that authenticate what they encrypt.

Every client that speaks 1.2 and is still maintained has one of them. What Python would have besides is what scanners
warn of: CBC, which the padding attacks are about, and DHE, whose handshake is the most expensive. The level keeps RSA
keys below 2,048 bits and SHA-1 out. TLS 1.3 has nothing else, and no setting.
"""

_CERTIFICATE: Final = re.compile(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----\n?")

_VERIFY_MODES: Final = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}


def create_ssl_context(tls: TLS) -> ssl.SSLContext | None:
    """Make the context that every TLS connection uses, or None where no certificate is configured.

    Raises:
        ConfigError: A file cannot be read or used; the message names it. Nobody is asked for a password.
    """
    if tls.certfile is None or tls.keyfile is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Renegotiation costs the server a handshake whenever a client likes; TLS 1.3 has none.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(list(ALPN_PROTOCOLS))
    try:
        context.set_ciphers(CIPHERS if tls.ciphers is None else tls.ciphers)
    except ssl.SSLError:
        raise ConfigError(f"tls.ciphers = {tls.ciphers!r}: OpenSSL knows none of them") from None
    _load_chain(context, tls.certfile, tls.keyfile, tls.keyfile_password)
    if tls.ca_certs is not None:
        _load_authorities(context, "tls.ca_certs", tls.ca_certs)
    context.verify_mode = _VERIFY_MODES[tls.verify_mode]
    return context


def read_certificate(tls: TLS) -> str | None:
    """Return the server's certificate, PEM, for the scopes of applications; None where there is none.

    The first certificate of the file and nothing else of it: many files hold the private key as well.
    """
    if tls.certfile is None:
        return None
    block = _CERTIFICATE.search(Path(tls.certfile).read_bytes())
    return None if block is None else block[0].decode("ascii")


def _load_chain(context: ssl.SSLContext, certfile: str, keyfile: str, password: str | None) -> None:
    # OpenSSL does not say which of the two files it means: so look at the certificate alone first.
    _load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "tls.certfile", certfile)
    _check_readable("tls.keyfile", keyfile)
    encrypted = False

    def give_password() -> str:
        nonlocal encrypted
        encrypted = True
        if password is None:
            raise ConfigError(f"tls.keyfile = {keyfile!r}: is encrypted, and tls.keyfile_password is not set")
        return password

    try:
        context.load_cert_chain(certfile, keyfile, give_password)
    except ConfigError:
        raise
    except (ssl.SSLError, ValueError) as error:
        reason = _reason(error)
        if reason == "key values mismatch":
            raise ConfigError(f"tls.keyfile = {keyfile!r}: does not belong to tls.certfile = {certfile!r}") from None
        if encrypted:
            raise ConfigError(f"tls.keyfile = {keyfile!r}: tls.keyfile_password does not decrypt it") from None
        if reason is None:
            raise ConfigError(f"tls.keyfile = {keyfile!r}: holds no PEM private key") from None
        raise ConfigError(
            f"tls.keyfile = {keyfile!r} with tls.certfile = {certfile!r}: cannot be used ({reason})"
        ) from None


def _load_authorities(context: ssl.SSLContext, name: str, file: str) -> None:
    _check_readable(name, file)
    try:
        context.load_verify_locations(cafile=file)
    except ssl.SSLError:
        raise ConfigError(f"{name} = {file!r}: holds no PEM certificate") from None


def _check_readable(name: str, file: str) -> None:
    try:
        with Path(file).open("rb"):
            pass
    except OSError as error:
        raise ConfigError(f"{name} = {file!r}: cannot be read: {error.strerror}") from None


def _reason(error: ssl.SSLError | ValueError) -> str | None:
    """Return OpenSSL's word for it; it has none for a file that is not PEM."""
    if isinstance(error, ssl.SSLError):
        return error.reason and error.reason.lower().replace("_", " ")
    return str(error)
