"""Rounding every layer of a network once, at one setting; candidates are stitched from the results.

Methods that look at the weight alone take layers in any order. GPTQ takes them in the network's order: each layer is
rounded to give, on the inputs that the rounded layers before it give, what it gave in the network as it is, and its
mean output shift becomes a bias correction.
A further method (learned rounding, codebooks) is one more entry in ``METHODS``.

Results are kept in the store under a digest of whatever they depend on: the network and the calibration inputs (by
the caller's ``key``), the settings, the layer and, for GPTQ, the layers before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import onnx
from numpy.typing import NDArray

from bitfront.core import ContentStore, DataError, Inputs, LoweringError, ModelError, Rounding, digest
from bitfront.lowering.graph import GraphView, attribute
from bitfront.lowering.interpreter import Interpreter
from bitfront.lowering.layers import Layer
from bitfront.lowering.ranges import is_bounded
from bitfront.lowering.rounding.bias_overflow import ZERO_WEIGHTS, layer_bias, min_scales_for_bias
from bitfront.lowering.rounding.gptq import gptq_integers, retargeted, shrinkage
from bitfront.lowering.rounding.im2col import Im2col
from bitfront.lowering.rounding.layerwise import LayerwiseEngine
from bitfront.lowering.rounding.matrix import MatrixView
from bitfront.lowering.rounding.scales import absmax_scales, blocks_of, mse_scales, nearest_integers
from bitfront.lowering.rounding.weight import RoundedWeight

# Raise it whenever the same settings would give other integers, scales or corrections than before.
SCHEMA = 7
KIND = "rounded"
# Hessians of k × k are accumulated over about so many output positions, evenly spaced, or as many times k where that is
# more: all 512 · 32² of a small image network's first layers gave the same accuracy in many times the time.
HESSIAN_COLUMNS = 8_192
COLUMNS_PER_ROW = 16
# A weight of which so much is zero was made sparse: its zeros stay.
SPARSE = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundingProblem:
    """One layer's weight, to be rounded.

    Attributes:
        view: How the weight is read as rows.
        rows: float64 (groups, o, k), the weight.
        bits: 8 or 4.
        group_size: Weights per scale along k; None is one scale per channel.
        minimum: Lower limits of the scales, (channels,), by which channels of zeros get theirs; None without limits.
            Never with ``group_size``.
        hessian: float64 (groups, k, k), 2 X Xᵀ of the inputs X behind the rounded prefix; None for methods without
            calibration.
        drift: float64 (groups, k, k), 2 (X̃ − X) Xᵀ, X̃ being the inputs in the network as it is, times ``shrinkage``;
            None likewise.
    """

    view: MatrixView
    rows: NDArray[np.float64]
    bits: int
    group_size: int | None
    minimum: NDArray[np.float64] | None
    hessian: NDArray[np.float64] | None
    drift: NDArray[np.float64] | None


# A problem → integers (groups, o, k) and scales as in ``RoundedWeight``.
Solution = tuple[NDArray[np.int8], NDArray[np.float32]]
# A layer's Hessian and drift, as in ``RoundingProblem``.
Moments = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A way to round.

    Attributes:
        solve: Rounds one layer's weight.
        uses_calibration: Whether ``solve`` needs the Hessian, and layers have to be taken in the network's order.
    """

    solve: Callable[[RoundingProblem], Solution]
    uses_calibration: bool


def _scales(
    problem: RoundingProblem, find: Callable[[NDArray[np.float64], int], NDArray[np.float32]]
) -> NDArray[np.float32]:
    matrix = problem.view.channel_rows(problem.rows)
    if problem.group_size is not None:
        return find(blocks_of(matrix, problem.group_size), problem.bits).reshape(len(matrix), -1)
    scales = find(matrix, problem.bits)
    if problem.minimum is None:
        return scales
    # Rounded up: the nearest float32 may lie below the limit.
    limits = np.nextafter(problem.minimum.astype(np.float32), np.float32(np.inf))
    free = (problem.minimum > 0) & ~matrix.any(axis=1)
    return np.where(free, limits * np.float32(ZERO_WEIGHTS), np.where(problem.minimum > scales, limits, scales))


def _nearest(problem: RoundingProblem) -> Solution:
    scales = _scales(problem, absmax_scales)
    return nearest_integers(problem.rows, problem.view.element_scales(scales, problem.group_size), problem.bits), scales


def _mse(problem: RoundingProblem) -> Solution:
    scales = _scales(problem, mse_scales)
    return nearest_integers(problem.rows, problem.view.element_scales(scales, problem.group_size), problem.bits), scales


def _gptq(problem: RoundingProblem) -> Solution:
    hessian, drift = problem.hessian, problem.drift
    assert hessian is not None, "GPTQ is given the Hessian"
    assert drift is not None, "and the drift"
    zeros = problem.rows == 0 if np.mean(problem.rows == 0) >= SPARSE else None
    wanted = retargeted(problem.rows, hessian, drift)
    kept = wanted if zeros is None else np.where(zeros, 0.0, wanted)
    scales = _scales(replace(problem, rows=kept), mse_scales)
    steps = problem.view.element_scales(scales, problem.group_size).astype(np.float64)
    return gptq_integers(wanted, hessian, steps, problem.bits, zeros), scales


METHODS: Mapping[Rounding, Method] = MappingProxyType(
    {
        Rounding.NEAREST: Method(solve=_nearest, uses_calibration=False),
        Rounding.MSE: Method(solve=_mse, uses_calibration=False),
        Rounding.GPTQ: Method(solve=_gptq, uses_calibration=True),
    }
)


def round_network(
    reference: onnx.ModelProto,
    layers: Sequence[Layer],
    calibration: Inputs,
    *,
    bits: int,
    rounding: Rounding,
    group_size: int | None,
    activations: Mapping[str, tuple[float, float]] | None,
    interpreter: Interpreter,
    store: ContentStore,
    key: str,
) -> Mapping[str, RoundedWeight]:
    """Round the weights of ``layers``, all at one setting.

    Args:
        reference: Normalised FP32 network; not modified.
        layers: Layers of that network. Layers that share a weight get the same integers and scales.
        calibration: One array (n, …) per network input; not looked at by ``nearest`` and ``mse``.
        bits: 8 or 4.
        rounding: Which method.
        group_size: Weights per scale along the reduction axis, for Gemm and MatMul; None is one per channel.
        activations: Ranges of the FP32 network's tensors where layers will compute on 8-bit activations: scales are
            then kept large enough for 32-bit biases (``guard.py``). None for weight-only schemes.
        interpreter: Runs the network; not asked by ``nearest`` and ``mse``.
        store: Where results are kept.
        key: Identifies network and calibration inputs.

    Returns:
        Layer name → rounded weight, in the order of ``layers``.

    Raises:
        LoweringError: If a layer's weight cannot be rounded so; names the layer.
        ModelError: If a weight is not finite.
        DataError: If calibration inputs are needed and missing, or lead to values that are not finite.
    """
    method = METHODS[rounding]
    view = GraphView(reference.graph)
    order = {node.name: index for index, node in enumerate(view.nodes)}
    ordered = sorted(layers, key=lambda layer: order.get(layer.node, -1))
    job = _Job(view=view, layers=ordered, bits=bits, group_size=group_size, activations=activations)
    keys: dict[str, str] = {}
    chain = digest(SCHEMA, key, bits, rounding.value, group_size)
    for layer in ordered:
        own = digest(chain, layer.node, layer.weight, layer.channel_axis, layer.conv_groups, job.minimum(layer))
        keys[layer.name] = own
        chain = own if method.uses_calibration else chain
    done = {
        layer.name: RoundedWeight.from_arrays(arrays)
        for layer in ordered
        if (arrays := store.get_arrays(KIND, keys[layer.name])) is not None
    }
    if len(done) < len(ordered):
        streams = LayerwiseEngine(reference, ordered, calibration, interpreter) if method.uses_calibration else None
        for layer in ordered:
            if streams is not None:
                done[layer.name] = job.round_behind_prefix(layer, method, streams, done)
            elif layer.name not in done:
                done[layer.name] = job.round_alone(layer, method)
            store.put_arrays(KIND, keys[layer.name], done[layer.name].to_arrays())
    return {layer.name: done[layer.name] for layer in layers}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """The layers of one ``round_network`` call, in the network's order, and its settings."""

    view: GraphView
    layers: Sequence[Layer]
    bits: int
    group_size: int | None
    activations: Mapping[str, tuple[float, float]] | None

    def minimum(self, layer: Layer) -> NDArray[np.float64] | None:
        """Lower limits of the layer's scales, (channels,): the largest among the layers that share its weight."""
        limits = [self._own_minimum(other) for other in self.layers if other.weight == layer.weight]
        known = [limit for limit in limits if limit is not None]
        return np.max(known, axis=0) if known and self.group_size is None else None

    def _own_minimum(self, layer: Layer) -> NDArray[np.float64] | None:
        node = self._node(layer)
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

    def _problem(self, layer: Layer, moments: Moments | None) -> RoundingProblem:
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
        if self.group_size is not None and layer.op not in ("Gemm", "MatMul"):
            raise LoweringError(
                f"layer '{layer.name}': group_size {self.group_size} applies to Gemm and MatMul, this is a {layer.op}",
                "leave group_size out for this layer",
            )
        return RoundingProblem(
            view=view,
            rows=view.rows(weight.astype(np.float64)),
            bits=self.bits,
            group_size=self.group_size,
            minimum=self.minimum(layer),
            hessian=moments[0] if moments else None,
            drift=moments[1] if moments else None,
        )

    def round_alone(self, layer: Layer, method: Method) -> RoundedWeight:
        """Round by the weight alone."""
        problem = self._problem(layer, None)
        integers, scales = method.solve(problem)
        return RoundedWeight(
            integers=problem.view.weight(integers), scales=scales, bias_correction=None, bits=self.bits
        )

    def round_behind_prefix(
        self, layer: Layer, method: Method, streams: LayerwiseEngine, done: Mapping[str, RoundedWeight]
    ) -> RoundedWeight:
        """Round for the inputs behind the rounded prefix, and bring ``streams`` past the layer."""
        streams.advance()
        view = MatrixView.of(layer)
        twin = next((other for other in self.layers if other.weight == layer.weight and other.name in done), layer)
        if twin.name in done:
            integers, scales = done[twin.name].integers, done[twin.name].scales
        else:
            rows, scales = method.solve(self._problem(layer, _moments(layer, view, streams)))
            integers = view.weight(rows)
        rounded = RoundedWeight(integers=integers, scales=scales, bias_correction=None, bits=self.bits)
        shift = streams.finish(view.dequantise(rounded, self.group_size), 1 if layer.op.startswith("Conv") else -1)
        beta = float(attribute(self._node(layer), "beta", 1.0)) if layer.op == "Gemm" else 1.0
        correction = (shift / (beta or 1.0)).astype(np.float32)
        return RoundedWeight(integers=integers, scales=scales, bias_correction=correction, bits=self.bits)


def _moments(layer: Layer, view: MatrixView, streams: LayerwiseEngine) -> Moments:
    """The layer's 2 X Xᵀ and 2 (X̃ − X) Xᵀ, (groups, k, k) each, the latter times ``shrinkage``."""
    unfolding = Im2col.of(view, streams.node)
    k = view.rows(np.empty(view.shape, dtype=np.int8)).shape[-1]
    wanted = max(HESSIAN_COLUMNS, COLUMNS_PER_ROW * k)
    hessian, drift = np.zeros((view.groups, k, k)), np.zeros((view.groups, k, k))
    count = 0
    for exact, rounded in streams.inputs():
        positions = max(1, wanted // (streams.chunks * max(1, len(rounded))))
        for columns, differences in zip(
            unfolding.columns(rounded, positions), unfolding.columns(exact - rounded, positions), strict=True
        ):
            # One matrix times its own transpose takes BLAS's symmetric product, half the work of a batched one.
            hessian += (columns[0] @ columns[0].T)[None] if len(columns) == 1 else columns @ columns.swapaxes(1, 2)
            drift += differences @ columns.swapaxes(1, 2)
            count += columns.shape[-1]
    if not (np.isfinite(hessian).all() and np.isfinite(drift).all()):
        raise DataError(
            f"layer '{layer.name}': its inputs are not finite on the calibration data",
            "check the calibration inputs for NaN, infinity and wrong scaling",
        )
    return 2 * hessian, 2 * shrinkage(count, k) * drift
