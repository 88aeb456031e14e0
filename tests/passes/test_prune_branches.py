"""Residual branches: the network without one is the network in which it says nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from bitfront.core import ConfigError
from bitfront.experiments.networks import ResNetCifar
from bitfront.lowering.collect_layers import collect_layers
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.passes import prune_branches
from bitfront.passes.data import TrainingData
from bitfront.passes.distill import Distillation
from bitfront.passes.equivalence import outputs_of
from bitfront.passes.prune import StructuredPrune
from bitfront.passes.prune_branches import Branch, checked, find_branches
from bitfront.passes.prune_counts import count_macs, count_parameters, example_tensors
from bitfront.passes.prune_groups import UNTRACED, PruneGroup, Status, find_prune_groups
from bitfront.passes.training import Training
from tests.passes.nets import same_weights, trained_looking
from tests.passes.prune_nets import net
from tests.references import export_reference


class InPlace(nn.Module):
    """Two blocks that add and rectify in place, the first around a 1×1 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.wide = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
        self.wide_again = nn.Conv2d(16, 16, 3, padding=1)
        self.shortcut = nn.Sequential(nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16))
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 16).reshape(16, 1, 1))
        self.inner = nn.Conv2d(16, 16, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.classifier = nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        out = functional.relu(self.stem(images), inplace=True)
        wide = self.wide_again(self.wide(out))
        wide += self.shortcut(out)
        wide = self.relu(wide)
        deep = (self.inner(wide) * self.scale).add_(wide)
        logits: Tensor = self.classifier(self.relu(deep).mean((2, 3)))
        return logits


class Untraceable(nn.Module):
    """Decides by a value."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.classifier = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        out = functional.relu(self.conv1(images))
        if out.mean() > -1:
            out = out + self.conv2(out)
        logits: Tensor = self.classifier(out.mean((2, 3)))
        return logits


def in_place() -> tuple[nn.Module, TrainingData]:
    torch.manual_seed(0)
    images = np.random.default_rng(0).normal(size=(24, 3, 8, 8)).astype(np.float32)
    return trained_looking(InPlace()), TrainingData(inputs={"images": images})


CASES: dict[str, Callable[[], tuple[nn.Module, TrainingData]]] = {
    "resnet": partial(net, "resnet"),
    "digits": partial(net, "digits"),
    "transformer": partial(net, "transformer"),
    "in-place": in_place,
}
# Network → branch → the module whose output it is.
ENDS = {
    "resnet": {f"layer{stage}.0": f"layer{stage}.0.bn2" for stage in (1, 2, 3)},
    "digits": {f"block{number}": f"block{number}.bn2" for number in (1, 2, 3)},
    "transformer": {"attention": "attention.out", "up.branch": "down"},
    "in-place": {"wide.0.branch": "wide_again", "inner.branch": "inner"},
}


def branches_of(module: nn.Module, data: TrainingData) -> dict[str, PruneGroup]:
    return {group.name: group for group in find_prune_groups(module, data.inputs) if group.branch}


def silent(module: nn.Module, ends: Sequence[str]) -> nn.Module:
    """A copy in which these modules answer nothing but zeros."""
    found = copy.deepcopy(module)
    for name in ends:
        found.get_submodule(name).register_forward_hook(lambda _, __, output: torch.zeros_like(output))
    return found


def gap(a: nn.Module, b: nn.Module, data: TrainingData) -> float:
    """Largest difference of the outputs, relative to the largest output."""
    examples = example_tensors(a, data.inputs, 8)
    ours, wanted = outputs_of(a, examples)[0], outputs_of(b, examples)[0]
    return float((ours - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("name", CASES)
def test_a_network_without_branches_equals_the_silenced_one(name: str) -> None:
    """Each alone and all together; what is left keeps its paths, and the given module stays as it was."""
    module, data = CASES[name]()
    before, groups = copy.deepcopy(module), find_prune_groups(module, data.inputs)
    branches = [group for group in groups if group.branch]
    assert {group.name for group in branches} == set(ENDS[name])
    for chosen in (*([group] for group in branches), branches):
        assert all(group.status is Status.PRUNABLE and group.units == ((0,),) for group in chosen)
        options = StructuredPrune(sparsity={group.name: 1.0 for group in chosen})
        shallow = options.apply(module, data, groups=groups)
        assert gap(shallow, silent(module, [ENDS[name][group.name] for group in chosen]), data) < 1e-5
        assert gap(shallow, module, data) > 1e-3
        gone = {layer for group in chosen for layer in group.layers}
        wanted = {path for path, part in module.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)} - gone
        assert {path for path, part in shallow.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)} == wanted
        assert shallow.state_dict().keys() <= module.state_dict().keys()
        macs, whole = count_macs(shallow, data.inputs), count_macs(module, data.inputs)
        assert macs == whole - sum(group.macs for group in chosen)
        assert count_parameters(shallow) < count_parameters(module)
        assert same_weights(shallow, options.apply(module, data))
    assert same_weights(module, before)


def test_every_block_of_the_cifar_network_is_one() -> None:
    """All nine of ResNet-20, those behind a zero-padded shortcut too, with their layers, weights and multiply-adds."""
    torch.manual_seed(0)
    data = TrainingData(inputs={"images": np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)})
    module = ResNetCifar(20).eval()
    found = branches_of(module, data)
    assert list(found) == [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1, 2)]
    assert {group.status for group in found.values()} == {Status.PRUNABLE}
    widening = found["layer2.0"]
    assert widening.layers == ("layer2.0.conv1", "layer2.0.conv2")
    assert widening.weights == 9 * (16 * 32 + 32 * 32)
    assert widening.macs == widening.weights * 16 * 16
    assert widening.macs_share == pytest.approx(widening.macs / count_macs(module, data.inputs))
    shallow = StructuredPrune(sparsity=dict.fromkeys(found, 1.0)).apply(module, data)
    assert {name for name, _ in shallow.named_parameters()} == {
        *("conv1.weight", "bn1.weight", "bn1.bias", "linear.weight", "linear.bias")
    }


def _cut_the_next(branches: Sequence[Branch], known: Sequence[Branch]) -> list[Branch]:
    names = [branch.name for branch in known]
    return [known[(names.index(branch.name) + 1) % len(known)] for branch in branches]


def _keep_the_branch(branches: Sequence[Branch], known: Sequence[Branch]) -> list[Branch]:  # noqa: ARG001 - as above
    return [replace(branch, stays=1 - branch.stays) for branch in branches]


@pytest.mark.parametrize("bug", [_cut_the_next, _keep_the_branch])
@pytest.mark.parametrize("name", ["digits", "transformer"])
def test_planted_bugs_are_caught(
    monkeypatch: pytest.MonkeyPatch, name: str, bug: Callable[[Sequence[Branch], Sequence[Branch]], list[Branch]]
) -> None:
    """The branch next to the one asked for, and the wrong operand kept: the proof sees both."""
    module, data = CASES[name]()
    examples = example_tensors(module, data.inputs)
    known, right = find_branches(module, examples), prune_branches.without
    assert all(not branch.reason for branch in checked(module, known, examples))

    def wrong(part: nn.Module, graph: fx.Graph, branches: Sequence[Branch]) -> fx.GraphModule:
        return right(part, graph, bug(branches, known))

    monkeypatch.setattr(prune_branches, "without", wrong)
    for branch in checked(module, known, examples):
        assert "removing the branch changes what the others compute" in branch.reason


def test_channels_and_branches_go_together() -> None:
    """Channels of what is left, groups within a removed branch ignored; heads follow although the trace has them."""
    module, data = net("digits")
    groups = find_prune_groups(module, data.inputs)
    both = {"block2": 1.0, "block2.conv1": 0.5, "block3.conv1": 0.5, "widen.pointwise": 0.5}
    options = StructuredPrune(sparsity=both, round_to=4)
    scores = options.importances(module, groups, data)
    pruned = options.apply(module, data, groups=groups, scores=scores)
    kept = {name: sparsity for name, sparsity in both.items() if not name.startswith("block2")}
    channels = StructuredPrune(sparsity=kept, round_to=4).apply(module, data, groups=groups)
    assert gap(pruned, silent(channels, ["block2.bn2"]), data) < 1e-5
    assert not any(name.startswith("block2") for name in pruned.state_dict())
    module, data = net("transformer")
    options = StructuredPrune(sparsity={"attention.query": 0.5, "up.branch": 1.0}, round_to=1)
    pruned = options.apply(module, data)
    channels = StructuredPrune(sparsity={"attention.query": 0.5}, round_to=1).apply(module, data)
    assert gap(pruned, silent(channels, ["down"]), data) < 1e-5


@pytest.mark.parametrize("name", ["resnet", "in-place"])
def test_what_is_left_is_a_network_like_any_other(name: str) -> None:
    """It is copied, trained, pruned once more and exported; layers keep their names in the file."""
    module, data = CASES[name]()
    first = next(iter(ENDS[name]))
    shallow = copy.deepcopy(StructuredPrune(sparsity={first: 1.0}, batch_norm_samples=24).apply(module, data))
    assert not any(part.training for part in shallow.modules() if isinstance(part, nn.BatchNorm2d))
    training = Training(steps=2, batch_size=12, learning_rate=0.01)
    trained = Distillation(training=training).apply(shallow, data, teacher=module)
    assert not same_weights(trained, shallow)
    left = find_prune_groups(trained, data.inputs)
    again = StructuredPrune(
        sparsity={group.name: float(group.branch) or 0.5 for group in left if group.status is Status.PRUNABLE},
        round_to=4,
    )
    assert {group.name for group in left if group.branch} == set(ENDS[name]) - {first}
    for network in (trained, again.apply(trained, data, groups=left)):
        reference = export_reference(network, data.inputs, name=name)
        names = {layer.name for layer in collect_layers(reference.proto, get_dialect("ort-cpu")).layers}
        assert names == {path for path, part in network.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)}
        session = onnxruntime.InferenceSession(reference.proto.SerializeToString(), providers=["CPUExecutionProvider"])
        (out,) = session.run(None, {"images": np.asarray(data.inputs["images"])})
        wanted = outputs_of(network, example_tensors(network, data.inputs, 24))[0].numpy()
        assert np.abs(out - wanted).max() < 1e-5 * max(1.0, np.abs(wanted).max())


def test_parts_say_what_stays_of_each_layer() -> None:
    """Shares of weights and multiply-adds that are counted in the pruned network, and nothing of a branch's layers."""
    module, data = net("digits")
    groups = {group.name: group for group in find_prune_groups(module, data.inputs)}
    for name in ("block2.conv1", "widen.pointwise", "stem"):
        parts = groups[name].parts(0.4, 8)
        pruned = StructuredPrune(sparsity={name: 0.4}, round_to=8).apply(module, data, groups=tuple(groups.values()))
        for layer, part in parts.items():
            ours, whole = (net.get_parameter(f"{layer}.weight").numel() for net in (pruned, module))
            assert part == pytest.approx(ours / whole), layer
        others = {path for path, tensor in module.named_parameters() if tensor.dim() > 1}
        for path in others - {f"{layer}.weight" for layer in parts}:
            assert pruned.get_parameter(path).shape == module.get_parameter(path).shape
        assert set(groups[name].parts(0.0, 8).values()) == {1.0}
    # Both sides of the stem's stream: its block reads and produces it.
    assert groups["stem"].parts(0.5, 8)["block1.conv1"] == pytest.approx(0.5)
    assert groups["block2"].parts(1.0, 8) == {"block2.conv1": 0.0, "block2.conv2": 0.0}
    assert groups["block2"].parts(0.0, 8) == {"block2.conv1": 1.0, "block2.conv2": 1.0}


def test_what_cannot_be_removed_says_why() -> None:
    """A forward that fx cannot trace is no error: one group says so. A branch has no sparsities in between."""
    data = in_place()[1]
    (told,) = branches_of(trained_looking(Untraceable()), data).values()
    assert (told.name, told.status, told.layers) == (UNTRACED, Status.FIXED, ())
    assert "cannot be traced by torch.fx" in told.reason
    module, data = net("digits")
    with pytest.raises(ConfigError, match=r"'block1' is a residual branch: expected 0 or 1, got a sparsity of 0\.5"):
        StructuredPrune(sparsity={"block1": 0.5}).apply(module, data)


def test_two_branches_never_share_a_name() -> None:
    """One with the path of another, and one of a single layer, whose path is the layer's own."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(5))

        def forward(self, x: Tensor) -> Any:
            x = x + self.block[1](self.block[0](x))
            x = torch.add(x, self.block[3](self.block[2](x)))
            return x.add(self.block[4](x))

    examples = {"x": torch.randn(2, 3, 8, 8)}
    assert [branch.name for branch in find_branches(Twice(), examples)] == ["block", "block.branch", "block.4.branch"]
