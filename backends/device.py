"""The fingerprint of this machine: processor, usable cores and the instruction sets that decide which kernels run."""

from __future__ import annotations

import platform
import sys
import time
from pathlib import Path

from bitfront.backends.affinity import available_cores
from bitfront.backends.base import Clock, DeviceFingerprint

# The kernel's flag → our name. Only what runtimes choose kernels by: clock speeds and microcode don't belong here.
_INSTRUCTIONS = {
    "avx2": "avx2",
    "avx512f": "avx512f",
    "avx512_vnni": "avx512_vnni",
    "avx_vnni": "avx_vnni",
    "avx512_bf16": "avx512_bf16",
    "avx512_fp16": "avx512_fp16",
    "amx_int8": "amx_int8",
    "amx_bf16": "amx_bf16",
    "asimd": "neon",
    "asimddp": "neon_dotprod",
    "i8mm": "neon_i8mm",
    "bf16": "neon_bf16",
    "sve": "sve",
}
# Instructions that multiply unsigned by signed 8-bit numbers into 32 bits, without 16-bit sums in between.
DOT_PRODUCT_INSTRUCTIONS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "neon_dotprod"})


def cpu_clock() -> Clock | None:
    """The processor time of this process; None on Windows, whose clock of it ticks every 16 ms."""
    return None if sys.platform == "win32" else time.process_time_ns


def parse_cpuinfo(text: str) -> tuple[str, tuple[str, ...]]:
    """Read the kernel's ``/proc/cpuinfo``: processor's name (empty where it has none), known instruction sets, sorted.

    Only the first processor is read, since all share them.
    """
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, found, value = line.partition(":")
        if found:
            fields.setdefault(key.strip(), value.strip())
    flags = f"{fields.get('flags', '')} {fields.get('Features', '')}".split()
    return fields.get("model name", ""), tuple(sorted({_INSTRUCTIONS[flag] for flag in flags if flag in _INSTRUCTIONS}))


def cpu_fingerprint(runtime: str) -> DeviceFingerprint:
    """Return this machine's processor as the device.

    Args:
        runtime: Runtime's name and exact version.
    """
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    device, instructions = parse_cpuinfo(text)
    return DeviceFingerprint(
        device=device or platform.processor() or platform.machine(),
        cores=available_cores(),
        instructions=instructions,
        system=f"{platform.system()} {platform.machine()}",
        runtime=runtime,
        python=platform.python_version(),
    )
