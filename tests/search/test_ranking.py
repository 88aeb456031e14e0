"""Which of two points comes first, by what was left open."""

from __future__ import annotations

import pytest

from bitfront.core import Constraints, Prefer, Preference
from bitfront.core.pareto import Objectives
from bitfront.search.results.ranking import Ranking, choose_best


def point(accuracy: float, latency_ms: float, size_bytes: float) -> Objectives:
    return Objectives(accuracy=accuracy, latency_ms=latency_ms, size_bytes=size_bytes)


POINTS = {
    "accurate and small": point(0.9, 3.0, 100),
    "accurate and fast": point(0.9, 2.0, 200),
    "fastest and small": point(0.8, 1.0, 300),
    "fastest and accurate": point(0.85, 1.0, 400),
}
ACCURACY_FIRST = ["accurate and fast", "accurate and small", "fastest and accurate", "fastest and small"]
SPEED_FIRST = ["fastest and small", "fastest and accurate", "accurate and fast", "accurate and small"]


SIZE_FIRST = ["accurate and small", "accurate and fast", "fastest and small", "fastest and accurate"]
ACCURATE_THEN_SMALL = ["accurate and small", "accurate and fast", "fastest and accurate", "fastest and small"]


def ranking(budget: Constraints, prefer: Prefer | None = None) -> Ranking:
    return Ranking.of(budget, Preference(prefer=prefer))


@pytest.mark.parametrize(
    ("budget", "prefer", "order"),
    [
        pytest.param(Constraints(), None, ACCURACY_FIRST, id="no limit"),
        pytest.param(Constraints(latency_ms=5), None, ACCURACY_FIRST, id="latency"),
        pytest.param(Constraints(size_bytes=500), None, ACCURACY_FIRST, id="size"),
        pytest.param(Constraints(max_drop=0.1, latency_ms=5), None, ACCURACY_FIRST, id="drop and latency"),
        pytest.param(Constraints(max_drop=0.1), None, SPEED_FIRST, id="drop alone"),
        pytest.param(Constraints(min_accuracy=0.5), None, SPEED_FIRST, id="accuracy alone"),
        pytest.param(Constraints(max_error=0.5), None, SPEED_FIRST, id="error alone"),
        pytest.param(Constraints(max_drop=0.1), Prefer.ACCURACY, ACCURACY_FIRST, id="accuracy wanted"),
        pytest.param(Constraints(max_drop=0.1, latency_ms=5), Prefer.LATENCY, SPEED_FIRST, id="latency wanted"),
        pytest.param(Constraints(max_drop=0.1), Prefer.SIZE, SIZE_FIRST, id="size wanted"),
        pytest.param(Constraints(latency_ms=5), Prefer.LATENCY, ACCURACY_FIRST, id="latency wanted, nothing lost"),
        pytest.param(Constraints(latency_ms=5), Prefer.SIZE, ACCURATE_THEN_SMALL, id="size wanted, nothing lost"),
    ],
)
def test_the_preferred_come_first(budget: Constraints, prefer: Prefer | None, order: list[str]) -> None:
    """What is wanted decides; without a limit of accuracy it does so among the most accurate alone."""
    assert sorted(POINTS, key=lambda name: ranking(budget, prefer).key(POINTS[name])) == order


def test_nothing_is_chosen_of_nothing() -> None:
    """And the only one of one."""
    assert choose_best(dict[str, Objectives](), ranking(Constraints())) is None
    assert choose_best({"a": point(0.1, 9, 9)}, ranking(Constraints(max_drop=0.1))) == "a"


def test_of_what_is_as_accurate_the_fastest_is_chosen_then_the_smallest() -> None:
    """Whoever is told apart from the best is out, however fast; 2 % and 1 % of the costs are none."""
    points = {
        "best": point(0.92, 5.0, 100),
        "as good": point(0.91, 2.02, 90),
        "as good, faster": point(0.90, 2.0, 100),
        "as good, larger": point(0.90, 2.0, 200),
        "worse": point(0.85, 1.0, 10),
    }
    found = choose_best(points, ranking(Constraints()), told_worse=lambda one, _: one == "worse")
    assert found == "as good"
    assert choose_best(points, ranking(Constraints())) == "best"
    smallest = ranking(Constraints(min_accuracy=0.8), Prefer.SIZE)
    assert choose_best(points, smallest) == "worse"


def test_a_latency_in_doubt_decides_nothing_unless_all_are() -> None:
    """The next decides; a doubtful point can still win by accuracy or size."""
    points = {"doubtful": point(0.9, 1.0, 100), "slow": point(0.9, 3.0, 300), "fast": point(0.9, 2.0, 400)}
    fastest = ranking(Constraints(max_drop=0.1))
    assert choose_best(points, fastest, untimed=frozenset({"doubtful"})) == "fast"
    assert choose_best(points, fastest, untimed=frozenset(points)) == "doubtful"
    smallest = ranking(Constraints(max_drop=0.1), Prefer.SIZE)
    assert choose_best(points, smallest, untimed=frozenset({"doubtful"})) == "doubtful"
