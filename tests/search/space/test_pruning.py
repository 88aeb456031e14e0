"""Prunings beside precisions: what is left of a group, equal networks, and Optuna's parameters."""

from __future__ import annotations

from dataclasses import replace

import pytest
from optuna.distributions import CategoricalDistribution

from bitfront.core import FP32, ConfigError, Precision
from bitfront.lowering.compute_type import ComputeType
from bitfront.search.space.pruning import PruneVariable
from bitfront.search.space.space import GroupSpace, Space, build_space
from tests.search.proposals.spaces import (
    INT8,
    branch,
    channels,
    everything,
    prunable_chain,
    quantisable,
    size_of,
    table,
)

ON_CPU = (ComputeType.FP32, ComputeType.INT8)


def _space(*prunes: PruneVariable) -> Space:
    """A group ``a+1`` of layers ``a`` (300 bytes) and ``a'`` (100), and a group ``b``."""
    first = GroupSpace(
        name="a+1",
        schemes=(FP32, INT8),
        losses=(0.0, 0.25),
        size_bytes=(400, 100),
        compute_types=ON_CPU,
        layers=2,
        members=("a", "a'"),
        member_bytes=(300, 100),
    )
    second = GroupSpace(name="b", schemes=(FP32, INT8), losses=(0.0, 0.5), size_bytes=(800, 200), compute_types=ON_CPU)
    return Space(groups=(first, second), edges=((0, 1),), prunes=prunes)


BOTH = {"a+1": INT8, "b": INT8}


def test_what_is_left_by_hand() -> None:
    """Parts multiply over variables and are averaged over a group's layers by their bytes."""
    space = _space(channels("a", "b"), branch("r", "a'"), channels("b", "elsewhere"))
    assert space.kept_fractions((1, 1, 0, 0, 0)) == (1.0, 1.0)
    assert space.kept_fractions((1, 1, 2, 0, 0)) == pytest.approx((0.75 * 0.5 + 0.25, 0.5))
    assert space.kept_fractions((1, 1, 2, 1, 0)) == pytest.approx((0.75 * 0.5, 0.5))
    assert space.kept_fractions((1, 1, 2, 1, 1)) == pytest.approx((0.75 * 0.5, 0.375))
    assert space.size_bytes(BOTH, {"a": 0.5, "r": 1.0}) == round(100 * 0.375 + 200 * 0.5)
    assert space.loss(BOTH, {"a": 0.5, "r": 1.0}) == pytest.approx(0.25 + 0.5 + 0.04 + 0.05)


def test_layers_count_alike_without_bytes() -> None:
    """Where a group does not know its layers' bytes the mean is plain."""
    space = _space(branch("r", "a'"))
    plain = replace(space, groups=(replace(space.groups[0], member_bytes=()), space.groups[1]))
    assert plain.kept_fractions((0, 0, 1)) == (0.5, 1.0)


def test_a_group_that_is_gone_costs_nothing() -> None:
    """Neither loss nor bytes are left of it, and its scheme makes no difference."""
    space = _space(branch("r", "a", "a'"))
    assert space.kept_fractions((1, 1, 1)) == (0.0, 1.0)
    assert space.loss(BOTH, {"r": 1.0}) == pytest.approx(0.5 + 0.05)
    assert space.size_bytes(BOTH, {"r": 1.0}) == 200
    assert space.encode(BOTH, {"r": 1.0}) == space.encode({"a+1": FP32, "b": INT8}, {"r": 1.0}) == (0, 1, 1)


def test_equal_networks_have_equal_codes() -> None:
    """Channels inside a removed branch are not pruned, those that reach out of it are."""
    inside, across = channels("a", "a'"), channels("a'", "b")
    space = _space(inside, across, branch("r", "a", "a'"))
    assert space.canonical((1, 1, 2, 1, 1)) == (0, 1, 0, 1, 1)
    assert space.canonical((1, 1, 2, 1, 0)) == (1, 1, 2, 1, 0)
    assert all(
        space.canonical(space.canonical(encoding)) == space.canonical(encoding) for encoding in everything(space)
    )


def test_of_nested_branches_the_outer_stays() -> None:
    """Both removed is the outer removed; of two names for one branch the first stays."""
    nested = _space(branch("inner", "a"), branch("outer", "a", "a'"))
    assert nested.canonical((0, 0, 1, 1)) == (0, 0, 0, 1)
    equal = _space(branch("one", "a"), branch("other", "a"))
    assert equal.canonical((0, 0, 1, 1)) == (0, 0, 1, 0)
    assert nested.pruning_effects.covers(0) == ((1, 1),)
    assert nested.pruning_effects.covers(1) == ()


def test_params_round_trip() -> None:
    """Assignment and pruning → Optuna params → the same, and the params are in the distributions."""
    space = prunable_chain(5)
    for encoding in everything(space)[::97]:
        assignment, pruning = space.decode(encoding), space.pruning(encoding)
        params = space.to_params(assignment, pruning)
        assert space.encode(space.from_params(params), space.pruning_of(params)) == encoding
        assert params.keys() == space.distributions().keys()
        for name, distribution in space.distributions().items():
            assert isinstance(distribution, CategoricalDistribution)
            assert params[name] in distribution.choices
    assert space.to_params(assignment)["prune:g0"] == "0"
    assert space.to_params(assignment, {"g0": 0.25})["prune:g0"] == "0.25"


def test_older_trials_are_not_pruned() -> None:
    """Params without prune variables mean the given network."""
    space, fp32 = prunable_chain(5), {f"g{g}": "fp32" for g in range(5)}
    assert space.pruning_of(fp32) == {}
    assert space.pruning_of({**fp32, "prune:g0": "0", "prune:b": "1"}) == {"b": 1.0}
    assert len(space.encode(space.from_params(fp32))) == 5 + 3


def test_baselines_are_not_pruned() -> None:
    """Uniform precisions are those of the given network."""
    space = prunable_chain(5)
    assert all(space.pruning(space.encode(assignment)) == {} for _, assignment in space.baselines())
    assert space.cardinality == 4**5 * 3 * 3 * 2


def test_descriptions_name_the_pruning() -> None:
    """Layers that are gone are not counted; pruned groups are named by sparsity."""
    space = _space(channels("a", "b"), channels("b", "c"), branch("r", "a'"), channels("c", "d"))
    assert space.describe(BOTH, {"a": 0.5, "b": 0.25, "r": 1.0, "c": 0.25}) == (
        "int8:mse ×2; pruned 25% b, c, 50% a; without r"
    )
    assert space.describe({"a+1": INT8, "b": FP32}, {"r": 1.0}) == "fp32 ×1, int8:mse ×1; without r"
    assert space.describe({"a+1": FP32, "b": INT8}) == "fp32 ×2, int8:mse ×1"


def test_foreign_prunings_are_refused() -> None:
    """A variable or a sparsity of another space is named with what was expected."""
    space = _space(channels("a", "b"))
    with pytest.raises(ConfigError, match=r"prune group 'a': expected a sparsity of 0, 0\.25, 0\.5, got 0\.3"):
        space.encode(BOTH, {"a": 0.3})
    with pytest.raises(ConfigError, match=r"prune group 'z': expected a sparsity of 0, got 0\.5"):
        space.loss(BOTH, {"z": 0.5})
    with pytest.raises(ConfigError, match=r"prune group 'a': expected a sparsity of 0, 0\.25, 0\.5, got 0\.3"):
        space.pruning_of({"prune:a": "0.3"})
    with pytest.raises(ConfigError, match=r"prune group 'z': expected a sparsity of 0, got 1"):
        space.pruning_of({"prune:z": "1"})


def test_built_spaces_know_their_layers() -> None:
    """A group's layers and their FP32 bytes come from the quantisable."""
    offered = {"a+1": (FP32, INT8), "b": (FP32, INT8)}
    losses = {name: {FP32: 0.0, INT8: 0.1} for name in offered}
    space = build_space(
        quantisable(offered),
        table(losses, {}),
        tuple(Precision),
        size_of,
        lambda _: ComputeType.FP32,
        [branch("r", "a")],
    )
    assert space.groups[0].members == ("a", "a'")
    assert space.groups[0].member_bytes == (2304, 2304)
    assert space.kept_fractions((0, 0, 1)) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("sparsities", "losses", "parts", "message"),
    [
        ((0.25, 0.5), (0.0, 0.1), (1.0, 0.5), "expected sparsities from 0 upwards"),
        ((0.0, 0.5, 0.25), (0.0, 0.1, 0.2), (1.0, 0.5, 0.7), "expected sparsities from 0 upwards"),
        ((0.0, 1.5), (0.0, 0.1), (1.0, 0.5), "expected sparsities from 0 upwards"),
        ((0.0, 0.5), (0.0,), (1.0, 0.5), "expected a loss a sparsity, 0 first"),
        ((0.0, 0.5), (0.0, float("nan")), (1.0, 0.5), "expected a loss a sparsity, 0 first"),
        ((0.0, 0.5), (0.1, 0.2), (1.0, 0.5), "expected a loss a sparsity, 0 first"),
        ((0.0, 0.5), (0.0, 0.1), (1.0,), "expected a share of 'l' a sparsity, 1 first"),
        ((0.0, 0.5), (0.0, 0.1), (0.9, 0.5), "expected a share of 'l' a sparsity, 1 first"),
        ((0.0, 0.5), (0.0, 0.1), (1.0, -0.5), "expected a share of 'l' a sparsity, 1 first"),
    ],
    ids=["no 0", "order", "above 1", "lengths", "nan", "loss of 0", "parts", "whole first", "negative"],
)
def test_malformed_variables_are_refused(
    sparsities: tuple[float, ...], losses: tuple[float, ...], parts: tuple[float, ...], message: str
) -> None:
    """A prune variable starts with the whole network, for nothing."""
    with pytest.raises(ValueError, match=message):
        PruneVariable(name="a", sparsities=sparsities, losses=losses, parts={"l": parts})


def test_malformed_members_are_refused() -> None:
    """A variable has layers; a group's members are as many as its layers and their bytes."""
    with pytest.raises(ValueError, match="prune group 'a': expected at least one layer"):
        PruneVariable(name="a", sparsities=(0.0, 0.5), losses=(0.0, 0.1), parts={})
    group = _space().groups[0]
    with pytest.raises(ValueError, match="expected 2 members, got a"):
        replace(group, members=("a",))
    with pytest.raises(ValueError, match="members and member_bytes differ in length"):
        replace(group, member_bytes=(1,))
