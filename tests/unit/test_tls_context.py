"""The TLS context: what it offers, and what it says about files that cannot be used."""

from __future__ import annotations

import ssl
import warnings
from contextlib import suppress

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from pagi_trio.config import TLS
from pagi_trio.errors import ConfigError
from pagi_trio.nurseries.tls import create_ssl_context, read_certificate

# RSA keys take long to make.
EC = trustme.KeyType.ECDSA


@pytest.fixture(scope="module")
def authority():
    return trustme.CA(key_type=EC)


@pytest.fixture
def files(tmp_path, authority, monkeypatch):
    """A directory with a certificate, its key, another key, the same key encrypted, and nonsense."""
    monkeypatch.chdir(tmp_path)
    issued = authority.issue_cert("localhost", key_type=EC)
    issued.cert_chain_pems[0].write_to_path("cert.pem")
    issued.private_key_pem.write_to_path("key.pem")
    authority.issue_cert("localhost", key_type=EC).private_key_pem.write_to_path("other.pem")
    authority.cert_pem.write_to_path("ca.pem")
    (tmp_path / "nonsense.pem").write_text("nonsense")
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    (tmp_path / "locked.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    return tmp_path


def shake_hands(
    client: ssl.SSLContext, server: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Do a handshake in memory, perhaps to go on with a session; return both ends."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname="localhost", session=session),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    open_ends = [*ends]
    while open_ends:
        for end in [*open_ends]:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            open_ends.remove(end)
    return ends[0], ends[1]


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_without_a_certificate_there_is_no_context():
    assert create_ssl_context(TLS()) is None


def test_pythons_own_options_are_kept_and_tls_1_2_is_the_floor(files):
    context = create_ssl_context(TLS(certfile="cert.pem", keyfile="key.pem"))
    usual = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).options
    assert context.options == usual | ssl.OP_NO_RENEGOTIATION
    assert context.options & ssl.OP_NO_COMPRESSION
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_NONE


def of_any_age(authority: trustme.CA) -> ssl.SSLContext:
    """Return a client that speaks whatever OpenSSL still can."""
    client = trusting(authority)
    client.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        # What is tested is what is deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        client.minimum_version = ssl.TLSVersion.TLSv1
    client.options &= ~(ssl.OP_NO_TLSv1 | ssl.OP_NO_TLSv1_1)
    return client


def lax(certfile: str, keyfile: str) -> ssl.SSLContext:
    """Return a server that does what ours must not, so that it is seen that the client can."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certfile, keyfile)
    server.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        server.minimum_version = ssl.TLSVersion.TLSv1
    return server


@pytest.mark.parametrize(
    ("version", "served"), [("TLSv1", False), ("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)]
)
def test_versions_before_1_2_are_refused_rfc8996(files, authority, version, served):
    client = of_any_age(authority)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        client.minimum_version = client.maximum_version = ssl.TLSVersion[version]
    assert shake_hands(client, lax("cert.pem", "key.pem"))[0].version() == version.replace("_", ".")
    ours = create_ssl_context(TLS(certfile="cert.pem", keyfile="key.pem"))
    if served:
        assert shake_hands(client, ours)[0].version() == version.replace("_", ".")
    else:
        with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
            shake_hands(client, ours)


@pytest.mark.parametrize("kind", ["ECDSA", "RSA"])
def test_the_suites_of_1_2_are_ecdhe_with_aead_and_no_others_rfc9325_4_2(files, authority, kind):
    issued = authority.issue_cert("localhost", key_type=trustme.KeyType[kind])
    issued.cert_chain_pems[0].write_to_path("kind.pem")
    issued.private_key_pem.write_to_path("kind-key.pem")
    ours = create_ssl_context(TLS(certfile="kind.pem", keyfile="kind-key.pem"))
    theirs = lax("kind.pem", "kind-key.pem")
    client = of_any_age(authority)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    served, possible = set(), set()
    for suite in {one["name"] for one in client.get_ciphers()}:
        if suite.startswith("TLS_"):
            continue
        client.set_ciphers(f"{suite}:@SECLEVEL=0")
        for server, found in ((ours, served), (theirs, possible)):
            with suppress(ssl.SSLError):
                found.add(shake_hands(client, server)[0].cipher()[0])
    aead = ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    assert served == {f"ECDHE-{kind}-{name}" for name in aead}
    assert possible > served | {f"ECDHE-{kind}-AES128-SHA", f"ECDHE-{kind}-AES256-SHA384"}
    if kind == "RSA":
        assert possible > {"AES128-SHA", "AES256-GCM-SHA384"}, "without an exchange of keys"


def test_the_server_chooses_among_what_the_client_offers(files, authority):
    client = trusting(authority)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers("ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES256-GCM-SHA384")
    ours, _ = shake_hands(client, create_ssl_context(TLS(certfile="cert.pem", keyfile="key.pem")))
    assert ours.cipher()[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"
    assert ours.compression() is None


def test_short_keys_are_refused(files):
    assert create_ssl_context(TLS(certfile="cert.pem", keyfile="key.pem")).security_level >= 2


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_comes_back_with_its_ticket_rfc5077_rfc8446_2_2(files, authority, version):
    server = create_ssl_context(TLS(certfile="cert.pem", keyfile="key.pem"))
    client = trusting(authority)
    client.maximum_version = version
    ours, theirs = shake_hands(client, server)
    theirs.write(b"x")
    # In 1.3 the ticket comes along with what is read first.
    assert ours.read(1) == b"x"
    assert ours.session.has_ticket
    again, _ = shake_hands(client, server, ours.session)
    assert again.session_reused


@pytest.mark.parametrize(
    ("offered", "chosen"), [(["h2", "http/1.1"], "http/1.1"), (["http/1.1"], "http/1.1"), (["h2"], None), ([], None)]
)
def test_alpn_agrees_on_what_is_served_only(files, authority, offered, chosen):
    """RFC 7301 section 3.2: the server selects, among what the client offers."""
    client = trusting(authority)
    if offered:
        client.set_alpn_protocols(offered)
    ours, theirs = shake_hands(client, create_ssl_context(TLS(certfile="cert.pem", keyfile="key.pem")))
    assert ours.selected_alpn_protocol() == theirs.selected_alpn_protocol() == chosen


def test_a_locked_key_opens_with_its_password(files, authority):
    context = create_ssl_context(TLS(certfile="cert.pem", keyfile="locked.pem", keyfile_password="secret"))
    shake_hands(trusting(authority), context)


def test_ciphers_are_honoured(files, authority):
    context = create_ssl_context(TLS(certfile="cert.pem", keyfile="key.pem", ciphers="ECDHE+CHACHA20"))
    client = trusting(authority)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    assert shake_hands(client, context)[0].cipher()[0] == "ECDHE-ECDSA-CHACHA20-POLY1305"


@pytest.mark.parametrize(("mode", "without"), [("none", True), ("optional", True), ("required", False)])
def test_client_certificates(files, authority, mode, without):
    context = create_ssl_context(TLS(certfile="cert.pem", keyfile="key.pem", ca_certs="ca.pem", verify_mode=mode))
    nobody, somebody = trusting(authority), trusting(authority)
    authority.issue_cert("client@example.org", key_type=EC).configure_cert(somebody)
    _, theirs = shake_hands(somebody, context)
    assert bool(theirs.getpeercert()) == (mode != "none")
    if without:
        shake_hands(nobody, context)
    else:
        with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
            shake_hands(nobody, context)


def test_a_client_certificate_of_another_authority_is_refused(files, authority):
    context = create_ssl_context(TLS(certfile="cert.pem", keyfile="key.pem", ca_certs="ca.pem", verify_mode="optional"))
    stranger = trusting(authority)
    trustme.CA(key_type=EC).issue_cert("client@example.org", key_type=EC).configure_cert(stranger)
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        shake_hands(stranger, context)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"certfile": "no.pem"}, "tls.certfile = 'no.pem': cannot be read: No such file or directory"),
        ({"keyfile": "no.pem"}, "tls.keyfile = 'no.pem': cannot be read: No such file or directory"),
        ({"keyfile": "/"}, "tls.keyfile = '/': cannot be read: Is a directory"),
        ({"certfile": "nonsense.pem"}, "tls.certfile = 'nonsense.pem': holds no PEM certificate"),
        ({"certfile": "key.pem"}, "tls.certfile = 'key.pem': holds no PEM certificate"),
        ({"keyfile": "nonsense.pem"}, "tls.keyfile = 'nonsense.pem': holds no PEM private key"),
        ({"keyfile": "other.pem"}, "tls.keyfile = 'other.pem': does not belong to tls.certfile = 'cert.pem'"),
        ({"keyfile": "locked.pem"}, "tls.keyfile = 'locked.pem': is encrypted, and tls.keyfile_password is not set"),
        (
            {"keyfile": "locked.pem", "keyfile_password": "guess"},
            "tls.keyfile = 'locked.pem': tls.keyfile_password does not decrypt it",
        ),
        (
            {"keyfile": "locked.pem", "keyfile_password": "x" * 2000},
            "tls.keyfile = 'locked.pem': tls.keyfile_password does not decrypt it",
        ),
        ({"ca_certs": "no.pem"}, "tls.ca_certs = 'no.pem': cannot be read: No such file or directory"),
        ({"ca_certs": "nonsense.pem"}, "tls.ca_certs = 'nonsense.pem': holds no PEM certificate"),
        ({"ciphers": "MAGIC"}, "tls.ciphers = 'MAGIC': OpenSSL knows none of them"),
    ],
)
def test_what_cannot_be_used_is_named_and_nobody_is_asked_for_a_password(files, settings, message):
    with pytest.raises(ConfigError) as caught:
        create_ssl_context(TLS(**{"certfile": "cert.pem", "keyfile": "key.pem"} | settings))
    assert str(caught.value) == message


@pytest.mark.parametrize("order", [1, -1])
def test_applications_see_the_certificate_and_never_the_key_beside_it(files, order):
    parts = [(files / name).read_bytes() for name in ("key.pem", "cert.pem")][::order]
    combined = files / "combined.pem"
    combined.write_bytes("# für uns\n".encode() + b"".join(parts))
    seen = read_certificate(TLS(certfile=str(combined), keyfile=str(combined)))
    assert seen.startswith("-----BEGIN CERTIFICATE-----\n")
    assert seen.count("BEGIN") == 1
    assert ssl.PEM_cert_to_DER_cert(seen)
    assert read_certificate(TLS()) is None
