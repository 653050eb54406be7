"""The command under test, in processes of its own: what it logs, its page, its workers by slot."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio

from .clients import Connection
from .page import Page

HERE = Path(__file__).resolve().parent

LIMIT_S = 30
"""No test here but one takes three seconds, on a machine that has nothing else to do."""


class Server:
    """A running server.

    Attributes:
        process: The parent.
        lines: What it and its workers have logged.
        port: Where it serves.
        page_port: Where the parent has the page.
    """

    def __init__(self, process):
        self.process = process
        self.lines = []
        self.port = 0
        self.page_port = 0
        self._more = trio.Event()

    async def read_lines(self):
        rest = b""
        async for data in self.process.stderr:
            *lines, rest = (rest + data).split(b"\n")
            self.lines += [line.decode() for line in lines]
            self._more.set()
            self._more = trio.Event()

    async def wait_line(self, text, count=1):
        """Wait until so many lines have the text in them; return the last."""
        with self._limit(text):
            while len(found := [line for line in self.lines if text in line]) < count:
                await self._more.wait()
        return found[-1]

    def _limit(self, what):
        return _Limit(f"{what!r} did not come; the log: " + "\n".join(self.lines[-30:]))

    def send_signal(self, number):
        os.kill(self.process.pid, number)

    def workers(self):
        """Return the process ids of the workers that got ready and are still there, by slot."""
        matches = (re.search(r"worker (\d+) \(pid (\d+)\) is ready", line) for line in self.lines)
        found = {int(match[1]): int(match[2]) for match in matches if match}
        children = self.children()
        return {slot: pid for slot, pid in found.items() if pid in children}

    def children(self):
        pid = self.process.pid
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    async def page(self):
        async with await Connection.open(self.page_port) as connection:
            return Page((await connection.get("/metrics")).body)

    async def page_of_worker(self):
        """Return the page as a worker has it, whichever answers; the connection counts."""
        async with await Connection.open(self.port) as connection:
            return Page((await connection.get("/metrics")).body)

    async def wait_page(self, condition):
        """Wait until the parent's page is as it should be; return it."""
        return await self._wait(self.page, condition)

    async def wait_worker_page(self, condition):
        """Wait until a worker's page is as it should be; return it."""
        return await self._wait(self.page_of_worker, condition)

    async def _wait(self, read, condition):
        with self._limit("a page that is as it should be"):
            while not condition(page := await read()):
                await trio.sleep(0.01)
        return page

    async def is_ready(self):
        """Ask for readiness; return whether the answer is 200, and not 503."""
        async with await Connection.open(self.page_port) as connection:
            response = await connection.get("/-/ready")
        assert response.status in (200, 503)
        return response.status == 200

    async def wait_ready(self, wanted=True):
        with self._limit(f"ready: {wanted}"):
            while await self.is_ready() is not wanted:
                await trio.sleep(0.005)

    async def ask(self, path):
        """Have one request answered."""
        async with await Connection.open(self.port) as connection:
            return await connection.get(path)

    async def finish(self):
        """Stop it gracefully; return its exit code."""
        self.send_signal(signal.SIGTERM)
        with self._limit("the end"):
            return await self.process.wait()


class _Limit:
    """A time limit that says what was waited for."""

    def __init__(self, message):
        self._message = message
        self._scope = trio.CancelScope(deadline=trio.current_time() + LIMIT_S)

    def __enter__(self):
        self._scope.__enter__()

    def __exit__(self, *exception):
        swallowed = self._scope.__exit__(*exception)
        if self._scope.cancelled_caught:
            raise AssertionError(self._message)
        return swallowed


@asynccontextmanager
async def serving(*arguments, workers=None, environ=None, limit_s=LIMIT_S):
    """Serve the application of this directory by the command; all that is left of it is killed at the end."""
    command = [sys.executable, "-m", "pagi_trio", *arguments, str(HERE / "app.py")]
    command += ["--bind", "127.0.0.1:0", "--metrics-bind", "127.0.0.1:0"]
    paths = os.pathsep.join(filter(None, sys.path))
    process = await trio.lowlevel.open_process(
        command,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": paths, **(environ or {})},
    )
    server = Server(process)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.read_lines)
            for name, text in (("port", "serving on "), ("page_port", "metrics on ")):
                setattr(server, name, int((await server.wait_line(text)).rpartition(":")[2]))
            if workers is not None:
                await server.wait_line("is ready", workers)
            with trio.fail_after(limit_s):
                yield server
            nursery.cancel_scope.cancel()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + LIMIT_S):
            await process.wait()
            await process.stderr.aclose()
