"""Distillation: the divergence by hand, learning without labels, features through adapters, resuming."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from bitfront.core import ConfigError, ContentStore, ModelError
from bitfront.experiments.networks.resnet_cifar import ResNetCifar
from bitfront.passes.checkpoint import StoredCheckpoint
from bitfront.passes.data import Batch, TrainingData
from bitfront.passes.distill import Distillation, TeacherCache, divergence
from bitfront.passes.feature_distillation import SHARED, FeatureMatch, LinearAdapter, feature_match, layer_inputs
from bitfront.passes.prune import StructuredPrune
from bitfront.passes.train import Ended, Supervision, train
from bitfront.passes.training import Training
from tests.passes.nets import Plain, image_data, plain, same_weights, trained_looking

OPTIONS = Distillation(training=Training(steps=40, batch_size=32, learning_rate=0.02))
UNLABELLED = TrainingData(inputs=image_data(count=96).inputs)


def certain() -> Plain:
    """A teacher whose answers differ from sample to sample: trained on labels."""
    module = plain()
    train(module, _cross_entropy, image_data(count=96), replace(OPTIONS.training, steps=60))
    module.zero_grad(set_to_none=True)
    return module


def _cross_entropy(module: nn.Module, batch: Batch) -> torch.Tensor:
    assert batch.labels is not None
    return nn.functional.cross_entropy(module(*batch.inputs.values()), batch.labels)


def distance(module: nn.Module, teacher: nn.Module, data: TrainingData = UNLABELLED) -> float:
    images = torch.from_numpy(np.asarray(data.inputs["images"]))
    with torch.no_grad():
        return divergence(module(images), teacher(images), 1.0).item()


def test_divergence_by_hand() -> None:
    """Two classes, T = 2: T² (p log(p/q) + (1−p) log((1−p)/(1−q))) with halved logits; zero for equal answers."""
    p, q = 1 / (1 + math.exp(-1)), 0.5
    wanted = 4 * (p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))
    found = divergence(torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]]), 2.0)
    assert found.item() == pytest.approx(wanted, rel=1e-5)
    assert divergence(torch.ones(3, 4), torch.ones(3, 4) * 2, 3.0).item() == pytest.approx(0, abs=1e-6)


def test_gradients_keep_their_size_as_temperature_changes() -> None:
    """For high T the gradient tends to that of half the squared distance of centred logits, per class."""
    answer = torch.tensor([[1.0, -1.0, 0.0]], requires_grad=True)
    wanted = torch.tensor([[0.0, 0.5, -0.5]])
    (gradient,) = torch.autograd.grad(divergence(answer, wanted, 100.0), answer)
    assert torch.allclose(gradient, (answer - wanted) / 3, atol=0.01)


def test_a_pruned_copy_learns_without_labels() -> None:
    """Distillation brings the answers back; student and teacher that were given are left as they were."""
    teacher = certain()
    student = StructuredPrune(sparsity={"conv1": 0.5, "conv2": 0.5}).apply(teacher, UNLABELLED)
    teacher_before, student_before = copy.deepcopy(teacher), copy.deepcopy(student)
    trained = OPTIONS.apply(student, UNLABELLED, teacher=teacher)
    assert distance(trained, teacher) < 0.3 * distance(student, teacher)
    assert same_weights(teacher, teacher_before)
    assert same_weights(student, student_before)
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not trained.training
    assert same_weights(trained, OPTIONS.apply(student, UNLABELLED, teacher=teacher))


class Asked(nn.Module):
    """Counts how often a teacher is run; copies count together."""

    def __init__(self, teacher: nn.Module, counts: list[int]) -> None:
        super().__init__()
        self.teacher = teacher
        self.counts = counts

    def __deepcopy__(self, memo: object) -> Asked:
        return Asked(copy.deepcopy(self.teacher), self.counts)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) == OPTIONS.training.batch_size:
            self.counts.append(len(images))
        answer: torch.Tensor = self.teacher(images)
        return answer


def test_a_teacher_answers_once_for_all() -> None:
    """Networks trained on the same batches ask it once for each, and learn the same to the last bit."""
    counts: list[int] = []
    teacher, cache = Asked(plain(), counts), TeacherCache()
    options = replace(OPTIONS, training=replace(OPTIONS.training, steps=3))
    for seed in (1, 2, 1):
        student, alone = plain(seed), plain(seed)
        options.train(student, UNLABELLED, teacher=teacher, teacher_cache=cache)
        options.train(alone, UNLABELLED, teacher=teacher.teacher)
        assert same_weights(student, alone)
    assert len(counts) == 3
    other = replace(options, training=replace(options.training, seed=5))
    other.train(plain(1), UNLABELLED, teacher=teacher, teacher_cache=cache)
    assert len(counts) == 6, "other batches"


def test_answers_asked_for_longest_ago_go_first() -> None:
    counts: list[int] = []
    batches = [Batch(inputs={"x": torch.full((2, 1), float(i))}) for i in range(3)]
    cache = TeacherCache(limit_bytes=2 * 2 * 4)  # two batches of two floats

    def ask() -> torch.Tensor:
        counts.append(1)
        return torch.zeros(2, 1)

    for index in (0, 1, 0, 2, 0):
        cache.logits(batches[index], ask)
    assert len(counts) == 3
    cache.logits(batches[1], ask)
    assert len(counts) == 4


def test_a_student_of_another_architecture_learns() -> None:
    """Any module that answers with the same classes can be the student."""
    torch.manual_seed(3)
    student = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 5))
    teacher = certain()
    options = replace(OPTIONS, training=replace(OPTIONS.training, steps=200))
    assert distance(options.apply(student, UNLABELLED, teacher=teacher), teacher) < 0.3 * distance(student, teacher)


def test_labels_are_mixed_in() -> None:
    """With all the weight on labels the teacher does not matter; without it labels do not."""
    data, student = image_data(count=96), trained_looking(Plain(width=4))
    for weight, teachers_matter in ((1.0, False), (0.0, True)):
        options = replace(OPTIONS, label_weight=weight, training=replace(OPTIONS.training, steps=3))
        first, second = (options.apply(student, data, teacher=plain(seed)) for seed in (0, 1))
        assert same_weights(first, second) is not teachers_matter
    unlabelled = OPTIONS.apply(student, UNLABELLED, teacher=plain())
    assert same_weights(unlabelled, OPTIONS.apply(student, data, teacher=plain()))


def test_features_are_matched_through_an_adapter() -> None:
    """The loss holds a 1×1 adapter where widths differ, trains it, and falls; it is no part of the student."""
    teacher = plain()
    student = StructuredPrune(sparsity={"conv2": 0.5}).apply(teacher, UNLABELLED)
    options = replace(OPTIONS, feature_layers=("bn1", "bn2"), feature_weight=1.0)
    loss = options.loss(student, teacher, UNLABELLED)
    assert [type(adapter) for adapter in loss.adapters] == [nn.Identity, LinearAdapter]
    batch = Batch(inputs={"images": torch.from_numpy(np.asarray(UNLABELLED.inputs["images"]))})
    feature = loss(student, batch) - replace(OPTIONS).loss(student, teacher, UNLABELLED)(student, batch)
    ours, theirs = (_read(module, batch) for module in (student, teacher))
    gaps = [
        (adapter(mine) - yours).square().mean() / yours.square().mean()
        for adapter, mine, yours in zip(loss.adapters, ours, theirs, strict=True)
    ]
    assert gaps[0] == 0
    assert feature.item() == pytest.approx(gaps[1].item() / 2, rel=1e-4)
    reports = options.train(student, UNLABELLED, teacher=teacher, supervision=Supervision(every=20)).reports
    assert reports[1].loss < reports[0].loss
    assert not [name for name, _ in student.named_parameters() if "adapter" in name or "linear" in name]


def _read(module: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """By bn1 and bn2."""
    first: torch.Tensor = module.get_submodule("conv1")(batch.inputs["images"])
    second: torch.Tensor = module.get_submodule("conv2")(torch.relu(module.get_submodule("bn1")(first)))
    return first, second


def test_what_both_networks_read_alike_is_found() -> None:
    """Of a network with a layer thinner and a branch less: all layers but the one behind it and those in the branch."""
    teacher = ResNetCifar(14).eval()
    data = TrainingData(inputs=image_data(count=16, side=32).inputs)
    student = StructuredPrune(sparsity={"layer1.0.conv1": 0.5, "layer2.1": 1.0}).apply(teacher, data)
    matching = feature_match((SHARED,), student, teacher, data.inputs)
    layers = {name for name, part in teacher.named_modules() if isinstance(part, (nn.Conv2d, nn.Linear))}
    assert layers - set(matching.paths) == {"layer1.0.conv2", "layer2.1.conv1", "layer2.1.conv2"}
    gaps = []
    for weight in (1e-6, 1e3):
        training = replace(OPTIONS.training, gradient_norm=5.0)
        options = replace(OPTIONS, training=training, feature_layers=(SHARED,), feature_weight=weight)
        trained = options.apply(student, data, teacher=teacher).eval()
        gaps.append(_mismatch(matching, trained, teacher, data))
    assert gaps[1] < 0.8 * gaps[0]


def _mismatch(matching: FeatureMatch, student: nn.Module, teacher: nn.Module, data: TrainingData) -> float:
    found = []
    for module in (student, teacher):
        with torch.no_grad(), layer_inputs(module, matching.paths) as read:
            module(torch.from_numpy(np.asarray(data.inputs["images"])))
        found.append(read)
    return matching(*found).item()


def test_adapters_resume_with_the_training() -> None:
    """Stopped and gone on with, adapters included, equals uninterrupted."""
    teacher, checkpoint = plain(), StoredCheckpoint(ContentStore(None), "key")
    options = replace(OPTIONS, feature_layers=("bn2",), feature_weight=1.0, training=replace(OPTIONS.training, steps=6))
    whole, halved = (StructuredPrune(sparsity={"conv2": 0.5}).apply(teacher, UNLABELLED) for _ in range(2))
    options.train(whole, UNLABELLED, teacher=teacher)
    supervision = Supervision(every=3, checkpoint=checkpoint, watch=lambda _, progress: progress.step == 3)
    assert options.train(halved, UNLABELLED, teacher=teacher, supervision=supervision).ended is Ended.STOPPED
    assert options.train(halved, UNLABELLED, teacher=teacher, supervision=supervision).ended is Ended.FINISHED
    assert same_weights(whole, halved)


def test_options_survive_json_and_wrong_ones_are_named() -> None:
    """What is written reads back equal; combinations that make no sense have messages of their own."""
    options = replace(OPTIONS, feature_layers=("bn2",), feature_weight=0.5, label_weight=0.25)
    assert Distillation.from_json(options.to_json()) == options
    with pytest.raises(ConfigError, match="pass 'distill': training missing"):
        Distillation.from_json({})
    with pytest.raises(ConfigError, match="feature_layers and a feature_weight above 0 only go together"):
        replace(OPTIONS, feature_weight=1.0)
    with pytest.raises(ConfigError, match="expected temperature > 0"):
        replace(OPTIONS, temperature=0.0)
    with pytest.raises(ConfigError, match=r"label_weight 0\.5 needs labels"):
        replace(OPTIONS, label_weight=0.5).apply(plain(), UNLABELLED, teacher=plain())
    with pytest.raises(ConfigError, match="the student has no layer 'bn9'"):
        replace(options, label_weight=0.0, feature_layers=("bn9",)).apply(plain(), UNLABELLED, teacher=plain())
    unused = plain()
    unused.add_module("spare", nn.Linear(2, 2))
    with pytest.raises(ConfigError, match="the student never calls layer 'spare' as a module"):
        replace(options, label_weight=0.0, feature_layers=("spare",)).apply(unused, UNLABELLED, teacher=unused)
    student = nn.Sequential(nn.MaxPool2d(4), nn.Conv2d(3, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    student.add_module("conv1", nn.Identity())
    flat = replace(options, label_weight=0.0, feature_layers=("conv1",))
    with pytest.raises(ConfigError, match="expected shapes that differ in channels alone"):
        flat.apply(student, UNLABELLED, teacher=plain())
    with pytest.raises(ModelError, match=r"the student answers \(2, 7\), the teacher \(2, 5\)"):
        OPTIONS.apply(nn.Sequential(nn.Flatten(), nn.Linear(192, 7)), UNLABELLED, teacher=plain())
