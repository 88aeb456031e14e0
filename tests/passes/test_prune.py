"""Structured pruning: what is left computes what the whole network did without the removed channels."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bitfront.core import ConfigError, ModelError
from bitfront.passes.data import TrainingData
from bitfront.passes.equivalence import outputs_of
from bitfront.passes.prune import StructuredPrune
from bitfront.passes.prune_counts import count_macs, count_parameters, example_tensors
from bitfront.passes.prune_graph import DependencyGraph, Role
from bitfront.passes.prune_groups import PruneGroup, Status, find_prune_groups, rounded_channels
from bitfront.passes.prune_importance import Importance
from bitfront.passes.prune_weights import Mask
from tests.passes.nets import image_data, plain, same_weights, trained_looking
from tests.passes.prune_nets import NETS, Fixed, Transformer, net
from tests.references import export_reference


def everything(groups: Sequence[PruneGroup], sparsity: float = 0.5) -> dict[str, float]:
    free = [group for group in groups if not group.branch and group.status is not Status.FIXED]
    return {group.name: sparsity for group in free}


def silenced(module: nn.Module, groups: Sequence[PruneGroup], kept: dict[str, tuple[int, ...]]) -> nn.Module:
    """The whole network with the removed channels silent at their source: rows, biases, norms' weights and shifts."""
    module = copy.deepcopy(module)
    for group in groups:
        gone = {c for i, unit in enumerate(group.units) if i not in kept.get(group.name, range(10**6)) for c in unit}
        for member in group.members:
            if member.role in (Role.CONSUMER, Role.OUTPUT):
                continue
            layer = module.get_submodule(member.layer)
            own = [c for c, root in zip(member.channels, member.roots, strict=True) if root in gone]
            for parameter in (cast("Tensor", layer.weight), cast("Tensor | None", layer.bias)):
                if parameter is not None:
                    transposed = isinstance(layer, nn.ConvTranspose2d) and parameter.dim() > 1
                    parameter.data.transpose(0, int(transposed))[own] = 0
    return module


def gap(a: nn.Module, b: nn.Module, data: TrainingData) -> float:
    """Largest difference of the outputs, relative to the largest output."""
    examples = example_tensors(a, data.inputs, 8)
    ours, wanted = outputs_of(a, examples)[0], outputs_of(b, examples)[0]
    return float((ours - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("importance", [Importance.MAGNITUDE, Importance.TAYLOR])
def test_the_pruned_network_equals_the_silenced_one(name: str, importance: Importance) -> None:
    """Removing half of every group at once changes nothing but rounding; the given module stays as it was."""
    module, data = net(name)
    before = copy.deepcopy(module)
    groups = find_prune_groups(module, data.inputs)
    options = StructuredPrune(sparsity=everything(groups), importance=importance, round_to=1)
    pruned = options.apply(module, data, groups=groups)
    chosen = [group for group in groups if group.name in options.sparsity]
    wanted = silenced(module, chosen, options.kept_units(module, chosen, data))
    assert gap(pruned, wanted, data) < 1e-5
    assert gap(pruned, module, data) > 1e-3
    assert same_weights(module, before)
    assert count_parameters(pruned) < 0.6 * count_parameters(module)
    assert count_macs(pruned, data.inputs) < 0.6 * count_macs(module, data.inputs)
    assert same_weights(pruned, options.apply(module, data))


def _shift_columns(module: nn.Module) -> None:
    layer = module.get_submodule("conv2")
    layer.weight.data = cast("Tensor", layer.weight).data.roll(1, 1)


def _forget_norm(module: nn.Module) -> None:
    norm = cast("nn.BatchNorm2d", module.get_submodule("bn1"))
    whole = plain().bn1
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(norm, name).data = getattr(whole, name).data[: norm.num_features].clone()


@pytest.mark.parametrize("bug", [_shift_columns, _forget_norm])
def test_planted_bugs_are_caught(monkeypatch: pytest.MonkeyPatch, bug: Callable[[nn.Module], None]) -> None:
    """Columns that are off by one and a norm that lost the wrong channels: seen by the oracle and by the proof."""
    module, data = net("plain")
    options = StructuredPrune(sparsity={"conv1": 0.5}, importance=Importance.MAGNITUDE, round_to=1)
    groups = find_prune_groups(module, data.inputs)
    pruned = options.apply(module, data, groups=groups)
    wanted = silenced(module, groups[:1], options.kept_units(module, groups[:1], data))
    assert gap(pruned, wanted, data) < 1e-5
    bug(pruned)
    assert gap(pruned, wanted, data) > 1e-3
    right = DependencyGraph.remove

    def wrong(self: DependencyGraph, root: str, channels: Sequence[int]) -> None:
        right(self, root, channels)
        if root == "conv1":
            bug(self._module)

    monkeypatch.setattr(DependencyGraph, "remove", wrong)
    first = find_prune_groups(module, data.inputs)[0]
    assert (first.name, first.status) == ("conv1", Status.FIXED)
    assert "removing channels changes what the others compute" in first.reason


def test_groups_are_named_and_explained() -> None:
    """Blocks' inner channels can go; what fixes a width, and the outputs, say why they stay."""
    module, data = net("resnet")
    groups = {group.name: group for group in find_prune_groups(module, data.inputs)}
    channels = [name for name, group in groups.items() if not group.branch]
    assert channels == ["conv1", "layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1", "linear"]
    inner = groups["layer2.0.conv1"]
    assert inner.layers == ("layer2.0.conv1", "layer2.0.bn1", "layer2.0.conv2")
    assert (inner.channels, inner.status, inner.reason) == (32, Status.PRUNABLE, "")
    assert inner.weights == 9 * (16 * 32 + 32 * 32)
    assert inner.macs == inner.weights * 8 * 8
    assert inner.macs_share == pytest.approx(inner.macs / count_macs(module, data.inputs))
    # The zero-padded shortcut fixes the width of the stream.
    assert groups["conv1"].status is Status.FIXED
    assert "does not run with fewer of them" in groups["conv1"].reason
    assert groups["linear"].reason == "its channels are the network's outputs"
    module, data = net("digits")
    found = {group.name: (group.status, group.reason) for group in find_prune_groups(module, data.inputs)}
    assert found["stem"] == (Status.KEPT, "the network's first layer is in it")
    assert found["widen.pointwise"] == (Status.PRUNABLE, "")
    assert found["classifier"][0] is Status.FIXED


def test_what_cannot_be_proved_is_fixed() -> None:
    """A norm over channels and a width written into ``forward`` are found by the proof, not by the graph."""
    module, data = trained_looking(Fixed()), image_data()
    reasons = {group.name: group.reason for group in find_prune_groups(module, data.inputs)}
    assert reasons["conv1"] == "the network's first layer is in it"
    assert "changes what the others compute" in reasons["conv2"]
    assert "does not run with fewer of them" in reasons["conv3"] or "shape changes" in reasons["conv3"]


def test_heads_go_as_a_whole() -> None:
    """One group per attention, a unit per head; the module's count of heads follows."""
    module, data = net("transformer")
    groups = {group.name: group for group in find_prune_groups(module, data.inputs)}
    attention = groups["attention.query"]
    assert attention.units == tuple(tuple(range(start, start + 6)) for start in (0, 6, 12, 18))
    assert attention.heads == "attention.heads"
    assert groups["up"].status is Status.PRUNABLE
    assert groups["up"].heads == ""
    options = StructuredPrune(sparsity={"attention.query": 0.5}, round_to=1)
    pruned = cast("Transformer", options.apply(module, data))
    assert pruned.attention.heads == 2
    assert pruned.attention.query.weight.shape == (12, 24)
    assert cast("Transformer", module).attention.heads == 4
    # Two heads of six channels are a multiple of four, three are not.
    options = StructuredPrune(sparsity={"attention.query": 0.3}, round_to=4)
    assert cast("Transformer", options.apply(module, data)).attention.heads == 2


@given(st.integers(1, 300), st.floats(0, 0.999), st.integers(1, 32))
def test_rounded_channels_are_what_kernels_like(channels: int, sparsity: float, round_to: int) -> None:
    """Never none, never more than there are, a multiple unless all stay, within half a step of what was asked."""
    kept = rounded_channels(channels, sparsity, round_to)
    assert 1 <= kept <= channels
    assert kept % round_to == 0 or kept == channels
    if kept not in (channels, round_to):
        assert abs(kept - channels * (1 - sparsity)) <= round_to / 2 + 1e-9
    assert rounded_channels(channels, 0, round_to) == channels


@pytest.mark.parametrize(
    ("channels", "sparsity", "round_to", "kept"),
    [(64, 0.5, 8, 32), (64, 0.45, 16, 32), (24, 0.5, 8, 16), (16, 0.99, 8, 8), (4, 0.5, 8, 4), (12, 0.1, 8, 8)],
)
def test_rounded_channels_by_hand(channels: int, sparsity: float, round_to: int, kept: int) -> None:
    """Ties keep the larger number."""
    assert rounded_channels(channels, sparsity, round_to) == kept


@pytest.mark.parametrize(
    "name",
    ["digits", pytest.param("resnet", marks=pytest.mark.slow), pytest.param("transformer", marks=pytest.mark.slow)],
)
def test_a_pruned_network_exports(name: str) -> None:
    """The exported file computes what the pruned module does."""
    module, data = net(name)
    groups = find_prune_groups(module, data.inputs)
    pruned = StructuredPrune(sparsity=everything(groups), round_to=4).apply(module, data, groups=groups)
    reference = export_reference(pruned, data.inputs, name=name)
    session = onnxruntime.InferenceSession(reference.proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {"images": np.asarray(data.inputs["images"])})
    wanted = outputs_of(pruned, example_tensors(pruned, data.inputs, 24))[0].numpy()
    assert np.abs(out - wanted).max() < 1e-5 * max(1.0, np.abs(wanted).max())


@pytest.mark.parametrize("importance", list(Importance))
def test_importances_are_shared(monkeypatch: pytest.MonkeyPatch, importance: Importance) -> None:
    """Scores computed once give every pruning what it would have computed itself, and are not computed again."""
    module, data = net("digits")
    groups = find_prune_groups(module, data.inputs)
    scores = StructuredPrune(importance=importance).importances(module, groups, data)
    free = [group for group in groups if not group.branch and group.status is not Status.FIXED]
    assert {name: len(score) for name, score in scores.items()} == {group.name: len(group.units) for group in free}
    some = [
        StructuredPrune(sparsity=sparsity, importance=importance)
        for sparsity in ({"block1.conv1": 0.5}, {"block2.conv1": 0.25, "widen.pointwise": 0.5}, {"block2": 1.0})
    ]
    wanted = [options.apply(module, data, groups=groups) for options in some]
    monkeypatch.setattr("bitfront.passes.prune.unit_importances", None)
    for options, expected in zip(some, wanted, strict=True):
        assert same_weights(options.apply(module, data, groups=groups, scores=scores), expected)


def test_batch_norm_is_measured_anew_if_wanted() -> None:
    """With samples for it, statistics differ from the surgery's; modes and frozen parameters are kept."""
    module, data = net("plain")
    module.classifier.requires_grad_(False)
    surgery = StructuredPrune(sparsity={"conv1": 0.5}).apply(module, data)
    measured = StructuredPrune(sparsity={"conv1": 0.5}, batch_norm_samples=24).apply(module, data)
    key = "bn2.running_mean"
    assert not torch.allclose(surgery.state_dict()[key], measured.state_dict()[key])
    assert not measured.training
    frozen = {name for name, parameter in measured.named_parameters() if not parameter.requires_grad}
    assert frozen == {"classifier.weight", "classifier.bias"}


def test_options_survive_json_and_wrong_ones_are_named() -> None:
    """What is written reads back equal; names and values that make no sense have messages of their own."""
    options = StructuredPrune(sparsity={"b": 0.25, "a": 0.5}, importance=Importance.MAGNITUDE, round_to=16)
    assert StructuredPrune.from_json(options.to_json()) == options
    module, data = net("plain")
    for wrong, message in (
        ({"conv9": 0.5}, "the network has no group 'conv9'"),
        ({"classifier": 0.5}, "group 'classifier' cannot be pruned: its channels are the network's outputs"),
    ):
        with pytest.raises(ConfigError, match=message):
            StructuredPrune(sparsity=wrong).apply(module, data)
    with pytest.raises(ConfigError, match="group 'conv1' is channels: expected less than 1, got a sparsity of 1"):
        StructuredPrune(sparsity={"conv1": 1.0}).apply(module, data)
    with pytest.raises(ConfigError, match=r"group 'a': expected a sparsity in \[0, 1\], got 1.5"):
        StructuredPrune.from_json({"sparsity": {"a": 1.5}})
    with pytest.raises(ConfigError, match="importance: expected one of magnitude, taylor, fisher, hessian, got 'luck'"):
        StructuredPrune.from_json({"importance": "luck"})
    with pytest.raises(ConfigError, match="expected round_to ≥ 1, got 0"):
        StructuredPrune(round_to=0)


def test_parametrised_weights_are_refused() -> None:
    """Surgery would cut behind the parametrisation."""
    module = plain()
    parametrize.register_parametrization(module.conv2, "weight", Mask(torch.ones_like(module.conv2.weight).bool()))
    with pytest.raises(ModelError, match="layer 'conv2': its weights are parametrised"):
        find_prune_groups(module, image_data().inputs)


def test_a_network_without_products_has_no_multiply_adds() -> None:
    """Nothing is counted, and nothing is missing."""
    assert count_macs(torch.nn.ReLU(), {"x": np.ones((4, 3), np.float32)}) == 0
