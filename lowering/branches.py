"""Taking the branch of an If whose condition is known before the network runs.

A condition is known where it is computed from constants alone, or from inputs whose value was fixed: such as a sampling
rate that all samples share. The branch taken then stands in the graph itself, where its layers are found, and the other
one is gone. Ifs in bodies are decided alike.

Left as they are: conditions that read other inputs, what a Loop or Scan hands to its body, or what is drawn at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bitfront.lowering.folding import RANDOM, Folding
from bitfront.lowering.graph import (
    attribute,
    bodies,
    captured_names,
    free_name,
    graphs_of,
    rename_tensors,
    tensor_names,
)
from bitfront.lowering.interpreter import InterpreterError


def take_known_branches(proto: onnx.ModelProto, folding: Folding) -> onnx.ModelProto:
    """The model with Ifs of known condition replaced by the branch taken; the same object where there is none.

    Args:
        proto: Sorted, its constants initialisers; not modified.
        folding: Inputs that decide a condition are taken from its ``fixed`` and added to its ``deciding``.
    """
    if not any(node.op_type == "If" for graph in graphs_of(proto.graph) for node in graph.node):
        return proto
    taken = onnx.ModelProto()
    taken.CopyFrom(proto)
    return taken if _take_in((taken.graph,), taken, folding) else proto


def _take_in(scopes: Sequence[onnx.GraphProto], proto: onnx.ModelProto, folding: Folding) -> bool:
    """Take branches in the innermost of nested graphs and in the bodies of its nodes, in place; whether any was."""
    graph, changed, index = scopes[-1], False, 0
    while index < len(graph.node):
        node = graph.node[index]
        value = _condition(node, scopes, proto, folding) if node.op_type == "If" and node.domain == "" else None
        if value is None:
            for body in bodies(node):
                changed |= _take_in((*scopes, body), proto, folding)
            index += 1
        else:
            _inline(proto.graph, graph, index, attribute(node, "then_branch" if value else "else_branch", None))
            changed = True
    return changed


def _condition(
    node: onnx.NodeProto, scopes: Sequence[onnx.GraphProto], proto: onnx.ModelProto, folding: Folding
) -> bool | None:
    """The value of an If's condition; None where it is not known."""
    needed = _Needed(scopes, folding)
    if not needed.trace(node.input[0]):
        return None
    alone = onnx.ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import)
    alone.graph.name = "condition"
    alone.graph.node.extend([*needed.nodes.values(), helper.make_node("Identity", [node.input[0]], ["condition"])])
    alone.graph.initializer.extend(needed.constants.values())
    alone.graph.output.append(helper.make_tensor_value_info("condition", TensorProto.BOOL, None))
    try:
        (found,) = folding.interpreter.load(alone, optimised=False).run({})
    except InterpreterError:
        return None
    folding.deciding.update(needed.inputs)
    return bool(np.asarray(found).reshape(-1)[0])


@dataclass(slots=True)
class _Needed:
    """Tensors that a tensor of nested graphs, outermost first, is computed from."""

    scopes: Sequence[onnx.GraphProto]
    folding: Folding
    nodes: dict[int, onnx.NodeProto] = field(default_factory=dict)
    constants: dict[str, TensorProto] = field(default_factory=dict)
    inputs: set[str] = field(default_factory=set)

    def trace(self, name: str) -> bool:
        """Add all that ``name`` is computed from, without recursion, as chains may be long; False if it is unknown."""
        writers = {name: node for graph in self.scopes for node in graph.node for name in node.output}
        initialisers = {tensor.name: tensor for graph in self.scopes for tensor in graph.initializer}
        inputs = {value.name: value for value in self.scopes[0].input}
        stack = [(name, True, False)]
        while stack:
            current, required, ready = stack.pop()
            node = writers.get(current)
            if current in initialisers:
                self.constants[current] = initialisers[current]
            elif node is not None and ready:
                self.nodes[id(node)] = node
            elif node is not None:
                if node.op_type in RANDOM:
                    return False
                if id(node) not in self.nodes:
                    stack.append((current, required, True))
                    stack += [(read, True, False) for read in node.input if read]
                    stack += [(read, False, False) for read in captured_names(node)]
            elif current in inputs and current in self.folding.fixed:
                self.constants[current] = numpy_helper.from_array(
                    _as_input(inputs[current], self.folding.fixed[current]), current
                )
                self.inputs.add(current)
            elif required or current in inputs or current in self._handed:
                return False
        return True

    @property
    def _handed(self) -> set[str]:
        """Tensors that bodies are handed by their Loop or Scan."""
        return {value.name for graph in self.scopes[1:] for value in graph.input}


def _as_input(value: onnx.ValueInfoProto, number: float) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    """The one number of an input in its shape and type."""
    kind = value.type.tensor_type
    shape = [1] * len(kind.shape.dim)
    return np.full(shape, number, helper.tensor_dtype_to_np_dtype(kind.elem_type))


def _inline(whole: onnx.GraphProto, graph: onnx.GraphProto, index: int, body: onnx.GraphProto) -> None:
    """Replace an If of ``graph`` by the nodes of one of its branches, in place."""
    node, branch = onnx.NodeProto(), onnx.GraphProto()
    node.CopyFrom(graph.node[index])
    branch.CopyFrom(body)
    del graph.node[index]
    taken = tensor_names(whole) | set(node.output)
    written = {name for inner in branch.node for name in inner.output if name}
    names = _results(branch, node, written)
    copies = [
        helper.make_node("Identity", [own.name], [result])
        for own, result in zip(branch.output, node.output, strict=True)
        if result and names.get(own.name) != result
    ]
    for own in (*(tensor.name for tensor in branch.initializer), *written):
        if own not in names:
            names[own] = free_name(own, taken)
    nodes = onnx.GraphProto(node=[*branch.node, *copies])
    for inner in nodes.node:
        rename_tensors(inner, names)
    for tensor in branch.initializer:
        tensor.name = names[tensor.name]
    behind = onnx.GraphProto(node=graph.node[index:])
    del graph.node[index:]
    graph.node.extend([*nodes.node, *behind.node])
    graph.initializer.extend(branch.initializer)


def _results(branch: onnx.GraphProto, node: onnx.NodeProto, written: set[str]) -> dict[str, str]:
    """Tensor that the branch writes → the If's output it becomes; one that becomes several is copied to the others."""
    found: dict[str, str] = {}
    for own, result in zip(branch.output, node.output, strict=True):
        if result and own.name in written:
            found.setdefault(own.name, result)
    return found
