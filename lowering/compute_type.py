"""The arithmetic of a layer on a runtime; imports nothing, for the command line needs it at once."""

from __future__ import annotations

from enum import Enum


class ComputeType(Enum):
    """Type of arithmetic that a scheme computes in on a runtime, on which its speed depends.

    ``FP16`` is 16-bit floating arithmetic where that is faster than ``FP32``; ``WEIGHT_ONLY`` is a fused kernel of
    floating activations and integer weights (a mixed-input matrix product); ``DYNAMIC_INT8`` is one that quantises
    its floating input itself. A runtime converts activations where ``INT8``, ``FP16`` and the others meet.
    """

    FP32 = "float"
    FP16 = "half"
    INT8 = "integer"
    WEIGHT_ONLY = "block"
    DYNAMIC_INT8 = "dynamic"
