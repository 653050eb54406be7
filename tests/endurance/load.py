"""The clients: so many of them, each with one session after the other and a rest between."""

from __future__ import annotations

import ssl
import traceback
from collections import Counter
from contextlib import suppress
from random import Random

import trio

from tests.endurance.client import Client, Leaving, LeftError
from tests.endurance.sessions import SESSIONS
from tests.faults.clients import CutError

REST_S = 0.5
"""Between two sessions of a client, in the mean."""

SESSION_S = 90.0
"""A session takes some seconds, and as long again as its client is idle before it leaves."""


class Load:
    """Clients of one server.

    Attributes:
        done: Sessions that came to their end, by what they did.
        left: Those that left before, by how.
        faults: What went wrong though the client was right, the first few of each kind.
    """

    def __init__(
        self, port: int, clients: int, seed: int, tls: ssl.SSLContext | None = None, *, idle_most_s: float = 30.0
    ) -> None:
        self._port = port
        self._clients = clients
        self._random = Random(seed)
        self._tls = tls
        self._idle_most_s = idle_most_s
        self.done: Counter[str] = Counter()
        self.left: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()

    async def run(self, seconds: float) -> None:
        """Let the clients come for some time, and wait until the last of them has left.

        There are never more of them, be the machine busy with other things: the peak of what the server holds, which
        its memory keeps, is that of the first minutes.
        """
        ends = trio.current_time() + seconds
        async with trio.open_nursery() as nursery:
            for _ in range(self._clients):
                nursery.start_soon(self._client, Random(self._random.getrandbits(64)), ends)

    async def _client(self, random: Random, ends: float) -> None:
        await trio.sleep(random.uniform(0, REST_S))
        while trio.current_time() < ends:
            with trio.move_on_after(SESSION_S) as scope:
                if self._tls is not None and random.random() < 0.1:
                    await self._break_handshake(random)
                else:
                    await self._speak(random)
            if scope.cancelled_caught:
                self.faults["a session did not come to its end"] += 1
            await trio.sleep(random.expovariate(1 / REST_S))

    async def _speak(self, random: Random) -> None:
        [speak] = random.choices(list(SESSIONS), list(SESSIONS.values()))
        name = speak.__name__
        client = None
        try:
            leaving = Leaving.choose(random, self._idle_most_s)
            client = await Client.connect(self._port, leaving, tls=self._tls, slow=random.random() < 0.1)
            await speak(client, random)
            self.done[name] += 1
        except LeftError:
            self.left[name] += 1
        except (CutError, AssertionError, ValueError) as error:
            where = traceback.extract_tb(error.__traceback__)
            [line] = [one.lineno for one in where if one.name == name][-1:] or [0]
            self.faults[f"{name}, line {line}: {type(error).__name__}: {error}"[:200]] += 1
        finally:
            if client is not None:
                await client.leave()

    async def _break_handshake(self, random: Random) -> None:
        """Begin a TLS handshake and leave in the middle of it, or send what is none."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        assert self._tls is not None
        tls = self._tls.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        hello = outgoing.read()
        data = random.choice((hello[: random.randint(0, len(hello))], hello, random.randbytes(100)))
        client = await Client.connect(self._port, Leaving.choose(random, self._idle_most_s))
        with suppress(CutError, LeftError), trio.move_on_after(random.uniform(0, self._idle_most_s)):
            await client.send(data)
            await client.read_some()
        self.left["broken handshake"] += 1
        await client.leave()
