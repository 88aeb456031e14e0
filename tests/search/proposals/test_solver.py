"""The solver against brute force, and brute force against planted bugs."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfront.search.proposals.file_overhead import FileOverhead
from bitfront.search.proposals.ilp_instance import IlpInstance, keeps
from bitfront.search.proposals.latency_model import fit_latency_model
from bitfront.search.proposals.solver import solve
from bitfront.search.space.space import ActivationType, Encoding
from tests.search.proposals.spaces import chain


def brute_force(
    problem: IlpInstance, max_ratio: float | None, max_bytes: float | None, weights: list[float] | None = None
) -> float:
    """The least weighted loss within the limits; infinite where nothing fits."""
    scale = weights or [1.0] * len(problem.losses)
    return min(
        (
            math.fsum(w * row[c] for w, row, c in zip(scale, problem.losses, encoding, strict=True))
            for encoding in product(*(range(len(row)) for row in problem.losses))
            if all(row[c] for row, c in zip(problem.allowed, encoding, strict=True))
            and keeps(problem, encoding, max_ratio, max_bytes)
        ),
        default=math.inf,
    )


def judge(problem: IlpInstance, encoding: Encoding | None, max_ratio: float | None, max_bytes: float | None) -> str:
    """The oracle: empty where ``encoding`` is right, else what is wrong with it."""
    best = brute_force(problem, max_ratio, max_bytes)
    if encoding is None:
        return "" if math.isinf(best) else "missed a feasible solution"
    if not keeps(problem, encoding, max_ratio, max_bytes):
        return "breaks a limit"
    return "" if problem.loss(encoding) <= best * (1 + 1e-6) + 1e-12 else "not the least loss"


@st.composite
def problems(draw: st.DrawFn) -> IlpInstance:
    """Up to 5 groups of up to 4 schemes with any boundary costs, paying ones included."""
    widths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    groups = range(len(widths))
    exponents = st.floats(-5, 0)
    pairs = [(u, v) for u in groups for v in groups if u < v]
    edges = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=6)) if pairs else []

    def rows(values: st.SearchStrategy[float]) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(draw(values) for _ in range(width)) for width in widths)

    return IlpInstance(
        losses=tuple(tuple(10.0 ** draw(exponents) if c else 0.0 for c in range(width)) for width in widths),
        latency=rows(st.floats(-0.4, 0.1)),
        sizes=rows(st.integers(0, 500_000).map(float)),
        domains=tuple(tuple(draw(st.sampled_from(ActivationType)) for _ in range(width)) for width in widths),
        allowed=tuple((True, *(draw(st.integers(0, 4)) > 0 for _ in range(width - 1))) for width in widths),
        edges=tuple(edges),
        boundary=tuple(draw(st.floats(-0.05, 0.3)) for _ in edges),
        overhead_bytes=1000.0,
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    problem=problems(),
    max_ratio=st.none() | st.floats(0.2, 1.2),
    max_bytes=st.none() | st.integers(1000, 1_500_000).map(float),
)
def test_matches_brute_force(problem: IlpInstance, max_ratio: float | None, max_bytes: float | None) -> None:
    """The least loss among all assignments within both limits, and None exactly where there is none."""
    encoding = solve(problem, max_ratio=max_ratio, max_bytes=max_bytes)
    assert judge(problem, encoding, max_ratio, max_bytes) == ""


@settings(max_examples=20, deadline=None, derandomize=True)
@given(problem=problems(), data=st.data())
def test_weights_change_the_objective(problem: IlpInstance, data: st.DataObject) -> None:
    """With weights, the weighted sum is what is least."""
    weights = [data.draw(st.floats(0.01, 10.0)) for _ in problem.losses]
    encoding = solve(problem, max_ratio=0.9, weights=weights)
    best = brute_force(problem, 0.9, None, weights)
    if encoding is None:
        assert math.isinf(best)
    else:
        got = sum(w * row[c] for w, row, c in zip(weights, problem.losses, encoding, strict=True))
        assert got <= best * (1 + 1e-6) + 1e-12


SMALL = IlpInstance(
    losses=((0.0, 1e-4, 1e-2), (0.0, 2e-4, 3e-2), (0.0, 5e-5, 1e-3)),
    latency=((0.0, -0.25, -0.25), (0.0, -0.25, -0.25), (0.0, -0.1, -0.1)),
    sizes=((400.0, 100.0, 50.0), (800.0, 200.0, 100.0), (400.0, 100.0, 50.0)),
    domains=((ActivationType.FLOAT, ActivationType.INTEGER, ActivationType.INTEGER),) * 3,
    allowed=((True, True, True),) * 3,
    edges=((0, 1), (1, 2)),
    boundary=(0.2, 0.15),
)


def test_hand_computed() -> None:
    """Three groups by hand: a lone INT8 group loses to its boundaries, so the limit takes two neighbours or three."""
    assert SMALL.ratio((1, 0, 0)) == pytest.approx(0.95)
    assert SMALL.ratio((0, 1, 0)) == pytest.approx(1.1)
    assert SMALL.ratio((1, 1, 0)) == pytest.approx(0.65)
    assert SMALL.ratio((1, 1, 1)) == pytest.approx(0.4)
    assert solve(SMALL, max_ratio=0.7) == (1, 1, 0)
    assert solve(SMALL, max_ratio=0.5) == (1, 1, 1)
    assert solve(SMALL, max_ratio=0.3) is None
    assert solve(SMALL, max_ratio=0.5, max_bytes=350.0) == (1, 1, 2)
    assert solve(SMALL) == (0, 0, 0)


@pytest.mark.parametrize("tiny", [1e-307, 2e-308, 1e-320, 5e-324])
@pytest.mark.parametrize("sign", [1, -1])
def test_costs_too_small_to_count(tiny: float, sign: int) -> None:
    """The least loss is found among the least floating numbers, too; costs that no sum shows keep what 0 keeps."""
    row = (0.0, sign * tiny)
    problem = IlpInstance(
        losses=((2 * tiny, tiny),) * 2,
        latency=(row, row),
        sizes=(row, row),
        domains=((ActivationType.FLOAT, ActivationType.FLOAT),) * 2,
        allowed=((True, True),) * 2,
        overhead_bytes=100.0,
    )
    for ratio, size in ((1.0, None), (None, 100.0), (1.0, 100.0), (2.0, 200.0)):
        assert keeps(problem, (1, 1), ratio, size)
        assert solve(problem, max_ratio=ratio, max_bytes=size) == (1, 1)
        assert solve(problem, max_ratio=ratio, max_bytes=size, tried=[(1, 1)]) in {(0, 1), (1, 0)}
    for ratio, size in ((0.9, None), (None, 99.0)):
        assert solve(problem, max_ratio=ratio, max_bytes=size) is None


def test_oracle_rejects_a_dropped_boundary() -> None:
    """Planted bug: without boundary terms the lone cheap group is taken, and the oracle says so."""
    blind = replace(SMALL, edges=(), boundary=())
    # 0.25 + 0.1 saved by groups 0 and 2 look like enough; their boundaries eat all of it.
    assert solve(blind, max_ratio=0.7) == (1, 0, 1)
    assert judge(SMALL, (1, 0, 1), 0.7, None) == "breaks a limit"


def test_three_domains_by_hand() -> None:
    """Half beside integer is a boundary as float beside integer is; a run in one domain has none."""
    three = replace(SMALL, domains=((ActivationType.FLOAT, ActivationType.HALF, ActivationType.INTEGER),) * 3)
    assert three.ratio((1, 1, 0)) == pytest.approx(0.65)
    assert three.ratio((1, 2, 2)) == pytest.approx(0.6)
    assert three.ratio((1, 2, 1)) == pytest.approx(0.75)
    assert solve(three, max_ratio=0.5) == (1, 1, 1)
    assert solve(three, max_bytes=300.0) == (2, 1, 2)
    assert solve(three, max_ratio=0.7, max_bytes=300.0) == (1, 2, 2)
    assert judge(three, (1, 2, 2), 0.7, 300.0) == ""


def test_oracle_rejects_half_taken_for_float() -> None:
    """Planted bug: a solver that sees no boundary between half and float breaks the limit, and the oracle says so."""
    three = replace(SMALL, domains=((ActivationType.FLOAT, ActivationType.HALF, ActivationType.INTEGER),) * 3)
    blind = replace(SMALL, domains=((ActivationType.FLOAT, ActivationType.FLOAT, ActivationType.INTEGER),) * 3)
    assert judge(three, solve(blind, max_ratio=0.7), 0.7, None) == "breaks a limit"


def test_oracle_rejects_rounding_down() -> None:
    """Planted bug: costs rounded down to hundreds of bytes break the size limit, and the oracle says so."""
    tight = replace(SMALL, sizes=((400.0, 190.0, 50.0), (800.0, 290.0, 100.0), (400.0, 190.0, 50.0)))
    floored = replace(tight, sizes=tuple(tuple(size // 100 * 100 for size in row) for row in tight.sizes))
    assert judge(tight, solve(floored, max_bytes=400.0), None, 400.0) == "breaks a limit"


def test_oracle_rejects_needless_loss() -> None:
    """Planted bug: a feasible but worse solution, and a missed one, are told apart from the right one."""
    assert judge(SMALL, (1, 1, 1), 0.7, None) == "not the least loss"
    assert judge(SMALL, None, 0.7, None) == "missed a feasible solution"
    assert judge(SMALL, (1, 1, 0), 0.7, None) == ""


def test_tried_solutions_do_not_come_back() -> None:
    """Excluding solutions walks down the ranking of all feasible ones."""
    ranked = sorted(
        (encoding for encoding in product(range(3), repeat=3) if SMALL.ratio(encoding) <= 0.7),
        key=lambda encoding: SMALL.loss(encoding),
    )
    tried: list[Encoding] = []
    for _ in range(4):
        encoding = solve(SMALL, max_ratio=0.7, tried=tried)
        assert encoding is not None
        tried.append(encoding)
    assert tried == ranked[:4]


def test_network_size_is_solved_within_limits() -> None:
    """A network of 40 groups is solved, twice alike."""
    space = chain(40)
    problem = IlpInstance.of(space, fit_latency_model(space, []), FileOverhead(5000.0))
    limit = 0.2 * problem.size(tuple(0 for _ in space.groups))
    first, second = (solve(problem, max_ratio=0.6, max_bytes=limit, gap=0.01) for _ in range(2))
    assert first is not None
    assert first == second
    assert keeps(problem, first, 0.6, limit)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_input_is_refused(value: float) -> None:
    """NaN and infinity never reach the solver."""
    with pytest.raises(ValueError, match="loss of group 1 must be finite"):
        replace(SMALL, losses=(SMALL.losses[0], (0.0, value, 1.0), SMALL.losses[2]))
    with pytest.raises(ValueError, match="latency of group 0 must be finite"):
        replace(SMALL, latency=((value, 0.0, 0.0), *SMALL.latency[1:]))
    with pytest.raises(ValueError, match="size of group 2 must be finite"):
        replace(SMALL, sizes=(*SMALL.sizes[:2], (0.0, 0.0, value)))
    with pytest.raises(ValueError, match="boundary, overhead and base must be finite"):
        replace(SMALL, boundary=(0.1, value))
    with pytest.raises(ValueError, match="max_ratio must be finite or None"):
        solve(SMALL, max_ratio=value)
    with pytest.raises(ValueError, match="max_bytes must be finite or None"):
        solve(SMALL, max_bytes=value)
    with pytest.raises(ValueError, match="weights must be one finite number ≥ 0 a group"):
        solve(SMALL, weights=[1.0, value, 1.0])


def test_malformed_problems_are_refused() -> None:
    """Edges and their costs go together, weights are not negative."""
    with pytest.raises(ValueError, match="one boundary cost an edge, got 1 for 2"):
        replace(SMALL, boundary=(0.1,))
    with pytest.raises(ValueError, match="weights must be one finite number ≥ 0 a group"):
        solve(SMALL, weights=[1.0, -1.0, 1.0])


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """Native code writes nothing to standard output, and Python still can."""
    space = chain(24, seed=1)
    solve(IlpInstance.of(space, fit_latency_model(space, [])), max_ratio=0.7, gap=0.01)
    print("ours")
    assert capfd.readouterr().out == "ours\n"
