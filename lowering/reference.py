"""The normalised FP32 network every candidate is written from."""

from __future__ import annotations

from dataclasses import dataclass

import onnx


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A network, loaded, checked and normalised.

    Attributes:
        source: File or module it came from, for messages.
        proto: Normalised ONNX model (opset 21, batch norm folded, constants lifted to initialisers, no
            initialiser among the graph inputs, metadata stripped); never modified.
        fingerprint: Digest of the whole network.
        architecture: Digest of the network without its weights' values.
        input_shapes: Input name → shape, None for a dynamic axis.
        input_types: Input name → numpy dtype name.
        output_names: In order.
    """

    source: str
    proto: onnx.ModelProto
    fingerprint: str
    architecture: str
    input_shapes: dict[str, tuple[int | None, ...]]
    input_types: dict[str, str]
    output_names: tuple[str, ...]
