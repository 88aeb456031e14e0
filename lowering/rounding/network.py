"""Rounding every layer of a network once, at one setting; mixed-precision networks are put together from the results.

Methods that look at the weight alone take layers in any order. Those with calibration (GPTQ) take them in the network's
order: each layer is rounded to give, on the inputs that the rounded layers before it give, what it gave in the FP32
network, and its mean output shift becomes a bias correction. The methods are in ``lowering.rounding.methods``.

Results are kept in the store under a digest of whatever they depend on: the network and the calibration inputs (by
the caller's ``key``), the settings, the layer and, for methods with calibration, the layers before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from bitfront.core import (
    Batching,
    ContentStore,
    DataError,
    Granularity,
    Inputs,
    LoweringError,
    ModelError,
    WeightScheme,
    digest,
)
from bitfront.core.scheme_text import method_word
from bitfront.lowering.graph import GraphView, attribute
from bitfront.lowering.interpreter import Interpreter
from bitfront.lowering.layers import RECURRENT, Layer
from bitfront.lowering.ranges import is_bounded
from bitfront.lowering.rounding.bias_overflow import layer_bias, min_scales_for_bias
from bitfront.lowering.rounding.gptq import shrinkage
from bitfront.lowering.rounding.im2col import Im2col
from bitfront.lowering.rounding.layerwise import LayerwiseEngine
from bitfront.lowering.rounding.matrix import MatrixView
from bitfront.lowering.rounding.methods import RoundingProblem, methods_for, uses_calibration
from bitfront.lowering.rounding.weight import RoundedWeight

# Raise it whenever the same settings would give other integers, scales or corrections than before.
SCHEMA = 7
KIND = "rounded"
# Hessians of k × k are accumulated over about so many output positions, evenly spaced, or as many times k where that is
# more: all 512 · 32² of a small image network's first layers gave the same accuracy in many times the time.
HESSIAN_COLUMNS = 8_192
COLUMNS_PER_ROW = 16
# A layer's Hessian and activation mismatch, as in ``RoundingProblem``.
SecondMoments = tuple[NDArray[np.float64], NDArray[np.float64]]


def round_network(
    reference: onnx.ModelProto,
    layers: Sequence[Layer],
    calibration: Inputs,
    *,
    weights: WeightScheme,
    bits: int | None = None,
    activations: Mapping[str, tuple[float, float]] | None,
    interpreter: Interpreter,
    batching: Batching | None = None,
    store: ContentStore,
    key: str,
) -> Mapping[str, RoundedWeight]:
    """Round the weights of ``layers``, all at one setting.

    Args:
        reference: Normalised FP32 network; not modified.
        layers: Layers of that network. Layers that share a weight get the same integers and scales.
        calibration: One array (n, …) per network input; not looked at by methods without calibration.
        weights: How; scales by group are for Gemm and MatMul.
        bits: Of an integer where they are fewer than those of its storage; None for as many.
        activations: Ranges of the FP32 network's tensors where layers will compute on 8-bit activations: scales are
            then kept large enough for 32-bit biases (``bias_overflow``). None for weight-only schemes.
        interpreter: Runs the network; not asked by methods without calibration.
        batching: Where the samples are in the network's inputs; None takes what its graph declares.
        store: Where results are kept.
        key: Identifies network and calibration inputs.

    Returns:
        Layer name → rounded weight, in the order of ``layers``.

    Raises:
        LoweringError: If a layer's weight cannot be rounded so; names the layer.
        ModelError: If a weight is not finite.
        DataError: If calibration inputs are needed and missing, or lead to values that are not finite.
    """
    if weights.granularity is Granularity.TENSOR or not weights.symmetric:
        raise LoweringError(
            "weights are rounded symmetrically, with a scale per channel or group",
            "leave out 'tensor' and 'asymmetric'",
        )
    calibrated = uses_calibration(weights)
    view = GraphView(reference.graph)
    order = {node.name: index for index, node in enumerate(view.nodes)}
    ordered = sorted(layers, key=lambda layer: order.get(layer.node, -1))
    rounder = _NetworkRounder(
        view=view, layers=ordered, weights=weights, bits=bits or weights.dtype.bits, activations=activations
    )
    keys: dict[str, str] = {}
    chain = digest(SCHEMA, key, rounder.bits, method_word(weights), weights.group_size)
    for layer in ordered:
        own = digest(chain, layer.node, layer.weight, layer.channel_axis, layer.conv_groups, rounder.min_scales(layer))
        keys[layer.name] = own
        chain = own if calibrated else chain
    done = {
        layer.name: RoundedWeight.from_arrays(arrays)
        for layer in ordered
        if (arrays := store.get_arrays(KIND, keys[layer.name])) is not None
    }
    if len(done) < len(ordered):
        engine = LayerwiseEngine(reference, ordered, calibration, interpreter, batching) if calibrated else None
        for layer in ordered:
            if engine is not None:
                done[layer.name] = rounder.round_in_order(layer, engine, done)
            elif layer.name not in done:
                done[layer.name] = rounder.round_alone(layer)
            store.put_arrays(KIND, keys[layer.name], done[layer.name].to_arrays())
    return {layer.name: done[layer.name] for layer in layers}


@dataclass(frozen=True, slots=True, kw_only=True)
class _NetworkRounder:
    """The layers of one ``round_network`` call, in the network's order, and its settings."""

    view: GraphView
    layers: Sequence[Layer]
    weights: WeightScheme
    bits: int
    activations: Mapping[str, tuple[float, float]] | None

    def min_scales(self, layer: Layer) -> NDArray[np.float64] | None:
        """Lower limits of the layer's scales, (channels,): the largest among the layers that share its weight."""
        limits = [self._own_min_scales(other) for other in self.layers if other.weight == layer.weight]
        known = [limit for limit in limits if limit is not None]
        return np.max(known, axis=0) if known and self.weights.group_size is None else None

    def _own_min_scales(self, layer: Layer) -> NDArray[np.float64] | None:
        node = self._node(layer)
        if layer.op in RECURRENT:
            return None
        bounds = self.activations.get(node.input[0]) if self.activations is not None else None
        view = MatrixView.of(layer)
        bias = layer_bias(self.view, node, view.channels * (view.groups if view.shares_scales else 1))
        if bounds is None or not is_bounded(bounds) or bias is None:
            return None
        limits = min_scales_for_bias(bias, bounds)
        return limits.reshape(-1, view.channels).max(axis=0) if view.shares_scales else limits

    def _node(self, layer: Layer) -> onnx.NodeProto:
        for node in self.view.nodes:
            if node.name == layer.node:
                return node
        raise LoweringError(
            f"layer '{layer.name}': the network has no node '{layer.node}'",
            "the config was written for another version of the network: search it again",
        )

    def _problem(self, layer: Layer, moments: SecondMoments | None) -> RoundingProblem:
        view = MatrixView.of(layer)
        weight = self.view.array(layer.weight)
        if weight is None or weight.shape != layer.weight_shape:
            raise LoweringError(
                f"layer '{layer.name}': the network has no weight '{layer.weight}' of its shape",
                "the config was written for another version of the network: search it again",
            )
        if not np.isfinite(weight).all():
            raise ModelError(
                f"layer '{layer.name}': weight '{layer.weight}' has values that are not finite",
                "export the network again from a checkpoint whose weights are finite",
            )
        if self.weights.group_size is not None and layer.op not in ("Gemm", "MatMul"):
            raise LoweringError(
                f"layer '{layer.name}': group_size {self.weights.group_size} applies to Gemm and MatMul, this is a "
                f"{layer.op}",
                "leave group_size out for this layer",
            )
        return RoundingProblem(
            view=view,
            rows=view.rows(weight.astype(np.float64)),
            bits=self.bits,
            group_size=self.weights.group_size,
            scale_method=methods_for(self.weights)[0],
            min_scales=self.min_scales(layer),
            hessian=moments[0] if moments else None,
            mismatch=moments[1] if moments else None,
        )

    def round_alone(self, layer: Layer) -> RoundedWeight:
        """Round by the weight alone."""
        problem = self._problem(layer, None)
        integers, scales = methods_for(self.weights)[1].round(problem)
        return RoundedWeight(
            integers=problem.view.weight(integers), scales=scales, bias_correction=None, bits=self.bits
        )

    def round_in_order(self, layer: Layer, engine: LayerwiseEngine, done: Mapping[str, RoundedWeight]) -> RoundedWeight:
        """Round for the inputs behind the rounded layers before, and bring ``engine`` past the layer."""
        engine.advance()
        view = MatrixView.of(layer)
        tied = next((other for other in self.layers if other.weight == layer.weight and other.name in done), layer)
        if tied.name in done:
            integers, scales = done[tied.name].integers, done[tied.name].scales
        else:
            problem = self._problem(layer, _second_moments(layer, view, engine))
            rows, scales = methods_for(self.weights)[1].round(problem)
            integers = view.weight(rows)
        rounded = RoundedWeight(integers=integers, scales=scales, bias_correction=None, bits=self.bits)
        shift = engine.finish(
            view.dequantise(rounded, self.weights.group_size), 1 if layer.op.startswith("Conv") else -1
        )
        beta = float(attribute(self._node(layer), "beta", 1.0)) if layer.op == "Gemm" else 1.0
        correction = (shift / (beta or 1.0)).astype(np.float32)
        return RoundedWeight(integers=integers, scales=scales, bias_correction=correction, bits=self.bits)


def _second_moments(layer: Layer, view: MatrixView, engine: LayerwiseEngine) -> SecondMoments:
    """The layer's 2 X Xᵀ and 2 (X̃ − X) Xᵀ, (groups, k, k) each, the latter times ``shrinkage``."""
    im2col = Im2col.of(view, engine.node)
    k = view.rows(np.empty(view.shape, dtype=np.int8)).shape[-1]
    wanted = max(HESSIAN_COLUMNS, COLUMNS_PER_ROW * k)
    hessian, mismatch = np.zeros((view.groups, k, k)), np.zeros((view.groups, k, k))
    count = 0
    for exact, rounded in engine.inputs():
        positions = max(1, wanted // (engine.chunks * max(1, len(rounded))))
        for columns, differences in zip(
            im2col.columns(rounded, positions), im2col.columns(exact - rounded, positions), strict=True
        ):
            # One matrix times its own transpose takes BLAS's symmetric product, half the work of a batched one.
            hessian += (columns[0] @ columns[0].T)[None] if len(columns) == 1 else columns @ columns.swapaxes(1, 2)
            mismatch += differences @ columns.swapaxes(1, 2)
            count += columns.shape[-1]
    if not (np.isfinite(hessian).all() and np.isfinite(mismatch).all()):
        raise DataError(
            f"layer '{layer.name}': its inputs are not finite on the calibration data",
            "check the calibration inputs for NaN, infinity and wrong scaling",
        )
    return 2 * hessian, 2 * shrinkage(count, k) * mismatch
