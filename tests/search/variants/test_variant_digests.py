"""What was pruned or trained is found again only for the same network, data, options and students."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bitfront.core import CalibrationSettings, ContentStore, Inputs, RecipeStep
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.lowerer import Lowerer
from bitfront.passes.prune import StructuredPrune
from bitfront.search.passes.base import pass_context
from bitfront.search.passes.prune import PrunePass, importances
from bitfront.search.passes.student import StudentPass
from bitfront.search.passes.trainings import TrainingBudget, Trainings
from bitfront.search.variants.pipeline import PassPipeline
from tests.references import export_reference
from tests.search.variants import making
from tests.search.variants.making import distilled


class Tanh(making.Tiny):
    """The student's weights in another network."""

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(torch.tanh(self.conv(images)).mean((2, 3)))
        return logits


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a made is given.

    Attributes:
        seed: Of the network's weights.
        training: Inputs.
        importance: Of units.
        student_seed: Of the student's first weights.
        student: Its class.
    """

    seed: int = 0
    training: int = 3
    importance: str = "taylor"
    student_seed: int = 1
    student: type[nn.Module] = making.Tiny

    def pipeline(self, store: ContentStore) -> PassPipeline:
        module = making.small(self.seed)
        reference = making.given() if self.seed == 0 else _exported(module)
        calibration: Inputs = making.samples(32, 1)
        torch.manual_seed(self.student_seed)
        context = pass_context(
            module,
            reference.fingerprint,
            making.samples(64, self.training),
            students={"Tiny-1": self.student().eval()},
            augment={},
            trainings=Trainings(store, TrainingBudget(None), lambda _: None),
        )
        settings = CalibrationSettings(samples=32)
        return PassPipeline(context, Lowerer(reference, get_dialect("ort-cpu"), calibration, settings, store), "small")


def _exported(module: nn.Module) -> Any:
    return export_reference(module, making.samples(32, 1), name="small")


def weights(made: PassPipeline, steps: list[RecipeStep]) -> dict[str, Any]:
    """Of the network that the steps make."""
    module = made.make(steps).module
    assert module is not None
    return {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}


def differ(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return any(one[name].shape != other[name].shape or not np.array_equal(one[name], other[name]) for name in one)


BASE = Given()
PRUNED = {
    "network": Given(seed=5),
    "training data": Given(training=8),
    "importance": Given(importance="magnitude"),
}


@pytest.mark.parametrize("name", PRUNED)
def test_importances_are_those_of_the_very_network_and_data(name: str) -> None:
    """Whatever another one has left in the store: units are pruned by them."""

    def scores(given: Given, store: ContentStore) -> Any:
        made = given.pipeline(store)
        options = StructuredPrune.from_json(PrunePass(importance=given.importance).step({"conv1": 0.5}).options)
        return importances(made.context, options)["conv1"].numpy()

    wanted, shared = scores(PRUNED[name], ContentStore(None)), ContentStore(None)
    assert not np.array_equal(scores(BASE, shared), wanted), "the test says nothing otherwise"
    np.testing.assert_array_equal(scores(PRUNED[name], shared), wanted)


TRAINED = {
    "network": Given(seed=5),
    "training data": Given(training=8),
    "student's weights": Given(student_seed=9),
    "student's encoding": Given(student=Tanh),
}


@pytest.mark.parametrize("name", TRAINED)
def test_a_student_is_trained_anew_where_anything_differs(name: str) -> None:
    """Another teacher, other inputs, other first weights, another network with the same ones."""

    def steps(made: PassPipeline) -> list[RecipeStep]:
        return [StudentPass().step("Tiny-1"), distilled(made, 2, from_scratch=True)]

    own = TRAINED[name].pipeline(ContentStore(None))
    wanted = weights(own, steps(own))
    shared = ContentStore(None)
    first = BASE.pipeline(shared)
    assert differ(weights(first, steps(first)), wanted), "the test says nothing otherwise"
    second = TRAINED[name].pipeline(shared)
    assert not differ(weights(second, steps(second)), wanted)


def test_trainings_of_other_options_or_after_other_steps_are_not_taken() -> None:
    """Two trainings in one store: other steps, another seed, another pruning before."""
    shared = ContentStore(None)

    def recipes(made: PassPipeline) -> list[list[RecipeStep]]:
        half, quarter = (PrunePass().step({"conv1": level}) for level in (0.5, 0.25))
        return [
            [half, distilled(made, 2)],
            [half, distilled(made, 3)],
            [half, distilled(made, 2, seed=1)],
            [quarter, distilled(made, 2)],
        ]

    made = BASE.pipeline(shared)
    for index, recipe in enumerate(recipes(made)):
        alone = BASE.pipeline(ContentStore(None))
        assert not differ(weights(made, recipe), weights(alone, recipes(alone)[index])), index
