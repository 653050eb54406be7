"""What an application is told about a TLS connection.

Source: the ASGI TLS extension 0.2; RFC 4514 for names.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pagi_trio.asgi import Extensions

_VERSIONS: Final = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}

# RFC 4514 section 2.3 names these; any other attribute keeps the name that OpenSSL gives it.
_SHORT_NAMES: Final = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}
_ESCAPED: Final = str.maketrans({character: f"\\{character}" for character in '",+;<>\\'})


def describe_tls(tls: ssl.SSLObject, certificate: str | None) -> Extensions:
    """Return the ``tls`` extension of a connection's scopes.

    Args:
        tls: After its handshake.
        certificate: The server's own, PEM.
    """
    cipher = tls.cipher()
    client = tls.getpeercert(binary_form=True)
    suites = {suite["name"]: suite["id"] & 0xFFFF for suite in tls.context.get_ciphers()}
    return {
        "server_cert": certificate,
        "client_cert_chain": [] if client is None else [ssl.DER_cert_to_PEM_cert(client)],
        "client_cert_name": None if client is None else _name(tls),
        "client_cert_error": None,
        "tls_version": _VERSIONS.get(tls.version() or ""),
        "cipher_suite": None if cipher is None else suites.get(cipher[0]),
    }


def _name(tls: ssl.SSLObject) -> str | None:
    """Return the subject of the client's certificate; None if it was not verified, and so tells nothing."""
    details = tls.getpeercert()
    if not details:
        return None
    subject: tuple[tuple[tuple[str, str], ...], ...] = details.get("subject", ())  # type: ignore[assignment]  # typeshed has one type for all values
    parts = [
        "+".join(f"{_SHORT_NAMES.get(key, key)}={value.translate(_ESCAPED)}" for key, value in names)
        for names in reversed(subject)
    ]
    return ",".join(parts)
