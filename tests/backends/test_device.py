"""The machine's fingerprint, and the cores that timing keeps to."""

from __future__ import annotations

import os

import pytest

from bitfront.backends.affinity import available_cores, choose_cores, parse_core_list, pinned
from bitfront.backends.device import cpu_fingerprint, parse_cpuinfo

_X86 = """processor\t: 0
model name\t: Some Processor 9000
flags\t\t: fpu avx avx2 avx512f avx512_vnni amx_int8 hypervisor

processor\t: 1
model name\t: Another
flags\t\t: fpu
"""
_ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\nCPU implementer\t: 0x41\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (_X86, ("Some Processor 9000", ("amx_int8", "avx2", "avx512_vnni", "avx512f"))),
        (_ARM, ("", ("neon", "neon_dotprod", "neon_i8mm"))),
        ("", ("", ())),
    ],
    ids=["x86", "arm", "unreadable"],
)
def test_cpuinfo_is_read(text: str, expected: tuple[str, tuple[str, ...]]) -> None:
    """Name and known instruction sets of the first processor, sorted; nothing is made up."""
    assert parse_cpuinfo(text) == expected


def test_fingerprint_names_this_machine() -> None:
    """No field is empty but, perhaps, the instruction sets."""
    found = cpu_fingerprint("runtime 1")
    assert found.device
    assert found.cores == available_cores()
    assert found.system
    assert (found.runtime, found.python.count(".")) == ("runtime 1", 2)


@pytest.mark.parametrize(
    ("text", "cores"), [("0\n", (0,)), ("0,4", (0, 4)), ("2-4", (2, 3, 4)), ("0,4-6,9", (0, 4, 5, 6, 9))]
)
def test_core_lists_are_read(text: str, cores: tuple[int, ...]) -> None:
    """The kernel's list form."""
    assert parse_core_list(text) == cores


_PAIRS = {0: (0, 1), 1: (0, 1), 2: (2, 3), 3: (2, 3)}
_HALVES = {0: (0, 2), 2: (0, 2), 1: (1, 3), 3: (1, 3)}


@pytest.mark.parametrize(
    ("available", "siblings", "current", "threads", "expected"),
    [
        ({0, 1, 2, 3}, _PAIRS, 3, 1, {3}),
        ({0, 1, 2, 3}, _PAIRS, None, 1, {0}),
        ({0, 1, 2, 3}, _PAIRS, 3, 2, {0, 2}),
        ({0, 1, 2, 3}, _HALVES, 3, 2, {0, 1}),
        ({0, 1, 2, 3}, _PAIRS, 3, 3, {0, 1, 2}),
        ({1, 2, 3}, _PAIRS, 3, 2, {1, 2}),
        ({5, 7}, {}, 3, 1, {5}),
        ({5, 7}, {}, 5, 9, {5, 7}),
    ],
    ids=["where it runs", "unknown", "pairs", "halves", "three", "restricted", "moved away", "too many"],
)
def test_cores_are_physical_first(
    available: set[int], siblings: dict[int, tuple[int, ...]], current: int | None, threads: int, expected: set[int]
) -> None:
    """One thread stays where it is; several get a physical core each before any shares one."""
    assert choose_cores(available, siblings, current, threads) == expected


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no core affinity")
def test_pinning_is_undone_even_by_an_error() -> None:
    """Inside, as many cores as asked for (or all there are); outside, what was before."""
    before = os.sched_getaffinity(0)

    def fail() -> None:
        with pinned(1):
            assert len(os.sched_getaffinity(0)) == 1
            raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        fail()
    assert os.sched_getaffinity(0) == before
