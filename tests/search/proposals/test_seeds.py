"""What a search tries before it has learnt anything."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain as join
from itertools import islice, pairwise

import numpy as np
import pytest

from bitfront.core import FP16, FP32, Precision, Scheme
from bitfront.lowering.compute_type import ComputeType
from bitfront.search.proposals.file_overhead import FileOverhead
from bitfront.search.proposals.ilp_instance import IlpInstance
from bitfront.search.proposals.latency_model import LatencyModel, fit_latency_model
from bitfront.search.proposals.seeds import Seed, distinct, greedy_seeds, ranking, segment_seeds, solver_seeds
from bitfront.search.space.space import Encoding, GroupSpace, Space
from bitfront.search.trial import Origin
from tests.search.proposals.spaces import INT4, INT8, chain


def _pairs(names: str, scheme: Scheme, arithmetic: ComputeType) -> Space:
    """Groups that may be FP32 or ``scheme``, which runs in ``arithmetic``."""
    return Space(
        groups=tuple(
            GroupSpace(
                name=name,
                schemes=(FP32, scheme),
                losses=(0.0, 0.1),
                size_bytes=(400, 400 * scheme.precision.bits // 32),
                compute_types=(ComputeType.FP32, arithmetic),
            )
            for name in names
        ),
        edges=(),
    )


def _kinds(space: Space, assignment: Mapping[str, Scheme]) -> list[ComputeType]:
    return [group.compute_types[i] for group, i in zip(space.groups, space.encode(assignment), strict=True)]


def _baselines(space: Space) -> list[Seed]:
    return [(Origin.BASELINE, assignment) for _, assignment in space.baselines()]


def _latency_solutions(space: Space) -> int:
    """How many solver seeds there are where size is no concern."""
    model = fit_latency_model(space, [])
    seeds = solver_seeds(space, lambda: model, max_ratio=None, max_bytes=1e9)
    return len({space.encode(assignment) for _, assignment in seeds} - {(0,) * len(space.groups)})


def test_baselines_first_and_no_repeats() -> None:
    """Joined streams start with the baselines and never repeat, whatever was tried before counts too."""
    space = chain(6)
    tried = {space.encode(space.uniform(Precision.FP16))}
    seeds = list(distinct(space, (_baselines(space), greedy_seeds(space), _baselines(space)), tried))
    encodings = [space.encode(assignment) for _, assignment in seeds]
    assert [origin for origin, _ in seeds[:3]] == [Origin.BASELINE] * 3
    assert len(set(encodings)) == len(encodings)
    assert space.encode(space.uniform(Precision.FP16)) not in encodings
    assert tried == {*encodings, space.encode(space.uniform(Precision.FP16))}


def test_greedy_seeds_raises_the_most_sensitive() -> None:
    """The first rung is uniform INT8 with its most sensitive group in float, then in the network's order."""
    space = chain(8)
    worst = ranking(space, Precision.INT8)[0]
    losses = [group.losses[2] for group in space.groups]
    assert losses[worst] == max(losses)
    rungs = [assignment for _, assignment in greedy_seeds(space)]
    expected = {group.name: FP16 if g == worst else INT8 for g, group in enumerate(space.groups)}
    assert rungs[0] == expected
    assert rungs[1] == {group.name: FP16 if g == 0 else INT8 for g, group in enumerate(space.groups)}
    assert rungs[3] == {group.name: INT8 if g == worst else INT4 for g, group in enumerate(space.groups)}
    # k = 1, 2, 4 of 8 groups, two precisions, three orders
    assert len(rungs) == 3 * 2 * 3


def test_greedy_seeds_skips_what_no_group_offers() -> None:
    """Without INT4 there are none of INT4, without integers none at all."""
    float_only, int8_only = _pairs("ab", FP16, ComputeType.FP32), _pairs("ab", INT8, ComputeType.INT8)
    assert list(greedy_seeds(float_only)) == []
    assert {scheme for _, rung in greedy_seeds(int8_only) for scheme in rung.values()} == {FP32, INT8}


def test_segments_are_few_runs() -> None:
    """Every segment seed has at least one and at most four boundaries on a chain, seeded."""
    space = chain(12)
    seeds = list(segment_seeds(space, np.random.default_rng(3), 30))
    for origin, assignment in seeds:
        kinds = _kinds(space, assignment)
        boundaries = sum(a is not b for a, b in pairwise(kinds))
        assert origin is Origin.SEGMENTS
        assert 1 <= boundaries <= 4
    assert seeds == list(segment_seeds(space, np.random.default_rng(3), 30))
    assert seeds != list(segment_seeds(space, np.random.default_rng(4), 30))
    assert list(segment_seeds(chain(1), np.random.default_rng(0), 3)) == []


def test_segments_use_every_arithmetic() -> None:
    """Where FP16 is arithmetic of its own, runs of it stand beside float and integer ones."""
    space = chain(12, fp16=ComputeType.FP16)
    beside = set()
    for _, assignment in segment_seeds(space, np.random.default_rng(3), 30):
        kinds = _kinds(space, assignment)
        beside |= {frozenset(pair) for pair in pairwise(kinds)}
    mixed = {pair for pair in beside if len(pair) == 2}
    assert len(mixed) == 3
    assert set().union(*mixed) == {ComputeType.FP32, ComputeType.FP16, ComputeType.INT8}


def test_segments_identify_the_boundaries() -> None:
    """After baselines and segment seeds the model tells boundaries from groups better than after baselines alone."""
    space = chain(10)
    truth = LatencyModel(
        space=space,
        gains={ComputeType.INT8: (-0.05,) * 10},
        boundary=(0.08,) * 9,
        observations=0,
        loo_error=0.0,
    )
    seeds = list(join(_baselines(space), segment_seeds(space, np.random.default_rng(0), 8)))
    observed = [(assignment, truth.predict(assignment)) for _, assignment in seeds]
    unseen: Encoding = (0, 0, 2, 2, 0, 0, 2, 2, 0, 0)
    before = fit_latency_model(space, observed[:4]).predict_encoding(unseen)
    after = fit_latency_model(space, observed).predict_encoding(unseen)
    assert abs(after - truth.predict_encoding(unseen)) < 0.3 * abs(before - truth.predict_encoding(unseen))


@pytest.mark.parametrize(
    ("max_ratio", "max_bytes"), [(0.7, None), (None, 60_000.0), (0.7, 60_000.0), (None, None)], ids=str
)
def test_solver_seeds_aim_at_the_budgets(max_ratio: float | None, max_bytes: float | None) -> None:
    """The first seed with a budget keeps it by the model; all come lazily and with the freshest model."""
    space = chain(8)
    calls: list[int] = []

    def model() -> LatencyModel:
        calls.append(len(calls))
        return fit_latency_model(space, [])

    stream = solver_seeds(space, model, max_ratio=max_ratio, max_bytes=max_bytes, overhead=FileOverhead(1000.0))
    origin, first = next(stream)
    asked = len(calls)
    problem = IlpInstance.of(space, fit_latency_model(space, []), FileOverhead(1000.0))
    encoding = space.encode(first)
    assert origin is Origin.SOLVER
    assert max_bytes is None or problem.size(encoding) <= max_bytes
    rest = list(islice(stream, 3))
    assert rest
    assert len(calls) > asked
    if max_ratio is not None:
        encodings = [encoding, *(space.encode(assignment) for _, assignment in rest)]
        assert min(problem.ratio(c) for c in encodings) <= max_ratio


def test_unreachable_budgets_give_no_seed() -> None:
    """Budgets that no assignment keeps end the stream."""
    space = chain(4)
    model = fit_latency_model(space, [])
    assert list(solver_seeds(space, lambda: model, max_ratio=0.01, max_bytes=10.0)) == []


def test_float_only_space_has_no_latency_grid() -> None:
    """Where everything runs at FP32's speed only sizes are stepped through."""
    space = _pairs("abc", FP16, ComputeType.FP32)
    model = fit_latency_model(space, [])
    seeds = [assignment for _, assignment in solver_seeds(space, lambda: model, max_ratio=None, max_bytes=None)]
    assert space.uniform(Precision.FP16) in seeds
    assert list(segment_seeds(space, np.random.default_rng(0), 3)) == []
    assert _latency_solutions(space) == 0
    assert _latency_solutions(_pairs("abc", FP16, ComputeType.FP16)) > 0
