"""Precisions and prunings solved together, against brute force, and brute force against planted bugs."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfront.search.proposals.file_overhead import FileOverhead
from bitfront.search.proposals.ilp_instance import IlpInstance, keeps
from bitfront.search.proposals.latency_model import fit_encodings
from bitfront.search.proposals.solver import solve
from bitfront.search.space.pruning import PruneVariable, PruningEffects, SparsityIndices
from bitfront.search.space.space import ActivationType, Encoding
from tests.search.proposals.spaces import branch, chain, channels, prunable_chain


def brute_force(
    problem: IlpInstance, max_ratio: float | None, max_bytes: float | None, fixed: SparsityIndices | None = None
) -> float:
    """The least loss of a canonical encoding within the limits; infinite where nothing fits."""
    groups, prunes = problem.losses, problem.pruning_effects.prunes
    levels = product(*(range(len(p.sparsities)) for p in prunes)) if fixed is None else [fixed]
    return min(
        (
            problem.loss(encoding)
            for combination in levels
            for schemes in product(*(range(len(row)) for row in groups))
            if all(row[c] for row, c in zip(problem.allowed, schemes, strict=True))
            if (encoding := (*schemes, *combination)) == problem.pruning_effects.canonical(encoding)
            and keeps(problem, encoding, max_ratio, max_bytes)
        ),
        default=math.inf,
    )


def judge(
    problem: IlpInstance,
    encoding: Encoding | None,
    max_ratio: float | None,
    max_bytes: float | None,
    fixed: SparsityIndices | None = None,
) -> str:
    """The oracle: empty where ``encoding`` is right, else what is wrong with it."""
    best = brute_force(problem, max_ratio, max_bytes, fixed)
    if encoding is None:
        return "" if math.isinf(best) else "missed a feasible solution"
    if encoding != problem.pruning_effects.canonical(encoding):
        return "not canonical"
    if not keeps(problem, encoding, max_ratio, max_bytes):
        return "breaks a limit"
    return "" if problem.loss(encoding) <= best * (1 + 1e-6) + 1e-12 else "not the least loss"


@st.composite
def problems(draw: st.DrawFn) -> IlpInstance:
    """Up to 4 groups of up to 2 layers and 3 schemes, up to 3 variables over any of the layers, boundaries anywhere."""
    widths = draw(st.lists(st.integers(1, 3), min_size=2, max_size=4))
    groups = range(len(widths))
    exponents = st.floats(-4, 0)
    pairs = [(u, v) for u in groups for v in groups if u < v]
    edges = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=4))
    members = tuple(draw(st.sampled_from([{f"{g}": 1.0}, {f"{g}": 0.75, f"{g}'": 0.25}])) for g in groups)
    layers = [layer for names in members for layer in names]

    def variable(index: int) -> PruneVariable:
        touched = draw(st.lists(st.sampled_from(layers), min_size=1, max_size=3, unique=True))
        if draw(st.booleans()):
            return branch(f"p{index}", *touched, loss=10.0 ** draw(exponents))
        return replace(
            channels(f"p{index}", "", 10.0 ** draw(exponents)),
            parts={layer: (1.0, draw(st.floats(0.6, 0.9)), draw(st.floats(0.2, 0.5))) for layer in touched},
        )

    prunes = tuple(variable(index) for index in range(draw(st.integers(1, 3))))
    return IlpInstance(
        losses=tuple(tuple(10.0 ** draw(exponents) if c else 0.0 for c in range(width)) for width in widths),
        latency=tuple((0.0, *(draw(st.floats(-0.2, 0.05)) for _ in range(width - 1))) for width in widths),
        sizes=tuple(tuple(draw(st.integers(0, 500_000).map(float)) for _ in range(width)) for width in widths),
        domains=tuple(
            (ActivationType.FLOAT, *(draw(st.sampled_from(ActivationType)) for _ in range(width - 1)))
            for width in widths
        ),
        allowed=tuple((True, *(draw(st.integers(0, 4)) > 0 for _ in range(width - 1))) for width in widths),
        edges=tuple(edges),
        boundary=tuple(draw(st.floats(-0.05, 0.2)) for _ in edges),
        overhead_bytes=1000.0,
        pruning_effects=PruningEffects(members=members, prunes=prunes),
        scaling=tuple(draw(st.floats(0.0, 0.3)) for _ in groups),
        branches=tuple(draw(st.floats(-0.05, 0.02)) for _ in prunes),
        prune_weight=draw(st.sampled_from([1.0, 0.1])),
    )


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    problem=problems(),
    max_ratio=st.none() | st.floats(0.2, 1.2),
    max_bytes=st.none() | st.integers(1000, 1_000_000).map(float),
)
def test_matches_brute_force(problem: IlpInstance, max_ratio: float | None, max_bytes: float | None) -> None:
    """The least loss among all canonical encodings within both limits, and None exactly where there is none."""
    encoding = solve(problem, max_ratio=max_ratio, max_bytes=max_bytes)
    assert judge(problem, encoding, max_ratio, max_bytes) == ""


@settings(max_examples=40, deadline=None, derandomize=True)
@given(problem=problems(), max_ratio=st.floats(0.2, 1.1), data=st.data())
def test_matches_brute_force_where_the_pruning_is_given(
    problem: IlpInstance, max_ratio: float, data: st.DataObject
) -> None:
    """With fixed levels the precisions are the best for that network."""
    drawn = tuple(data.draw(st.integers(0, len(prune.sparsities) - 1)) for prune in problem.pruning_effects.prunes)
    groups = len(problem.losses)
    fixed = problem.pruning_effects.canonical((*(0,) * groups, *drawn))[groups:]
    encoding = solve(problem, max_ratio=max_ratio, fixed=fixed)
    assert encoding is None or encoding[groups:] == fixed
    assert judge(problem, encoding, max_ratio, None, fixed) == ""


def _small() -> IlpInstance:
    """A chain of three groups, channels between the first two, and a branch of the second alone."""
    return IlpInstance(
        losses=((0.0, 0.1), (0.0, 0.2), (0.0, 0.4)),
        latency=((0.0, -0.2),) * 3,
        sizes=((400.0, 100.0),) * 3,
        domains=((ActivationType.FLOAT, ActivationType.INTEGER),) * 3,
        allowed=((True, True),) * 3,
        edges=((0, 1), (1, 2)),
        boundary=(0.1, 0.1),
        pruning_effects=PruningEffects(
            members=({"a": 1.0}, {"b": 1.0}, {"c": 1.0}), prunes=(channels("a", "b", 0.05), branch("r", "b", loss=0.3))
        ),
        scaling=(0.3, 0.3, 0.3),
        branches=(0.0, -0.02),
    )


def test_hand_computed() -> None:
    """Costs by hand; a removed group takes its boundaries and its loss with it."""
    small = _small()
    assert small.ratio((0, 0, 0, 2, 0)) == pytest.approx(1 - 2 * 0.15)
    assert small.ratio((1, 1, 0, 2, 0)) == pytest.approx(1 - 2 * 0.15 - 2 * 0.1 + 0.1)
    assert small.ratio((1, 0, 0, 0, 1)) == pytest.approx(1 - 0.2 - 0.3 - 0.02)
    assert small.size((1, 1, 0, 2, 0)) == pytest.approx(50 + 50 + 400)
    assert small.loss((1, 0, 0, 0, 1)) == pytest.approx(0.1 + 0.3)
    assert solve(small, max_ratio=0.86) == (0, 0, 0, 1, 0)
    assert solve(small, max_ratio=0.69) == (0, 0, 0, 0, 1)
    assert solve(small, max_ratio=0.5) == (1, 0, 0, 0, 1)
    assert solve(small, max_ratio=0.8, fixed=(0, 0)) == (1, 1, 0, 0, 0)
    assert solve(replace(small, prune_weight=0.1), max_ratio=0.55) == (0, 0, 0, 2, 1)
    assert solve(small) == (0,) * 5


def test_oracle_rejects_a_boundary_of_what_is_gone() -> None:
    """Planted bug: a branch that still scales but is never gone keeps its boundaries, and the oracle says so."""
    small = _small()
    kept = replace(small.pruning_effects.prunes[1], parts={"b": (1.0, 1e-9)})
    blind = replace(
        small, pruning_effects=replace(small.pruning_effects, prunes=(small.pruning_effects.prunes[0], kept))
    )
    assert judge(small, solve(blind, max_ratio=0.5), 0.5, None) != ""


def test_oracle_rejects_a_dropped_prune_loss() -> None:
    """Planted bug: prunings for nothing are taken where precisions are cheaper, and the oracle says so."""
    small = _small()
    assert judge(small, solve(replace(small, prune_weight=0.0), max_ratio=0.8), 0.8, None) == "not the least loss"
    assert judge(small, None, 0.8, None) == "missed a feasible solution"
    assert judge(small, (0, 1, 0, 0, 1), 0.8, None) == "not canonical"


def test_tried_networks_do_not_come_back() -> None:
    """Excluding solutions walks down the ranking of all feasible ones, prunings included."""
    small = _small()
    ranked = sorted(
        (
            encoding
            for encoding in product(range(2), range(2), range(2), range(3), range(2))
            if small.pruning_effects.canonical(encoding) == encoding and small.ratio(encoding) <= 0.75
        ),
        key=small.loss,
    )
    tried: list[Encoding] = []
    for _ in range(5):
        encoding = solve(small, max_ratio=0.75, tried=tried)
        assert encoding is not None
        tried.append(encoding)
    assert [small.loss(encoding) for encoding in tried] == pytest.approx(
        [small.loss(encoding) for encoding in ranked[:5]]
    )
    assert len(set(tried)) == 5


def test_weights_reach_prunings() -> None:
    """A variable of great weight is left alone; weights are counted."""
    small = _small()
    encoding = solve(small, max_ratio=0.69, weights=[1, 1, 1, 1, 100])
    assert encoding is not None
    assert (encoding[4], solve(small, max_ratio=0.69)) == (0, (0, 0, 0, 0, 1))
    with pytest.raises(ValueError, match="weights must be one finite number ≥ 0 a group and prune variable"):
        solve(small, weights=[1.0, 1.0, 1.0])


def test_too_many_variables_on_a_group_lose_the_least() -> None:
    """Where levels combine in too many ways the variables of least share stay at 0, and the rest is solved."""
    space = chain(3)
    parts = [(1.0, 0.99, 0.98), *((1.0, 0.9, 0.8 - 0.01 * p) for p in range(3)), (1.0, 0.999, 0.995)]
    prunes = tuple(replace(channels(f"p{p}", "", 1e-6), parts={"g0": part, "g1": part}) for p, part in enumerate(parts))
    space = replace(space, prunes=prunes)
    problem = IlpInstance.of(space, fit_encodings(space, [], []))
    encoding = solve(problem, max_bytes=0.5 * problem.size((0,) * 8))
    assert encoding is not None
    assert (space.sparsity_indices(encoding)[0], space.sparsity_indices(encoding)[4]) == (0, 0)
    assert any(space.sparsity_indices(encoding))


def test_network_size_is_solved_within_the_limit() -> None:
    """A network of 20 groups, each touched by up to three variables, is solved, twice alike."""
    space = prunable_chain(20)
    rng = np.random.default_rng(0)
    more = [channels(f"g{g}", f"g{g + 1}", 10.0 ** rng.uniform(-4, -2)) for g in range(1, 19, 2)]
    space = replace(space, prunes=(*space.prunes, *more))
    problem = IlpInstance.of(space, fit_encodings(space, [], []), FileOverhead(5000.0), 0.1)
    first, second = (solve(problem, max_ratio=0.4, gap=0.01) for _ in range(2))
    assert first is not None
    assert first == second
    assert keeps(problem, first, 0.4, None)
    assert space.canonical(first) == first
    assert any(space.sparsity_indices(first))


def test_malformed_input_is_refused() -> None:
    """Coefficients go together and are finite; fixed levels exist."""
    small = _small()
    with pytest.raises(
        ValueError, match="expected a scaling cost a group and a branch cost a prune variable, got 3 and"
    ):
        replace(small, branches=())
    with pytest.raises(ValueError, match="scaling, branches and a prune weight of at least 0 must be finite"):
        replace(small, prune_weight=math.nan)
    with pytest.raises(ValueError, match=r"fixed must be one level a prune variable, got \(3, 0\)"):
        solve(small, fixed=(3, 0))
    with pytest.raises(ValueError, match=r"fixed must be one level a prune variable, got \(0,\)"):
        solve(small, fixed=(0,))
