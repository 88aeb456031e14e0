"""Normalising: the one form that every network is brought to before it is read, in named steps.

Opset 21 or newer, functions inlined, what ONNX Runtime fused split again, branches of known condition taken, quantised
layers in floating point, weights of attention operators beside them, constants lifted to initialisers, no initialiser
among the graph inputs, FP32 throughout, constant expressions folded, products with constants in the forms of layers,
batch norm folded into the layer before it, chains of slices merged, means over all positions written as
GlobalAveragePool, identities and dropouts gone, nodes sorted and named, shapes inferred, metadata stripped. Numerics
stay those of the network up to rounding, which ``lowering.equivalence`` checks; a step that changes them can be left
out. Where a network was quantised already, that comparison allows what its own quantisation changes.

Not handled: batch norms with no layer before them stay as they are (floating glue).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
from onnx import helper

from bitfront.core import ModelError
from bitfront.lowering.attention_forms import split_attention
from bitfront.lowering.branches import take_known_branches
from bitfront.lowering.canonical_forms import merge_slices, pool_globally
from bitfront.lowering.compact import Source, sources_of
from bitfront.lowering.dequantise import with_floating_arithmetic, with_floating_weights
from bitfront.lowering.folding import Folding, fold_constants
from bitfront.lowering.full_precision import in_fp32
from bitfront.lowering.functions import without_functions
from bitfront.lowering.fused_forms import split_fused
from bitfront.lowering.graph import GraphView, bodies, free_name, graphs_of, rename_tensors, tensor_names
from bitfront.lowering.idle_operators import without_batch_norms, without_dropouts, without_identities
from bitfront.lowering.interpreter import Interpreter
from bitfront.lowering.layer_forms import with_layer_forms
from bitfront.lowering.module_paths import module_paths
from bitfront.lowering.opset import with_opset
from bitfront.lowering.shapes import infer_shapes
from bitfront.lowering.to_ir import to_ir
from bitfront.lowering.weight_files import WeightFile, detach

IR_VERSION = 10
# Elements of a constant that simplifying may make of known shapes; larger ones are folded with their origin kept.
_SMALL = 64
_FAILURES = (ValueError, TypeError, KeyError, AttributeError, RuntimeError, NotImplementedError, IndexError)

Rewrite = Callable[[onnx.ModelProto, Folding], onnx.ModelProto]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Normalised:
    """A network in its normal form.

    Attributes:
        proto: The network.
        sources: Initialiser → what it was computed from, for those that a file may hold smaller (``lowering.compact``).
        module_paths: Node name → path of the PyTorch module that it was exported from (``lowering.module_paths``).
        applied_steps: Those of ``RECORDED_STEPS`` that changed the network.
        fixed_inputs: Those of the inputs' fixed numbers that decided a branch.
    """

    proto: onnx.ModelProto
    sources: Mapping[str, Source]
    module_paths: Mapping[str, str]
    applied_steps: tuple[str, ...]
    fixed_inputs: Mapping[str, float]


def normalise(
    model: onnx.ModelProto,
    source: str,
    interpreter: Interpreter,
    *,
    skipped: Collection[str] = (),
    fixed_inputs: Mapping[str, float],
    weights: WeightFile | None = None,
) -> Normalised:
    """Bring a network to the form the module describes.

    Args:
        model: A checked model with its external data loaded; not modified.
        source: File or module it came from, for messages.
        interpreter: Computes constants.
        skipped: Steps to leave out, of ``OPTIONAL_STEPS``.
        fixed_inputs: Input of one element → the number it always is, by which branches may be decided.
        weights: Where large initialisers go that steps make; None keeps them in the model.

    Raises:
        ModelError: If the model cannot be converted.
    """
    folding = Folding(interpreter=interpreter, fixed=fixed_inputs, weights=weights)
    applied = []
    with _quiet():
        proto = _in_form(model, folding, source)
        for name, rewrite in OPTIONAL_STEPS.items():
            if name not in skipped:
                before, proto = proto, _with_names_of(proto, _stepped(rewrite, proto, folding, source))
                if proto is not before and name in RECORDED_STEPS:
                    applied.append(name)
        proto = _stepped(_finished, proto, folding, source)
    return Normalised(
        proto=proto,
        sources=sources_of(proto, folding.origins),
        module_paths=module_paths(model.graph),
        applied_steps=tuple(applied),
        fixed_inputs={name: fixed_inputs[name] for name in sorted(folding.deciding)},
    )


def _in_form(model: onnx.ModelProto, folding: Folding, source: str) -> onnx.ModelProto:
    """The model without functions, at one opset, its constants initialisers and its dynamic axes named."""
    plain = _stepped(lambda proto, _: without_functions(proto), model, folding, source)
    return _stepped(_structured, with_opset(plain, source), folding, source)


def _stepped(rewrite: Rewrite, proto: onnx.ModelProto, folding: Folding, source: str) -> onnx.ModelProto:
    try:
        made = rewrite(proto, folding)
        if folding.weights is not None:
            detach(made, folding.weights)
        return made
    except (*_FAILURES, onnx.onnx_cpp2py_export.checker.ValidationError) as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ModelError(
            f"'{source}': the network could not be normalised ({type(error).__name__}: {reason})",
            "export it anew (torch.onnx.export with dynamo=True), or simplify it first",
        ) from error


def _structured(proto: onnx.ModelProto, _: Folding) -> onnx.ModelProto:
    named = onnx.ModelProto()
    named.CopyFrom(proto)
    _name_nodes(named.graph)
    _close_bodies(named.graph)
    graph = to_ir(named)
    ir.passes.Sequential(
        passes.RemoveInitializersFromInputsPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.TopologicalSortPass(),
    )(graph)
    structured = ir.to_proto(graph)
    _name_dynamic_axes(structured.graph)
    return _with_shapes(structured)


def _name_dynamic_axes(graph: onnx.GraphProto) -> None:
    """Name axes of a size below 0, which some exporters write for any size; of first axes it is the batch."""
    taken = {axis.dim_param for value in (*graph.input, *graph.output) for axis in value.type.tensor_type.shape.dim}
    batch = free_name("batch", taken)
    for inner in graphs_of(graph):
        for value in (*inner.input, *inner.output, *inner.value_info):
            for place, axis in enumerate(value.type.tensor_type.shape.dim):
                if axis.dim_value < 0:
                    axis.ClearField("dim_value")
                    if place == 0 and inner is graph:
                        axis.dim_param = batch


def _without_fused(proto: onnx.ModelProto, _: Folding) -> onnx.ModelProto:
    split = onnx.ModelProto()
    split.CopyFrom(proto)
    split_fused(split.graph)
    _name_nodes(split.graph)
    return _with_shapes(split)


def _with_known_branches(proto: onnx.ModelProto, folding: Folding) -> onnx.ModelProto:
    return _named(proto, take_known_branches(proto, folding))


def _with_floating_arithmetic(proto: onnx.ModelProto, folding: Folding) -> onnx.ModelProto:
    return _named(proto, with_floating_arithmetic(proto, folding))


def _with_floating_weights(proto: onnx.ModelProto, folding: Folding) -> onnx.ModelProto:
    return _named(proto, with_floating_weights(proto, folding))


def _with_attention_layers(proto: onnx.ModelProto, _: Folding) -> onnx.ModelProto:
    split = onnx.ModelProto()
    split.CopyFrom(proto)
    return _named(proto, split if split_attention(split.graph) else proto)


def _with_layer_forms(proto: onnx.ModelProto, folding: Folding) -> onnx.ModelProto:
    changed = _named(proto, with_layer_forms(proto))
    return proto if changed is proto else fold_constants(changed, folding)


def _named(before: onnx.ModelProto, after: onnx.ModelProto) -> onnx.ModelProto:
    """``after`` with its nodes named and its shapes inferred; the same object as before where nothing changed."""
    if after is before:
        return before
    _name_nodes(after.graph)
    return _with_shapes(after)


def _simplified(proto: onnx.ModelProto, folding: Folding) -> onnx.ModelProto:
    from onnxscript import optimizer

    graph = to_ir(proto)
    optimizer.optimize_ir(
        graph,
        input_size_limit=_SMALL,
        output_size_limit=_SMALL,
        onnx_shape_inference=True,
        # Runtimes look for quantised constants.
        should_fold=lambda node: False if node.op_type in ("DequantizeLinear", "QuantizeLinear") else None,
    )
    return fold_constants(_with_shapes(_with_inputs_of(proto, ir.to_proto(graph))), folding)


def _with_inputs_of(before: onnx.ModelProto, after: onnx.ModelProto) -> onnx.ModelProto:
    """``after``, in place, its inputs named as those of ``before``.

    The optimiser renames an input that is an output as well, and copies it to the output's name.
    """
    pairs = zip(before.graph.input, after.graph.input, strict=True)
    names = {new.name: old.name for old, new in pairs if old.name != new.name}
    if not names:
        return after
    kept = onnx.GraphProto()
    for node in after.graph.node:
        if node.op_type != "Identity" or names.get(node.input[0]) != node.output[0]:
            rename_tensors(node, names)
            kept.node.append(node)
    del after.graph.node[:]
    after.graph.node.extend(kept.node)
    for value in after.graph.input:
        value.name = names.get(value.name, value.name)
    return after


def _with_merged_slices(proto: onnx.ModelProto, _: Folding) -> onnx.ModelProto:
    merged = onnx.ModelProto()
    merged.CopyFrom(proto)
    merge_slices(merged.graph)
    return merged


def _with_global_pools(proto: onnx.ModelProto, _: Folding) -> onnx.ModelProto:
    pooled = onnx.ModelProto()
    pooled.CopyFrom(proto)
    pool_globally(pooled.graph, GraphView(_with_shapes(proto).graph))
    return pooled


# The step that changes answers by as much as the network's own quantisation does.
QUANTISED_ARITHMETIC = "quantised-arithmetic"
# What may be left out where it changes what a network answers; names are kept in configs.
OPTIONAL_STEPS: Mapping[str, Rewrite] = {
    "fused": _without_fused,
    "branches": _with_known_branches,
    QUANTISED_ARITHMETIC: _with_floating_arithmetic,
    "quantised-weights": _with_floating_weights,
    "attention": _with_attention_layers,
    "dropouts": without_dropouts,
    "constants": fold_constants,
    "full-precision": in_fp32,
    "layer-forms": _with_layer_forms,
    "simplify": _simplified,
    "batch-norms": without_batch_norms,
    "identities": without_identities,
    "slices": _with_merged_slices,
    "global-means": _with_global_pools,
}
# Steps that a config names where they changed its network: configs that were written before there were these name none.
RECORDED_STEPS = frozenset(("branches", QUANTISED_ARITHMETIC, "quantised-weights", "attention", "layer-forms"))


def steps_to_skip(skipped: Collection[str], applied: Collection[str]) -> tuple[str, ...]:
    """Steps to leave out so that a network comes out as it did when a config was written.

    Args:
        skipped: What the config says was left out.
        applied: What the config says was applied, of ``RECORDED_STEPS``.
    """
    absent = RECORDED_STEPS - frozenset(applied)
    return tuple(step for step in OPTIONAL_STEPS if step in skipped or step in absent)


def _finished(proto: onnx.ModelProto, _: Folding) -> onnx.ModelProto:
    graph = to_ir(proto)
    ir.passes.Sequential(
        passes.RemoveUnusedNodesPass(),
        passes.TopologicalSortPass(),
        passes.ClearMetadataAndDocStringPass(),
        passes.NameFixPass(),
        passes.RemoveUnusedOpsetsPass(),
    )(graph)
    finished = ir.to_proto(graph)
    _close_bodies(finished.graph)
    _name_nodes(finished.graph)
    for field in ("producer_name", "producer_version", "domain", "doc_string"):
        finished.ClearField(field)
    finished.ir_version = max(finished.ir_version, IR_VERSION)
    return _with_shapes(finished)


def _close_bodies(graph: onnx.GraphProto) -> None:
    """Let bodies that return a tensor of the graph around them return a copy, in place: runtimes insist on that."""
    taken = tensor_names(graph)
    for inner in graphs_of(graph):
        for body in (body for node in inner.node for body in bodies(node)):
            own = {value.name for value in (*body.input, *body.initializer)}
            own.update(name for node in body.node for name in node.output)
            for value in body.output:
                if value.name not in own:
                    outer, value.name = value.name, free_name(f"{value.name}_copy", taken)
                    body.node.append(helper.make_node("Identity", [outer], [value.name]))
                    own.add(value.name)


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Give nodes without a name one, and all nodes different ones, in place, bodies included."""
    taken: set[str] = set()
    for inner in graphs_of(graph):
        for index, node in enumerate(inner.node):
            name = node.name or f"{node.op_type}_{index}"
            while name in taken:
                name += "_"
            node.name = name
            taken.add(name)


def _with_names_of(before: onnx.ModelProto, after: onnx.ModelProto) -> onnx.ModelProto:
    """``after``, in place, with nodes that replace one of ``before``, by operator and first tensor, under its name."""
    if after is before:
        return after
    still = {node.name for node in after.graph.node}
    old = {node.name for node in before.graph.node}
    gone: dict[tuple[str, str], str] = {}
    for node in before.graph.node:
        if node.name not in still:
            for tensor in (*node.output[:1], *node.input[:1]):
                gone.setdefault((node.op_type, tensor), node.name)
    for node in after.graph.node:
        if node.name not in old:
            names = (gone.get((node.op_type, tensor)) for tensor in (*node.output[:1], *node.input[:1]))
            name = next((found for found in names if found and found not in still), node.name)
            node.name = name
            still.add(name)
    return after


def _with_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    del bare.graph.value_info[:]
    try:
        return infer_shapes(bare, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError):
        # Exported shapes that disagree with inferred ones: go on with what is known without them.
        return bare


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' notices off the screen."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
