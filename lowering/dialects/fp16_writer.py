"""Turning regions of a written graph to FP16: Casts where they begin and end, FP16 constants inside.

What the regions are is decided in ``lowering.fp16``; this file only writes them. Inside a region tensors keep their
names, unless somebody outside reads them: those are called ``name_h``, and a Cast gives ``name`` back.

Not handled: bodies of If, Loop and Scan, which read what is cast back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
import onnx
from onnx import TensorProto

from bitfront.core import LoweringError
from bitfront.lowering.fp16 import (
    FP16_MAX,
    Fp16Placement,
    Ranges,
    fp16_constant,
    fp16_regions,
    glue_runs_fp16,
    stays_fp32,
)
from bitfront.lowering.graph import GraphView
from bitfront.lowering.shapes import infer_shapes
from bitfront.lowering.writer import GraphWriter


def write_fp16_casts(
    model: onnx.ModelProto, layers: Collection[str], ranges: Ranges, *, types: Iterable[onnx.ValueInfoProto]
) -> onnx.ModelProto:
    """The model with some layers, and the glue that follows them, in FP16.

    Args:
        model: Written so that every floating layer's node bears the layer's name; not modified.
        layers: Names of the layers that compute in FP16.
        ranges: Tensor name → (low, high) of its values; glue whose results do not fit FP16 stays FP32.
        types: Types of tensors that inference on ``model`` may not find, of operators outside the standard.

    Raises:
        LoweringError: If a layer's constant does not fit FP16.
    """
    view = GraphView(_typed(model, types).graph)
    fp16 = {index for index, node in enumerate(view.nodes) if node.name in layers}
    assert len(fp16) == len(layers), "every FP16 layer's node bears its name"
    return _CastInserter(model, view, fp16_regions(view, fp16, lambda index: glue_runs_fp16(view, index, ranges))).run()


class _CastInserter:
    """Copies a model node by node, casting where regions meet."""

    def __init__(self, model: onnx.ModelProto, view: GraphView, placement: Fp16Placement) -> None:
        self._view = view
        self._placement = placement
        names = [*view.inputs, *view.initializers, *(name for node in view.nodes for name in node.output)]
        self._writer = GraphWriter(model, names)
        self._fp16_names: dict[str, str] = {}
        for tensor in view.initializers.values():
            self._writer.keep(tensor)

    def run(self) -> onnx.ModelProto:
        for index, node in enumerate(self._view.nodes):
            if index in self._placement.nodes:
                self._node(node)
            else:
                self._writer.copy(node, list(node.input), list(node.output))
            if index in self._placement.nodes:
                self._cast_back(node)
        return self._writer.model()

    def _node(self, node: onnx.NodeProto) -> None:
        inputs = [
            self._as_fp16(name, node)
            if name and self._view.is_float(name) and not stays_fp32(node.op_type, at)
            else name
            for at, name in enumerate(node.input)
        ]
        for name in node.output:
            if name in self._placement.tensors:
                self._fp16_names[name] = (
                    self._writer.fresh(f"{name}_h") if name in self._placement.cast_to_fp32 else name
                )
        self._writer.copy(node, inputs, [self._fp16_names.get(name, name) for name in node.output])

    def _as_fp16(self, name: str, node: onnx.NodeProto) -> str:
        """The FP16 form of a tensor or constant, made when first asked for."""
        if name not in self._fp16_names:
            value = self._view.array(name)
            if value is not None:
                if node.op_type != "Clip" and not np.all(np.abs(value) <= FP16_MAX):
                    raise LoweringError(
                        f"layer '{node.name}': its constant '{name}' reaches {float(np.abs(value).max()):g}, beyond "
                        f"FP16's {FP16_MAX:g}",
                        "leave the layer at fp32 or int8",
                    )
                self._fp16_names[name] = self._writer.constant(fp16_constant(value), f"{name}_h")
            else:
                self._fp16_names[name] = self._writer.fresh(f"{name}_h")
                self._writer.node("Cast", [name], [self._fp16_names[name]], attributes={"to": TensorProto.FLOAT16})
        return self._fp16_names[name]

    def _cast_back(self, node: onnx.NodeProto) -> None:
        for name in node.output:
            if name in self._placement.cast_to_fp32:
                self._writer.node("Cast", [self._fp16_names[name]], [name], attributes={"to": TensorProto.FLOAT})


def _typed(model: onnx.ModelProto, types: Iterable[onnx.ValueInfoProto]) -> onnx.ModelProto:
    """A copy with the types of its tensors, those known before first."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    written = {name for node in model.graph.node for name in node.output} - {value.name for value in model.graph.output}
    copy.graph.value_info.extend(value for value in types if value.name in written)
    return infer_shapes(copy)
