"""A small torch network with training inputs and a student, for tests of networks that passes make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bitfront.core import CalibrationSettings, ContentStore, Inputs, Labelled, Metric, RecipeStep, Scheme, top1
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.lowerer import Lowerer
from bitfront.lowering.reference import ReferenceModel
from bitfront.search.passes.base import pass_context
from bitfront.search.passes.distill import DistillPass
from bitfront.search.passes.trainings import TrainingBudget, Trainings
from bitfront.search.variants.pipeline import PassPipeline
from tests.passes.nets import trained_looking
from tests.references import export_reference


class Small(nn.Module):
    """Three convolutions with batch norm, a mean and a classifier; images (n, 3, 8, 8)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv1 = nn.Conv2d(8, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 8, 3, padding=1)
        self.fc = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        out = torch.relu(self.norm(self.conv1(torch.relu(self.stem(images)))))
        logits: Tensor = self.fc(torch.relu(self.conv2(out)).mean((2, 3)))
        return logits


class Tiny(nn.Module):
    """The student."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 4)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(torch.relu(self.conv(images)).mean((2, 3)))
        return logits


def small(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return trained_looking(Small(), seed)


def tiny() -> nn.Module:
    torch.manual_seed(1)
    return Tiny().eval()


def samples(count: int, seed: int) -> Inputs:
    return {"images": np.random.default_rng(seed).normal(size=(count, 3, 8, 8)).astype(np.float32)}


@dataclass(frozen=True)
class TorchWorkload:
    """A ``Workload`` that passes can work on."""

    seed: int = 0
    name: str = "small"
    metric: Metric = top1

    @property
    def model(self) -> nn.Module:
        return small(self.seed)

    @property
    def calibration(self) -> Inputs:
        return samples(32, 1)

    @property
    def evaluation(self) -> Labelled:
        return Labelled(inputs=samples(40, 2), labels=np.arange(40) % 4)

    @property
    def training(self) -> Inputs:
        return samples(64, 3)

    @property
    def students(self) -> list[nn.Module]:
        return [tiny()]

    @property
    def augment(self) -> dict[str, float]:
        return {"mirror": 0.5, "shift": 1}


workload = TorchWorkload()


@cache
def given() -> ReferenceModel:
    return export_reference(workload.model, workload.calibration, name="small")


def pipeline(
    folder: Path | None = None,
    limit_s: float | None = None,
    store: ContentStore | None = None,
    on_step: Callable[[str], None] = lambda _: None,
    reference: ReferenceModel | None = None,
) -> PassPipeline:
    """As a run makes it, anew."""
    store, reference = store or ContentStore(folder), reference or given()
    settings = CalibrationSettings(samples=32)
    context = pass_context(
        workload.model,
        reference.fingerprint,
        workload.training,
        students={"Tiny-1": tiny()},
        augment=workload.augment,
        trainings=Trainings(store, TrainingBudget(limit_s), on_step),
    )
    lowerer = Lowerer(reference, get_dialect("ort-cpu"), workload.calibration, settings, store)
    return PassPipeline(context, lowerer, "small")


def distilled(made: PassPipeline, steps: int, **more: Any) -> RecipeStep:
    """So many steps of distillation."""
    return DistillPass().step(made.context, steps, **more)


def schemes_of(lowerer: Lowerer, text: str) -> dict[str, Scheme]:
    """One scheme for every layer."""
    return {layer.name: Scheme.parse(text) for layer in lowerer.quantisable.layers}
