"""What is said on an open WebSocket: messages in both directions, pings, and what comes behind the end.

No task of its own runs for it. While the application receives, it reads the socket itself; while it only sends or
sleeps, the reaper reads for it, and keeps at most a high-water mark of messages.

Source: RFC 6455 sections 5.5 and 7; RFC 7692.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from pagi_trio.errors import AppProtocolError, ClientDisconnected, WebSocketError
from pagi_trio.metrics.balance import WEBSOCKETS
from pagi_trio.nurseries.inbox import Inbox
from pagi_trio.nurseries.keepalive import Keepalive
from pagi_trio.nurseries.scope import TimedScope
from pagi_trio.wire.decoder import Decoder
from pagi_trio.wire.frames import BINARY, CLOSE, PING, TEXT, encode
from pagi_trio.wire.misuse import as_bytes

if TYPE_CHECKING:
    from pagi_trio.asgi import WebSocketDisconnect, WebSocketReceive, WebSocketSend
    from pagi_trio.nurseries.connection import Connection
    from pagi_trio.nurseries.ending import Ending
    from pagi_trio.wire.decoder import Event
    from pagi_trio.wire.deflate import DeflateParameters
    from pagi_trio.wire.messages import DataEvent

# What a connection is said to have ended by when its client breaks the protocol or a limit with this close code.
_REASONS: Final = {1008: "queue_overflow", 1009: "body_too_large"}


class Dialogue:
    """An open WebSocket, from its 101 to its end.

    Args:
        connection: Whose session it is; what it holds already are the client's first frames.
        ending: Takes note of the end.
        deflate: How messages are compressed, if they are.

    Attributes:
        inbox: Messages that were read for the application; None until there were any.
    """

    __slots__ = (
        "_busy",
        "_connection",
        "_decoder",
        "_deflater",
        "_ending",
        "_keepalive",
        "_sizes",
        "_tally",
        "_transport",
        "inbox",
    )

    def __init__(self, connection: Connection, ending: Ending, deflate: DeflateParameters | None) -> None:
        service = connection.service
        settings = service.config.websocket
        inflater = None if deflate is None else deflate.inflater(settings.inflate_ratio)
        self._connection = connection
        self._transport = connection.transport
        self._ending = ending
        self._decoder = Decoder(settings.message_max_bytes, inflater, fragments_max=settings.fragments)
        self._deflater = None if deflate is None else deflate.deflater()
        self._keepalive = Keepalive(settings, connection.transport, service.now)
        self._tally = service.meter.websocket
        ending.count_in(TimedScope(service.meter, WEBSOCKETS), self._keepalive)
        # Whether messages have gone in either direction since the reaper looked last.
        self._busy = False
        # Payload sizes of the messages that are queued in the transport, in order.
        self._sizes: deque[int] | None = None
        self.inbox: Inbox | None = None
        if connection.buffer:
            # A client may send messages along with its request, before it has seen the answer.
            self._decoder.feed(connection.buffer)
            connection.buffer = b""

    # Receiving

    def next_message(self) -> WebSocketReceive | WebSocketDisconnect | None:
        """Return what can be returned now; reads the socket once at most, without waiting."""
        ended = self._ending.event
        if ended is not None:
            # An application that asks again and again must not keep the others waiting.
            self._transport.budget -= 16
            return ended
        decoder = self._decoder
        transport = self._transport
        try:
            event = decoder.next_event()
            if event is None and not decoder.paused:
                data = transport.read_nowait() if transport.ready or transport.closed else None
                if not data:
                    return None if data is None else self._ending.lose("client_closed")
                event = decoder.decode(data)
            while event is not None:
                if event[0] == TEXT or event[0] == BINARY:
                    return self._received(event)
                ended = self._control(event)
                if ended is not None:
                    return ended
                # A client may send nothing but these, as fast as it can.
                transport.budget -= 1
                if transport.budget < 0:
                    return None
                event = decoder.next_event()
            if decoder.paused:
                # Very many fragments; others run first.
                transport.budget = -1
        except WebSocketError as error:
            return self._ending.close(error.code, str(error), _REASONS.get(error.code, "protocol_error"))
        return None

    def _received(self, event: DataEvent) -> WebSocketReceive:
        """Count a message and make the application's event of it."""
        message: WebSocketReceive
        if event[0] == TEXT:
            text = event[1]
            size = len(text) if text.isascii() else len(text.encode("utf-8"))
            message = {"type": "websocket.receive", "text": text}
        else:
            size = len(event[1])
            message = {"type": "websocket.receive", "bytes": event[1]}
        self._transport.budget -= 1 + (size >> 14)
        decoder = self._decoder
        if decoder.pieces:
            # Up to 2 microseconds each, and 250 of them in 500 bytes: 64 KiB of such messages kept the loop for 40 ms.
            self._transport.budget -= decoder.pieces >> 3
            decoder.pieces = 0
        self._busy = True
        tally = self._tally
        tally.received.append(size)
        if not tally.dirty:
            tally.mark()
        return message

    def _control(self, event: Event) -> WebSocketDisconnect | None:
        if event[0] == PING:
            self._keepalive.pinged(event[1])
        elif event[0] == CLOSE:
            return self._ending.answer(*event[1])
        else:
            self._keepalive.ponged()
        return None

    def _read_ahead(self) -> None:
        """Read what has arrived into the inbox, up to its high-water mark."""
        while not self._ending.is_over and (self.inbox is None or not self.inbox.is_full):
            message = self.next_message()
            if message is None or message["type"] == "websocket.disconnect":
                return
            if self.inbox is None:
                self.inbox = Inbox()
            self.inbox.put(message)
            # Perhaps from under a task that waits for the socket.
            self._transport.wake_readers()

    # Sending

    async def send(self, message: WebSocketSend) -> None:
        """Send a message.

        Raises:
            AppProtocolError: If it is none; nothing of it is sent.
            ClientDisconnected: If the client has left.

        Cancellation: what the kernel did not take of it stays queued, and leaves before anything else. A send that
        waits for that is cancelled without a trace.
        """
        transport = self._transport
        payload = message.get("bytes")
        opcode = BINARY
        if payload is None:
            text = message.get("text")
            if text is None:
                raise AppProtocolError("websocket.send needs a 'text' or 'bytes' that is not None")
            payload = text.encode("utf-8")
            opcode = TEXT
        else:
            if type(payload) is not bytes:
                payload = as_bytes(payload, "the 'bytes' of websocket.send")
            if message.get("text") is not None:
                raise AppProtocolError("websocket.send takes a 'text' or 'bytes', not both")
        if transport.is_abandoned:
            await self._let_rest_leave()
        size = len(payload)
        self._busy = True
        if self._deflater is None:
            frame = encode(opcode, payload)
        else:
            frame = encode(opcode, self._deflater.compress(payload), True)
        taken = transport.write_nowait(frame)
        if taken == len(frame):
            tally = self._tally
            tally.sent.append(size)
            if not tally.dirty:
                tally.mark()
        else:
            self._enqueue(memoryview(frame)[taken:], size)
            await transport.drain()
        transport.budget -= 1 + (size >> 14)
        if transport.budget < 0:
            await transport.breathe()

    async def _let_rest_leave(self) -> None:
        """Wait for what a cancelled send has left, unless the session ends meanwhile."""
        await self._transport.drain()
        ended = self._ending.event
        if ended is not None:
            raise ClientDisconnected(ended["reason"] or "client_closed")

    def _enqueue(self, rest: memoryview, size: int) -> None:
        """Queue what the kernel left of a message of this size."""
        if self._sizes is None:
            self._sizes = deque()
        self._sizes.append(size)
        self._transport.enqueue(rest, self._observe)

    def _observe(self, _data: memoryview, finished: bool) -> None:
        """Count a queued message once the kernel has taken its last byte."""
        if finished and self._sizes:
            tally = self._tally
            tally.sent.append(self._sizes.popleft())
            if not tally.dirty:
                tally.mark()

    # Behind the end

    async def see_off(self) -> bool:
        """Read up to the client's Close frame, so that the server closes first (RFC 6455 section 7.1.1).

        A client that broke the protocol is not waited for: a Close of its own would not be read either (section 7.1.7).

        Returns:
            Whether it came: nothing may follow it.
        """
        transport = self._transport
        while self._hear_out():
            if transport.budget < 0:
                await transport.breathe()
            else:
                await transport.wait_turn()
        await transport.drain()
        return self._ending.peer_closed

    def _hear_out(self) -> bool:
        """Take what has come since the session ended, up to the client's Close frame.

        Returns:
            Whether that may still come.
        """
        transport = self._transport
        decoder = self._decoder
        try:
            while not decoder.ended:
                event = decoder.next_event()
                if decoder.paused:
                    transport.budget = 0
                elif event is None:
                    data = transport.read_nowait()
                    if not data:
                        if data is not None:
                            self._ending.settle("client_closed")
                        return data is None
                    decoder.feed(data)
                elif event[0] == CLOSE:
                    self._ending.peer_closed = True
                    self._ending.settle("done")
                elif event[0] == TEXT or event[0] == BINARY:
                    # Too late for the application, but received all the same.
                    self._received(event)
                # Pings, too, are no reason to keep the others waiting.
                transport.budget -= 1
                if transport.budget < 0:
                    return True
        except WebSocketError:
            self._ending.settle("protocol_error")
        return False

    # Called by the reaper

    def tick(self, now: float, *, is_read: bool) -> None:
        """Read for an application that does not, and keep up the pings.

        Args:
            now: The reaper's clock, seconds.
            is_read: Whether the application receives.
        """
        if not self._ending.is_over:
            if not is_read or self._keepalive.is_overdue(now):
                # A pong may be there, behind messages that the application takes slowly.
                self._read_ahead()
            self._keep_up(now)
        elif not is_read:
            self._hear_out()

    def _keep_up(self, now: float) -> None:
        """Send what is due, and end what has not been answered."""
        ending = self._ending
        if ending.is_over:
            return
        transport = self._transport
        is_full = self.inbox is not None and self.inbox.is_full
        if transport.hangup and is_full:
            # It has left; what it sent before is still the application's to receive.
            transport.lose("client_closed")
        if transport.lost:
            self._read_ahead()
            transport.wake_readers()
            # Behind a full inbox nobody knows yet what the client has said last.
            ending.count_out()
            return
        reason = self._keepalive.tick(now, is_busy=self._busy, is_unread=is_full)
        self._busy = False
        if reason == "idle_timeout":
            ending.close(1000, "idle", reason)
        elif reason:
            ending.lose(reason)
            self._connection.abort(reason)
