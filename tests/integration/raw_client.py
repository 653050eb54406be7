"""A client that sends bytes as they are, and takes responses out of their framing."""

from __future__ import annotations


class RawClient:
    """A TCP client that sends bytes as they are and reads responses one at a time."""

    def __init__(self, stream):
        self.stream = stream
        self._buffer = bytearray()

    async def send(self, data):
        await self.stream.send_all(data)

    async def read_until(self, mark):
        while mark not in self._buffer:
            data = await self.stream.receive_some(65536)
            assert data, f"the connection ended before {mark!r}; it had sent {bytes(self._buffer)!r}"
            self._buffer += data
        return self._take(self._buffer.index(mark), len(mark))

    async def read_exactly(self, count):
        while len(self._buffer) < count:
            data = await self.stream.receive_some(65536)
            assert data, f"the connection ended {count - len(self._buffer)} bytes early"
            self._buffer += data
        return self._take(count)

    def _take(self, count, skip=0):
        data = bytes(self._buffer[:count])
        del self._buffer[: count + skip]
        return data

    async def read_head(self):
        """Return status and headers of the next response."""
        lines = (await self.read_until(b"\r\n\r\n")).split(b"\r\n")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(b": ")
            assert name not in headers, f"{name!r} is there twice"
            headers[name] = value
        return int(lines[0].split(b" ")[1]), headers

    async def read_response(self, *, head_only=False):
        """Return status, headers and body of the next response, taken out of its framing."""
        status, headers = await self.read_head()
        if head_only or status in (204, 304) or status < 200:
            return status, headers, b""
        if b"content-length" in headers:
            return status, headers, await self.read_exactly(int(headers[b"content-length"]))
        if headers.get(b"transfer-encoding") == b"chunked":
            body = bytearray()
            while True:
                size = int(await self.read_until(b"\r\n"), 16)
                body += await self.read_exactly(size)
                assert await self.read_exactly(2) == b"\r\n"
                if size == 0:
                    return status, headers, bytes(body)
        return status, headers, await self.read_to_end()

    async def read_to_end(self):
        """Return what comes until the server closes."""
        while data := await self.stream.receive_some(65536):
            self._buffer += data
        return self._take(len(self._buffer))

    async def aclose(self):
        await self.stream.aclose()
