"""Backends by name. A new one is one line in the table; its runtime is imported when first used."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping

from backends.base import Backend
from backends.fake import FakeBackend
from backends.ort_cpu import OrtCpuBackend
from precision import UsageError

_RUNTIMES: Mapping[str, Callable[[], Backend]] = {
    "ort-cpu": OrtCpuBackend,
}
# Found by name, so that a fresh process can open them, but never offered.
_HIDDEN: Mapping[str, Callable[[], Backend]] = {
    "fake": FakeBackend,
}


def backend_names() -> tuple[str, ...]:
    """Names to offer, the default first."""
    return tuple(_RUNTIMES)


def get_backend(name: str) -> Backend:
    """A new backend; whether its runtime is installed shows at its first use.

    Raises:
        UsageError: If there is none of that name.
    """
    factory = _RUNTIMES.get(name) or _HIDDEN.get(name)
    if factory is None:
        close = difflib.get_close_matches(name, _RUNTIMES, n=1, cutoff=0.4)
        raise UsageError(
            f"unknown backend '{name}'; known: {', '.join(_RUNTIMES)}",
            f"did you mean '{close[0]}'?" if close else "name one of the known backends with --backend",
        )
    return factory()
