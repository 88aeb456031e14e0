"""Steps of normalising that take operators out which a network need not have: dropouts, batch norms, identities."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes

from bitfront.lowering.folding import Folding
from bitfront.lowering.graph import rename_tensors
from bitfront.lowering.to_ir import to_ir


def without_dropouts(proto: onnx.ModelProto, _: Folding) -> onnx.ModelProto:
    """Remove Dropouts whose mask nobody reads: identities at inference, which training_mode says they are not."""
    graph = to_ir(proto)
    for node in list(graph.graph):
        if node.op_type == "Dropout" and node.domain == "" and (len(node.outputs) < 2 or not node.outputs[1].uses()):
            source, result = node.inputs[0], node.outputs[0]
            mode = node.inputs[2] if len(node.inputs) > 2 else None
            training = mode is not None and (mode.const_value is None or bool(mode.const_value.numpy()))
            if source is None or result.is_graph_output() or training:
                continue
            result.replace_all_uses_with(source)
            graph.graph.remove(node, safe=True)
    return ir.to_proto(graph)


def without_batch_norms(proto: onnx.ModelProto, _: Folding) -> onnx.ModelProto:
    """Fold batch norms into the layers before them."""
    from onnxscript.rewriter import rewrite
    from onnxscript.rewriter.rules.common import (
        fuse_batchnorm_into_conv_rule,
        fuse_batchnorm_into_conv_transpose_rule,
        fuse_batchnorm_into_gemm_rule,
    )

    rules = [
        fuse_batchnorm_into_conv_rule,
        fuse_batchnorm_into_conv_transpose_rule,
        fuse_batchnorm_into_gemm_rule,
    ]
    graph = to_ir(proto)
    rewrite(graph, pattern_rewrite_rules=rules)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(graph)
    return ir.to_proto(graph)


def without_identities(proto: onnx.ModelProto, _: Folding) -> onnx.ModelProto:
    """Remove the graph's own Identity nodes; those of bodies stay, since a body may not return what is not its own."""
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    outputs = {value.name for value in proto.graph.output}
    names: dict[str, str] = {}
    kept = onnx.GraphProto()
    for node in bare.graph.node:
        if node.op_type == "Identity" and node.domain == "" and node.output[0] not in outputs:
            names[node.output[0]] = names.get(node.input[0], node.input[0])
        else:
            rename_tensors(node, names)
            kept.node.append(node)
    del bare.graph.node[:]
    bare.graph.node.extend(kept.node)
    return bare
