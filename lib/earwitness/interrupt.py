"""Ctrl-C, or a scheduler that takes the machine back: a command stops within a second and says how to go on.

Python raises what a signal handler raises wherever it happens to be. In a destructor or in a callback from C that is
printed as a traceback and lost, so there the interruption waits; and it comes again until it has arrived. The book page
*The signal store* says what is kept.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

AGAIN_S = 0.5  # raised again after so long, if it was lost all the same
WAIT_S = 0.05  # while it cannot be raised


class Interrupt(BaseException):
    """What a signal raises; no library mistakes it for an error of its own."""


def heed() -> None:
    """Raise ``Interrupt`` on SIGINT and SIGTERM, but for those that the shell keeps from this process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _raise)


def settle() -> None:
    """Say that the interruption has arrived."""
    signal.setitimer(signal.ITIMER_REAL, 0)


def leave(code: int) -> NoReturn:
    """End the process once everything is closed, without taking large libraries apart first, which takes seconds."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _raise(_: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGALRM, _raise)
    while frame is not None:
        name = frame.f_code.co_name
        if name == "__del__" or name.startswith("vio_"):  # soundfile's callbacks for files in memory
            signal.setitimer(signal.ITIMER_REAL, WAIT_S)
            return
        frame = frame.f_back
    signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
    raise Interrupt
