"""The samplers' benchmark and its synthetic problem."""

from __future__ import annotations

import pytest

from bitfront.core import FP32, Precision
from bitfront.experiments.sampler_study import budget_of, main, volumes
from bitfront.experiments.synthetic import Synthetic


def test_problem_has_what_makes_it_hard() -> None:
    """FP32 is the reference, a lone INT8 group may be slower than none, and no uniform point keeps the budgets."""
    problem = Synthetic.random(16, 0)
    space = problem.space
    fp32 = problem.reference
    assert fp32 == problem.truth(space.encode(space.uniform(Precision.FP32)))
    lone = [problem.truth(tuple(2 if g == i else 0 for g in range(16))).latency_ms for i in range(16)]
    assert max(lone) > fp32.latency_ms
    budget = budget_of(problem)
    for _, assignment in space.baselines():
        point = problem.truth(space.encode(assignment))
        checks = budget.check(
            latency_ms=point.latency_ms,
            size_bytes=point.size_bytes,
            accuracy=point.accuracy,
            reference_accuracy=fp32.accuracy,
        )
        assert not all(check.met for check in checks.values())


def test_problem_is_seeded() -> None:
    """The same seed gives the same problem and the same noise, another seed another."""
    first, again, other = Synthetic.random(6, 0), Synthetic.random(6, 0), Synthetic.random(6, 1)
    encoding = (1, 2, 3, 0, 2, 2)
    assert first == again
    assert first.measure(encoding) == again.measure(encoding) != other.measure(encoding)
    assert first.space.groups[0].schemes[0] == FP32


def test_volume_grows_with_points() -> None:
    """More points never shrink the volume, and FP32 alone is worth next to nothing."""
    problem = Synthetic.random(6, 0)
    budget = budget_of(problem)
    fp32, int8 = (0,) * 6, (2,) * 6
    alone, both = volumes(problem, [fp32], budget)[0], volumes(problem, [fp32, int8], budget)[0]
    assert both > 100 * alone > 0


def test_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """One row a sampler and size."""
    assert main(["--trials", "6", "--seeds", "1", "--groups", "4"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[1] for line in out.splitlines()[3:7]] == ["front", "random", "tpe", "nsga2"]
