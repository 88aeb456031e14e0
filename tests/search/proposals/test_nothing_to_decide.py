"""A space without groups: every part of the search has an answer, and none of them an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bitfront.core import Constraints, Precision
from bitfront.lowering.layers import QuantisableLayers
from bitfront.search.proposals import seeds
from bitfront.search.proposals.file_overhead import fit_file_overhead
from bitfront.search.proposals.ilp_instance import IlpInstance
from bitfront.search.proposals.latency_model import fit_encodings
from bitfront.search.proposals.mutations import draw, mutate_groups, set_segment, trade_precisions
from bitfront.search.proposals.sampler import FrontSampler
from bitfront.search.proposals.solver import solve
from bitfront.search.run_folder.study import Study
from bitfront.search.space.space import Space, build_space
from bitfront.sensitivity.table import SensitivityTable

EMPTY = Space(groups=(), edges=())


def test_space() -> None:
    """There is one assignment, FP32 as given."""
    quantisable = QuantisableLayers(layers=(), groups=(), edges=(), left_alone={})
    table = SensitivityTable(divergence_metric="nsr", samples=1, rows=())
    assert build_space(quantisable, table, tuple(Precision), lambda *_: 0, lambda _: 1 / 0) == EMPTY  # type: ignore[arg-type, return-value]
    assert EMPTY.cardinality == 1
    assert EMPTY.baselines() == [("fp32", {})]
    assert EMPTY.describe({}) == "as given"


def test_models_and_solver() -> None:
    """FP32's latency, as a ratio to the given network's, and size; within limits or not."""
    model = fit_encodings(EMPTY, [()], [1.01])
    assert model.predict({}) == 1.01
    overhead = fit_file_overhead(EMPTY, [()], [4000])
    problem = IlpInstance.of(EMPTY, model, overhead)
    assert solve(problem) == ()
    assert solve(problem, max_ratio=2.0, max_bytes=5000) == ()
    assert solve(problem, max_ratio=0.5) is None
    assert solve(problem, max_bytes=10) is None


def test_seeds_and_moves() -> None:
    """Nothing but the one assignment is proposed."""
    rng = np.random.default_rng(0)
    model = fit_encodings(EMPTY, [], [])
    assert list(seeds.greedy_seeds(EMPTY)) == []
    assert list(seeds.segment_seeds(EMPTY, rng, 3)) == []
    assert all(found == {} for _, found in seeds.solver_seeds(EMPTY, lambda: model, max_ratio=0.5, max_bytes=None))
    problem = IlpInstance.of(EMPTY, model)
    assert (
        trade_precisions(problem, EMPTY, (), rng)
        is set_segment(EMPTY, (), rng)
        is mutate_groups(EMPTY, (), rng)
        is None
    )
    assert draw(EMPTY, rng) == ()


def test_sampler(tmp_path: Path) -> None:
    """It proposes the one assignment, and is exhausted after it."""
    sampler = FrontSampler(EMPTY, Constraints(latency_ms=1.0), 0)
    study = Study(f"sqlite:///{tmp_path}/study.db", "empty", EMPTY, sampler)
    _, candidate = study.ask(None)
    assert candidate.schemes == {}
    study.close()
