"""TLS over real socket pairs: what a client says to TLS itself costs no more than a bound, and is answered."""

from __future__ import annotations

import gc
import hashlib
import hmac
import select
import socket
import ssl
import weakref
from contextlib import ExitStack, suppress

import pytest
import trio

from pagi_trio.errors import ClientDisconnected
from pagi_trio.nurseries.readiness import BUDGET
from pagi_trio.nurseries.tls_transport import IDLE_BYTES, UNREAD_BYTES, TLSTransport

trustme = pytest.importorskip("trustme")
aead = pytest.importorskip("cryptography.hazmat.primitives.ciphers.aead")

pytestmark = pytest.mark.trio

# KeyUpdate, with update_not_requested or update_requested (RFC 8446 section 4.6.3), and the type of what is inside.
UPDATE = {False: b"\x18\x00\x00\x01\x00\x16", True: b"\x18\x00\x00\x01\x01\x16"}
UPDATE_BYTES = 5 + 6 + 16


class Client:
    """A client of TLS 1.3 that writes its records itself, once the handshake is done (RFC 8446 sections 5 and 7)."""

    def __init__(self, sock, context, log):
        self.sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="127.0.0.1")
        self._log = log

    async def handshake(self):
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.sock.sendall(self._outgoing.read())
                await trio.lowlevel.wait_readable(self.sock)
                self._incoming.write(self.sock.recv(65536))
        self.sock.sendall(self._outgoing.read())
        assert self.tls.cipher()[0] == "TLS_AES_256_GCM_SHA384"
        words = next(line.split() for line in self._log.read_text().splitlines() if "CLIENT_TRAFFIC_SECRET_0" in line)
        self._use(bytes.fromhex(words[2]))

    def _use(self, secret):
        self._secret = secret
        self._key = aead.AESGCM(self._derive(b"key", 32))
        self._iv = int.from_bytes(self._derive(b"iv", 12), "big")
        self._sequence = 0

    def _derive(self, label, length):
        info = length.to_bytes(2, "big") + bytes((6 + len(label),)) + b"tls13 " + label + b"\x00"
        return hmac.digest(self._secret, info + b"\x01", hashlib.sha384)[:length]

    def record(self, inner):
        head = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2, "big")
        nonce = (self._iv ^ self._sequence).to_bytes(12, "big")
        self._sequence += 1
        return head + self._key.encrypt(nonce, inner, head)

    def update(self, *, requested=False):
        record = self.record(UPDATE[requested])
        self._use(self._derive(b"traffic upd", 48))
        return record

    def updates(self, size, **options):
        return b"".join(self.update(**options) for _ in range(size // UPDATE_BYTES + 1))

    def data(self, text):
        return self.record(text + b"\x17")

    def read(self):
        """Return what the server has sent, as far as it has."""
        while True:
            try:
                return self.tls.read()
            except ssl.SSLWantReadError:
                try:
                    received = self.sock.recv(65536)
                except BlockingIOError:
                    return b""
                self._incoming.write(received)


@pytest.fixture
async def pair(tmp_path):
    """A transport without a poller, and its client, after their handshake."""
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server_context)
    client_context = ssl.create_default_context()
    client_context.keylog_filename = str(tmp_path / "keys")
    authority.configure_trust(client_context)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for sock in (ours, theirs):
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
        transport = TLSTransport(ours, None, server_context)
        client = Client(theirs, client_context, tmp_path / "keys")
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(transport.handshake, trio.Semaphore(1))
                await client.handshake()
        yield transport, client


def read_all(transport):
    data = b""
    while part := transport.read_nowait():
        data += part
    return data


@pytest.mark.parametrize("requested", [False, True])
async def test_keys_may_be_updated_between_data_rfc8446_4_6_3(pair, requested):
    transport, client = pair
    for turn in range(20):
        client.sock.sendall(client.updates(1000, requested=requested) + client.data(b"data %d" % turn))
        assert read_all(transport) == b"data %d" % turn
        assert transport.write_nowait(b"answer") == 6
        assert client.read() == b"answer"


async def test_a_client_that_updates_its_keys_and_says_nothing_is_given_up(pair):
    transport, client = pair
    client.sock.sendall(client.updates(3 * IDLE_BYTES))
    assert transport.read_nowait() == b""
    assert transport.lost == "protocol_error"
    # Most of it was not looked at: one read is done with a bounded part of what arrives.
    left = len(transport.sock.recv(1 << 20))
    assert left > IDLE_BYTES // 2


async def test_whoever_updates_keys_beside_a_little_data_lets_others_run(pair):
    transport, client = pair
    transport.budget = BUDGET
    client.sock.sendall(client.updates(IDLE_BYTES * 9 // 10) + client.data(b"a"))
    assert transport.read_nowait() == b"a"
    assert transport.budget < BUDGET / 2
    assert not transport.lost


async def test_a_record_that_cannot_be_decrypted_is_answered_by_an_alert_rfc8446_5_2(pair):
    transport, client = pair
    client.sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
    assert transport.read_nowait() == b""
    assert transport.lost == "read_error"
    with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
        client.read()


async def test_answers_that_nobody_reads_are_bounded(pair):
    transport, client = pair
    transport.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    most = 100 * UNREAD_BYTES // IDLE_BYTES
    for _ in range(most):
        client.sock.sendall(client.updates(IDLE_BYTES * 9 // 10, requested=True) + client.data(b"a"))
        if transport.read_nowait() == b"":
            break
    assert transport.lost == "protocol_error"
    with pytest.raises(ClientDisconnected):
        transport.write_nowait(b"answer")


async def test_what_tls_holds_already_is_not_waited_for(pair):
    transport, client = pair
    client.sock.sendall(client.data(b"one") + client.data(b"two"))
    assert transport.read_nowait() == b"one"
    with trio.fail_after(10):
        await transport.wait_turn()
    assert transport.read_nowait() == b"two"


async def test_once_writing_is_finished_the_socket_is_waited_for_whatever_tls_was_given(pair):
    transport, client = pair
    transport.ready = True
    client.sock.sendall(client.data(b"1") + client.data(b"2") + client.data(b"3"))
    assert transport.read_nowait() == b"1"
    transport.finish_writing("done")
    assert transport.read_nowait() is None
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.wait_turn)
            await trio.testing.wait_all_tasks_blocked()
            assert nursery.child_tasks
            scope.cancel()
    assert scope.cancelled_caught


async def test_a_closed_connection_leaves_its_memory_at_once():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        transport = TLSTransport(near, None, context)
        far.sendall(b"this is no TLS")
        with pytest.raises(ClientDisconnected):
            await transport.handshake(trio.Semaphore(1))
        gone = weakref.ref(transport.tls)
        # Whatever has to wait for a collection is kept for as long as nobody makes one.
        gc.disable()
        try:
            transport.close("client_closed")
            del transport
            assert gone() is None
        finally:
            gc.enable()


@pytest.fixture
def server_context():
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


async def test_a_hello_longer_than_any_is_refused_before_tls_reads_it(server_context):
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        transport = TLSTransport(near, None, server_context)
        # A ClientHello of 60,000 bytes, of which the half has come.
        hello = b"\x01" + (60_000).to_bytes(3, "big") + bytes(29_996)
        for start in range(0, len(hello), 15_000):
            far.sendall(b"\x16\x03\x01" + (15_000).to_bytes(2, "big") + hello[start : start + 15_000])
        with trio.fail_after(10), pytest.raises(ClientDisconnected):
            await transport.handshake(trio.Semaphore(1))
        assert transport.failure == "the ClientHello is too long"
        transport.close("protocol_error")


async def test_handshakes_of_a_burst_have_their_turns_between_those_of_others(server_context):
    clients, most_at_once = 20, 2
    turns = trio.Semaphore(most_at_once)
    with ExitStack() as opened:
        transports, peers = [], []
        for _ in range(clients):
            near, far = (opened.enter_context(sock) for sock in socket.socketpair())
            near.setblocking(False)
            far.setblocking(False)
            outgoing = ssl.MemoryBIO()
            with suppress(ssl.SSLWantReadError):
                ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="x").do_handshake()
            far.send(outgoing.read())
            transports.append(TLSTransport(near, None, server_context))
            peers.append(far)

        def answered():
            return len(select.select(peers, [], [], 0)[0])

        most = 0
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                for transport in transports:
                    nursery.start_soon(transport.handshake, turns)
                while (before := answered()) < clients:
                    await trio.lowlevel.checkpoint()
                    most = max(most, answered() - before)
                nursery.cancel_scope.cancel()
        assert 0 < most <= 2 * most_at_once
        for transport in transports:
            transport.close("server_shutdown")
