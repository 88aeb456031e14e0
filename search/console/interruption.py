"""Signals that stop a process: Ctrl-C, SIGTERM (schedulers, containers), SIGHUP (terminals that close).

All three raise ``KeyboardInterrupt`` where the work stands, so that a search ends with a report of what is known. The
exit status is 128 and the signal's number. A second signal ends the report as well; a third one the process, on the
spot. A signal that was ignored when the process started, as ``nohup`` and background jobs of scripts have it, stays
ignored. Only the standard library is imported here: this is in force before anything else is loaded.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

EXIT_INTERRUPTED = 130

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # not every system has every one
_AT_ONCE = 2  # signals, after which the next one is the system's to handle


class Interruptions:
    """The signals received while ``handle_signals`` is in force.

    Attributes:
        received: Their numbers, in order.
    """

    def __init__(self) -> None:
        self.received: list[int] = []

    def exit_code(self, code: int) -> int:
        """The exit code of work that ended with ``code``: for an interruption, 128 and the first signal's number."""
        return 128 + self.received[0] if code == EXIT_INTERRUPTED and self.received else code

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal."""
        self.received.append(number)
        if len(self.received) >= _AT_ONCE:
            signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt


@contextlib.contextmanager
def handle_signals() -> Iterator[Interruptions]:
    """Turn signals into ``KeyboardInterrupt``; the earlier handlers are back in force afterwards."""
    interruptions = Interruptions()
    if threading.current_thread() is not threading.main_thread():
        yield interruptions  # only the main thread may set handlers, and only it gets the exception
        return
    earlier = {}
    try:
        for number in (getattr(signal, name) for name in _NAMES if hasattr(signal, name)):
            found = signal.getsignal(number)
            # A handler of somebody else's (a test's, an embedding program's) knows better what is to be done.
            if found in (signal.SIG_DFL, signal.default_int_handler):
                earlier[number] = found
                signal.signal(number, interruptions)
        yield interruptions
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
