"""Dialects by name."""

from __future__ import annotations

from lowering.dialect import Dialect
from lowering.dialects.ort_cpu import OrtCpuDialect
from precision import UsageError

_DIALECTS = {OrtCpuDialect.name: OrtCpuDialect}


def get_dialect(name: str) -> Dialect:
    """The dialect called ``name``.

    Raises:
        UsageError: If there is none.
    """
    if name not in _DIALECTS:
        raise UsageError(f"unknown dialect '{name}'", f"known dialects: {', '.join(sorted(_DIALECTS))}")
    return _DIALECTS[name]()
