"""BF16 inputs and outputs of ONNX Runtime's sessions, which its Python arrays cannot hold.

numpy has no BF16. An input is given as float32, or as ``ml_dtypes.bfloat16``, and rounded; an output is
``ml_dtypes.bfloat16``. Both go through ``OrtValue``, by their bits.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from onnx import TensorProto

from bitfront.backends.ort.package import load_onnxruntime
from bitfront.core import Array

_TYPE = "tensor(bfloat16)"


def has_bfloat16(session: Any) -> bool:
    """Whether a session reads or writes BF16."""
    return any(value.type == _TYPE for value in (*session.get_inputs(), *session.get_outputs()))


class BFloat16Feeds:
    """Inputs of a session as the runtime's own values.

    Args:
        session: The session.
        feeds: Name → array.
        extra: The extra that installs the flavour of ONNX Runtime wanted, for hints.
    """

    def __init__(self, session: Any, feeds: Mapping[str, Array], extra: str) -> None:
        made = load_onnxruntime(extra).OrtValue
        kinds = {value.name: value.type for value in session.get_inputs()}
        self._session = session
        # A value lies upon its array's memory.
        self._bits = {
            name: np.ascontiguousarray(array.astype(ml_dtypes.bfloat16)).view(np.uint16)
            for name, array in feeds.items()
            if kinds.get(name) == _TYPE and array.dtype.name in ("float32", "bfloat16")
        }
        self._values = {
            name: made.ortvalue_from_numpy_with_onnx_type(self._bits[name], TensorProto.BFLOAT16)
            if name in self._bits
            else made.ortvalue_from_numpy(np.ascontiguousarray(array))
            for name, array in feeds.items()
        }

    def run(self, outputs: Sequence[str] | None = None) -> list[Array]:
        """The named outputs of one run, of all by default."""
        return [_array(value) for value in self._session.run_with_ort_values(outputs, self._values)]

    def bound(self) -> Callable[[], None]:
        """A run that leaves its outputs with the runtime: handing values over takes tens of µs in Python."""
        binding = self._session.io_binding()
        for name, value in self._values.items():
            binding.bind_ortvalue_input(name, value)
        for output in self._session.get_outputs():
            binding.bind_output(output.name)

        def run() -> None:
            self._session.run_with_iobinding(binding)

        return run


def _array(value: Any) -> Array:
    if value.data_type() != _TYPE:
        plain: Array = value.numpy()
        return plain
    shape = tuple(value.shape())
    bits = np.empty(shape, np.uint16)
    if bits.size:
        ctypes.memmove(bits.ctypes.data, value.data_ptr(), bits.nbytes)
    return bits.view(ml_dtypes.bfloat16)


def as_float32(array: Array) -> Array:
    """A BF16 array in float32, exactly; any other one as it is."""
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array
