"""Attacks on WebSocket sessions."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator

import trio

from .client import BINARY, CLOSE, CONTINUATION, PING, TEXT, Client, again, bytewise, frame
from .http_attacks import SMALL_WINDOW
from .scenario import MEBIBYTE, Scenario

MESSAGE_BYTES = 16 * MEBIBYTE
"""The longest message, by default: of pagi-trio, uvicorn and hypercorn alike."""

EMPTY_FRAGMENTS = 300_000

CLOSE_NORMALLY = frame(CLOSE, (1000).to_bytes(2, "big"))


def bomb() -> bytes:
    """Make 512 MiB of zeros, deflated as RFC 7692 asks: what inflates to 1 MiB, and needs nothing before it, 512 times."""
    deflater = zlib.compressobj(level=9, wbits=-15)
    part = deflater.compress(bytes(MEBIBYTE)) + deflater.flush(zlib.Z_FULL_FLUSH)
    return (part * 512).removesuffix(b"\x00\x00\xff\xff")


async def session(client: Client, path: str, *fields: str, window: int | None = None) -> None:
    await client.connect(window=window)
    await client.upgrade(path, *fields)


async def unread_messages(client: Client) -> str:
    await session(client, "/publish", window=SMALL_WINDOW)
    client.stand()
    return await client.unread()


async def deflate_bomb(client: Client) -> str:
    await session(client, "/swallow", "Sec-WebSocket-Extensions: permessage-deflate")
    client.stand()
    await client.send(frame(BINARY, bomb(), rsv1=True))
    return await client.close_code()


async def endless_message(client: Client) -> str:
    await session(client, "/swallow")
    await client.send(frame(BINARY, b"x", fin=False))
    return await client.while_sending(again(frame(CONTINUATION, bytes(1024), fin=False) * 64), client.close_code)


async def empty_fragments(client: Client) -> str:
    await session(client, "/swallow")

    async def fragments() -> AsyncIterator[bytes]:
        yield frame(TEXT, fin=False)
        for _ in range(EMPTY_FRAGMENTS // 3000):
            yield frame(CONTINUATION, fin=False) * 3000
        yield frame(CONTINUATION) + CLOSE_NORMALLY

    return await client.while_sending(fragments(), client.close_code)


async def endless_empty_fragments(client: Client) -> str:
    await session(client, "/swallow")
    await client.send(frame(TEXT, fin=False))
    return await client.while_sending(again(frame(CONTINUATION, fin=False) * 3000), client.close_code)


async def ping_flood(client: Client) -> str:
    await session(client, "/swallow", window=SMALL_WINDOW)
    return await client.while_sending(again(frame(PING, bytes(125)) * 500), client.unread)


async def pings_to_nobody(client: Client) -> str:
    await session(client, "/absent")
    return await client.while_sending(again(frame(PING) * 300, 0.25), client.close_code)


async def final_blocks(client: Client) -> str:
    await session(client, "/swallow", "Sec-WebSocket-Extensions: permessage-deflate")
    # Each is a block that ends its stream, and empty (RFC 7692 section 7.2.3.4).
    return await client.while_sending(again(frame(BINARY, b"\x03\x00" * 250, rsv1=True) * 100), client.close_code)


async def message_flood(client: Client) -> str:
    await session(client, "/swallow")
    return await client.while_sending(again(frame(BINARY, b"x") * 5000), client.close_code)


async def unread_message_flood(client: Client) -> str:
    await session(client, "/deaf")
    return await client.while_sending(again(frame(BINARY, bytes(1024)) * 64), client.close_code)


async def early_byte(client: Client) -> str:
    hello = frame(TEXT, b"hello")
    await client.connect()
    await client.upgrade("/echo", extra=hello[:1])
    client.stand()
    await client.send(hello[1:] + CLOSE_NORMALLY)
    return await client.close_code()


async def slow_frame(client: Client) -> str:
    await session(client, "/echo")
    await client.send(frame(BINARY, size=1_000_000))
    return await client.while_sending(bytewise(bytes(1000), 1.0), client.close_code)


async def close_without_end(client: Client) -> str:
    await session(client, "/echo")
    await client.send(CLOSE_NORMALLY)
    client.stand()
    return await client.unread()


async def no_answer_to_close(client: Client) -> str:
    await session(client, "/goodbye")
    client.stand()
    return await client.unread()


async def leave_a_publisher(client: Client) -> str:
    await session(client, "/publish")
    client.stand()
    return await client.reset()


async def leave_a_stubborn_publisher(client: Client) -> str:
    await session(client, "/publish-stubbornly")
    client.stand()
    return await client.reset()


async def leave_a_stubborn_listener(client: Client) -> str:
    await session(client, "/listen-stubbornly")
    client.stand()
    await trio.sleep(0)
    return await client.reset()


WEBSOCKET_ATTACKS = (
    Scenario("unread-messages", "10 WebSockets that are sent to, unread", unread_messages, 10),
    Scenario(
        "deflate-bomb",
        "a deflate bomb: 512 KiB that inflate to 512 MiB",
        deflate_bomb,
        memory_bytes=2 * MESSAGE_BYTES,
    ),
    Scenario("endless-message", "a message without end", endless_message, memory_bytes=2 * MESSAGE_BYTES),
    Scenario("empty-fragments", "a message in 300,000 empty fragments", empty_fragments),
    Scenario("endless-fragments", "a message in empty fragments without end", endless_empty_fragments),
    Scenario("ping-flood", "2 floods of pings, pongs unread", ping_flood, 2),
    Scenario("absent-pings", "100 WebSockets that ping an application which sleeps", pings_to_nobody, 100),
    Scenario("final-blocks", "4 floods of messages in 250 empty blocks of deflate", final_blocks, 4),
    Scenario("message-flood", "4 floods of one-byte messages", message_flood, 4),
    Scenario("unread-flood", "4 floods of messages to an application that does not receive", unread_message_flood, 4),
    Scenario("early-bytes", "100 times a byte after the upgrade, in the same packet", early_byte, 100),
    Scenario("slow-frames", "20 frames of a byte per second", slow_frame, 20),
    Scenario("no-end", "100 clients that send Close, and stay", close_without_end, 100, hold_s=6.0),
    Scenario("no-close", "100 clients that do not answer a Close", no_answer_to_close, 100, hold_s=6.0),
    Scenario("left-publisher", "left: an application that sends to a WebSocket", leave_a_publisher, 10),
    Scenario("left-stubborn-publisher", "left: the same, swallowing errors", leave_a_stubborn_publisher),
    Scenario("left-listener", "left: an application that receives from a WebSocket on", leave_a_stubborn_listener),
)
