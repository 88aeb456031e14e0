"""Suppression of what native code writes to standard output.

HiGHS prints a line of its own ("transformNewIntegerFeasibleSolution") straight to file descriptor 1 whatever its
log options say (reported against it in several wrappers). A progress display or a JSON result on standard output
must not contain it, so the descriptor points elsewhere for the length of a solve.

Not handled: other threads that print meanwhile lose what they print.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_STDOUT = 1


@contextmanager
def suppress_stdout() -> Iterator[None]:
    """Discard what native code writes to standard output inside; a process without one is left as it is."""
    if sys.stdout is not None and not sys.stdout.closed:
        sys.stdout.flush()
    try:
        saved = os.dup(_STDOUT)
    except OSError:
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, _STDOUT)
        yield
    finally:
        os.dup2(saved, _STDOUT)
        os.close(saved)
        os.close(nowhere)
