"""A bound on how long the event loop may keep the processor without a turn, which the kernel itself enforces.

A worker that hangs inside one call of C code runs no Python, so no signal handler and no other thread of it can end
it. Its parent does; this is for one whose parent has been killed as well.
"""

from __future__ import annotations

import ctypes
import signal
from typing import Final

# clockid_t of Linux: the processor time of the calling thread. Wall time would count the pauses of a process that was
# stopped, and the time of the whole process what the application's threads do rightly.
_CLOCK_THREAD_CPUTIME_ID: Final = 3

_SIGEV_SIGNAL: Final = 0


class _SignalEvent(ctypes.Structure):
    """Struct sigevent of <signal.h>."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("padding", ctypes.c_char * 48),
    )


class _TimerValue(ctypes.Structure):
    """Struct itimerspec of <time.h>: the interval, then the time left; seconds and nanoseconds each."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("left_s", ctypes.c_long),
        ("left_ns", ctypes.c_long),
    )


class CPULimit:
    """Has the kernel kill the process once the calling thread has used so much processor time without `renew`.

    Where the C library has no timers it does nothing: glibc before 2.34 keeps them elsewhere.

    Args:
        seconds: Of processor time of the thread that makes it.

    Source: timer_create(2).
    """

    def __init__(self, seconds: float) -> None:
        self._libc = ctypes.CDLL(None)
        self._timer = ctypes.c_void_p()
        self._value = _TimerValue(0, 0, int(seconds), int(seconds % 1 * 1e9))
        event = _SignalEvent(None, signal.SIGKILL, _SIGEV_SIGNAL, b"")
        try:
            failed = self._libc.timer_create(_CLOCK_THREAD_CPUTIME_ID, ctypes.byref(event), ctypes.byref(self._timer))
        except AttributeError:
            failed = True
        self._is_made = not failed

    def renew(self) -> None:
        """Begin to count anew."""
        if self._is_made:
            self._libc.timer_settime(self._timer, 0, ctypes.byref(self._value), None)
