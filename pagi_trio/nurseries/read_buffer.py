"""Where what arrives is read into, before it becomes bytes of its own length."""

from __future__ import annotations

import threading
from typing import Final

READ_BYTES: Final = 65536
"""Bytes a read asks for; from 4 to 64 KiB there was no difference for small messages, and uploads want the most."""


class _OfThread(threading.local):
    """Where all transports of a thread read into, unless what they read fills it.

    To ask for bytes of its own takes this much from the allocator for each read, and gives most of it back at once:
    what others put into the gaps kept a quarter of the C heap from ever being used again, and it grew for hours.
    """

    def __init__(self) -> None:
        self.view = memoryview(bytearray(READ_BYTES))


OF_THREAD: Final = _OfThread()
