"""Passes call a module as its export does: by keyword, with parameters left out, whatever it returns."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bitfront.core import Inputs
from bitfront.lowering.module_calls import call
from bitfront.passes.data import TrainingData
from bitfront.passes.distill import Distillation
from bitfront.passes.equivalence import outputs_of
from bitfront.passes.prune_counts import count_macs, example_tensors
from bitfront.passes.prune_groups import Status, find_prune_groups
from bitfront.passes.training import Training
from bitfront.search.inputs.passes import _shapes

GENERATOR = np.random.default_rng(0)
INPUTS: Inputs = {
    "shift": GENERATOR.normal(size=(32, 8)).astype(np.float32),
    "x": GENERATOR.normal(size=(32, 8)).astype(np.float32),
}


class Named(nn.Module):
    """Two layers with a parameter before its inputs and one between them that nobody gives."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        torch.manual_seed(width)
        self.first, self.middle, self.last = nn.Linear(8, width), nn.Linear(width, width), nn.Linear(width, 3)

    def forward(
        self, scale: float = 2.0, x: Tensor | None = None, mask: Tensor | None = None, shift: Tensor | None = None
    ) -> Mapping[str, Tensor | None]:
        assert x is not None
        assert shift is not None
        hidden = torch.relu(self.middle(torch.relu(self.first(x * scale + shift))))
        logits = self.last(hidden)
        return {"loss": mask, "logits": logits, "total": logits.sum(1, keepdim=True)}


def test_outputs_and_costs() -> None:
    """In the order of the outputs, and of the layers alone."""
    module = Named()
    found = outputs_of(module, example_tensors(module, INPUTS))
    assert [tuple(tensor.shape) for tensor in found] == [(2, 3), (2, 1)]
    assert count_macs(module, INPUTS) == 8 * 16 + 16 * 16 + 16 * 3
    assert _shapes(module, INPUTS, "model") == ((2, 3), (2, 1))


@pytest.mark.filterwarnings("ignore")
def test_groups_are_found() -> None:
    """Channels can be removed, checked against the module on its own inputs."""
    groups = find_prune_groups(Named(), INPUTS)
    assert [group.name for group in groups if group.status is Status.PRUNABLE] == ["middle"]


def test_distillation() -> None:
    """A student of another size learns the teacher's first output."""
    teacher, student, data = Named(), Named(8), TrainingData(inputs=INPUTS)

    def gap(module: nn.Module) -> float:
        inputs = {name: torch.from_numpy(np.asarray(array)) for name, array in INPUTS.items()}
        with torch.no_grad():
            pair = [call(one, inputs)["logits"].softmax(1) for one in (module, teacher)]
        return float((pair[0] - pair[1]).abs().mean())

    training = Training(steps=40, batch_size=16, learning_rate=0.05)
    trained = Distillation(training=training).apply(copy.deepcopy(student), data, teacher=teacher)
    assert gap(trained) < 0.5 * gap(student)
