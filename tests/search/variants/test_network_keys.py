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
from bitfront.passes.data import TrainingData
from bitfront.passes.prune import StructuredPrune
from bitfront.search.variants.maker import Maker
from bitfront.search.variants.trainings import TrainBudget
from tests.references import export_reference
from tests.search.variants import making


class Tanh(making.Tiny):
    """The student's weights in another network."""

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(torch.tanh(self.conv(images)).mean((2, 3)))
        return logits


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a maker is given.

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

    def maker(self, store: ContentStore) -> Maker:
        module = making.small(self.seed)
        reference = making.given() if self.seed == 0 else _exported(module)
        calibration: Inputs = making.samples(32, 1)
        torch.manual_seed(self.student_seed)
        return Maker(
            module=module,
            given=Lowerer(reference, get_dialect("ort-cpu"), calibration, CalibrationSettings(samples=32), store),
            data=TrainingData(inputs=making.samples(64, self.training)),
            students={"Tiny-1": self.student().eval()},
            store=store,
            budget=TrainBudget(None),
            name="small",
            on_step=lambda _: None,
            importance=self.importance,
        )


def _exported(module: nn.Module) -> Any:
    return export_reference(module, making.samples(32, 1), name="small")


def weights(maker: Maker, steps: list[RecipeStep]) -> dict[str, Any]:
    """Of the network that the steps make."""
    module = maker.make(steps).module
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

    def importances(given: Given, store: ContentStore) -> Any:
        maker = given.maker(store)
        options = StructuredPrune.from_json(maker.prune_step({"conv1": 0.5}).options)
        return maker._importances(options)["conv1"].numpy()

    wanted, shared = importances(PRUNED[name], ContentStore(None)), ContentStore(None)
    assert not np.array_equal(importances(BASE, shared), wanted), "the test says nothing otherwise"
    np.testing.assert_array_equal(importances(PRUNED[name], shared), wanted)


TRAINED = {
    "network": Given(seed=5),
    "training data": Given(training=8),
    "student's weights": Given(student_seed=9),
    "student's encoding": Given(student=Tanh),
}


@pytest.mark.parametrize("name", TRAINED)
def test_a_student_is_trained_anew_where_anything_differs(name: str) -> None:
    """Another teacher, other inputs, other first weights, another network with the same ones."""

    def steps(maker: Maker) -> list[RecipeStep]:
        return [maker.student_step("Tiny-1"), maker.distil_step(2, student=True)]

    own = TRAINED[name].maker(ContentStore(None))
    wanted = weights(own, steps(own))
    shared = ContentStore(None)
    first = BASE.maker(shared)
    assert differ(weights(first, steps(first)), wanted), "the test says nothing otherwise"
    second = TRAINED[name].maker(shared)
    assert not differ(weights(second, steps(second)), wanted)


def test_trainings_of_other_options_or_after_other_steps_are_not_taken() -> None:
    """Two trainings in one store: other steps, another seed, another pruning before."""
    shared = ContentStore(None)

    def recipes(maker: Maker) -> list[list[RecipeStep]]:
        half, quarter = (maker.prune_step({"conv1": level}) for level in (0.5, 0.25))
        return [
            [half, maker.distil_step(2)],
            [half, maker.distil_step(3)],
            [half, maker.distil_step(2, seed=1)],
            [quarter, maker.distil_step(2)],
        ]

    maker = BASE.maker(shared)
    for index, recipe in enumerate(recipes(maker)):
        alone = BASE.maker(ContentStore(None))
        assert not differ(weights(maker, recipe), weights(alone, recipes(alone)[index])), index
