"""Recommendation from scores: ties, both halves together, confidence, and no luck in what is reported."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from bitfront.core import Constraints, Direction, MetricInfo, Prefer, Preference, top1
from bitfront.core.given_network import GivenNetwork
from bitfront.core.point import Point
from bitfront.search.measuring.accuracy import Scored, summary
from bitfront.search.results.evidence import Evidence
from bitfront.search.results.recommend import Rule, Selection, select
from tests.search.test_recommend import point

SAMPLES = 500


def right(*wrong: tuple[int, int]) -> NDArray[np.float64]:
    """Hits of ``SAMPLES`` samples, wrong in these ranges."""
    hits = np.ones(SAMPLES)
    for start, stop in wrong:
        hits[start:stop] = 0.0
    return hits


def scored(scores: NDArray[np.float64]) -> Scored:
    return Scored(scores, len(scores))


def judged(
    networks: dict[str, tuple[float, int, NDArray[np.float64], NDArray[np.float64]]],
    budget: Constraints,
    preference: Preference | None = None,
    metric: MetricInfo = top1,
) -> Selection:
    """Selection of networks by id: latency, bytes, scores of the search's and of the held-out samples.

    The first is the given network; scores are as the search has them, greater being better.
    """
    points: list[Point] = []
    evidence = {}
    for id_, (latency_ms, size_bytes, search, held_out) in networks.items():
        seen, shown = (metric.oriented_stats(summary(each)) for each in (search, held_out))
        points.append(replace(point(id_, 0.0, latency_ms, size_bytes), accuracy=shown, search_accuracy=seen))
        evidence[id_] = Evidence(search=scored(search), held_out=scored(held_out), artifact=id_)
    evidence["given"] = evidence[points[0].id]
    rule = Rule(budget=budget, preference=preference or Preference(), baselines=[points[0].id], metric=metric)
    return select(points, rule, given=GivenNetwork(size_bytes=points[0].size_bytes), evidence=evidence)


def test_two_samples_do_not_pay_for_a_slower_point() -> None:
    """The faster and smaller is taken, and the other named with what it leads by; every difference counts at 1."""
    networks = {
        "fp32": (10.0, 4000, right((0, 10)), right((0, 10))),
        "best": (5.4, 1400, right((0, 10)), right((0, 10))),
        "fast": (5.0, 1000, right((0, 10)), right((0, 12))),
        "poor": (2.0, 500, right((0, 40)), right((0, 40))),
    }
    found = judged(networks, Constraints(latency_ms=6.0))
    assert found.recommended == "fast"
    assert found.choice.rival == "best"
    assert found.choice.rival_change is not None
    assert (found.choice.rival_change.better, found.choice.rival_change.samples) == (2, 2 * SAMPLES)
    exact = judged(networks, Constraints(latency_ms=6.0), Preference(significance=1.0))
    assert (exact.recommended, exact.choice.rival) == ("best", None)


def test_a_loss_that_is_told_apart_is_not_taken() -> None:
    """Thirty samples more wrong, in both halves together: faster or not."""
    networks = {
        "fp32": (10.0, 4000, right((0, 10)), right((0, 10))),
        "fast": (5.0, 1000, right((0, 25)), right((0, 25))),
    }
    assert judged(networks, Constraints(latency_ms=20.0)).recommended == "fp32"
    assert judged(networks, Constraints(latency_ms=20.0, max_drop=0.05), Preference(prefer=Prefer.LATENCY)).recommended


def test_a_limit_is_held_against_both_halves() -> None:
    """−2.8 and −0.2 points are −1.5: one point is missed, two are not; and the text says of how many samples."""
    networks = {
        "fp32": (10.0, 4000, right((0, 10)), right((0, 10))),
        "p1": (5.0, 1000, right((0, 24)), right((0, 11))),
    }
    found = judged(networks, Constraints(max_drop=0.01))
    assert found.recommended == "fp32"
    assert found.points["p1"].violations == ("accuracy 96.50 % < 97.00 % on all 1,000 samples",)
    assert judged(networks, Constraints(max_drop=0.02)).recommended == "p1"


@pytest.mark.parametrize(
    ("limits", "confidence", "met"),
    [
        ({"max_drop": 0.02}, 0.5, True),
        ({"max_drop": 0.02}, 0.6, True),
        ({"max_drop": 0.02}, 0.95, False),
        ({"min_accuracy": 0.965}, 0.5, True),
        ({"min_accuracy": 0.965}, 0.95, False),
        ({"min_accuracy": 0.95}, 0.95, True),
        ({"min_accuracy": 0.95, "max_drop": 0.02}, 0.95, False),
    ],
)
def test_a_limit_holds_as_surely_as_asked(limits: dict[str, float], confidence: float, met: bool) -> None:
    """The estimate at 0.5, the lower end of its interval above; of a drop that of the paired difference."""
    networks = {
        "fp32": (10.0, 4000, right((0, 10)), right((0, 10))),
        "p1": (5.0, 1000, right((0, 18)), right((0, 17))),
    }
    found = judged(networks, Constraints(**limits, confidence=confidence))
    assert found.points["p1"].feasible is met
    assert "as surely as asked" in "".join(found.points["p1"].violations) or met
    assert found.points["fp32"].feasible, "the given network loses nothing against itself, with whatever confidence"


def test_values_of_a_metric_that_is_better_when_lower() -> None:
    """The same rule on errors: a lead by chance is none, and what is reported has the metric's sign."""
    rng = np.random.default_rng(0)
    error = rng.gamma(2.0, 1.0, (2, SAMPLES))
    metric = MetricInfo(name="mae", direction=Direction.LOWER)
    networks = {
        "fp32": (10.0, 4000, -error[0], -error[1]),
        "same": (5.0, 1000, -error[0] + rng.normal(0, 0.1, SAMPLES), -error[1] + rng.normal(-0.004, 0.1, SAMPLES)),
        "worse": (2.0, 500, -error[0] - 0.5, -error[1] - 0.5),
    }
    found = judged(networks, Constraints(latency_ms=9.0), metric=metric)
    assert found.recommended == "same"
    assert found.choice.accuracy is not None
    assert found.choice.accuracy.value == pytest.approx(-networks["same"][3].mean())
    assert found.choice.change is not None
    assert found.choice.change.value == pytest.approx((error[1] + networks["same"][3]).mean() * -1 + 0, abs=0.02)


def test_one_number_for_all_is_chosen_by_on_one_half_and_reported_on_the_other() -> None:
    """The half that is reported has no part in it, but for limits, which both are held against."""
    points = [replace(point(i, 0.0, ms, 100), accuracy=None) for i, ms in (("a", 5.0), ("b", 4.0))]
    values = {"a": (0.80, 0.70), "b": (0.78, 0.75)}
    shown = []
    evidence = {}
    for each in points:
        search, held_out = (Scored(np.array([value]), SAMPLES) for value in values[each.id])
        shown.append(replace(each, search_accuracy=search.stats, accuracy=held_out.stats))
        evidence[each.id] = Evidence(search=search, held_out=held_out)
    given = GivenNetwork(size_bytes=100)

    def taken(budget: Constraints) -> str | None:
        return select(shown, Rule(budget=budget, baselines=(), metric=top1), given=given, evidence=evidence).recommended

    assert taken(Constraints(latency_ms=9.0)) == "a"
    assert taken(Constraints(latency_ms=9.0, min_accuracy=0.76)) == "b"


def simulated(seed: int, budget: Constraints, preference: Preference) -> tuple[float, float, float] | None:
    """Luck in what is reported, in the shown value, and in the highest held-out value, of a point that was chosen."""
    rng = np.random.default_rng(seed)
    truth = np.array([0.9, *rng.uniform(0.87, 0.9, 10)])
    level = rng.random((2, 120))
    networks = {}
    for index, accuracy in enumerate(truth):
        # Mostly the same samples are hard for all, and each has some of its own.
        own = np.where(rng.random((2, 120)) < 0.7, level, rng.random((2, 120)))
        hits = (own < accuracy).astype(float)
        networks["fp32" if not index else f"p{index}"] = (10.0 - index, 4000 - 300 * index, hits[0], hits[1])
    found = judged(networks, budget, preference)
    if found.recommended is None or found.choice.accuracy is None:
        return None
    true = truth[list(networks).index(found.recommended)]
    shown = found.points[found.recommended].accuracy
    assert shown is not None
    return found.choice.accuracy.value - true, shown.value - true, max(n[3].mean() for n in networks.values()) - true


@pytest.mark.parametrize(
    ("budget", "preference"),
    [
        pytest.param(Constraints(latency_ms=9.5), Preference(significance=1.0), id="the highest"),
        pytest.param(Constraints(latency_ms=9.5), Preference(), id="ties"),
        pytest.param(Constraints(max_drop=0.015), Preference(), id="a floor"),
    ],
)
def test_no_luck_is_reported(budget: Constraints, preference: Preference) -> None:
    """On average what is reported of the chosen is what is true of it, where its own score is too good by far."""
    luck = np.array([one for seed in range(200) if (one := simulated(seed, budget, preference)) is not None])
    mean, error = luck.mean(axis=0), luck.std(axis=0, ddof=1) / np.sqrt(len(luck))
    assert abs(mean[0]) <= 2.6 * error[0]
    assert mean[2] > 6 * error[2]
    if preference.significance == 1.0:
        assert mean[1] > 4 * error[1], "what the chosen scores itself is flattered"
