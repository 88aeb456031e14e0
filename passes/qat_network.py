"""A written artifact as a torch module: it computes what the written ONNX graph says, and its weights and scales train.

The graph is the one a dialect wrote, so fake quantisation stands exactly where the runtime will find Q/DQ, whatever
the dialect folds, moves or widens. In it

- a QuantizeLinear of an activation becomes a ``TensorQuantiser``; its 8-bit result is represented by the values that
  its integers stand for, on which moving operators (Slice, MaxPool, Clip, Pad) do what they do to the integers, and
  DequantizeLinear is nothing;
- a node that has a layer's name gets weight and bias from a ``TrainedLayer``, with zeros behind where the dialect
  made it wider; all else that is constant is computed once.

That the trained operands are, to begin with, those of the artifact is checked for every layer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from bitfront.core import LoweringError
from bitfront.lowering.layers import WEIGHTED
from bitfront.passes.lsq import TensorQuantiser
from bitfront.passes.qat_layers import TrainedLayer
from bitfront.passes.qat_node import Operator, refused
from bitfront.passes.qat_operators import compile_operator

_ENDS = {torch.uint8: (0, 255), torch.int8: (-128, 127)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationQuantiser:
    """QuantizeLinear node of an artifact that reads an activation.

    Attributes:
        node: Its index.
        scale: Of one number.
        zero_point: Likewise.
        low: Smallest code of the type.
        high: Largest.
    """

    node: int
    scale: float
    zero_point: int
    low: int
    high: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    run: Operator
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def tensor_of(proto: onnx.TensorProto) -> Tensor:
    """An initialiser as a tensor; 4-bit integers as 8-bit ones, half-precision floats as they are."""
    array = numpy_helper.to_array(proto)
    if proto.data_type in (onnx.TensorProto.INT4, onnx.TensorProto.UINT4):
        array = array.astype(np.int8 if proto.data_type == onnx.TensorProto.INT4 else np.uint8)
    if proto.data_type == onnx.TensorProto.BFLOAT16:
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def constants_of(model: onnx.ModelProto) -> dict[str, Tensor]:
    """Initialisers, and whatever is computed from them alone."""
    constants = {tensor.name: tensor_of(tensor) for tensor in model.graph.initializer}
    with torch.no_grad():
        for node in model.graph.node:
            operands = [constants.get(name) for name in node.input]
            if operands and all(
                value is not None or not name for name, value in zip(node.input, operands, strict=True)
            ):
                results = compile_operator(node, constants)(operands)
                constants.update(zip(node.output, results, strict=True))
    return constants


def activation_quantisers(model: onnx.ModelProto) -> tuple[ActivationQuantiser, ...]:
    """The quantisers of activations, in the artifact's order.

    Raises:
        LoweringError: If one has a scale per channel, or a type other than 8 bits.
    """
    return _quantisers(model, constants_of(model))


def _quantisers(model: onnx.ModelProto, constants: Mapping[str, Tensor]) -> tuple[ActivationQuantiser, ...]:
    found = []
    for index, node in enumerate(model.graph.node):
        if node.op_type != "QuantizeLinear" or node.input[0] in constants:
            continue
        scale = constants.get(node.input[1])
        zero = constants.get(node.input[2]) if len(node.input) > 2 else torch.zeros((), dtype=torch.uint8)
        if scale is None or zero is None or scale.numel() != 1 or zero.dtype not in _ENDS:
            raise refused(node, "has not one constant scale and an 8-bit zero point")
        low, high = _ENDS[zero.dtype]
        found.append(ActivationQuantiser(node=index, scale=float(scale), zero_point=int(zero), low=low, high=high))
    return tuple(found)


class ArtifactNetwork(nn.Module):
    """Artifact as a module; ``forward`` takes and gives what the network does, a lone output without a tuple around it.

    Args:
        artifact: As a dialect wrote it, or a reference network.
        layers: Layer name → its operands; a node of that name is found for each.
        quantised: For each of ``activation_quantisers``, which tensor it quantises: those of one name share a
            quantiser. None for one whose scale stays.

    Raises:
        LoweringError: If an operator is not handled, or a layer is written in a form that is not.
    """

    def __init__(
        self, artifact: onnx.ModelProto, layers: Mapping[str, TrainedLayer], quantised: Sequence[str | None]
    ) -> None:
        super().__init__()
        self.input_names = tuple(value.name for value in artifact.graph.input)
        self.output_names = tuple(value.name for value in artifact.graph.output)
        self.layer_names = tuple(layers)
        self.layers = nn.ModuleList(layers.values())
        constants = constants_of(artifact)
        found = _quantisers(artifact, constants)
        assert len(found) == len(quantised), "one name for each quantiser"
        names = [name if name is not None else f"quantiser {rank}" for rank, name in enumerate(quantised)]
        self.quantised = tuple(names)
        self.tensor_names = tuple(dict.fromkeys(names))
        first = {name: found[names.index(name)] for name in self.tensor_names}
        self.quantisers = nn.ModuleList(
            TensorQuantiser(entry.scale, entry.zero_point, entry.low, entry.high) for entry in first.values()
        )
        for name in set(self.tensor_names) - {name for name in quantised if name is not None}:
            self.quantiser(name).requires_grad_(requires_grad=False)
        at = {entry.node: self.quantiser(name) for entry, name in zip(found, names, strict=True)}
        self._program = _Builder(artifact, constants, dict(layers), at).program(self.output_names)
        read = {name for step in self._program for name in step.inputs} | set(self.output_names)
        self._constants = {}
        for position, name in enumerate(sorted(read & set(constants))):
            self._constants[name] = f"constant_{position}"
            self.register_buffer(self._constants[name], constants[name], persistent=False)
        last = {name: index for index, step in enumerate(self._program) for name in step.inputs}
        keep = {*self.output_names, *self._constants, ""}
        self._spent = [
            tuple(name for name in dict.fromkeys(step.inputs) if last[name] == index and name not in keep)
            for index, step in enumerate(self._program)
        ]

    def quantiser(self, tensor: str) -> TensorQuantiser:
        """The quantiser of a tensor of ``tensor_names``."""
        found = self.quantisers[self.tensor_names.index(tensor)]
        assert isinstance(found, TensorQuantiser)
        return found

    def layer(self, name: str) -> TrainedLayer:
        """The operands of a layer of ``layer_names``."""
        found = self.layers[self.layer_names.index(name)]
        assert isinstance(found, TrainedLayer)
        return found

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Compute the outputs from one tensor (n, …) per input."""
        values: dict[str, Tensor] = dict(zip(self.input_names, inputs, strict=True))
        values.update({name: getattr(self, buffer) for name, buffer in self._constants.items()})
        for step, spent in zip(self._program, self._spent, strict=True):
            results = step.run([values[name] if name else None for name in step.inputs])
            values.update(zip(step.outputs, results, strict=True))
            for name in spent:
                del values[name]
        outputs = tuple(values[name] for name in self.output_names)
        return outputs[0] if len(outputs) == 1 else outputs


class _Builder:
    """Turns nodes into steps."""

    def __init__(
        self,
        artifact: onnx.ModelProto,
        constants: dict[str, Tensor],
        layers: dict[str, TrainedLayer],
        quantisers: Mapping[int, TensorQuantiser],
    ) -> None:
        self._nodes = artifact.graph.node
        self._constants = constants
        self._layers = layers
        self._quantisers = quantisers
        # Tensor → the quantiser whose integers, or the values of whose integers, it holds.
        self._codes: dict[str, TensorQuantiser] = {}
        self._values: dict[str, TensorQuantiser] = {}

    def program(self, outputs: Sequence[str]) -> tuple[_Step, ...]:
        """The steps that ``outputs`` depend on."""
        missing = [name for name in self._layers if name not in {node.name for node in self._nodes}]
        if missing:
            raise LoweringError(
                f"layer '{missing[0]}': the dialect writes no node of its name, so it cannot be trained",
                "search this network without the pass 'qat'",
            )
        steps = [self._step(index, node) for index, node in enumerate(self._nodes) if not self._is_folded(node)]
        wanted, kept = set(outputs), []
        for step in reversed(steps):
            if wanted & set(step.outputs):
                kept.append(step)
                wanted.update(step.inputs)
        return tuple(reversed(kept))

    def _is_folded(self, node: onnx.NodeProto) -> bool:
        return all(name in self._constants for name in node.output if name)

    def _step(self, index: int, node: onnx.NodeProto) -> _Step:
        inputs, outputs = tuple(node.input), tuple(node.output)
        source = node.input[0] if node.input else ""
        if index in self._quantisers:
            self._codes[node.output[0]] = self._quantisers[index]
            return _Step(run=functools.partial(_quantise, self._quantisers[index]), inputs=(source,), outputs=outputs)
        if node.op_type == "DequantizeLinear" and source in self._codes:
            self._values[node.output[0]] = self._codes[source]
            return _Step(run=_same, inputs=(source,), outputs=outputs)
        if node.name in self._layers and node.op_type in WEIGHTED:
            return self._layer(node, self._layers[node.name])
        if source in self._codes:
            return self._moved(node, self._codes[source])
        return _Step(run=compile_operator(node, self._constants), inputs=inputs, outputs=outputs)

    def _moved(self, node: onnx.NodeProto, quantiser: TensorQuantiser) -> _Step:
        """A node on the 8-bit tensor itself."""
        inputs, outputs = tuple(node.input), tuple(node.output)
        if node.op_type != "Shape":
            self._codes.update(dict.fromkeys(outputs, quantiser))
        bounds = [self._constants.get(name) for name in node.input[1:3]]
        if node.op_type == "Clip":
            integers = [None if bound is None else int(bound) for bound in bounds]
            return _Step(run=functools.partial(_clip, quantiser, integers), inputs=inputs[:1], outputs=outputs)
        constants = self._constants
        if node.op_type == "Pad":
            if len(bounds) < 2 or bounds[1] is None or int(bounds[1]) != quantiser.zero_point:
                raise refused(node, "pads an 8-bit tensor with something else than its zero point")
            constants = {**constants, node.input[2]: torch.zeros(())}
        return _Step(run=compile_operator(node, constants), inputs=inputs[:1], outputs=outputs)

    def _layer(self, node: onnx.NodeProto, layer: TrainedLayer) -> _Step:
        source = node.input[0]
        quantiser = self._values.get(source)
        operands = [self._constants.get(name) for name in node.input[1:3]]
        weight, bias = operands[0], operands[1] if len(operands) > 1 else None
        scales = layer.weight.scales
        with torch.no_grad():
            own = layer(None)
            # A bias may be written as it is, or in INT32 already: within a step of it.
            step = 0.0 if quantiser is None or scales is None else float((quantiser.step() * scales).max())
        pads = self._pads(node, own[0], weight, 0.0)
        more = self._pads(node, own[1], bias, step) if own[1] is not None else []
        rest = "" if own[1] is not None or len(node.input) < 3 else node.input[2]
        run = functools.partial(_layer, layer, quantiser, compile_operator(node, self._constants), pads, more)
        return _Step(run=run, inputs=(source, rest), outputs=tuple(node.output))

    def _pads(self, node: onnx.NodeProto, own: Tensor, written: Tensor | None, within: float) -> list[int]:
        """Zeros behind ``own`` along each axis, as ``torch.nn.functional.pad`` takes them."""
        fits = written is not None and written.dim() == own.dim()
        pads: list[int] = []
        if written is not None and fits:
            missing = [there - here for there, here in zip(written.shape, own.shape, strict=True)]
            pads = [side for axis in reversed(missing) for side in (0, axis)]
            fits = min(missing) >= 0
        if written is not None and fits:
            wider, size = functional.pad(own, pads), float(written.abs().max())
            fits = torch.allclose(wider, written.to(own.dtype), rtol=1e-4, atol=within + 1e-5 * size)
        if not fits:
            raise LoweringError(
                f"layer '{node.name}': the dialect writes its weight or bias in a form that training does not know",
                "search this network without the pass 'qat'",
            )
        return pads if any(pads) else []


def _same(x: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    assert x[0] is not None
    return (x[0],)


def _quantise(quantiser: TensorQuantiser, x: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    return (quantiser(x[0]),)


def _clip(quantiser: TensorQuantiser, integers: Sequence[int | None], x: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    assert x[0] is not None
    low, high = (None if code is None else quantiser.value_of(code) for code in (*integers, None, None)[:2])
    return (torch.clamp(x[0], low, high),)


def _layer(
    layer: TrainedLayer,
    quantiser: TensorQuantiser | None,
    run: Callable[[Sequence[Tensor | None]], tuple[Tensor, ...]],
    pads: list[int],
    bias_pads: list[int],
    x: Sequence[Tensor | None],
) -> tuple[Tensor, ...]:
    weight, bias = layer(None if quantiser is None else quantiser.step())
    weight = functional.pad(weight, pads) if pads else weight
    if bias is not None and bias_pads:
        bias = functional.pad(bias, bias_pads)
    return run([x[0], weight, x[1] if bias is None else bias])
