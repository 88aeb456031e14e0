"""The result of quantisation-aware training in the terms of lowering: a network, ranges and scales.

The artifact written from it is checked to have the learned quantisers; a dialect that gives one scale to several
tensors may not be able to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from bitfront.core import CalibrationSettings, ContentStore, LoweringError, Scheme, digest
from bitfront.lowering.dialect import Dialect
from bitfront.lowering.graph import GraphView
from bitfront.lowering.lowerer import Lowerer
from bitfront.lowering.reference import ReferenceModel
from bitfront.passes.qat_network import ArtifactNetwork, activation_quantisers
from bitfront.passes.train import Trained


@dataclass(frozen=True, slots=True, kw_only=True)
class QatResult:
    """A trained network.

    Attributes:
        network: The trained module; its outputs are the artifact's.
        reference: The network with the trained biases and the weights that the artifact computes with.
        ranges: Tensor name → (low, high), the learned ones in place of the calibrated.
        scales: Layer name → scales of its weight, (channels,), for every integer layer.
        trained: How the training went.
    """

    network: ArtifactNetwork
    reference: ReferenceModel
    ranges: Mapping[str, tuple[float, float]]
    scales: Mapping[str, NDArray[np.float32]]
    trained: Trained

    def lowerer(
        self, dialect: Dialect, settings: CalibrationSettings, store: ContentStore, calibration_digest: str
    ) -> Lowerer:
        """Writes the trained network; its configs carry ranges and scales, so they need no calibration inputs.

        Args:
            dialect: The one it was trained for.
            settings: How the ranges the training began with were found.
            store: Where rounded weights of other schemes are kept.
            calibration_digest: Digest of the calibration inputs of those ranges.
        """
        return Lowerer(
            self.reference,
            dialect,
            None,
            settings,
            store,
            calibration_digest=calibration_digest,
            ranges=self.ranges,
            scales=self.scales,
        )


def result_of(network: ArtifactNetwork, lowerer: Lowerer, schemes: Mapping[str, Scheme], trained: Trained) -> QatResult:
    """Read the result off a trained module on the CPU.

    Raises:
        LoweringError: If the artifact written from it has other quantisers than those learned.
    """
    learned = dict(lowerer.config(schemes).ranges)
    learned.update({name: network.quantiser(name).range() for name in network.tensor_names if name in learned})
    values, scales = _values(network, lowerer)
    result = QatResult(
        network=network,
        reference=with_values(lowerer.reference, values),
        ranges=MappingProxyType(learned),
        scales=MappingProxyType(scales),
        trained=trained,
    )
    written = result.lowerer(lowerer.dialect, lowerer.settings, ContentStore(None), lowerer.calibration_digest)
    _check_quantisers(network, onnx.load_from_string(written.lower(schemes).data))
    return result


def with_values(reference: ReferenceModel, values: Mapping[str, NDArray[np.float32]]) -> ReferenceModel:
    """The same network with other weights: initialiser name → value of the same shape."""
    proto = onnx.ModelProto()
    proto.CopyFrom(reference.proto)
    for tensor in proto.graph.initializer:
        if tensor.name in values:
            assert tuple(tensor.dims) == values[tensor.name].shape, "weights keep their shapes"
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values[tensor.name]), tensor.name))
    return replace(reference, proto=proto, fingerprint=digest(proto.SerializeToString(deterministic=True)))


@torch.no_grad()
def _values(
    network: ArtifactNetwork, lowerer: Lowerer
) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]]]:
    """Trained initialisers of the reference by name, and scales by layer."""
    nodes = {node.name: node for node in GraphView(lowerer.reference.proto.graph).nodes}
    values: dict[str, NDArray[np.float32]] = {}
    scales: dict[str, NDArray[np.float32]] = {}
    for layer in lowerer.quantisable.layers:
        trained = network.layer(layer.name)
        values[layer.weight] = trained.weight.weight.numpy().copy()
        if trained.weight.scales is not None:
            scales[layer.name] = trained.weight.scales.numpy().copy()
        if trained.bias is not None:
            values[nodes[layer.node].input[2]] = (trained.bias * trained.bias_unit).numpy().copy()
    return values, scales


def _check_quantisers(network: ArtifactNetwork, artifact: onnx.ModelProto) -> None:
    written = activation_quantisers(artifact)
    for tensor, found in zip(network.quantised, written, strict=True):
        quantiser = network.quantiser(tensor)
        with torch.no_grad():
            scale = float(quantiser.step())
        if abs(found.scale - scale) > 1e-5 * scale or found.zero_point != quantiser.zero_point:
            raise LoweringError(
                f"tensor '{tensor}': training learned the scale {scale:g}, the dialect writes {found.scale:g}",
                "leave out the pass 'qat' for this dialect",
            )
