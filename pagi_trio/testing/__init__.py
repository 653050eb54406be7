"""Serve an application inside a test: a real server, on a free port, in a nursery of the test's own."""

from __future__ import annotations

from pagi_trio.testing.served import ServedApp, Start, serving, start_server

__all__ = ["ServedApp", "Start", "serving", "start_server"]
