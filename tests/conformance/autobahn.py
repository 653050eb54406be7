"""The Autobahn cases against one port, run by kosoku; prints what came of each as JSON.

Usage: ``python -m tests.conformance.autobahn PORT PATTERN... [--at-once N] [--authority FILE]``

This is a process of its own because kosoku puts modules named ``case`` and ``autobahn`` on the import path and
replaces a function of ``binascii``. It does not speak TLS: given the certificate of an authority, this process
carries each of its connections on to the server over TLS.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import ssl
from functools import partial

import trio
from kosoku import FailureError, run_fuzzingclient

HOST = "127.0.0.1"


def main() -> None:
    """Run what is asked for and print ``{"outcomes": [...], "truncated": N}``; see `run_cases` and `Bridge`."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.autobahn")
    parser.add_argument("port", type=int)
    parser.add_argument("patterns", nargs="+")
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--authority")
    arguments = parser.parse_args()
    cases = {"patterns": arguments.patterns, "at_once": arguments.at_once}
    if arguments.authority is None:
        outcomes, truncated = run_cases(arguments.port, **cases), 0
    else:
        context = ssl.create_default_context(cafile=arguments.authority)
        outcomes, truncated = trio.run(partial(run_cases_over_tls, arguments.port, context, **cases))
    print(json.dumps({"outcomes": outcomes, "truncated": truncated}), flush=True)
    # A thread of kosoku may still be running, and aborts the process if it meets an interpreter that is finalizing.
    os._exit(0)


def run_cases(port: int, patterns: list[str], at_once: int) -> list[dict[str, object]]:
    """Run the cases that match, so many at once, and say for each what came of it."""

    async def run():
        try:
            return await run_fuzzingclient(f"ws://{HOST}:{port}", patterns, concurrency=at_once)
        except FailureError as failure:
            # All results, not only the failed ones.
            return failure.results

    return [
        {
            "case": result.case_id,
            "behavior": result.behavior.value,
            "close": result.behavior_close.value,
            "why": f"{result.result} {result.result_close} (close code {result.remote_close_code})",
        }
        for result in asyncio.run(run())
    ]


async def run_cases_over_tls(port: int, context: ssl.SSLContext, patterns: list[str], at_once: int):
    """Run them through a bridge; return the outcomes and how many connections were truncated."""
    bridge = Bridge(port, context)
    async with trio.open_nursery() as nursery:
        listener, *_ = await nursery.start(partial(trio.serve_tcp, bridge.carry, 0, host=HOST))
        plain_port = listener.socket.getsockname()[1]
        outcomes = await trio.to_thread.run_sync(run_cases, plain_port, patterns, at_once)
        nursery.cancel_scope.cancel()
    return outcomes, bridge.truncated


class Bridge:
    """Accepts plain connections and carries each on over TLS.

    Attributes:
        truncated: Connections that the server ended without a close_notify, so that a client cannot know whether
            it has read all (RFC 8446 section 6.1).
    """

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.truncated = 0
        self._port = port
        self._context = context

    async def carry(self, plain: trio.SocketStream) -> None:
        """Carry one connection until either side ends it."""
        tls = await trio.open_ssl_over_tcp_stream(HOST, self._port, ssl_context=self._context)
        async with plain, tls, trio.open_nursery() as nursery:
            nursery.start_soon(self._to_suite, tls, plain, nursery.cancel_scope)
            while data := await _receive(plain):
                try:
                    await tls.send_all(data)
                except trio.BrokenResourceError:
                    # What the server said before it stopped reading is still to be carried.
                    return
            nursery.cancel_scope.cancel()

    async def _to_suite(self, tls: trio.SSLStream, plain: trio.SocketStream, scope: trio.CancelScope) -> None:
        data = await _receive(tls)
        while data:
            try:
                await plain.send_all(data)
            except trio.BrokenResourceError:
                break  # the suite has gone
            data = await _receive(tls)
        self.truncated += data is None
        scope.cancel()


async def _receive(stream: trio.abc.ReceiveStream) -> bytes | None:
    """Return what comes next: nothing at a proper end, None where the connection broke."""
    try:
        return await stream.receive_some()
    except trio.BrokenResourceError:
        return None


if __name__ == "__main__":
    main()
