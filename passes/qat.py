"""Quantisation-aware training: a network is trained as the artifact it will be, then written as that artifact.

What is trained is not the user's module but the ONNX graph that the dialect writes for the schemes at hand
(``qat_network``). Which tensors are quantised is decided by lowering's placement, on a graph whose batch norms are
folded and whose activations the dialect folds, moves and widens; to say the same of a torch module would be a second
lowering, right for one dialect at best. So the pass works for every dialect and for networks that came as ONNX, batch
norms are settled before it starts, and the trained network and the artifact agree by construction.

It starts from the integers and scales of the schemes' own rounding (GPTQ's, say) and from the calibrated ranges.
Weights, biases, weight scales and activation scales train (``lsq``); zero points and which tensors are quantised stay.
The default loss is the divergence from the FP32 network's outputs, or from a teacher's, so labels are not needed. Which
quantiser of the artifact belongs to which tensor is found by writing it twice, each tensor's range stretched by a
factor of its own.

Afterwards the learned scales are the network's: ``QatResult.reference`` has the weights the artifact computes with,
``scales`` makes their integers exact, ``ranges`` gives the activations' quantisers back to the bit; ``Lowerer`` takes
all three. Weights that are zero at the start, in the network and in its integers, stay zero: a sparse network stays
sparse. Fewer than four bits are a matter of training alone: integers of fewer levels, stored in four bits.

Not handled: weights in blocks, dynamic activations, operators that ``qat_operators`` does not know, a constant Add
behind a MatMul (stays as it is), a Clip on a tensor with several readers whose bound moves to another code as the scale
is learned.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from bitfront.core import ConfigError, LoweringError, ModelError, Precision, Scheme
from bitfront.lowering.dialect import LoweringRequest
from bitfront.lowering.graph import GraphView
from bitfront.lowering.layers import Layer
from bitfront.lowering.lowerer import Lowerer
from bitfront.lowering.module_calls import call
from bitfront.lowering.rounding.bias_overflow import layer_bias, min_scales_for_bias
from bitfront.lowering.rounding.weight import RoundedWeight
from bitfront.passes.data import Batch, TrainingData
from bitfront.passes.device import lay
from bitfront.passes.equivalence import outputs_of, tensors_in
from bitfront.passes.options import options_from_json, options_to_json
from bitfront.passes.prune_counts import example_tensors
from bitfront.passes.qat_layers import TrainedLayer, TrainedWeight, trained_weight
from bitfront.passes.qat_network import ArtifactNetwork, activation_quantisers
from bitfront.passes.qat_result import QatResult, result_of
from bitfront.passes.train import ParameterGroup, Supervision, train
from bitfront.passes.training import Optimiser, Training

# Where a bias limits a weight's scale (``lowering.rounding.bias_overflow``), this leaves it room to grow.
_ROOM = 4.0

TRAINING = Training(steps=600, batch_size=64, learning_rate=5e-4, optimiser=Optimiser.ADAM, weight_decay=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Qat:
    """The pass; its fields are its options.

    Attributes:
        training: Steps, rate, seed …; the rate is in shares of the largest weight of each channel.
        temperature: Of the distillation from the FP32 network (Hinton et al., arXiv:1503.02531).
        labels: Share of the labels' cross-entropy in the loss, 0 to 1; above 0 the data must have labels.
        int4_bits: Bits of a code where four are stored: 4 or 3.
        scale_rate: Factor on the learning rate of scales, which is relative to where each started.
    """

    training: Training = TRAINING
    temperature: float = 8.0  # nearly logits matched: at 1, inputs that the network was trained on teach little
    labels: float = 0.0
    int4_bits: int = 4
    scale_rate: float = 1.0

    def __post_init__(self) -> None:
        wrong = {
            "temperature > 0": self.temperature > 0,
            "labels in 0…1": 0 <= self.labels <= 1,
            "int4_bits 4 or 3": self.int4_bits in (3, 4),
            "scale_rate ≥ 0": self.scale_rate >= 0,
        }
        for rule, holds in wrong.items():
            if not holds:
                name = rule.partition(" ")[0]
                raise ConfigError(f"pass 'qat': expected {rule}, got {getattr(self, name)!r}", f"change {name}")

    def to_json(self) -> dict[str, Any]:
        """Every option as plain JSON."""
        return options_to_json(self)

    @classmethod
    def from_json(cls, data: Any) -> Qat:
        """Read what ``to_json`` wrote.

        Raises:
            ConfigError: If an option is unknown or wrong.
        """
        return options_from_json(cls, data, "pass 'qat'")

    def apply(
        self,
        lowerer: Lowerer,
        schemes: Mapping[str, Scheme],
        data: TrainingData,
        *,
        teacher: nn.Module | None = None,
        supervision: Supervision | None = None,
        device: torch.device | None = None,
    ) -> QatResult:
        """Train the network as ``schemes`` make it.

        Args:
            lowerer: The network in its dialect, with calibration inputs or ranges; not modified.
            schemes: Layer name → scheme, every layer.
            data: Inputs in the network's order; labels are read if ``labels`` is above 0.
            teacher: The network to learn from, in any mode, left as it is: the unpruned one where ``lowerer`` has a
                pruned one. None is the lowerer's own network at FP32.
            supervision: Checkpoints, reports and time.
            device: Where to train; None is the CPU.

        Raises:
            LoweringError: If a scheme is not offered, or a layer or operator cannot be trained.
            ConfigError: If labels are wanted and missing.
            ModelError: If the training diverges, or the teacher's outputs have other shapes than the network's.
        """
        if self.labels > 0 and data.labels is None:
            raise ConfigError("pass 'qat': labels above 0 need labelled data, and there are none", "set labels to 0")
        device = device or torch.device("cpu")
        network = self.network(lowerer, schemes).to(device)
        own = ArtifactNetwork(lowerer.reference.proto, {}, ()) if teacher is None else copy.deepcopy(teacher)
        frozen = own.to(device).eval().requires_grad_(False)
        lay(frozen, torch.channels_last)
        _check_shapes(network, frozen, data)

        def loss(module: nn.Module, batch: Batch) -> Tensor:
            with torch.no_grad():
                wanted = call(frozen, batch.inputs)
            return self._loss(_outputs(call(module, batch.inputs)), _outputs(wanted), batch)

        trained = train(network, loss, data, self.training, supervision=supervision, grouping=self._group)
        return result_of(network.cpu().eval(), lowerer, schemes, trained)

    def network(self, lowerer: Lowerer, schemes: Mapping[str, Scheme]) -> ArtifactNetwork:
        """The module that is trained, as it starts.

        Raises:
            LoweringError: See ``apply``.
        """
        config, layers = lowerer.config(schemes), lowerer.quantisable.layers
        for layer in layers:
            if schemes[layer.name].weights.group_size is not None:
                raise LoweringError(
                    f"layer '{layer.name}': weights in blocks ({schemes[layer.name].text}) cannot be trained",
                    "give the layer a scheme without blocks, or leave out the pass 'qat'",
                )
            if schemes[layer.name].activations.is_dynamic:
                raise LoweringError(
                    f"layer '{layer.name}': dynamic activations ({schemes[layer.name].text}) cannot be trained",
                    "give the layer a scheme of static or floating activations, or leave out the pass 'qat'",
                )
        start = self._start(lowerer, schemes)
        weights = {
            name: RoundedWeight(
                integers=rounded.integers,
                scales=rounded.scales,
                bias_correction=None,
                bits=schemes[name].precision.bits,
            )
            for name, rounded in start.items()
        }

        def write(ranges: Mapping[str, tuple[float, float]]) -> onnx.ModelProto:
            return lowerer.dialect.write(
                LoweringRequest(
                    reference=lowerer.reference.proto, layers=layers, schemes=schemes, ranges=ranges, weights=weights
                )
            )

        artifact = write(config.ranges)
        stretched, names = _stretched(config.ranges)
        quantised = _tensors(artifact, write(stretched), names)
        trained = self._layers(lowerer, schemes, start, config.ranges)
        network = ArtifactNetwork(artifact, trained, quantised)
        with torch.no_grad():
            for name, rounded in start.items():
                bias = trained[name].bias
                if bias is not None and rounded.bias_correction is not None:
                    bias.add_(torch.from_numpy(rounded.bias_correction) / trained[name].bias_unit)
        return network

    def _start(self, lowerer: Lowerer, schemes: Mapping[str, Scheme]) -> dict[str, RoundedWeight]:
        """The rounded weight each integer layer starts from."""
        integer = sorted({scheme for scheme in schemes.values() if scheme.precision.is_integer})
        rounded = {scheme: lowerer.rounded(scheme, bits=self._bits(scheme)) for scheme in integer}
        return {name: rounded[scheme][name] for name, scheme in schemes.items() if scheme in rounded}

    def _bits(self, scheme: Scheme) -> int:
        return self.int4_bits if scheme.precision is Precision.INT4 else scheme.precision.bits

    def _layers(
        self,
        lowerer: Lowerer,
        schemes: Mapping[str, Scheme],
        start: Mapping[str, RoundedWeight],
        ranges: Mapping[str, tuple[float, float]],
    ) -> dict[str, TrainedLayer]:
        view = GraphView(lowerer.reference.proto.graph)
        nodes = {node.name: node for node in view.nodes}
        weights: dict[str, TrainedWeight] = {}
        layers = {}
        for layer in (each for each in lowerer.quantisable.layers if not each.stored_only):
            scheme, node = schemes[layer.name], nodes[layer.node]
            if layer.weight not in weights:
                rounded, value = start.get(layer.name), view.array(layer.weight)
                assert value is not None, "a layer's weight is constant"
                weights[layer.weight] = trained_weight(
                    layer,
                    scheme,
                    value,
                    None if rounded is None else (rounded.integers, rounded.scales),
                    self._bits(scheme),
                    _least(view, layer, node, ranges) if scheme.activations.is_static else None,
                )
            bias = trained_bias(view, node)
            layers[layer.name] = TrainedLayer(
                weights[layer.weight],
                None if bias is None else torch.from_numpy(np.array(bias)),
                integer=scheme.activations.is_static,
            )
        return layers

    def _group(self, name: str, parameter: nn.Parameter) -> ParameterGroup:
        if name.endswith(".ratio"):
            return ParameterGroup(learning_rate=self.scale_rate, weight_decay=0.0)
        return ParameterGroup(weight_decay=float(parameter.dim() > 1))

    def _loss(self, outputs: tuple[Tensor, ...], wanted: tuple[Tensor, ...], batch: Batch) -> Tensor:
        """T² · KL(FP32 ‖ trained) over classes, summed over outputs, mixed with the labels' cross-entropy."""
        total = torch.zeros((), device=outputs[0].device)
        for found, right in zip(outputs, wanted, strict=True):
            pair = (_classes(part) / self.temperature for part in (found, right))
            logs, targets = (functional.log_softmax(part, dim=-1) for part in pair)
            total = total + functional.kl_div(logs, targets, reduction="batchmean", log_target=True)
        total = total * self.temperature**2
        if self.labels == 0:
            return total
        assert batch.labels is not None, "checked before the training"
        return (1 - self.labels) * total + self.labels * functional.cross_entropy(_classes(outputs[0]), batch.labels)


def trained_bias(view: GraphView, node: onnx.NodeProto) -> NDArray[np.float32] | None:
    """A layer's bias if it can be trained: one value a channel that no other node reads."""
    name = node.input[2] if node.op_type != "MatMul" and len(node.input) > 2 else ""
    value = view.array(name) if name else None
    if value is None or value.ndim != 1 or len(view.consumers(name)) != 1 or view.is_captured(name):
        return None
    return value.astype(np.float32)


def _check_shapes(network: nn.Module, teacher: nn.Module, data: TrainingData) -> None:
    examples = example_tensors(network, data.inputs)
    found, wanted = ([tuple(part.shape) for part in outputs_of(module, examples)] for module in (network, teacher))
    if found != wanted:
        raise ModelError(
            f"pass 'qat': the network's outputs have the shapes {found}, the teacher's {wanted}",
            "they need the same outputs",
        )


def _outputs(found: object) -> tuple[Tensor, ...]:
    return tuple(tensors_in(found))


def _classes(output: Tensor) -> Tensor:
    """(n, classes, 1 …) or (n, …, classes) → (rows, classes)."""
    single = output.dim() < 3 or all(size == 1 for size in output.shape[2:])
    return output.reshape(len(output), -1) if single else output.reshape(-1, output.shape[-1])


def _least(
    view: GraphView, layer: Layer, node: onnx.NodeProto, ranges: Mapping[str, tuple[float, float]]
) -> NDArray[np.float64] | None:
    """Scales below which the layer's bias would not fit INT32, with room for the bias to grow."""
    bias = layer_bias(view, node, layer.weight_shape[layer.channel_axis])
    return None if bias is None else min_scales_for_bias(bias, ranges[node.input[0]]) * _ROOM


def _stretched(
    ranges: Mapping[str, tuple[float, float]],
) -> tuple[dict[str, tuple[float, float]], tuple[str, ...]]:
    """Each range stretched by 1 + (i + 1) / (4 n), i being its place in the names returned."""
    names = tuple(sorted(ranges))
    factors = {name: 1 + (place + 1) / (4 * len(names)) for place, name in enumerate(names)}
    return {name: (low * factors[name], high * factors[name]) for name, (low, high) in ranges.items()}, names


def _tensors(artifact: onnx.ModelProto, stretched: onnx.ModelProto, names: tuple[str, ...]) -> list[str | None]:
    """Tensor whose range each quantiser of the artifact has; None for a scale of the dialect's own."""
    before, after = activation_quantisers(artifact), activation_quantisers(stretched)
    if len(before) != len(after):
        raise LoweringError(
            f"the dialect writes {len(before)} or {len(after)} quantisers for one set of schemes, depending on ranges",
            "leave out the pass 'qat' for this dialect",
        )
    found: list[str | None] = []
    for one, other in zip(before, after, strict=True):
        place = (other.scale / one.scale - 1) * 4 * len(names) - 1
        if abs(place - round(place)) > 0.1 or round(place) >= len(names):
            raise LoweringError(
                f"a quantiser's scale, {one.scale:g}, does not grow with any tensor's range",
                "leave out the pass 'qat' for this dialect",
            )
        found.append(None if round(place) < 0 else names[round(place)])
    return found
