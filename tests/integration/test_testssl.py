"""What a scanner says of TLS by default: testssl.sh, without what it says of the certificate."""

from __future__ import annotations

import json
import shutil

import pytest
import trio
import trustme

from .conftest import hello

pytestmark = [pytest.mark.trio, pytest.mark.outside]

# What the configuration decides: protocols, suites (CBC among the average ones), renegotiation, compression. All that
# it can find takes it minutes, since it starts a process for each handshake.
CHECKS = ("--protocols", "--standard", "--renegotiation", "--compression")

FOUND = {
    *("SSLv2", "SSLv3", "TLS1", "TLS1_1", "TLS1_2", "TLS1_3", "ALPN"),
    *("cipherlist_NULL", "cipherlist_aNULL", "cipherlist_EXPORT", "cipherlist_LOW", "cipherlist_3DES_IDEA"),
    *("cipherlist_AVERAGE", "cipherlist_STRONG", "secure_renego", "secure_client_renego", "CRIME_TLS"),
}


async def test_testssl_has_nothing_to_say_against_the_defaults(pagi_serve, tmp_path):
    program = shutil.which("testssl")
    assert program is not None, "testssl.sh is not installed"
    certificate = trustme.CA().issue_cert("127.0.0.1", key_type=trustme.KeyType.RSA)
    files = {"certfile": str(tmp_path / "cert.pem"), "keyfile": str(tmp_path / "key.pem")}
    certificate.cert_chain_pems[0].write_to_path(files["certfile"])
    certificate.private_key_pem.write_to_path(files["keyfile"])
    server = await pagi_serve(hello, lifespan="off", tls=files)
    report = tmp_path / "report.json"
    quiet = ("--quiet", "--color", "0", "--warnings", "off", "--nodns", "none", "--jsonfile", str(report))
    with trio.fail_after(300):
        # Its exit code counts the findings, harmless ones too.
        await trio.run_process([program, *quiet, *CHECKS, server.url], capture_stdout=True, check=False)
    findings = json.loads(report.read_text(encoding="utf-8"))
    assert {one["id"] for one in findings} >= FOUND
    assert [one for one in findings if one["severity"] not in {"OK", "INFO"}] == []
