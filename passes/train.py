"""The one training loop: distillation and quantisation-aware training differ in the loss they give it.

A step depends on the weights, the options and its number alone (order, augmentation and rate follow from the
number; torch's random state is kept for dropout), so a training that was killed goes on from its checkpoint to the
same weights, on a CPU to the last bit. Not handled: several devices, mixed precision.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bitfront.core import ModelError
from bitfront.passes.batch_norm import freeze_batch_norm
from bitfront.passes.checkpoint import Checkpoint, pack, unpack
from bitfront.passes.data import Batch, TrainingData, rows_of_step
from bitfront.passes.device import channels_last, device_of, modes_kept, seeded
from bitfront.passes.options import options_to_json
from bitfront.passes.training import Optimiser, Training

# (the module being trained, a batch) → the mean loss of the batch, a scalar with a gradient.
Loss = Callable[[nn.Module, Batch], Tensor]

_AUGMENT = 1  # keeps the stream of augmentation apart from that of the order


class Ended(StrEnum):
    """Reason for the end of a training."""

    FINISHED = "finished"
    STOPPED = "stopped"  # by the one who watches
    OUT_OF_TIME = "out of time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Progress of a training: steps, loss, seconds.

    Attributes:
        step: Steps done.
        steps: Steps in all.
        loss: Mean loss since the last report.
        seconds: Spent so far, before interruptions included.
    """

    step: int
    steps: int
    loss: float
    seconds: float


# (the module in evaluation mode, where it stands) → whether to stop here. It must leave the module as it is.
Watch = Callable[[nn.Module, Progress], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterGroup:
    """Factors on the training's options for some parameters."""

    learning_rate: float = 1.0
    weight_decay: float = 1.0


# (name, parameter) → its group.
Grouping = Callable[[str, nn.Parameter], ParameterGroup]


def default_groups(name: str, parameter: nn.Parameter) -> ParameterGroup:  # noqa: ARG001 - a Grouping
    """Group of a parameter: without weight decay for biases, norms and scales, which have one axis or none."""
    return ParameterGroup(weight_decay=float(parameter.dim() > 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervision:
    """Observation and limits of a training, which are no part of its result.

    Attributes:
        every: Steps between reports and saved states.
        checkpoint: Where the state is kept; None keeps none.
        watch: Called at every report, the last step included; may stop the training.
        budget_s: Seconds after which the training stops at the next step, those before an interruption included.
        clock: Seconds, rising.
    """

    every: int = 100
    checkpoint: Checkpoint | None = None
    watch: Watch | None = None
    budget_s: float | None = None
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """Result of a training beside the module.

    Attributes:
        ended: Why it ended.
        reports: One per ``every`` steps, those before an interruption included.
    """

    ended: Ended
    reports: tuple[Progress, ...]

    @property
    def steps(self) -> int:
        """Number of steps done."""
        return self.reports[-1].step if self.reports else 0

    @property
    def seconds(self) -> float:
        """Seconds spent."""
        return self.reports[-1].seconds if self.reports else 0.0


def train(
    module: nn.Module,
    loss: Loss,
    data: TrainingData,
    options: Training,
    *,
    supervision: Supervision | None = None,
    adapters: nn.Module | None = None,
    grouping: Grouping = default_groups,
) -> Trained:
    """Train ``module`` in place, on the device it lies on; its modes are restored.

    Args:
        module: Parameters that require gradients are trained.
        loss: Runs the module, in training mode, on a batch.
        data: What batches are cut from.
        options: How.
        supervision: Checkpoints, reports and time; the default has none of them.
        adapters: Further parameters to train, which the loss holds.
        grouping: Factors on rate and decay per parameter.

    Raises:
        ModelError: If there is nothing to train, or the loss is no longer a number.
    """
    supervision = supervision or Supervision()
    whole = nn.ModuleDict({"module": module} | ({} if adapters is None else {"adapters": adapters}))
    run = _Run(whole, _optimiser(whole, options, grouping), options, supervision)
    with modes_kept(whole), channels_last(whole), seeded(options.seed, run.device):
        run.restore()
        while run.ended is None:
            whole.train()
            if options.freezes_batch_norm_at(run.step):
                freeze_batch_norm(module)
            rows = rows_of_step(len(data), options.batch_size, run.step, options.seed)
            generator = np.random.default_rng([options.seed, _AUGMENT, run.step])
            run.update(loss, module, options.augment.apply(data.batch(rows, run.device), generator))
            run.report(module)
    return Trained(ended=run.ended, reports=tuple(run.reports))


def _optimiser(whole: nn.Module, options: Training, grouping: Grouping) -> torch.optim.Optimizer:
    groups: dict[ParameterGroup, list[nn.Parameter]] = {}
    for name, parameter in whole.named_parameters():
        if parameter.requires_grad:
            group = grouping(name.partition(".")[2], parameter)
            groups.setdefault(group, []).append(parameter)
    if not groups:
        raise ModelError("training: no parameter of the module requires a gradient", "unfreeze some of them")
    settings: list[dict[str, Any]] = [
        {"params": parameters, "factor": group.learning_rate, "weight_decay": options.weight_decay * group.weight_decay}
        for group, parameters in groups.items()
    ]
    if options.optimiser is Optimiser.ADAM:
        return torch.optim.AdamW(settings, lr=options.learning_rate)
    momentum = options.momentum
    return torch.optim.SGD(settings, lr=options.learning_rate, momentum=momentum, nesterov=momentum > 0)


class _Run:
    """The moving parts of a training."""

    def __init__(
        self, whole: nn.Module, optimiser: torch.optim.Optimizer, options: Training, supervision: Supervision
    ) -> None:
        self.whole = whole
        self.device = device_of(whole)
        self.optimiser = optimiser
        self.options = options
        self.supervision = supervision
        self.step = 0
        self.reports: list[Progress] = []
        self.ended: Ended | None = Ended.FINISHED if options.steps == 0 else None
        self._started = supervision.clock()
        self._losses: list[Tensor] = []

    @property
    def seconds(self) -> float:
        return self.supervision.clock() - self._started

    def update(self, loss: Loss, module: nn.Module, batch: Batch) -> None:
        """Update the weights by one step."""
        rate = self.options.learning_rate_at(self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        self.optimiser.zero_grad(set_to_none=True)
        value = loss(module, batch)
        value.backward()  # type: ignore[no-untyped-call]
        if self.options.gradient_norm is not None:
            nn.utils.clip_grad_norm_(self.whole.parameters(), self.options.gradient_norm)
        self.optimiser.step()
        self._losses.append(value.detach())
        self.step += 1

    def report(self, module: nn.Module) -> None:
        """Report after ``every`` steps and at the end: tell the progress, save, and see whether it ends here."""
        last = self.step == self.options.steps
        late = self.supervision.budget_s is not None and self.seconds >= self.supervision.budget_s
        if not (last or late or self.step % self.supervision.every == 0):
            return
        mean = float(torch.stack(self._losses).mean())
        self._losses.clear()
        if not np.isfinite(mean):
            raise ModelError(
                f"training: the loss is {mean} at step {self.step} of {self.options.steps}",
                f"lower the learning rate ({self.options.learning_rate:g}) or set gradient_norm",
            )
        progress = Progress(step=self.step, steps=self.options.steps, loss=mean, seconds=self.seconds)
        self.reports.append(progress)
        self.save()
        stopped = False
        if self.supervision.watch is not None:
            with modes_kept(self.whole):
                self.whole.eval()
                stopped = self.supervision.watch(module, progress)
        if last:
            self.ended = Ended.FINISHED
        elif stopped or late:
            self.ended = Ended.STOPPED if stopped else Ended.OUT_OF_TIME

    def save(self) -> None:
        """Keep everything that the next step depends on."""
        if self.supervision.checkpoint is None:
            return
        state = {
            "options": options_to_json(self.options),
            "step": self.step,
            "weights": self.whole.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "reports": [options_to_json(report) for report in self.reports],
        }
        self.supervision.checkpoint.save(pack(state))

    def restore(self) -> None:
        """Go on from the checkpoint, unless there is none or it is of a training with other options or weights."""
        data = None if self.supervision.checkpoint is None else self.supervision.checkpoint.load()
        state = None if data is None else unpack(data)
        if state is None or state["options"] != options_to_json(self.options):
            return
        shapes = {name: tensor.shape for name, tensor in self.whole.state_dict().items()}
        if shapes != {name: tensor.shape for name, tensor in state["weights"].items()}:
            return
        self.whole.load_state_dict(state["weights"])
        self.optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["random"])
        if state["random_cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"], self.device)
        self.step = state["step"]
        self.reports = [Progress(**report) for report in state["reports"]]
        self._started -= self.reports[-1].seconds
        if self.step == self.options.steps:
            self.ended = Ended.FINISHED
