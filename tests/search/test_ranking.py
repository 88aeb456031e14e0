"""Which of two points comes first, by what was left open."""

from __future__ import annotations

import pytest

from bitfront.core import Constraints
from bitfront.core.pareto import Objectives
from bitfront.search.results.ranking import choose_best, ranking_key


def point(accuracy: float, latency_ms: float, size_bytes: float) -> Objectives:
    return Objectives(accuracy=accuracy, latency_ms=latency_ms, size_bytes=size_bytes)


POINTS = {
    "accurate and small": point(0.9, 3.0, 100),
    "accurate and fast": point(0.9, 2.0, 200),
    "fastest and small": point(0.8, 1.0, 300),
    "fastest and accurate": point(0.85, 1.0, 400),
}
ACCURACY_FIRST = ["accurate and small", "accurate and fast", "fastest and accurate", "fastest and small"]
SPEED_FIRST = ["fastest and small", "fastest and accurate", "accurate and fast", "accurate and small"]


@pytest.mark.parametrize(
    ("budget", "order"),
    [
        pytest.param(Constraints(), ACCURACY_FIRST, id="no limit"),
        pytest.param(Constraints(latency_ms=5), ACCURACY_FIRST, id="latency"),
        pytest.param(Constraints(size_bytes=500), ACCURACY_FIRST, id="size"),
        pytest.param(Constraints(max_drop=0.1, latency_ms=5), ACCURACY_FIRST, id="drop and latency"),
        pytest.param(Constraints(max_drop=0.1), SPEED_FIRST, id="drop alone"),
        pytest.param(Constraints(min_accuracy=0.5), SPEED_FIRST, id="accuracy alone"),
    ],
)
def test_the_preferred_come_first(budget: Constraints, order: list[str]) -> None:
    """The most accurate, of equals the smaller; where accuracy alone is limited the fastest, of equals the smaller."""
    rank = ranking_key(budget)
    assert sorted(POINTS, key=lambda name: rank(POINTS[name])) == order


def test_of_equals_in_both_the_third_decides() -> None:
    """Equally accurate and large: the faster. Equally fast and large: the more accurate."""
    accurate, fast = ranking_key(Constraints()), ranking_key(Constraints(max_drop=0.1))
    assert accurate(point(0.9, 1.0, 100)) < accurate(point(0.9, 2.0, 100))
    assert fast(point(0.9, 1.0, 100)) < fast(point(0.8, 1.0, 100))


def test_nothing_is_chosen_of_nothing() -> None:
    """And the only one of one."""
    assert choose_best({}, Constraints()) is None
    assert choose_best({"a": point(0.1, 9, 9)}, Constraints(max_drop=0.1)) == "a"
