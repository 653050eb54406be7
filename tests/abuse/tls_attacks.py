"""Attacks on TLS, or through it."""

from __future__ import annotations

import os
import ssl
import struct

from .client import Client, again, bytewise, trusting
from .http_attacks import DEADLINES_S, HUGE_BYTES, post, silent, unread_download
from .scenario import Scenario

HANDSHAKE_BYTES = 64 * 1024
"""What a handshake that has begun may take: OpenSSL alone has 40 KiB of buffers for it."""


def client_hello() -> bytes:
    """Make the first bytes of a TLS handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with_nobody = trusting().wrap_bio(incoming, outgoing)
    try:
        with_nobody.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake with nobody was done")


def huge_client_hello() -> bytes:
    """Make a ClientHello of 63 KB that TLS looks through for long: 6,300 keys, each of a group far down in a list."""
    groups = range(0x2000, 0x2000 + 15_900)
    keys = b"".join(struct.pack("!HH", group, 0) for group in groups[:-6301:-1])
    extensions = (
        struct.pack("!HHBH", 43, 3, 2, 0x0304),
        struct.pack("!HHHH", 13, 4, 2, 0x0403),
        struct.pack("!HHH", 10, 2 * len(groups) + 2, 2 * len(groups)) + struct.pack(f"!{len(groups)}H", *groups),
        struct.pack("!HHH", 51, len(keys) + 2, len(keys)) + keys,
    )
    block = b"".join(extensions)
    body = (
        b"\x03\x03"
        + os.urandom(32)
        + b"\x00"
        + b"\x00\x02\x13\x01"
        + b"\x01\x00"
        + struct.pack("!H", len(block))
        + block
    )
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    parts = [message[start : start + 16_384] for start in range(0, len(message), 16_384)]
    return b"".join(b"\x16\x03\x01" + struct.pack("!H", len(part)) + part for part in parts)


async def huge_hello(client: Client) -> str:
    await client.connect(encrypt=False)
    client.stand()
    await client.send(huge_client_hello())
    return await client.outcome()


async def silent_before_handshake(client: Client) -> str:
    await client.connect(encrypt=False)
    client.stand()
    return await client.outcome()


async def garbage(client: Client) -> str:
    await client.connect(encrypt=False)
    await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    client.stand()
    return await client.outcome()


async def slow_hello(client: Client) -> str:
    await client.connect(encrypt=False)
    return await client.while_sending(bytewise(client_hello(), 0.2), client.outcome)


async def reset_in_handshake(client: Client) -> str:
    hello = client_hello()
    for turn in range(20):
        await client.connect(encrypt=False)
        await client.send(hello[: len(hello) // 2] if turn % 2 else hello)
        client.stand()
        await client.reset()
    return "left"


async def tiny_records(client: Client) -> str:
    await client.connect()
    await client.send(post("/upload", f"Content-Length: {HUGE_BYTES}"))
    return await client.while_sending(again(b"x"), client.outcome)


TLS_ATTACKS = (
    Scenario(
        "tls-silent", "200 connections that say nothing", silent_before_handshake, 200, tls=True, hold_s=DEADLINES_S
    ),
    Scenario("tls-silent-after", "50 that say nothing after the handshake", silent, 50, tls=True, hold_s=DEADLINES_S),
    Scenario(
        "tls-slow-hello",
        "100 handshakes of five bytes a second",
        slow_hello,
        100,
        tls=True,
        memory_bytes=100 * HANDSHAKE_BYTES,
        hold_s=DEADLINES_S,
    ),
    Scenario("tls-garbage", "100 clients that send something else", garbage, 100, tls=True),
    Scenario(
        "tls-huge-hello",
        "100 handshakes that begin with 6,300 keys",
        huge_hello,
        100,
        tls=True,
        memory_bytes=100 * HANDSHAKE_BYTES,
    ),
    Scenario(
        "tls-resets",
        "200 handshakes, reset in the middle",
        reset_in_handshake,
        10,
        tls=True,
        # Many have begun before the first is seen to be reset.
        memory_bytes=200 * HANDSHAKE_BYTES,
    ),
    Scenario("tls-tiny-records", "4 uploads in records of one byte", tiny_records, 4, tls=True),
    Scenario("tls-unread-downloads", "20 downloads of 512 MiB, unread", unread_download, 20, tls=True),
)
