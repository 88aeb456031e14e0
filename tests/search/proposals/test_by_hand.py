"""Small cases worked by hand: how much each group counts, what layers bring besides weights, limits kept exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bitfront.core import FP32, Scheme
from bitfront.lowering.compute_type import ComputeType
from bitfront.search.proposals.file_overhead import fit_file_overhead
from bitfront.search.proposals.ilp_instance import IlpInstance, keeps
from bitfront.search.proposals.latency_model import group_weights
from bitfront.search.proposals.solver import solve
from bitfront.search.space.space import ActivationType, GroupSpace, Space

INT8 = Scheme.parse("int8:mse")


def group(name: str, fp32_bytes: int, layers: int = 1) -> GroupSpace:
    """FP32 and INT8."""
    return GroupSpace(
        name=name,
        schemes=(FP32, INT8),
        losses=(0.0, 0.1),
        size_bytes=(fp32_bytes, fp32_bytes // 4),
        compute_types=(ComputeType.FP32, ComputeType.INT8),
        layers=layers,
        members=tuple(f"{name}{index}" for index in range(layers)),
        member_bytes=(fp32_bytes // layers,) * layers,
    )


def test_groups_count_half_by_number_and_half_by_bytes() -> None:
    """Of 1,000 and 3,000 bytes: 0.25 + 0.125 and 0.25 + 0.375; a group almost without weights still counts."""
    assert group_weights(Space(groups=(group("a", 1000), group("b", 3000)), edges=())) == pytest.approx([0.375, 0.625])
    early, late = group_weights(Space(groups=(group("a", 4), group("b", 10**9)), edges=()))
    assert early == pytest.approx(0.25)
    assert early + late == pytest.approx(1.0)


def test_each_layer_of_a_group_brings_its_extra() -> None:
    """100 bytes a quantised layer: a group of one brings 100, one of three 300, both 400."""
    space = Space(groups=(group("a", 4000), group("b", 12_000, layers=3)), edges=())
    encodings = [(0, 0), (1, 0), (0, 1), (1, 1)]
    sizes = [500 + space.encoding_bytes(encoding) + 100 * encoding[0] + 300 * encoding[1] for encoding in encodings]
    found = fit_file_overhead(space, encodings, sizes)
    assert found.base == pytest.approx(500, abs=2)
    assert list(found.extras.values()) == pytest.approx([100], abs=1)
    assert found.sizes(space.groups[1]) == pytest.approx((12_000, 3300), abs=3)


def problem(latency: list[float], losses: list[float], **more: object) -> IlpInstance:
    """Groups of FP32 and INT8: what INT8 adds to the ratio, and its loss."""
    count = len(latency)
    base = IlpInstance(
        losses=tuple((0.0, loss) for loss in losses),
        latency=tuple((0.0, cost) for cost in latency),
        sizes=((100.0, 25.0),) * count,
        domains=((ActivationType.FLOAT, ActivationType.INTEGER),) * count,
        allowed=((True, True),) * count,
    )
    return replace(base, **more)  # type: ignore[arg-type]


def test_a_limit_is_kept_to_the_last_digit() -> None:
    """The cheaper group misses the limit by less than the solver's whole numbers tell: the other one is taken."""
    close = problem([-0.5, -0.1000012], [0.5, 0.1])
    limit = 0.8999968
    assert not keeps(close, (0, 1), limit, None)
    assert solve(close, max_ratio=limit) == (1, 0)
    assert solve(close, max_ratio=close.ratio((0, 1))) == (0, 1)


@pytest.mark.parametrize("turned", [False, True], ids=["into floats", "out of floats"])
def test_boundaries_cost_in_both_directions(turned: bool) -> None:
    """A pair in one arithmetic saves 0.2; of a pair in two, what is saved goes to the boundary.

    However many mixes of the least loss would do without boundaries, none is mistaken for a solution.
    """
    pairs = 5
    edges = tuple((2 * pair + turned, 2 * pair + 1 - turned) for pair in range(pairs))
    both = problem([-0.1] * 2 * pairs, [1.0] * 2 * pairs, edges=edges, boundary=(0.2,) * pairs)
    found = solve(both, max_ratio=0.75)
    assert found is not None
    assert both.loss(found) == 4
    assert both.ratio(found) == pytest.approx(0.6)
    uneven = problem(
        [-0.1] * 2 * pairs,
        [1.0 + 0.01 * (index % 2 == turned) for index in range(2 * pairs)],
        edges=edges,
        boundary=(0.2,) * pairs,
    )
    found = solve(uneven, max_ratio=0.75)
    assert found is not None
    assert np.sum(found) == 4
