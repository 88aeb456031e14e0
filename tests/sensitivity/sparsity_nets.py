"""A small network with a branch, and its table of sparsities."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bitfront.core import ContentStore, Inputs
from bitfront.passes.data import TrainingData
from bitfront.passes.prune_groups import PruneGroup, find_prune_groups
from bitfront.sensitivity.divergence_metric import KL
from bitfront.sensitivity.sparsity import SparsityTable, score_sparsities
from tests.passes.nets import trained_looking

SAMPLES = 20


class Net(nn.Module):
    """A classifier of rows with two hidden layers and a residual branch."""

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        self.first = nn.Linear(6, 12)
        self.hidden = nn.Linear(12, 16)
        self.norm = nn.BatchNorm1d(16) if norm else nn.Identity()
        self.last = nn.Linear(16, 12)
        self.classifier = nn.Linear(12, 3)

    def forward(self, rows: Tensor) -> Tensor:
        stem = functional.relu(self.first(rows))
        logits: Tensor = self.classifier(stem + self.last(functional.relu(self.norm(self.hidden(stem)))))
        return logits


def classifier(norm: bool = False) -> Net:
    torch.manual_seed(0)
    return trained_looking(Net(norm))


def rows_of(count: int, seed: int) -> Inputs:
    return {"rows": np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)}


DATA = TrainingData(inputs=rows_of(64, 1))
INPUTS = rows_of(50, 2)
USED = INPUTS["rows"][:SAMPLES]


def scored(
    module: nn.Module,
    *,
    groups: tuple[PruneGroup, ...] | None = None,
    levels: tuple[float, ...] = (0.25, 0.5, 0.75),
    round_to: int = 1,
    divergence_metric: str = KL,
    store: ContentStore | None = None,
    key: str = "net",
    data: TrainingData = DATA,
    inputs: Inputs = INPUTS,
    importance: str = "magnitude",
    on_step: Callable[[str], None] = lambda _: None,
) -> SparsityTable:
    return score_sparsities(
        module,
        find_prune_groups(module, data.inputs) if groups is None else groups,
        data,
        inputs,
        levels=levels,
        round_to=round_to,
        samples=SAMPLES,
        divergence_metric=divergence_metric,
        store=store or ContentStore(None),
        key=key,
        on_step=on_step,
        importance=importance,
    )
