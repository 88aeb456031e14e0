"""Models in ONNX IR, where detached weights (``lowering.weight_files``) are external tensors that map their files."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from bitfront.lowering.weight_files import ROOT


def to_ir(proto: onnx.ModelProto) -> ir.Model:
    """The model in ONNX IR."""
    model = ir.from_proto(proto)
    ir.external_data.set_base_dir(model.graph, ROOT)
    return model
