"""Processor cores that a timed thread may use: as many as it has threads, one to a physical core first.

A single thread stays on the core the scheduler gave it, which was free a moment ago. Several threads get a fixed
set, so that a runtime's thread pool (started when a model is compiled, inheriting the compiling thread's cores)
and the timing thread share the same one. Where the system has no such call, or forbids it, nothing is pinned.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

_TOPOLOGY = Path("/sys/devices/system/cpu")


def available_cores() -> int:
    """Processor cores that this process may use."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    return len(os.sched_getaffinity(0))


def choose_cores(
    available: AbstractSet[int], siblings: Mapping[int, tuple[int, ...]], current: int | None, threads: int
) -> frozenset[int]:
    """Cores for ``threads`` threads.

    Args:
        available: Logical cores this process may use; not empty.
        siblings: Logical core → all logical cores of its physical core; a missing one stands alone.
        current: Logical core the thread runs on, if known.
        threads: How many are wanted; with more than there are, all available ones are taken.
    """
    if threads == 1 and current is not None and current in available:
        return frozenset({current})

    def rank(core: int) -> tuple[int, int]:
        mates = sorted(mate for mate in siblings.get(core, (core,)) if mate in available)
        return (mates.index(core) if core in mates else 0, core)

    return frozenset(sorted(available, key=rank)[:threads])


@contextlib.contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Keep the calling thread, and threads it starts meanwhile, on ``threads`` cores; restored afterwards."""
    if sys.platform != "linux":
        yield
        return
    before = os.sched_getaffinity(0)
    siblings = {core: _siblings(core) for core in before} if threads > 1 else {}
    # Sandboxes may forbid the call; timing is then only a little noisier, so that is no reason to stop.
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, choose_cores(before, siblings, _current_core(), threads))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, before)


def _current_core() -> int | None:
    try:
        fields = Path("/proc/thread-self/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        # proc(5): "processor" is field 39; the thread's name, closed by ")", is field 2.
        return int(fields[36])
    except (OSError, ValueError, IndexError):
        return None


def _siblings(core: int) -> tuple[int, ...]:
    try:
        text = (_TOPOLOGY / f"cpu{core}" / "topology" / "thread_siblings_list").read_text(encoding="ascii")
        return parse_core_list(text)
    except (OSError, ValueError):
        return (core,)


def parse_core_list(text: str) -> tuple[int, ...]:
    """Read the kernel's list form: ``0,4-6`` is (0, 4, 5, 6).

    Raises:
        ValueError: If ``text`` is no such list.
    """
    cores: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        cores.extend(range(int(first), int(last or first) + 1))
    return tuple(cores)
