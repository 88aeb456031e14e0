"""Walking a network layer by layer on calibration data, twice at once: as it is, and with its rounded prefix.

The graph is cut before and after each layer. Every piece is run once for each of the two by the interpreter, chunk by
chunk, and only tensors that later pieces read are kept. The number of samples is the largest for which the live tensors
of both stay within ``LIVE_BYTES``, by a trial run of the first chunk, and at most ``MAX_SAMPLES``. Networks with a
fixed batch are fed whole batches; samples that fill none are left out (one batch is made up by repetition if need be).

Of the network, only what some layer's input depends on is run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from bitfront.core import Batching, DataError, Inputs, LoweringError
from bitfront.core.ragged import equal_shapes, is_ragged
from bitfront.lowering.batching import infer_batching
from bitfront.lowering.graph import GraphView, captured_names
from bitfront.lowering.interpreter import InterpretedGraph, Interpreter
from bitfront.lowering.layers import Layer
from bitfront.lowering.weight_files import inline_bytes

LIVE_BYTES = 1_000_000_000
# Of the weights of pieces that are kept compiled from the trial run on until the walk comes to them.
KEPT_BYTES = 256 * 2**20
MAX_SAMPLES = 512
CHUNK_SAMPLES = 32
_THREADS = 2

Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """Step of the walk for one layer: the nodes that lead up to it, and the tensors that must outlive them and it."""

    layer: Layer
    node: int
    before: tuple[int, ...]
    live_before: frozenset[str]
    live_after: frozenset[str]


class LayerwiseEngine:
    """Network brought forward from layer to layer, as it is and behind rounded layers, chunk by chunk of samples.

    For each layer in ``layers`` (the network's order): ``advance``, then ``inputs`` as often as needed, then
    ``finish`` with the weight that the rounded network goes on with.

    Args:
        reference: Normalised FP32 network; not modified.
        layers: Layers of that network.
        calibration: One array (n, …) per network input.
        interpreter: Runs the pieces.
        batching: Where the samples are in the network's inputs; None takes what its graph declares.

    Raises:
        DataError: If there are no calibration samples.
    """

    def __init__(
        self,
        reference: onnx.ModelProto,
        layers: Sequence[Layer],
        calibration: Inputs,
        interpreter: Interpreter,
        batching: Batching | None = None,
    ) -> None:
        self._model = reference
        self._interpreter = interpreter
        self._view = GraphView(reference.graph)
        self._steps = _plan(self._view, layers)
        self.layers = tuple(step.layer for step in self._steps)
        self._pieces: dict[tuple[int, ...], _Piece] = {}
        self._kept_bytes = 0
        chunks = _chunks(self._view, calibration, batching or infer_batching(reference.graph))
        fitting = self._fitting_chunks(chunks[0], len(chunks))
        self._float: list[Tensors] = [dict(chunk) for chunk in chunks[:fitting]]
        self._rounded: list[Tensors] = [dict(chunk) for chunk in chunks[:fitting]]
        self._next = 0

    def advance(self) -> Layer:
        """Bring both networks to the next layer's input and return that layer."""
        step = self._steps[self._next]
        piece = self._piece(step.before, step.live_before)
        for chunks in (self._float, self._rounded):
            for chunk in chunks:
                piece.run(chunk)
                _keep(chunk, step.live_before)
        return step.layer

    def inputs(self) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """The layer's first operand, chunk by chunk: (in the network as it is, behind the rounded prefix)."""
        name = self.node.input[0]
        for exact, rounded in zip(self._float, self._rounded, strict=True):
            yield exact[name], rounded[name]

    @property
    def node(self) -> onnx.NodeProto:
        """The layer's node."""
        return self._view.nodes[self._steps[self._next].node]

    @property
    def chunks(self) -> int:
        """Number of chunks of calibration samples."""
        return len(self._float)

    def finish(self, weight: NDArray[np.float32], channels_at: int) -> NDArray[np.float32]:
        """Run the layer in both networks, in the rounded one with ``weight`` and its mean output shift put right.

        Args:
            weight: ŵ in the stored shape.
            channels_at: Axis of the output channels in the layer's output: 1 for convolutions, else −1.

        Returns:
            The mean output shift E[w·x − ŵ·x̂] of each output channel, which the rounded network now includes; 0 where
            a channel's outputs are not finite (a bias of −∞ rules a class out).
        """
        step = self._steps[self._next]
        output = self.node.output[0]
        replaced = self._new_piece((step.node,), frozenset((output,)), {self.node.input[1]: weight})
        exact_piece = self._piece((step.node,), frozenset((output,)))
        shift: NDArray[np.float64] = np.zeros(1)
        count = 0
        for exact, rounded in zip(self._float, self._rounded, strict=True):
            exact_piece.run(exact)
            replaced.run(rounded)
            axis = channels_at % exact[output].ndim
            others = tuple(index for index in range(exact[output].ndim) if index != axis)
            with np.errstate(invalid="ignore"):  # ∞ − ∞
                shift = shift + (exact[output].astype(np.float64) - rounded[output]).sum(axis=others)
            count += exact[output].size // exact[output].shape[axis]
        correction = np.where(np.isfinite(shift), shift / max(1, count), 0.0).astype(np.float32)
        for exact, rounded in zip(self._float, self._rounded, strict=True):
            shape = [1] * exact[output].ndim
            shape[channels_at] = -1
            rounded[output] = rounded[output] + correction.reshape(shape)
            _keep(exact, step.live_after)
            _keep(rounded, step.live_after)
        for nodes in (step.before, (step.node,)):
            if (done := self._pieces.pop(nodes, None)) is not None:
                self._kept_bytes -= done.weight_bytes
        self._next += 1
        return correction

    def _piece(self, nodes: tuple[int, ...], outputs: frozenset[str]) -> _Piece:
        if nodes in self._pieces:
            return self._pieces[nodes]
        made = self._new_piece(nodes, outputs)
        if self._kept_bytes + made.weight_bytes <= KEPT_BYTES:
            self._pieces[nodes] = made
            self._kept_bytes += made.weight_bytes
        return made

    def _new_piece(
        self,
        nodes: tuple[int, ...],
        outputs: frozenset[str],
        replaced: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> _Piece:
        return _Piece(self._model, self._view, nodes, outputs, self._interpreter, replaced)

    def _fitting_chunks(self, first: Tensors, available: int) -> int:
        """Number of chunks that both paths can hold, by running the first one through the network as it is."""
        tensors, peak = dict(first), 1
        for step in self._steps:
            self._piece(step.before, step.live_before).run(tensors)
            _keep(tensors, step.live_before)
            self._piece((step.node,), frozenset(self._view.nodes[step.node].output[:1])).run(tensors)
            peak = max(peak, sum(array.nbytes for array in tensors.values()))
            _keep(tensors, step.live_after)
        return max(1, min(available, LIVE_BYTES // (2 * peak)))


class _Piece:
    """Part of a graph as a model of its own, compiled when first run."""

    def __init__(
        self,
        model: onnx.ModelProto,
        view: GraphView,
        nodes: tuple[int, ...],
        outputs: frozenset[str],
        interpreter: Interpreter,
        replaced: Mapping[str, NDArray[np.float32]] | None,
    ) -> None:
        own = [view.nodes[index] for index in nodes]
        written = {name for node in own for name in node.output if name}
        read = dict.fromkeys(name for node in own for name in _reads(node))
        self._model = model
        self._nodes = own
        self._constants = [
            numpy_helper.from_array(replaced[name], name) if replaced and name in replaced else view.initializers[name]
            for name in read
            if name in view.initializers
        ]
        # Names that subgraphs define themselves are read, too, but nobody outside writes them.
        self._inputs = [
            name for name in read if name not in written and (view.producer(name) is not None or name in view.inputs)
        ]
        self._outputs = [name for name in dict.fromkeys(n for node in own for n in node.output) if name in outputs]
        self._interpreter = interpreter
        self.weight_bytes = inline_bytes(self._constants)
        self._graph: InterpretedGraph | None = None

    def run(self, tensors: Tensors) -> None:
        """Add this piece's outputs to ``tensors``, which hold its inputs."""
        if not self._outputs:
            return
        feeds = {name: tensors[name] for name in self._inputs}
        if self._graph is None:
            self._graph = self._load(feeds)
        tensors.update(zip(self._outputs, self._graph.run(feeds, self._outputs), strict=True))

    def _load(self, feeds: Mapping[str, NDArray[Any]]) -> InterpretedGraph:
        graph = helper.make_graph(
            self._nodes,
            "piece",
            [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim)
                for name, array in feeds.items()
            ],
            [onnx.ValueInfoProto(name=name) for name in self._outputs],
            self._constants,
        )
        model = helper.make_model(
            graph,
            opset_imports=self._model.opset_import,
            ir_version=self._model.ir_version,
            functions=self._model.functions,
        )
        # Pieces are short: threads that spin between them would only keep the other work from the cores.
        return self._interpreter.load(model, threads=min(_THREADS, os.cpu_count() or 1))


def _plan(view: GraphView, layers: Sequence[Layer]) -> tuple[_Step, ...]:
    position = {node.name: index for index, node in enumerate(view.nodes)}
    for layer in layers:
        if layer.node not in position:
            raise LoweringError(
                f"layer '{layer.name}': the network has no node '{layer.node}'",
                "the config was written for another version of the network: search it again",
            )
    ordered = sorted(layers, key=lambda layer: position[layer.node])
    own = {position[layer.node] for layer in ordered}
    done: set[int] = set()
    pieces: list[tuple[Layer, int, tuple[int, ...]]] = []
    for layer in ordered:
        index = position[layer.node]
        before = tuple(sorted(_ancestors(view, index) - done - own))
        done.update(before)
        pieces.append((layer, index, before))
    steps: list[_Step] = []
    live: set[str] = set()
    for layer, index, before in reversed(pieces):
        after = frozenset(live)
        live -= set(view.nodes[index].output)
        live |= set(_reads(view.nodes[index]))
        middle = frozenset(live)
        for name in {name for node in before for name in view.nodes[node].output}:
            live.discard(name)
        live |= {name for node in before for name in _reads(view.nodes[node])}
        steps.append(_Step(layer=layer, node=index, before=before, live_before=middle, live_after=after))
    return tuple(reversed(steps))


def _ancestors(view: GraphView, index: int) -> set[int]:
    """Nodes that the node's operands depend on."""
    found: set[int] = set()
    open_names = list(_reads(view.nodes[index]))
    while open_names:
        producer = view.producer(open_names.pop())
        if producer is not None and producer not in found:
            found.add(producer)
            open_names.extend(_reads(view.nodes[producer]))
    return found


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    yield from (name for name in node.input if name)
    yield from captured_names(node)


def _keep(tensors: Tensors, names: frozenset[str]) -> None:
    for name in tensors.keys() - names:
        del tensors[name]


def _chunks(view: GraphView, calibration: Inputs, batching: Batching) -> list[Tensors]:
    arrays = {name: np.asarray(calibration[name]) for name in view.inputs if name in calibration}
    if set(arrays) != set(view.inputs) or not all(len(array) for array in arrays.values()):
        raise DataError(
            f"data-driven rounding needs calibration samples for the inputs {', '.join(view.inputs)}, "
            f"got {', '.join(f'{name} {array.shape}' for name, array in arrays.items()) or 'none'}",
            "give calibration inputs (--calib), or round with nearest or mse",
        )
    samples = min(MAX_SAMPLES, *(len(array) for array in arrays.values()))
    batch = batching.fixed
    if batch is None:
        return [
            batching.feed({name: array[start:stop] for name, array in arrays.items()})
            for start, stop in equal_shapes(arrays, samples, CHUNK_SAMPLES)
        ]
    if any(is_ragged(array) for array in arrays.values()):
        return [
            batching.feed({name: array[np.resize(np.arange(start, stop), batch)] for name, array in arrays.items()})
            for start, stop in equal_shapes(arrays, samples, batch)
        ]
    whole = max(batch, samples - samples % batch)
    picked = np.arange(whole) % samples
    return [
        batching.feed({name: array[picked[start : start + batch]] for name, array in arrays.items()})
        for start in range(0, whole, batch)
    ]
