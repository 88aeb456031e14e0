"""What training leaves of a sparsity's loss."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import pytest
import torch
from torch import nn

from bitfront.core import ModelError
from bitfront.sensitivity.divergence import kl_divergence
from bitfront.sensitivity.sparsity import score_trained
from tests.sensitivity.sparsity_nets import INPUTS, Net, classifier, scored


def _moved(net: Net, shift: float) -> nn.Module:
    """Another network, further from ``net`` the larger the shift."""
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.classifier.bias[0] += shift
    return other


def _distance(net: Net, other: nn.Module) -> float:
    with torch.no_grad():
        whole, found = (part(torch.from_numpy(INPUTS["rows"])).double().numpy() for part in (net, other))
    return float(kl_divergence(whole, found).mean())


def test_training_takes_back_a_share_of_every_level() -> None:
    """The highest level of each group is trained and scored; the lower ones keep the same share of their losses."""
    net, asked = classifier(), []
    table = scored(net)
    (branch,) = (name for name, losses in table.losses().items() if list(losses) == [0.0, 1.0])
    shifts = {"hidden": 0.03, branch: 0.02}

    def trained(sparsity: Mapping[str, float]) -> nn.Module:
        asked.append(dict(sparsity))
        (group,) = sparsity
        return _moved(net, shifts.get(group, 0.01))

    found = score_trained(table, net, INPUTS, trained, pytest.fail)
    assert {"hidden": 0.75} in asked
    assert {branch: 1.0} in asked
    left = _distance(net, _moved(net, 0.03))
    before = table.losses()["hidden"]
    assert left < 0.5 * before[0.75], "the test says nothing otherwise"
    for level, loss in before.items():
        assert found.losses()["hidden"][level] == pytest.approx(loss * left / before[0.75], rel=1e-4)
    assert found.losses()[branch][1.0] == pytest.approx(_distance(net, _moved(net, 0.02)), rel=1e-4)
    assert [row.loss for row in found.rows] == [row.loss for row in table.rows], "what it was before is still there"
    assert found.trained_groups == {name for name, losses in table.losses().items() if len(losses) > 1}
    assert table.trained_groups == frozenset()


def test_training_never_makes_a_group_cost_more() -> None:
    """A training that did harm, or none that ended well, leaves the loss as it was."""
    net = classifier()
    table = scored(net)
    warnings: list[str] = []

    def harmful(sparsity: Mapping[str, float]) -> nn.Module:
        if "hidden" in sparsity:
            raise ModelError("the loss is nan at step 3 of 12")
        return _moved(net, math.nan if 1.0 in sparsity.values() else 50.0)

    found = score_trained(table, net, INPUTS, harmful, warnings.append)
    assert found.losses() == table.losses()
    assert "hidden" in found.trained_groups
    (warning,) = warnings
    assert "hidden" in warning
    assert "the loss is nan at step 3 of 12" in warning


def test_without_time_for_all_groups_none_counts_as_trained() -> None:
    """Losses before and after training do not compare."""
    net = classifier()
    table, answers = scored(net), iter([_moved(net, 0.01), None])
    assert score_trained(table, net, INPUTS, lambda _: next(answers), pytest.fail) == table
