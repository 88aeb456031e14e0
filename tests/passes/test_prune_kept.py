"""Which units stay: those of the largest importance, by their own indices, as many as sparsity and rounding leave."""

from __future__ import annotations

import pytest
import torch

from bitfront.passes.data import TrainingData
from bitfront.passes.prune import StructuredPrune
from bitfront.passes.prune_groups import find_prune_groups
from tests.search.variants.making import samples, small

DATA = TrainingData(inputs=samples(8, 3))
SCORES = torch.tensor([5.0, 1, 7, 2, 9, 3, 8, 4, 16, 10, 15, 11, 14, 12, 13, 6], dtype=torch.float64)


@pytest.mark.parametrize(
    ("sparsity", "round_to", "kept"),
    [
        (0.5, 1, (4, 8, 9, 10, 11, 12, 13, 14)),
        (0.5, 8, (4, 8, 9, 10, 11, 12, 13, 14)),
        (0.75, 1, (8, 10, 12, 14)),
        (0.6, 4, None),
        (0.0, 8, tuple(range(16))),
    ],
)
def test_the_most_important_units_stay(sparsity: float, round_to: int, kept: tuple[int, ...] | None) -> None:
    """In ascending order; rounding leaves a multiple of what the kernels like."""
    module = small()
    (group,) = (group for group in find_prune_groups(module, DATA.inputs) if group.name == "conv1")
    options = StructuredPrune(sparsity={"conv1": sparsity}, round_to=round_to)
    (found,) = options.kept_units(module, [group], DATA, scores={"conv1": SCORES}).values()
    order = sorted(range(16), key=lambda unit: -float(SCORES[unit]))
    assert found == tuple(sorted(order[: len(found)]))
    assert len(found) % round_to == 0
    if kept is not None:
        assert len(found) == len(kept)


def test_exactly_the_others_are_removed() -> None:
    """Rows of the layer, entries of the norm and columns of the reader that stay are those of the units that stay."""
    module = small()
    options = StructuredPrune(sparsity={"conv1": 0.5}, round_to=1)
    groups = find_prune_groups(module, DATA.inputs)
    scores = {group.name: SCORES[: len(group.units)] for group in groups if not group.branch}
    pruned = options.apply(module, DATA, groups=groups, scores=scores)
    stay = sorted(sorted(range(16), key=lambda unit: -float(SCORES[unit]))[:8])
    whole, left = module.state_dict(), pruned.state_dict()
    torch.testing.assert_close(left["conv1.weight"], whole["conv1.weight"][stay])
    for name in ("weight", "bias", "running_mean", "running_var"):
        torch.testing.assert_close(left[f"norm.{name}"], whole[f"norm.{name}"][stay])
    torch.testing.assert_close(left["conv2.weight"], whole["conv2.weight"][:, stay])
    torch.testing.assert_close(left["stem.weight"], whole["stem.weight"])


def test_importances_are_means_over_the_samples_used() -> None:
    """The first so many, whatever follows them."""
    module = small()
    groups = find_prune_groups(module, DATA.inputs)
    few = TrainingData(inputs={name: array[:4] for name, array in DATA.inputs.items()})
    options = StructuredPrune(samples=4)
    found, wanted = options.importances(module, groups, DATA), options.importances(module, groups, few)
    assert found
    for name, values in wanted.items():
        torch.testing.assert_close(found[name], values)
