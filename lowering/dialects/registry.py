"""Dialects by name; one of another package goes by ``module:attribute``."""

from __future__ import annotations

from collections.abc import Mapping

from lowering.dialect import Dialect
from precision import UsageError
from precision.naming import load_attribute

_DIALECTS: Mapping[str, str] = {
    "ort-cpu": "lowering.dialects.ort_cpu:OrtCpuDialect",
    "tensorrt": "lowering.dialects.tensorrt:TensorRtDialect",
    "ort-cuda": "lowering.dialects.ort_cuda:OrtCudaDialect",
    "openvino": "lowering.dialects.openvino:OpenVinoDialect",
}


def get_dialect(name: str) -> Dialect:
    """The dialect called ``name``.

    Args:
        name: One of the table's, or ``module:attribute`` of a class or function that makes one.

    Raises:
        UsageError: If there is none.
    """
    place = _DIALECTS.get(name, name)
    if ":" not in place:
        raise UsageError(f"unknown dialect '{name}'", f"known dialects: {', '.join(sorted(_DIALECTS))}")
    dialect: Dialect = load_attribute(place, "dialect")()
    return dialect
