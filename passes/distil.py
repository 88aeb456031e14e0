"""Distillation: a module learns to answer as a teacher does, without labels or with some.

    L = (1 − label_weight) · T² · KL(softmax(teacher / T) ‖ softmax(student / T))
        + label_weight · cross-entropy(student, labels)
        + feature_weight · Σ over layers of ‖adapter(student) − teacher‖² / ‖teacher‖²

The first two terms are Hinton et al., arXiv:1503.02531, section 2 (T² keeps the gradient's size as T changes). The
third compares named layers' outputs (Romero et al., FitNets, arXiv:1412.6550, equation 3, here relative to the
teacher's size); where widths differ a 1×1 adapter is trained along and thrown away.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from passes.data import Batch, TrainingData
from passes.device import device_of, lay, modes_kept, seeded
from passes.options import options_from_json, options_to_json
from passes.prune_counts import example_tensors
from passes.train import Supervision, Trained, train
from passes.training import Training
from precision import ConfigError, ModelError, digest

_KEPT_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Distil:
    """Trains a copy of a module on a teacher's answers.

    Attributes:
        training: Steps, rate, batches, augmentation, seed.
        temperature: T.
        label_weight: Of the labels' cross-entropy, 0 to 1; more than 0 needs labels.
        feature_weight: Of the feature term.
        feature_layers: Module paths, the same in both networks, whose outputs are compared.
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
                f"got {self.temperature:g}, {self.label_weight:g} and {self.feature_weight:g}"
            )
        if (self.feature_weight > 0) != bool(self.feature_layers):
            raise ConfigError(
                "distillation: feature_layers and a feature_weight above 0 only go together", "give both or neither"
            )

    def to_json(self) -> dict[str, Any]:
        """Every option as plain JSON."""
        return options_to_json(self)

    @classmethod
    def from_json(cls, data: Any) -> Distil:
        """Read what ``to_json`` wrote.

        Raises:
            ConfigError: If an option is unknown or wrong.
        """
        return options_from_json(cls, data, "pass 'distil'")

    def apply(self, module: nn.Module, data: TrainingData, *, teacher: nn.Module) -> nn.Module:
        """A trained copy.

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
        answers: Answers | None = None,
    ) -> Trained:
        """Like ``apply``, in place, with checkpoints, reports, a time budget, and what this teacher answered before."""
        if self.label_weight > 0 and data.labels is None:
            raise ConfigError(f"distillation: label_weight {self.label_weight:g} needs labels", "set it to 0")
        loss = self.loss(student, teacher, data, answers)
        adapters = loss.adapters if len(loss.adapters) else None
        return train(student, loss, data, self.training, supervision=supervision, adapters=adapters)

    def loss(
        self, student: nn.Module, teacher: nn.Module, data: TrainingData, answers: Answers | None = None
    ) -> DistillationLoss:
        """The loss for ``passes.train``, with a frozen copy of the teacher on the student's device.

        Raises:
            ConfigError: If one of the networks has no such layer.
            ModelError: If the networks' outputs differ in shape.
        """
        frozen = copy.deepcopy(teacher).to(device_of(student)).eval().requires_grad_(False)
        lay(frozen, torch.channels_last)
        for name, network in (("student", student), ("teacher", frozen)):
            missing = set(self.feature_layers) - {path for path, _ in network.named_modules()}
            if missing:
                raise ConfigError(f"distillation: the {name} has no layer '{sorted(missing)[0]}'")
        examples = example_tensors(student, data.inputs)
        with modes_kept(student), torch.no_grad():
            student.eval()
            with _features(student, self.feature_layers) as ours:
                answer = _logits(student(*examples))
            with _features(frozen, self.feature_layers) as theirs:
                wanted = _logits(frozen(*examples))
        if answer.shape != wanted.shape:
            raise ModelError(
                f"distillation: the student answers {tuple(answer.shape)}, the teacher {tuple(wanted.shape)}",
                "they need the same classes",
            )
        with seeded(self.training.seed, device_of(student)):
            adapters = [_adapter(path, ours[path], theirs[path]) for path in self.feature_layers]
        return DistillationLoss(self, frozen, nn.ModuleList(adapters).to(device_of(student)), answers)


class Answers:
    """One teacher's logits of whole batches: networks that are trained on the same batches ask it once.

    Args:
        limit_bytes: The logits asked for longest ago go where they are more.
    """

    def __init__(self, limit_bytes: int = _KEPT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self._bytes = 0

    def of(self, batch: Batch, ask: Callable[[], Tensor]) -> Tensor:
        """The logits of a batch, (n, classes); ``ask`` computes them."""
        if batch.inputs[0].device.type != "cpu":
            return ask()  # quicker there than to find out whether the batch is known
        key = digest(*(tensor.numpy() for tensor in batch.inputs))
        if key not in self._kept:
            self._kept[key] = logits = ask()
            self._bytes += logits.nbytes
            while self._bytes > self._limit_bytes and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        self._kept.move_to_end(key)
        return self._kept[key]


class DistillationLoss:
    """(student, batch) → the loss of the module's formula.

    Args:
        options: Its weights.
        teacher: Frozen, in evaluation mode.
        adapters: One per feature layer, in their order.
        answers: The teacher's so far, where they are kept.
    """

    def __init__(
        self, options: Distil, teacher: nn.Module, adapters: nn.ModuleList, answers: Answers | None = None
    ) -> None:
        self.adapters = adapters
        self._options = options
        self._teacher = teacher
        self._answers = answers

    def __call__(self, student: nn.Module, batch: Batch) -> Tensor:
        """The mean over the batch."""
        options = self._options

        def ask() -> Tensor:
            return _logits(self._teacher(*batch.inputs))

        with torch.no_grad(), _features(self._teacher, options.feature_layers) as theirs:
            wanted = ask() if self._answers is None or options.feature_layers else self._answers.of(batch, ask)
        with _features(student, options.feature_layers) as ours:
            answer = _logits(student(*batch.inputs))
        loss = (1 - options.label_weight) * divergence(answer, wanted, options.temperature)
        if options.label_weight > 0:
            assert batch.labels is not None
            loss = loss + options.label_weight * functional.cross_entropy(answer, batch.labels)
        for path, adapter in zip(options.feature_layers, self.adapters, strict=True):
            difference = adapter(ours[path]) - theirs[path]
            size = theirs[path].square().mean().clamp_min(1e-12)
            loss = loss + options.feature_weight * difference.square().mean() / size
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


class LinearAdapter(nn.Module):
    """A 1×1 map from one number of channels to another, for (n, c, …) and (n, tokens, c) alike.

    Args:
        inputs: Channels of the student.
        outputs: Channels of the teacher.
        axis: Of the channels.
    """

    def __init__(self, inputs: int, outputs: int, axis: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.axis = axis

    def forward(self, features: Tensor) -> Tensor:
        """Replaces the channels along ``axis``."""
        mapped: Tensor = self.linear(features.movedim(self.axis, -1))
        return mapped.movedim(-1, self.axis)


def _adapter(path: str, ours: Tensor, theirs: Tensor) -> nn.Module:
    if ours.shape == theirs.shape:
        return nn.Identity()
    axes = [
        axis for axis in range(1, ours.dim()) if ours.dim() == theirs.dim() and ours.shape[axis] != theirs.shape[axis]
    ]
    if len(axes) != 1 or axes[0] not in (1, ours.dim() - 1):
        raise ConfigError(
            f"distillation: layer '{path}' gives {tuple(ours.shape)} in the student and {tuple(theirs.shape)} in the "
            "teacher; expected shapes that differ in channels alone",
            "leave the layer out of feature_layers",
        )
    return LinearAdapter(ours.shape[axes[0]], theirs.shape[axes[0]], axes[0])


def _logits(outputs: Any) -> Tensor:
    """The first output, (n, classes)."""
    first: Tensor = outputs if isinstance(outputs, Tensor) else outputs[0]
    return first.reshape(len(first), -1)


@contextmanager
def _features(module: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """The outputs of those layers in the last forward pass inside."""
    found: dict[str, Tensor] = {}

    def keep(path: str) -> Any:
        def hook(layer: nn.Module, arguments: Any, output: Tensor) -> None:  # noqa: ARG001 - torch's signature
            found[path] = output

        return hook

    hooks = [module.get_submodule(path).register_forward_hook(keep(path)) for path in paths]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
