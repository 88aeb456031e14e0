"""Knowledge distillation: a student module is trained towards a teacher's outputs, without labels or with some.

    L = (1 − label_weight) · T² · KL(softmax(teacher / T) ‖ softmax(student / T))
        + label_weight · cross-entropy(student, labels)
        + feature_weight · feature mismatch (``passes.feature_distillation``)

The first two terms are Hinton et al., arXiv:1503.02531, section 2 (T² keeps the gradient's size as T changes).
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bitfront.core import ConfigError, ModelError, digest
from bitfront.lowering.module_calls import call
from bitfront.passes.batch_norm import batch_norms
from bitfront.passes.data import Augmentation, Batch, TrainingData
from bitfront.passes.device import device_of, lay, modes_kept, seeded
from bitfront.passes.equivalence import tensors_in
from bitfront.passes.feature_distillation import SHARED, FeatureMatch, feature_match, layer_inputs
from bitfront.passes.options import options_from_json, options_to_json
from bitfront.passes.prune_counts import example_tensors
from bitfront.passes.train import Supervision, Trained, train
from bitfront.passes.training import Optimiser, Training

_CACHE_BYTES = 256 * 2**20
_FEATURE_WEIGHT = 300.0  # much more than logits, which follow where features match


@dataclass(frozen=True, slots=True, kw_only=True)
class Distillation:
    """Options of a distillation, which trains a module towards a teacher's logits and features.

    Attributes:
        training: Steps, rate, batches, augmentation, seed.
        temperature: T.
        label_weight: Of the labels' cross-entropy, 0 to 1; more than 0 needs labels.
        feature_weight: Of the feature term.
        feature_layers: Module paths, the same in both networks, of layers whose inputs should match; ``*`` alone is
            every one whose input has one shape in both.
    """

    training: Training
    temperature: float = 8.0  # nearly logits matched: pruned networks come back sooner than at 4
    label_weight: float = 0.0
    feature_weight: float = 0.0
    feature_layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.temperature > 0 or not 0 <= self.label_weight <= 1 or self.feature_weight < 0:
            raise ConfigError(
                "distillation: expected temperature > 0, label_weight in [0, 1] and feature_weight ≥ 0, "
                f"got {self.temperature:g}, {self.label_weight:g} and {self.feature_weight:g}",
                "leave the option out for its default",
            )
        if (self.feature_weight > 0) != bool(self.feature_layers):
            raise ConfigError(
                "distillation: feature_layers and a feature_weight above 0 only go together", "give both or neither"
            )

    def to_json(self) -> dict[str, Any]:
        """Every option as plain JSON."""
        return options_to_json(self)

    @classmethod
    def from_json(cls, data: Any) -> Distillation:
        """Read what ``to_json`` wrote.

        Raises:
            ConfigError: If an option is unknown or wrong.
        """
        return options_from_json(cls, data, "pass 'distill'")

    def apply(self, module: nn.Module, data: TrainingData, *, teacher: nn.Module) -> nn.Module:
        """A trained copy of a module.

        Args:
            module: The student: a pruned or quantised copy of the teacher, or an architecture of its own.
            data: Inputs, labels if ``label_weight`` wants them.
            teacher: The network to learn from, in any mode; left as it is.

        Raises:
            ConfigError: If labels or layers that the options name are missing.
            ModelError: If the networks' outputs differ in shape, or the training diverges.
        """
        student = copy.deepcopy(module)
        self.train(student, data, teacher=teacher)
        return student

    def train(
        self,
        student: nn.Module,
        data: TrainingData,
        *,
        teacher: nn.Module,
        supervision: Supervision | None = None,
        teacher_cache: TeacherCache | None = None,
    ) -> Trained:
        """Train ``student`` in place, on its device.

        Args:
            student: As ``module`` of ``apply``.
            data: As of ``apply``.
            teacher: As of ``apply``.
            supervision: Checkpoints, reports and time.
            teacher_cache: Logits of this teacher from trainings before, to be used and added to.

        Raises:
            ConfigError: If labels or layers that the options name are missing.
            ModelError: If the networks' outputs differ in shape, or the training diverges.
        """
        if self.label_weight > 0 and data.labels is None:
            raise ConfigError(f"distillation: label_weight {self.label_weight:g} needs labels", "set it to 0")
        loss = self.loss(student, teacher, data, teacher_cache)
        adapters = loss.adapters if len(loss.adapters) else None
        return train(student, loss, data, self.training, supervision=supervision, adapters=adapters)

    def loss(
        self, student: nn.Module, teacher: nn.Module, data: TrainingData, teacher_cache: TeacherCache | None = None
    ) -> DistillationLoss:
        """The loss for ``passes.train``, with a frozen copy of the teacher on the student's device.

        Raises:
            ConfigError: If one of the networks has no such layer.
            ModelError: If the networks' outputs differ in shape.
        """
        frozen = copy.deepcopy(teacher).to(device_of(student)).eval().requires_grad_(False)
        lay(frozen, torch.channels_last)
        examples = example_tensors(student, data.inputs)
        with modes_kept(student), torch.no_grad():
            student.eval()
            answer, wanted = _logits(call(student, examples)), _logits(call(frozen, examples))
        if answer.shape != wanted.shape:
            raise ModelError(
                f"distillation: the student answers {tuple(answer.shape)}, the teacher {tuple(wanted.shape)}",
                "they need the same classes",
            )
        with seeded(self.training.seed, device_of(student)):
            matching = feature_match(self.feature_layers, student, frozen, data.inputs)
        matching.adapters.to(device_of(student))
        return DistillationLoss(self, frozen, matching, teacher_cache)


def default_distillation_config(
    module: nn.Module, steps: int, *, augment: Augmentation, samples: int, seed: int = 0, match_features: bool = True
) -> Distillation:
    """The options that recover pruned networks soonest, as a search trains them.

    Args:
        module: The teacher.
        steps: Updates of the weights.
        augment: Of images.
        samples: There are to train on.
        seed: Of the training.
        match_features: Whether layers' inputs should match the teacher's, as in a network that was made from it.
    """
    # Without norms to hold activations, such rates would be too much.
    optimiser, rate = (
        (Optimiser.SGD, 0.05 if match_features else 0.03) if batch_norms(module) else (Optimiser.ADAM, 1e-3)
    )
    training = Training(
        steps=steps,
        batch_size=min(128, samples),
        learning_rate=rate,
        optimiser=optimiser,
        warmup=0.05,
        gradient_norm=5.0,
        augment=augment,
        seed=seed,
    )
    if not match_features:
        return Distillation(training=training)
    return Distillation(training=training, feature_layers=(SHARED,), feature_weight=_FEATURE_WEIGHT)


class TeacherCache:
    """A cache of one teacher's logits by batch, for students that are trained on the same batches.

    Args:
        limit_bytes: Of all logits; those used longest ago are dropped first.
    """

    def __init__(self, limit_bytes: int = _CACHE_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self._bytes = 0

    def logits(self, batch: Batch, compute: Callable[[], Tensor]) -> Tensor:
        """The logits of a batch, (n, classes); ``compute`` gives those that are not cached."""
        if next(iter(batch.inputs.values())).device.type != "cpu":
            return compute()  # quicker there than to find out whether the batch is known
        key = digest(*(tensor.numpy() for tensor in batch.inputs.values()))
        if key not in self._kept:
            self._kept[key] = logits = compute()
            self._bytes += logits.nbytes
            while self._bytes > self._limit_bytes and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        self._kept.move_to_end(key)
        return self._kept[key]


class DistillationLoss:
    """The distillation loss of (student, batch), by the module's formula.

    Args:
        options: Its weights.
        teacher: Frozen, in evaluation mode.
        matching: The feature term.
        teacher_cache: The teacher's logits so far; None computes them for each batch.
    """

    def __init__(
        self,
        options: Distillation,
        teacher: nn.Module,
        matching: FeatureMatch,
        teacher_cache: TeacherCache | None = None,
    ) -> None:
        self.adapters = matching.adapters
        self._matching = matching
        self._options = options
        self._teacher = teacher
        self._teacher_cache = teacher_cache

    def __call__(self, student: nn.Module, batch: Batch) -> Tensor:
        """The mean loss over the batch, a scalar with a gradient."""
        options = self._options

        def compute() -> Tensor:
            return _logits(call(self._teacher, batch.inputs))

        layers = self._matching.paths
        with torch.no_grad(), layer_inputs(self._teacher, layers) as theirs:
            cache = None if layers else self._teacher_cache  # with features the teacher runs anyway
            wanted = compute() if cache is None else cache.logits(batch, compute)
        with layer_inputs(student, layers) as ours:
            answer = _logits(call(student, batch.inputs))
        loss = (1 - options.label_weight) * divergence(answer, wanted, options.temperature)
        if options.label_weight > 0:
            assert batch.labels is not None
            loss = loss + options.label_weight * functional.cross_entropy(answer, batch.labels)
        if layers:
            loss = loss + options.feature_weight * self._matching(ours, theirs)
        return loss


def divergence(answer: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """T² KL(softmax(wanted / T) ‖ softmax(answer / T)), the mean over samples.

    Args:
        answer: The student's logits (n, classes).
        wanted: The teacher's.
        temperature: T.
    """
    ours = functional.log_softmax(answer / temperature, dim=1)
    theirs = functional.log_softmax(wanted / temperature, dim=1)
    return temperature**2 * functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)


def _logits(outputs: Any) -> Tensor:
    """The first output, (n, classes)."""
    first = tensors_in(outputs)[0]
    return first.reshape(len(first), -1)
