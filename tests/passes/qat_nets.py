"""A small trained classifier of digits, and what tests of quantisation-aware training do with it."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bitfront.core import CalibrationSettings, ContentStore, Inputs, Labelled, Scheme
from bitfront.experiments.digits import load_halves
from bitfront.experiments.networks.digits import DigitsNet
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.lowerer import Lowerer
from bitfront.passes.data import Batch, TrainingData
from bitfront.passes.qat import TRAINING, Qat
from bitfront.passes.qat_layers import TrainedLayer
from bitfront.passes.qat_result import QatResult
from bitfront.passes.train import train
from bitfront.passes.training import Training
from tests.lowering.candidates import outputs_of, saturates
from tests.references import export_reference

QUICK = replace(TRAINING, steps=20, batch_size=32, learning_rate=2e-3)


@cache
def digits() -> tuple[Labelled, Labelled]:
    return load_halves()


@cache
def digits_lowerer() -> Lowerer:
    """A narrow ``DigitsNet``, trained for a few epochs."""
    data, _ = digits()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = DigitsNet(narrow=8, wide=8)

    def loss(module: torch.nn.Module, batch: Batch) -> torch.Tensor:
        assert batch.labels is not None
        return torch.nn.functional.cross_entropy(module(*batch.inputs.values()), batch.labels)

    train(
        network,
        loss,
        TrainingData(inputs=data.inputs, labels=data.labels),
        Training(steps=100, batch_size=64, learning_rate=0.05),
    )
    reference = export_reference(network.eval(), data.inputs, name="digits")
    return Lowerer(reference, get_dialect("ort-cpu"), data.inputs, CalibrationSettings(), ContentStore(None))


def unlabelled() -> TrainingData:
    return TrainingData(inputs=digits()[0].inputs)


def schemes_of(lowerer: Lowerer, *texts: str) -> dict[str, Scheme]:
    """The schemes in turn, layer by layer."""
    layers = lowerer.quantisable.layers
    return {layer.name: Scheme.parse(texts[index % len(texts)]) for index, layer in enumerate(layers)}


def artifact_of(result: QatResult, lowerer: Lowerer, schemes: dict[str, Scheme]) -> bytes:
    return written_by(result, lowerer).lower(schemes).data


def written_by(result: QatResult, lowerer: Lowerer) -> Lowerer:
    return result.lowerer(lowerer.dialect, lowerer.settings, ContentStore(None), lowerer.calibration_digest)


def ran(model: bytes, inputs: Inputs) -> tuple[NDArray[Any], ...]:
    """Outputs of an artifact on ONNX Runtime; where its 8-bit kernels saturate, of the artifact as it is written."""
    return outputs_of(model, inputs)


def simulated(network: torch.nn.Module, inputs: Inputs) -> tuple[NDArray[Any], ...]:
    """Outputs of a module in evaluation mode; with floating biases where ``ran`` gives those of such a graph."""
    if saturates():
        network = copy.deepcopy(network)
        for layer in network.modules():
            if isinstance(layer, TrainedLayer):
                layer.integer = False
    with torch.no_grad():
        found = network.eval()(*(torch.from_numpy(np.array(array)) for array in inputs.values()))
    return tuple(part.numpy() for part in (found if isinstance(found, tuple) else (found,)))


def trained(texts: tuple[str, ...], options: Qat) -> tuple[QatResult, dict[str, Scheme]]:
    """The digits network trained with ``options`` under schemes in turn."""
    lowerer = digits_lowerer()
    schemes = schemes_of(lowerer, *texts)
    return options.apply(lowerer, schemes, unlabelled()), schemes
