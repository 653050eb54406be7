"""What clients do: each session is one connection that expects what an honest client may, unless it leaves before."""

from __future__ import annotations

from collections import deque

from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

from tests.endurance.app import CHUNK
from tests.faults.clients import CutError

CHUNKS_MOST = 60


async def keep_alive(client, random):
    """One request after the other, some with names and values that nobody else sends."""
    for _ in range(random.randint(1, 8)):
        path = b"/plain/%d?q=%d" % (random.choice((0, random.getrandbits(40))), random.randrange(4))
        field = b"X-%x: %x\r\n" % (random.getrandbits(random.choice((1, 40))), random.getrandbits(32))
        await client.send(b"GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n" % (path, field))
        response = await client.response()
        assert (response.status, response.body) == (200, path)


async def once(client, random):
    await client.send(b"GET /plain HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await client.response()).body == b"/plain?"
    await client.wait_closed()


async def old(client, random):
    await client.send(b"GET /download?%d HTTP/1.0\r\n\r\n" % random.randrange(4))
    assert (await client.head()).status == 200
    try:
        while True:
            await client.read_some()
    except CutError:
        return


async def pipelined(client, random):
    count = random.randint(2, 30)
    await client.send(b"".join(b"GET /plain/%d HTTP/1.1\r\nHost: x\r\n\r\n" % i for i in range(count)))
    for i in range(count):
        assert (await client.response()).body == b"/plain/%d?" % i


async def download(client, random):
    count = random.randrange(CHUNKS_MOST)
    page = random.choice(("download", "watched"))
    response = await client.get(f"/{page}?{count}")
    assert response.body == CHUNK * count


async def upload(client, random):
    """A body by length or in chunks, read or not."""
    body = random.randbytes(random.choice((0, 10, 1000, 100_000)))
    page = random.choice((b"upload", b"unread"))
    head = b"POST /%s HTTP/1.1\r\nHost: x\r\n" % page
    if random.random() < 0.5:
        await client.send(head + b"Content-Length: %d\r\n\r\n" % len(body))
        await client.send(body)
    else:
        await client.send(head + b"Transfer-Encoding: chunked\r\n\r\n")
        for start in range(0, len(body), 10_000):
            piece = body[start : start + 10_000]
            await client.send(b"%x;n=v\r\n%s\r\n" % (len(piece), piece))
        await client.send(b"0\r\nX-Trailer: y\r\n\r\n")
    assert (await client.response()).body == (b"%d" % len(body) if page == b"upload" else b"unread")


async def listen(client, random):
    count = random.randint(1, 50)
    response = await client.get(f"/events?{count}")
    assert response.body == b"".join(b"data: %d\n\n" % number for number in range(count))


async def background(client, random):
    """Requests on a connection whose application goes on after each response."""
    for _ in range(random.randint(1, 3)):
        assert (await client.get("/background")).body == b"later"


async def errors(client, random):
    """What the application raises is a 500, or an end that shows."""
    assert (await client.get("/error")).status == 500


async def errors_inside(client, random):
    try:
        await client.get("/error-inside")
    except CutError:
        return
    raise AssertionError("a response that was cut short looks whole")


async def refused(client, random):
    """What is not HTTP is answered, and the connection closed."""
    line = random.choice(
        (b"GET / HTTP/1.1\r\n", b"GET  /\r\n", b"G\0T / HTTP/1.1\r\nHost: x\r\n", random.randbytes(40) + b"\r\n")
    )
    await client.send(line + b"A b: c\r\n\r\n")
    assert 400 <= (await client.response()).status < 600
    await client.wait_closed()


async def websocket(client, random):
    """Messages of all kinds, with and without compression, by whole frames and in fragments."""
    speaker = Speaker(client, [ClientPerMessageDeflateFactory()] if random.random() < 0.5 else [])
    await speaker.open()
    protocol = speaker.protocol
    for _ in range(random.randint(1, 12)):
        size = random.choice((0, 5, 125, 126, 5000, 70_000))
        if random.random() < 0.5:
            protocol.send_text(b"t" * size)
        else:
            data = random.randbytes(size)
            middle = random.randint(0, size)
            protocol.send_binary(data[:middle], fin=False)
            protocol.send_ping(b"p")
            protocol.send_continuation(data[middle:], fin=True)
        assert len((await speaker.receive()).data) == size
    if random.random() < 0.1:
        protocol.send_text(b"raise")
        await speaker.receive_close(1011)
    else:
        protocol.send_close(1000)
        await speaker.receive_close(1000)
        await client.wait_closed()


class Speaker:
    """The client's side of a WebSocket over a connection, in the implementation of websockets."""

    def __init__(self, client, factories):
        self._client = client
        self._events = deque()
        self.protocol = ClientProtocol(parse_uri("ws://x/echo"), extensions=factories, max_size=None)

    async def open(self):
        self.protocol.send_request(self.protocol.connect())
        assert isinstance(await self.receive(), Response)
        assert self.protocol.handshake_exc is None

    async def receive(self):
        """Send what is to be sent and return what comes next that is no control frame."""
        while True:
            while self._events:
                event = self._events.popleft()
                if isinstance(event, Response) or event.opcode in (Opcode.TEXT, Opcode.BINARY):
                    return event
            await self._read()

    async def receive_close(self, code):
        while self.protocol.close_rcvd is None:
            await self._read()
        assert self.protocol.close_rcvd.code == code

    async def _read(self):
        for data in self.protocol.data_to_send():
            await self._client.send(data)
        self.protocol.receive_data(await self._client.read_some())
        assert self.protocol.parser_exc is None
        self._events.extend(self.protocol.events_received())


SESSIONS = {
    keep_alive: 8,
    once: 4,
    old: 1,
    pipelined: 2,
    download: 3,
    upload: 4,
    listen: 3,
    background: 2,
    errors: 0.3,
    errors_inside: 0.3,
    refused: 1,
    websocket: 6,
}
"""What a client may do, and how often each is chosen."""
