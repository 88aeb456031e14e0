"""Zeros in weights: how many, where, and that training does not wake them up."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bitfront.core import CalibrationSettings, ConfigError, ContentStore, Scheme
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.lowerer import Lowerer
from bitfront.passes.distill import Distillation
from bitfront.passes.prune_weights import NMPrune, Scope, UnstructuredPrune, bake, masked
from bitfront.passes.qat import TRAINING, Qat
from bitfront.passes.train import train
from bitfront.passes.training import Training
from tests.passes.nets import image_data, plain, same_weights
from tests.passes.prune_nets import Concatenated
from tests.references import export_reference


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in module.named_parameters() if tensor.dim() > 1}


@pytest.mark.parametrize("scope", list(Scope))
def test_the_smallest_weights_go(scope: Scope) -> None:
    """The asked fraction is zero, nothing that stays is smaller than what went, and the rest is untouched."""
    module, data = plain(), image_data()
    before = copy.deepcopy(module)
    found = weights(UnstructuredPrune(sparsity=0.75, scope=scope).apply(module, data))
    assert same_weights(module, before)
    layers = [[name] for name in found] if scope is Scope.LAYER else [list(found)]
    for names in layers:
        after, old = (torch.cat([side[name].flatten() for name in names]) for side in (found, weights(module)))
        assert (after == 0).sum() == int(0.75 * len(after))
        assert old[after == 0].abs().max() <= old[after != 0].abs().min()
        assert torch.equal(after[after != 0], old[after != 0])


def pattern_holds(weight: Tensor, axis: int, n: int = 2, m: int = 4) -> bool:
    """Whether every m neighbours along ``axis`` have at most n that are not zero."""
    blocks = torch.unflatten(weight.movedim(axis, -1), -1, (-1, m))
    return bool(((blocks != 0).sum(-1) <= n).all())


def test_two_of_four_along_the_inputs() -> None:
    """Convolutions, transposed ones and matrices have the pattern along their input axis, and not along another."""
    torch.manual_seed(0)
    module = Concatenated()
    pruned = NMPrune().apply(module, image_data())
    assert pattern_holds(pruned.get_parameter("conv3.weight"), 1)
    assert pattern_holds(pruned.get_parameter("up.weight"), 0)
    assert not pattern_holds(pruned.get_parameter("conv3.weight"), 0)
    # Three and ten input channels are no multiple of four.
    for name in ("conv1.weight", "conv4.weight"):
        assert torch.equal(pruned.get_parameter(name), module.get_parameter(name))
    assert (pruned.get_parameter("conv3.weight") == 0).sum() * 2 == pruned.get_parameter("conv3.weight").numel()


def test_the_larger_two_of_four_stay() -> None:
    """By hand, signs and ties included."""
    layer = nn.Sequential(nn.Linear(8, 1, bias=False))
    layer.get_parameter("0.weight").data[:] = torch.tensor([[1.0, -3.0, 2.0, 0.5, 1.0, 1.0, 1.0, -1.0]])
    pruned = NMPrune().apply(layer, image_data())
    assert pruned.get_parameter("0.weight").tolist() == [[0.0, -3.0, 2.0, 0.0, 1.0, 1.0, 0.0, 0.0]]


@pytest.mark.parametrize("options", [NMPrune(), UnstructuredPrune(sparsity=0.5)], ids=["two-of-four", "unstructured"])
def test_recovery_keeps_the_zeros(options: NMPrune | UnstructuredPrune) -> None:
    """Trained under its masks and baked, a module has the same zeros, other weights, and plain parameters."""
    module, data = plain(), image_data()
    masks = options.masks(module)
    student = masked(module, masks)
    student.get_submodule("classifier").requires_grad_(False)
    training = Training(steps=4, batch_size=16, learning_rate=0.05, weight_decay=0.1)
    trained = Distillation(training=training).apply(student, data, teacher=module)
    baked = bake(trained)
    assert not any(parametrize.is_parametrized(part) for part in baked.modules())
    assert baked.state_dict().keys() == module.state_dict().keys()
    images = torch.from_numpy(data.inputs["images"])
    assert torch.equal(baked(images), trained(images))
    for name, stays in masks.items():
        weight = baked.get_parameter(f"{name}.weight")
        assert weight[~stays].eq(0).all()
        assert weight.requires_grad is (name != "classifier")
    assert not torch.equal(baked.get_parameter("conv2.weight"), bake(student).get_parameter("conv2.weight"))
    # The planted bug: without masks the same training wakes them up.
    awake = Distillation(training=training).apply(options.apply(module, data), data, teacher=module)
    assert not awake.get_parameter("conv2.weight")[~masks["conv2"]].eq(0).all()


@pytest.mark.parametrize("texts", [("int8:mse",), ("int4:mse", "fp16", "fp32")], ids=["int8", "mixed"])
def test_two_of_four_reaches_the_artifact(texts: tuple[str, ...]) -> None:
    """Masked, distilled, baked, exported and trained as it is quantised, two of four weights are zero in the file.

    The integers are read from the artifact with ONNX's own reader; the planted bug is training that forgets the zeros.
    """
    module, data = plain(), image_data()
    masks = NMPrune().masks(module)
    training = Training(steps=2, batch_size=16, learning_rate=0.05)
    sparse = bake(Distillation(training=training).apply(masked(module, masks), data, teacher=module))
    reference = export_reference(sparse, data.inputs, name="plain")
    lowerer = Lowerer(reference, get_dialect("ort-cpu"), data.inputs, CalibrationSettings(), ContentStore(None))
    layers = lowerer.quantisable.layers
    schemes = {layer.name: Scheme.parse(texts[rank % len(texts)]) for rank, layer in enumerate(layers)}
    qat = Qat(training=replace(TRAINING, steps=3, batch_size=16, learning_rate=5e-3))
    network = qat.network(lowerer, schemes)
    assert all(zeros(network.layer(name).weight.weight, masks[name]) for name in masks)
    result = qat.apply(lowerer, schemes, data, teacher=module)
    assert all(zeros(result.network.layer(name).weight.weight, masks[name]) for name in masks)
    assert not torch.equal(result.network.layer("conv2").weight.weight, network.layer("conv2").weight.weight)
    awake = qat.network(lowerer, schemes)
    for name in masks:
        awake.layer(name).weight.kind.stays = None
    train(awake, lambda net, batch: net(*batch.inputs.values()).square().mean(), data, qat.training)
    assert not all(zeros(awake.layer(name).weight.weight, masks[name]) for name in masks)
    writer = result.lowerer(lowerer.dialect, lowerer.settings, ContentStore(None), lowerer.calibration_digest)
    proto = onnx.load_from_string(writer.lower(schemes).data)
    stored = [numpy_helper.to_array(tensor).astype(np.float32) for tensor in proto.graph.initializer]
    for name, stays in masks.items():
        same = [torch.from_numpy(array) for array in stored if sorted(array.shape) == sorted(stays.shape)]
        assert any(zeros(part, stays) or zeros(part.T, stays) for part in same), name


def zeros(weight: Tensor, stays: Tensor) -> bool:
    """Whether a weight of the mask's shape is zero wherever the mask is."""
    return weight.shape == stays.shape and bool(weight[~stays].eq(0).all())


def test_options_survive_json_and_wrong_ones_are_named() -> None:
    """What is written reads back equal; layers can be kept; nonsense has its message."""
    unstructured, n_of_m = UnstructuredPrune(sparsity=0.5, scope=Scope.LAYER), NMPrune(n=1, m=8, keep=("conv1",))
    assert UnstructuredPrune.from_json(unstructured.to_json()) == unstructured
    assert NMPrune.from_json(n_of_m.to_json()) == n_of_m
    assert "conv2" not in NMPrune(keep=("conv2",)).masks(plain())
    with pytest.raises(ConfigError, match=r"expected a sparsity in \[0, 1\), got 1"):
        UnstructuredPrune(sparsity=1.0)
    with pytest.raises(ConfigError, match="expected 0 < n < m, got 4 of 4"):
        NMPrune(n=4)
    with pytest.raises(ConfigError, match="the network has no layer 'bn1' with weights"):
        NMPrune(keep=("bn1",)).masks(plain())
