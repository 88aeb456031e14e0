"""The latency model is told how well each ratio is known, and tells how well it knows what it predicts."""

from __future__ import annotations

import math

import numpy as np
import optuna
import pytest

from bitfront.core import Precision
from bitfront.search.proposals.history import History
from bitfront.search.proposals.latency_model import LatencyModel, fit_encodings
from bitfront.search.proposals.mutations import draw
from bitfront.search.space.space import Encoding, Space
from tests.search.proposals.spaces import chain
from tests.search.proposals.test_latency_model import _errors, _truth


def _timed(
    space: Space, count: int, busy: float, seed: int
) -> tuple[LatencyModel, list[Encoding], list[float], list[float]]:
    """A truth, and ratios of which every third is off by as much as a busy machine does, as its deviation tells."""
    rng, truth = np.random.default_rng(seed), _truth(space)
    encodings = [draw(space, rng) for _ in range(count)]
    deviations = [busy if number % 3 == 0 else 0.003 for number in range(count)]
    ratios = [
        truth.predict_encoding(e) * math.exp(rng.normal(0, d)) for e, d in zip(encodings, deviations, strict=True)
    ]
    return truth, encodings, ratios, deviations


def test_what_is_badly_known_weighs_little() -> None:
    """Told which third of the ratios is noisy, the model errs half as much as without."""
    space = chain(10)
    truth, encodings, ratios, deviations = _timed(space, 60, 0.2, 3)
    test = [draw(space, np.random.default_rng(9)) for _ in range(50)]
    told = _errors(fit_encodings(space, encodings, ratios, deviations=deviations), truth, test)
    assert told < 0.5 * _errors(fit_encodings(space, encodings, ratios), truth, test)
    assert told < 0.02


def test_fp32_is_taken_from_its_best_timings() -> None:
    """A ratio of 1.4 ± 0.2 of FP32 does not move what all others are relative to."""
    space = chain(4)
    fp32 = space.encode(space.uniform(Precision.FP32))
    assert fit_encodings(space, [fp32] * 3, [0.97, 1.4, 1.5], deviations=[0.005, 0.2, 0.2]).base == 0.97
    assert fit_encodings(space, [fp32] * 3, [0.97, 1.4, 1.5]).base == 1.4


@pytest.mark.parametrize("count", [12, 40])
def test_predictions_fall_within_their_spread(count: int) -> None:
    """Of unseen mixes 80 % or more are within 1.64 predicted deviations, and the spread is no wild guess."""
    space, inside, spreads, errors = chain(10), [], [], []
    for seed in range(8):
        truth, encodings, ratios, deviations = _timed(space, count, 0.05, seed)
        model = fit_encodings(space, encodings, ratios, deviations=deviations)
        for encoding in (draw(space, np.random.default_rng([seed, n])) for n in range(30)):
            error, spread = model.predict_encoding(encoding) - truth.predict_encoding(encoding), model.spread(encoding)
            inside.append(abs(error) <= 1.64 * spread)
            spreads.append(spread)
            errors.append(error)
    assert np.mean(inside) >= 0.8
    assert np.mean(spreads) < 4 * np.std(errors)


def test_spread_is_small_where_something_alike_was_timed() -> None:
    """Of what was timed itself less than of what differs in every group; unknown before two observations."""
    space = chain(8)
    truth, encodings, ratios, deviations = _timed(space, 16, 0.003, 5)
    model = fit_encodings(space, encodings, ratios, deviations=deviations)
    unseen = [draw(space, np.random.default_rng([1, n])) for n in range(20)]
    assert max(model.spread(e) for e in encodings[:4]) < np.mean([model.spread(e) for e in unseen])
    assert math.isnan(fit_encodings(space, encodings[:1], ratios[:1]).spread(unseen[0]))
    assert math.isnan(truth.spread(unseen[0]))


def test_history_has_latencies_as_they_were_timed_last() -> None:
    """A trial that timed an earlier one again replaces its ratio, interval and milliseconds; old ones know none."""
    space, study = chain(3), optuna.create_study(directions=["maximize", "minimize", "minimize"])
    for ratio, more in ((0.2, {"ratio_low": 0.19, "ratio_high": 0.21}), (0.5, {})):
        trial = study.ask(space.distributions())
        for name, value in {"ratio": ratio, "latency_ms": 10 * ratio, "size_bytes": 9.0, **more}.items():
            trial.set_user_attr(name, value)
        if not more:
            trial.set_user_attr("retimed", {"0": {"ratio": 0.4, "ratio_low": 0.38, "ratio_high": 0.42}})
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    first, second = History.of(space, study).observations
    assert (first.ratio, first.latency_ms) == pytest.approx((0.4, 4.0))
    assert first.ratio_deviation == pytest.approx(0.02 / 1.96)
    assert (second.ratio, second.latency_ms) == (0.5, 5.0)
    assert math.isnan(second.ratio_deviation)
