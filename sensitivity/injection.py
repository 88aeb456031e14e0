"""The FP32 network with an error added to the results of its parts: how far an error in one place reaches.

Each result of a part goes through an addition whose other operand is an input of the graph, 0 unless an error is
given, so that one compiled graph serves for all parts, and what it answers without errors is what it answers for 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper

from bitfront.backends.batches import rows_of, run_outputs
from bitfront.core import Array, Inputs
from bitfront.lowering.graph import free_name, tensor_names
from bitfront.lowering.interpreter import InterpretedGraph
from bitfront.lowering.parts import NetworkPart
from bitfront.lowering.reference import ReferenceModel
from bitfront.sensitivity.divergence import Outputs

Tensors = list[dict[str, Array]]
"""Tensor name → value in the network's own layout, run by run."""
_ZERO = np.zeros((), np.float32)
_RUN = 16  # samples a run


class InjectedNetwork:
    """A network that answers samples with errors added to the results of parts.

    Args:
        reference: The network.
        parts: The parts.

    Raises:
        InterpreterError: If the interpreter refuses the graph.
    """

    def __init__(self, reference: ReferenceModel, parts: Iterable[NetworkPart]) -> None:
        parts = list(parts)
        self._reference = reference
        self._results = [name for part in parts for name in part.outputs]
        self._read = list(dict.fromkeys(name for part in parts for name in (*part.inputs, *part.outputs)))
        model, self._inputs = _with_additions(reference.proto, self._results, self._read)
        self._graph = reference.interpreter.load(model)

    def read(self, inputs: Inputs) -> tuple[Outputs, Tensors]:
        """Answers without errors, the samples first, and the tensors that parts read and write.

        Args:
            inputs: Samples, (n, …) each.
        """
        taken: Tensors = []
        return self._run(inputs, None, taken), taken

    def answers(self, inputs: Inputs, errors: Sequence[Mapping[str, Array]]) -> Outputs:
        """Answers with errors, the samples first; empty for an output without a row a sample.

        Args:
            inputs: Samples, (n, …) each.
            errors: Result of a part → what is added to it, run by run, as ``read`` gives tensors.
        """
        return self._run(inputs, errors, None)

    def _run(self, inputs: Inputs, errors: Sequence[Mapping[str, Array]] | None, taken: Tensors | None) -> Outputs:
        runs = _Runs(
            graph=self._graph,
            input_shapes=self._reference.input_shapes,
            output_names=tuple(self._reference.output_names),
            inputs=self._inputs,
            errors=errors,
            read=self._read,
            taken=taken,
        )
        found = run_outputs(runs, inputs, batch=_RUN, batching=self._reference.batching)
        return tuple(np.zeros(0) if array is None else array for array in rows_of(found))


@dataclass(slots=True, kw_only=True)
class _Runs:
    """Pass over the samples, as ``run_outputs`` makes it."""

    graph: InterpretedGraph
    input_shapes: Mapping[str, tuple[int | None, ...]]
    output_names: tuple[str, ...]
    inputs: Mapping[str, str]
    errors: Sequence[Mapping[str, Array]] | None
    read: Sequence[str]
    taken: Tensors | None
    _done: int = field(default=0, init=False)

    def run(self, inputs: Inputs) -> tuple[Array, ...]:
        errors = self.errors[self._done] if self.errors else {}
        self._done += 1
        feeds = {**inputs, **{place: errors.get(tensor, _ZERO) for tensor, place in self.inputs.items()}}
        if self.taken is None:
            return tuple(self.graph.run(feeds, self.output_names))
        names = [name for name in dict.fromkeys((*self.output_names, *self.read)) if name not in inputs]
        found = {**inputs, **dict(zip(names, self.graph.run(feeds, names), strict=True))}
        self.taken.append({name: found[name] for name in self.read})
        return tuple(found[name] for name in self.output_names)


def _with_additions(
    network: onnx.ModelProto, results: Sequence[str], read: Sequence[str]
) -> tuple[onnx.ModelProto, dict[str, str]]:
    """The network with additions behind results and all of ``read`` as outputs; result → the input that is added."""
    model = onnx.ModelProto()
    model.CopyFrom(network)
    graph, taken = model.graph, tensor_names(model.graph)
    plain = {name: free_name(f"{name}_exact", taken) for name in results}
    added = {name: free_name(f"{name}_error", taken) for name in results}
    nodes = []
    for node in graph.node:
        made = [name for name in node.output if name in plain]
        for place, name in enumerate(node.output):
            node.output[place] = plain.get(name, name)
        nodes.append(node)
        nodes += [helper.make_node("Add", [plain[name], added[name]], [name]) for name in made]
    ordered = onnx.GraphProto(node=nodes)
    del graph.node[:]
    graph.node.extend(ordered.node)
    there = {value.name for value in (*graph.output, *graph.input)}
    values = {value.name: value for value in graph.value_info}
    graph.output.extend(values.get(name, onnx.ValueInfoProto(name=name)) for name in read if name not in there)
    graph.input.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in added.values())
    return model, added
