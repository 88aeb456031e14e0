"""The one form every network is brought to before anything else looks at it.

Opset 21 or newer, functions inlined, constants lifted to initialisers, no initialiser among the graph inputs,
constant expressions folded, batch norm folded into the layer before it, chains of slices merged, means over
all positions written as GlobalAveragePool, identities and dropouts gone, nodes sorted and named, shapes inferred,
metadata stripped. Numerics stay those of the network up to the rounding of folded batch norms.

Not handled: batch norms with no layer before them stay as they are (floating glue).
"""

from __future__ import annotations

import logging

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
from onnx import version_converter

from lowering.graph import GraphView, attribute
from precision import ModelError

OPSET = 21
IR_VERSION = 10
_FOLD_LIMIT = 1 << 16


def normalise(model: onnx.ModelProto, source: str) -> onnx.ModelProto:
    """Bring a network to the form the module describes.

    Args:
        model: A checked model with its external data loaded; not modified.
        source: File or module it came from, for messages.

    Raises:
        ModelError: If the model cannot be converted.
    """
    from onnxscript import optimizer
    from onnxscript.rewriter import rewrite
    from onnxscript.rewriter.rules.common import (
        fuse_batchnorm_into_conv_rule,
        fuse_batchnorm_into_conv_transpose_rule,
        fuse_batchnorm_into_gemm_rule,
    )

    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        graph = ir.from_proto(_with_opset(model, source))
        ir.passes.Sequential(
            passes.InlinePass(),
            passes.RemoveInitializersFromInputsPass(),
            passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        )(graph)
        _drop_dropouts(graph)
        optimizer.optimize_ir(
            graph,
            input_size_limit=_FOLD_LIMIT,
            output_size_limit=_FOLD_LIMIT,
            onnx_shape_inference=True,
        )
        rewrite(
            graph,
            pattern_rewrite_rules=[
                fuse_batchnorm_into_conv_rule,
                fuse_batchnorm_into_conv_transpose_rule,
                fuse_batchnorm_into_gemm_rule,
            ],
        )
        ir.passes.Sequential(
            passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
            passes.IdentityEliminationPass(),
            passes.RemoveUnusedNodesPass(),
            passes.TopologicalSortPass(),
            passes.ClearMetadataAndDocStringPass(),
            passes.NameFixPass(),
            passes.RemoveUnusedOpsetsPass(),
        )(graph)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, NotImplementedError) as error:
        raise ModelError(
            f"'{source}': the network could not be normalised ({type(error).__name__}: {error})",
            "export it anew (torch.onnx.export with dynamo=True), or simplify it first",
        ) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    proto = ir.to_proto(graph)
    _rewrite_glue(proto)
    _name_nodes(proto)
    for field in ("producer_name", "producer_version", "domain", "doc_string"):
        proto.ClearField(field)
    proto.ir_version = max(proto.ir_version, IR_VERSION)
    return _with_shapes(proto)


def _with_opset(model: onnx.ModelProto, source: str) -> onnx.ModelProto:
    version = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if version >= OPSET:
        return model
    try:
        return version_converter.convert_version(model, OPSET)
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"'{source}': opset {version} could not be converted to {OPSET} ({error})",
            f"export the network with opset {OPSET} or newer",
        ) from error


def _drop_dropouts(model: ir.Model) -> None:
    # A Dropout whose mask nobody reads is an identity at inference.
    for node in list(model.graph):
        if node.op_type == "Dropout" and (len(node.outputs) < 2 or not node.outputs[1].uses()):
            source, result = node.inputs[0], node.outputs[0]
            if source is None or result.is_graph_output():
                continue
            result.replace_all_uses_with(source)
            model.graph.remove(node, safe=True)


def _rewrite_glue(proto: onnx.ModelProto) -> None:
    merged = True
    while merged:
        merged = _merge_one_slice(proto.graph)
    inferred = _with_shapes(proto)
    view = GraphView(inferred.graph)
    for index in range(len(view.nodes) - 1, -1, -1):
        seen = view.nodes[index]
        if _is_global_mean(seen, view):
            _pool_globally(proto.graph, index, flat=seen.op_type == "ReduceMean" and not attribute(seen, "keepdims", 1))


def _merge_one_slice(graph: onnx.GraphProto) -> bool:
    """Merge the first pair Slice → Slice over different axes; False when there is none."""
    view = GraphView(graph)
    for index, node in enumerate(view.nodes):
        before = view.producer(node.input[0]) if node.op_type == "Slice" else None
        if before is None or view.nodes[before].op_type != "Slice":
            continue
        first = view.nodes[before]
        if view.consumers(first.output[0]) != [index] or view.is_output(first.output[0]):
            continue
        parts = [_slice_parts(first, view), _slice_parts(node, view)]
        if parts[0] is None or parts[1] is None or set(parts[0][2]) & set(parts[1][2]):
            continue
        names = []
        for kind, (left, right) in zip(("starts", "ends", "axes", "steps"), zip(*parts, strict=True), strict=True):
            name = f"{node.output[0]}_{kind}"
            graph.initializer.append(onnx.numpy_helper.from_array(np.array([*left, *right], np.int64), name))
            names.append(name)
        del node.input[:]
        node.input.extend([first.input[0], *names])
        graph.node.remove(first)
        used = {name for other in graph.node for name in other.input}
        for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
            if not view.is_output(tensor.name) and not view.is_captured(tensor.name):
                graph.initializer.remove(tensor)
        return True
    return False


def _slice_parts(node: onnx.NodeProto, view: GraphView) -> tuple[list[int], ...] | None:
    constants = view.constant_inputs(node)
    # Without explicit non-negative axes two slices cannot be told apart.
    if 3 not in constants or any(position not in constants for position in range(1, len(node.input))):
        return None
    axes = [int(axis) for axis in constants[3]]
    steps = [int(step) for step in constants[4]] if 4 in constants else [1] * len(axes)
    if min(axes) < 0:
        return None
    return [int(v) for v in constants[1]], [int(v) for v in constants[2]], axes, steps


def _is_global_mean(node: onnx.NodeProto, view: GraphView) -> bool:
    shape = view.shape(node.input[0]) if node.input else None
    if shape is None or len(shape) < 3:
        return False
    spatial = list(range(2, len(shape)))
    if node.op_type == "ReduceMean":
        axes = view.array(node.input[1]) if len(node.input) > 1 else None
        return axes is not None and sorted(int(a) % len(shape) for a in axes) == spatial
    if node.op_type == "AveragePool":
        unpadded = not any(attribute(node, "pads", [0])) and attribute(node, "auto_pad", b"NOTSET") == b"NOTSET"
        return unpadded and list(attribute(node, "kernel_shape", [])) == list(shape[2:])
    return False


def _pool_globally(graph: onnx.GraphProto, index: int, *, flat: bool) -> None:
    """Turn a mean over all positions into GlobalAveragePool, with a Flatten behind it where no axes were kept."""
    node = graph.node[index]
    node.op_type = "GlobalAveragePool"
    del node.input[1:]
    del node.attribute[:]
    if flat:
        pooled, result = f"{node.output[0]}_pooled", node.output[0]
        node.output[0] = pooled
        graph.node.insert(index + 1, onnx.helper.make_node("Flatten", [pooled], [result], axis=1))


def _name_nodes(proto: onnx.ModelProto) -> None:
    taken: set[str] = set()
    for index, node in enumerate(proto.graph.node):
        name = node.name or f"{node.op_type}_{index}"
        while name in taken:
            name += "_"
        node.name = name
        taken.add(name)


def _with_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    del proto.graph.value_info[:]
    try:
        return onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError):
        # Exported shapes that disagree with inferred ones: go on with what is known without them.
        return proto
