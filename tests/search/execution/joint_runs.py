"""Whole runs in which passes take part, on a small residual network and ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bitfront.backends.ort.cpu import OrtCpuBackend
from bitfront.core import CalibrationSettings, Constraints, ContentStore, Inputs, Labelled, Metric, Precision, top1
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.lowerer import Lowerer
from bitfront.passes.train import Trained
from bitfront.search.events import Listener
from bitfront.search.inputs.loading import load, open_source
from bitfront.search.inputs.source import Source
from bitfront.search.measuring.evaluate import Evaluator
from bitfront.search.options import RunOptions
from bitfront.search.passes.options import PassOptions
from bitfront.search.passes.trainings import Finished, Trainings
from bitfront.search.policy.config import FineTuningConfig, PolicyConfig
from bitfront.search.results import finalize
from bitfront.search.run import RunResult, run
from bitfront.search.trial import Trial, TrialStatus
from tests.passes.nets import trained_looking
from tests.search.toy_runs import Heard
from tests.search.variants.making import Tiny

SAMPLES = 200


class Block(nn.Module):
    """x + two convolutions of x."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, inner, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return torch.relu(x + out)


class Residual(nn.Module):
    """A convolution, two residual blocks, a mean and a classifier; images (n, 3, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.block1, self.block2 = Block(16, 16), Block(16, 32)
        self.fc = nn.Linear(16, 4)

    def forward(self, images: Tensor) -> Tensor:
        out = self.block2(self.block1(torch.relu(self.stem(images))))
        logits: Tensor = self.fc(out.mean((2, 3)))
        return logits


def images(count: int, seed: int) -> Inputs:
    return {"images": np.random.default_rng(seed).normal(size=(count, 3, 8, 8)).astype(np.float32)}


def residual() -> nn.Module:
    """Random weights; all of the classes are likely, and the network does without a branch or half of its channels."""
    torch.manual_seed(0)
    module = trained_looking(Residual())
    with torch.no_grad():
        for block in (module.block1, module.block2):
            for parameter in block.norm2.parameters():
                parameter.mul_(0.25)
        logits = module(torch.from_numpy(images(512, 7)["images"]))
        module.fc.weight.div_(logits.std(0, keepdim=True).T)
        module.fc.bias.copy_(-((logits - module.fc.bias) / logits.std(0)).mean(0))
    return module


@dataclass(frozen=True)
class ResidualWorkload:
    """Its labels are mostly what the network says."""

    name: str = "residual"
    metric: Metric = top1

    @property
    def model(self) -> nn.Module:
        return residual()

    @property
    def calibration(self) -> Inputs:
        return images(32, 1)

    @property
    def evaluation(self) -> Labelled:
        inputs = images(SAMPLES, 2)
        with torch.no_grad():
            labels = residual()(torch.from_numpy(inputs["images"])).argmax(1).numpy()
        wrong = np.arange(SAMPLES) % 10 == 0
        return Labelled(inputs=inputs, labels=np.where(wrong, (labels + 1) % 4, labels))

    @property
    def training(self) -> Inputs:
        return images(256, 3)

    @property
    def students(self) -> list[nn.Module]:
        torch.manual_seed(1)
        return [Tiny()]


def options(out: Path, passes: PassOptions, **more: object) -> RunOptions:
    """Small runs."""
    prune = passes.pruning and replace(passes.pruning, round_to=4, sparsities=(0.5,))
    base = RunOptions(
        budget=Constraints(),
        out=out,
        precisions=(Precision.FP32, Precision.INT8),
        trials=14,
        calibration=CalibrationSettings(samples=32),
        sensitivity_samples=16,
        policy=PolicyConfig(fine_tuning=FineTuningConfig(few_data_steps=12, most_epochs=1, qat_most_steps=12)),
        passes=passes.replacing(prune) if prune else passes,
    )
    return replace(base, **more)  # type: ignore[arg-type]


@contextmanager
def quick() -> Iterator[list[str]]:
    """Note trainings; whatever is scored is scored in full and reported, whether it is worth it or not.

    Yields:
        A key for each training done.
    """
    done: list[str] = []
    real, threads = Trainings._keep, torch.get_num_threads()

    def noted(self: Trainings, slot: str, steps: int, values: dict[str, Any], trained: Trained) -> Finished:
        done.append(slot)
        return real(self, slot, steps, values, trained)

    def scored(trials: Sequence[Trial], *_: object) -> list[Trial]:
        return [trial for trial in trials if trial.status is TrialStatus.COMPLETE]

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainings, "_keep", noted)
        patch.setattr(Evaluator, "_hopeless", lambda *_: "")
        patch.setattr(finalize, "choose_finalists", scored)
        yield done
    torch.set_num_threads(threads)


def search(asked: RunOptions, listener: Listener | None = None) -> RunResult:
    """Run as the command line does."""
    source = Source(workload="tests.search.execution.joint_runs:workload")
    loaded, reference = load(open_source(source), None, asked.passes)
    store = ContentStore(asked.out / "cache")
    lowerer = Lowerer(reference, get_dialect("ort-cpu"), loaded.calibration, asked.calibration, store)
    return run(loaded, lowerer, OrtCpuBackend(), asked, listener or Heard())


workload = ResidualWorkload()
