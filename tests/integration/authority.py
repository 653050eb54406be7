"""TLS for the tests over real sockets: an authority, a server's certificate, and clients that trust it."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager

import pytest
import trio

from tests.integration.clock import HOUR_S
from tests.integration.raw_client import RawClient


class Authority:
    """A certificate authority, the files of one server, and contexts for clients.

    Attributes:
        files: The server's settings.
        pem: The server's certificate.
    """

    def __init__(self, directory):
        trustme = pytest.importorskip("trustme")
        self._ca = trustme.CA()
        certificate = self._ca.issue_cert("127.0.0.1")
        self.pem = certificate.cert_chain_pems[0].bytes().decode()
        paths = {name: str(directory / f"{name}.pem") for name in ("certfile", "keyfile", "ca_certs")}
        certificate.cert_chain_pems[0].write_to_path(paths["certfile"])
        certificate.private_key_pem.write_to_path(paths["keyfile"])
        self._ca.cert_pem.write_to_path(paths["ca_certs"])
        self._ca_file = paths.pop("ca_certs")
        self.files = paths

    def verifying(self, mode):
        return {**self.files, "ca_certs": self._ca_file, "verify_mode": mode}

    def client(self, *, certificate=None):
        context = ssl.create_default_context(cafile=self._ca_file)
        if certificate is not None:
            certificate.configure_cert(context)
        return context

    def certificate(self, **validity):
        return self._ca.issue_cert(
            "me@example.org",
            common_name='Smith, "J"',
            organization_name="Example",
            organization_unit_name="Unit",
            **validity,
        )


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls(authority):
    """``async with tls(server) as client``: a raw connection over TLS; everything in it has ten seconds."""

    @asynccontextmanager
    async def connect(server, context=None, *, https_compatible=True):
        with trio.fail_after(10):
            stream = await trio.open_ssl_over_tcp_stream(
                "127.0.0.1",
                server.port,
                ssl_context=context or authority.client(),
                https_compatible=https_compatible,
            )
            try:
                await stream.do_handshake()
                yield RawClient(stream)
            finally:
                await trio.aclose_forcefully(stream)

    return connect


@pytest.fixture(params=["plain", "tls"])
def connect(request, authority):
    """``config, patient = connect``: settings, and clients that have an hour, once plain and once over TLS."""
    over_tls = request.param == "tls"

    @asynccontextmanager
    async def patient(server):
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        if over_tls:
            stream = trio.SSLStream(stream, authority.client(), server_hostname="127.0.0.1", https_compatible=True)
            await stream.do_handshake()
        with trio.fail_after(HOUR_S):
            try:
                yield RawClient(stream)
            finally:
                await trio.aclose_forcefully(stream)

    return {"tls": authority.files} if over_tls else {}, patient
