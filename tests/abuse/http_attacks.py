"""Attacks on how requests are read and responses written."""

from __future__ import annotations

from collections.abc import AsyncIterator

import trio

from .apps import GREETING
from .client import CUT, LEFT, Client, again, bytewise, request
from .scenario import Scenario

HUGE_BYTES = 512 * 1024 * 1024
GET = request("/")
HALF_A_HEAD = b"GET / HTTP/1.1\r\nHost: x\r\nX-Filler: "

SMALL_WINDOW = 4096
"""What a client takes that does not read: the least that Linux allows is half of it."""

DEADLINES_S = 13.0
"""Longer than the 10 s that most heads may take."""


def post(target: str, *fields: str) -> bytes:
    return request(target, *fields, method="POST")


# Heads


async def silent(client: Client) -> str:
    await client.connect()
    client.stand()
    return await client.outcome()


async def slow_head(client: Client) -> str:
    await client.connect()
    return await client.while_sending(bytewise(HALF_A_HEAD + b"a" * 10_000, 0.2), client.outcome)


async def endless_header(client: Client) -> str:
    await client.connect()
    await client.send(HALF_A_HEAD)
    return await client.while_sending(again(b"a" * 65536), client.outcome)


async def endless_headers(client: Client) -> str:
    await client.connect()
    await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
    return await client.while_sending(again(b"a: b\r\n" * 1000), client.outcome)


async def fat_half_head(client: Client) -> str:
    await client.connect()
    await client.send(HALF_A_HEAD + b"a" * 15_000)
    client.stand()
    return await client.outcome()


async def half_a_head_and_fin(client: Client) -> str:
    await client.connect()
    await client.send(HALF_A_HEAD)
    await client.half_close()
    client.stand()
    return await client.outcome()


async def new_header_names(client: Client) -> str:
    await client.connect()
    client.stand()
    for first in range(0, 20_000, 50):
        await client.send(request("/", *(f"X-{number:0100}: {number:0100}" for number in range(first, first + 50))))
        await client.must_answer(GREETING)
    return LEFT


async def invalid_host(client: Client) -> str:
    await client.connect()
    await client.send(b"GET / HTTP/1.1\r\nHost: a b/c@d\r\nConnection: close\r\n\r\n")
    client.stand()
    return await client.outcome()


async def both_lengths(client: Client) -> str:
    """RFC 9112 section 6.1: such a message may be an attempt at smuggling; the connection ends after it, if not before."""
    await client.connect()
    body = b"5\r\nhello\r\n0\r\n\r\n"
    ambiguous = post("/upload", "Transfer-Encoding: chunked", f"Content-Length: {len(body)}")
    await client.send(ambiguous + body + request("/", "Connection: close"))
    client.stand()
    status = await client.read_answer(b"5")
    if status == 200:
        return "kept alive" if await client.read_head() == 200 else CUT
    return f"status {status}"


async def long_targets(client: Client) -> str:
    await client.connect()
    return await client.while_sending(again(request("/?" + "a" * 8000) * 20), client.outcome)


# Connections


async def idle(client: Client) -> str:
    await client.connect()
    await client.send(GET)
    await client.must_answer(GREETING)
    client.stand()
    return await client.outcome()


async def open_and_reset(client: Client) -> str:
    client.stand()
    for turn in range(100):
        await client.connect()
        if turn % 2:
            await client.send(GET)
        await client.reset()
    return LEFT


async def pipelining(client: Client) -> str:
    await client.connect(window=SMALL_WINDOW)

    async def requests() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield GET * 1000
        await trio.sleep_forever()

    return await client.while_sending(requests(), client.unread)


# Request bodies


async def slow_body(client: Client) -> str:
    await client.connect()
    await client.send(post("/upload", "Content-Length: 1000000"))
    return await client.while_sending(bytewise(bytes(1000), 1.0), client.outcome)


async def upload_unread(client: Client) -> str:
    await client.connect()
    await client.send(post("/deaf", f"Content-Length: {HUGE_BYTES}"))
    return await client.while_sending(again(bytes(65536)), client.outcome)


async def early_answer(client: Client) -> str:
    await client.connect()
    await client.send(post("/", f"Content-Length: {HUGE_BYTES}"))
    return await client.while_sending(again(bytes(65536)), client.outcome)


async def tiny_chunks(client: Client) -> str:
    await client.connect()
    await client.send(post("/upload", "Transfer-Encoding: chunked"))
    return await client.while_sending(again(b"1\r\nx\r\n" * 10_000), client.outcome)


async def chunk_extensions(client: Client) -> str:
    await client.connect()
    await client.send(post("/upload", "Transfer-Encoding: chunked"))
    return await client.while_sending(again((b"1;" + b"e" * 1000 + b"\r\nx\r\n") * 50), client.outcome)


async def almost_a_size(client: Client) -> str:
    await client.connect()
    await client.send(post("/upload", "Transfer-Encoding: chunked") + b"0" * 16_000 + b"g\r\n")
    client.stand()
    return await client.outcome()


async def endless_trailers(client: Client) -> str:
    await client.connect()
    await client.send(post("/upload", "Transfer-Encoding: chunked") + b"0\r\n")
    return await client.while_sending(again(b"a: b\r\n" * 1000), client.outcome)


async def expect_and_nothing(client: Client) -> str:
    await client.connect()
    await client.send(post("/upload", "Content-Length: 1000000", "Expect: 100-continue"))
    client.stand()
    return await client.outcome()


# Responses


async def unread_download(client: Client) -> str:
    await client.connect(window=SMALL_WINDOW)
    await client.send(request("/download"))
    client.stand()
    return await client.unread()


async def slow_download(client: Client) -> str:
    await client.connect(window=SMALL_WINDOW)
    await client.send(request("/download"))
    client.stand()
    return await client.slowly(0.1)


async def unread_events(client: Client) -> str:
    await client.connect(window=SMALL_WINDOW)
    await client.send(request("/events"))
    client.stand()
    return await client.unread()


# Leaving an application that does not want to hear of it


async def leave_a_stubborn_sender(client: Client) -> str:
    await client.connect()
    await client.send(request("/send-stubbornly"))
    await client.must_answer()
    client.stand()
    return await client.reset()


async def leave_a_stubborn_receiver(client: Client) -> str:
    await client.connect()
    await client.send(request("/receive-stubbornly"))
    client.stand()
    return await client.reset()


HTTP_ATTACKS = (
    Scenario("silent", "200 connections that say nothing", silent, 200, hold_s=DEADLINES_S),
    Scenario("slow-heads", "200 heads of five bytes a second", slow_head, 200, hold_s=DEADLINES_S),
    Scenario("endless-header", "a header value without end", endless_header),
    Scenario("endless-headers", "header lines without end", endless_headers),
    Scenario("fat-heads", "100 heads of 15 KiB that do not end", fat_half_head, 100, hold_s=DEADLINES_S),
    Scenario("half-heads", "100 half heads, then FIN", half_a_head_and_fin, 100),
    Scenario("header-names", "20,000 header names, no two alike", new_header_names),
    Scenario("long-targets", "targets of 8 KB without end", long_targets),
    Scenario("invalid-host", "a Host that is none", invalid_host),
    Scenario("both-lengths", "Transfer-Encoding beside Content-Length", both_lengths),
    Scenario("idle", "2,000 idle connections", idle, 2000, memory_bytes=2000 * 8 * 1024),
    Scenario("resets", "1,000 connections opened and reset", open_and_reset, 10),
    Scenario("pipelining", "100,000 requests at once, answers unread", pipelining),
    Scenario("slow-bodies", "20 bodies of a byte per second", slow_body, 20, hold_s=DEADLINES_S),
    Scenario("unread-uploads", "10 uploads to an application that does not read", upload_unread, 10),
    Scenario("early-answers", "10 uploads that go on after their answer", early_answer, 10),
    Scenario("tiny-chunks", "a body of one-byte chunks without end", tiny_chunks),
    Scenario("chunk-extensions", "chunk extensions without end", chunk_extensions),
    Scenario("almost-sizes", "100 chunk sizes of 16,000 zeros and no digit", almost_a_size, 100),
    Scenario("trailers", "trailers without end", endless_trailers),
    Scenario(
        "expectations", "100 times Expect: 100-continue, then nothing", expect_and_nothing, 100, hold_s=DEADLINES_S
    ),
    Scenario("unread-downloads", "20 downloads of 512 MiB, unread", unread_download, 20),
    Scenario("slow-downloads", "20 downloads of 512 MiB, read by ten bytes a second", slow_download, 20),
    Scenario("unread-events", "20 event streams, unread", unread_events, 20),
    Scenario("left-sender", "left: an application that sends on and swallows errors", leave_a_stubborn_sender),
    Scenario("left-receiver", "left: an application that receives on", leave_a_stubborn_receiver),
)
