"""What the latency model knows before, and learns from, measurements."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bitfront.core import Precision
from bitfront.lowering.compute_type import ComputeType
from bitfront.search.proposals.ilp_instance import IlpInstance
from bitfront.search.proposals.latency_model import LatencyModel, fit_encodings, fit_latency_model, group_weights
from bitfront.search.proposals.mutations import draw
from bitfront.search.space.space import Encoding, Space
from tests.search.proposals.spaces import chain, prunable_chain


def _truth(space: Space, seed: int = 0) -> LatencyModel:
    rng = np.random.default_rng(seed)
    count = len(space.groups)
    return LatencyModel(
        space=space,
        gains={
            kind: tuple((-rng.uniform(0.0, most, count) / count).tolist())
            for kind, most in ((ComputeType.INT8, 1.2), (ComputeType.FP16, 0.9))
        },
        boundary=tuple((rng.uniform(0.1, 0.8, len(space.edges)) / count).tolist()),
        observations=0,
        loo_error=math.nan,
    )


def _errors(model: LatencyModel, truth: LatencyModel, encodings: list[Encoding]) -> float:
    return float(np.sqrt(np.mean([(model.predict_encoding(c) - truth.predict_encoding(c)) ** 2 for c in encodings])))


def test_prior_is_sane() -> None:
    """Without observations FP32 is 1, uniform INT8 faster, and a lone INT8 group no gain."""
    space = chain(12)
    model = fit_latency_model(space, [])
    assert model.predict(space.uniform(Precision.FP32)) == 1.0
    assert model.predict(space.uniform(Precision.FP16)) == 1.0
    assert 0.2 < model.predict(space.uniform(Precision.INT8)) < 0.7
    lone = space.encode(space.uniform(Precision.FP32))
    assert model.predict_encoding((*lone[:5], 2, *lone[6:])) > 0.98
    assert math.isnan(model.loo_error)


def test_fp32_has_a_ratio_of_its_own() -> None:
    """Where FP32 takes other than the given network's time, all predictions are in proportion, and FP32's is met."""
    space = chain(8)
    fp32, rng = space.encode(space.uniform(Precision.FP32)), np.random.default_rng(3)
    encodings = [fp32, *(draw(space, rng) for _ in range(20))]
    truth = _truth(space)
    ratios = [truth.predict_encoding(encoding) for encoding in encodings]
    usual, slower = (
        fit_encodings(space, encodings, ratios),
        fit_encodings(space, encodings, [1.6 * ratio for ratio in ratios]),
    )
    assert (usual.base, slower.base) == (1.0, 1.6)
    assert slower.predict_encoding(fp32) == 1.6
    assert slower.loo_error == pytest.approx(1.6 * usual.loo_error)
    assert IlpInstance.of(space, slower).ratio(fp32) == pytest.approx(1.6)
    for encoding in (draw(space, rng) for _ in range(20)):
        assert slower.predict_encoding(encoding) == pytest.approx(1.6 * usual.predict_encoding(encoding))
        assert IlpInstance.of(space, slower).ratio(encoding) == pytest.approx(slower.predict_encoding(encoding))


def test_ratio_of_fp32_is_the_median_of_its_timings() -> None:
    """One disturbed timing of several does not move everything else; before any it is 1."""
    space = chain(4)
    fp32, int8 = space.uniform(Precision.FP32), space.uniform(Precision.INT8)
    assert fit_latency_model(space, [(fp32, 0.97), (fp32, 0.98), (fp32, 1.9)]).base == 0.98
    assert fit_latency_model(space, [(int8, 0.5)]).base == 1.0


def test_one_baseline_sets_the_level() -> None:
    """The uniform INT8 measurement is met, and mixes in between lie between."""
    space = chain(12)
    int8 = space.uniform(Precision.INT8)
    model = fit_latency_model(space, [(int8, 0.3)])
    assert model.predict(int8) == pytest.approx(0.3, abs=0.02)
    half = space.decode(tuple(2 if g < 6 else 0 for g in range(12)))
    assert 0.4 < model.predict(half) < 0.95


def test_learns_boundaries() -> None:
    """With enough random mixes the error on unseen mixes falls to the noise, and far below the prior's."""
    space = chain(10)
    truth = _truth(space)
    rng = np.random.default_rng(1)
    train, test = [draw(space, rng) for _ in range(120)], [draw(space, rng) for _ in range(50)]
    noisy = [truth.predict_encoding(encoding) * math.exp(rng.normal(0, 0.005)) for encoding in train]
    prior, few, many = (
        fit_encodings(space, [], []),
        fit_encodings(space, train[:12], noisy[:12]),
        fit_encodings(space, train, noisy),
    )
    assert _errors(many, truth, test) < 0.01
    assert _errors(many, truth, test) < _errors(few, truth, test) < _errors(prior, truth, test)
    assert many.loo_error == pytest.approx(_errors(many, truth, test), abs=0.01)


def test_learns_half_arithmetic() -> None:
    """Where FP16 is faster, planted gains and boundaries come back from random mixes of three domains."""
    space = chain(8, fp16=ComputeType.FP16)
    truth = _truth(space)
    rng = np.random.default_rng(4)
    train, test = [draw(space, rng) for _ in range(200)], [draw(space, rng) for _ in range(50)]
    model = fit_encodings(
        space, train, [truth.predict_encoding(encoding) * math.exp(rng.normal(0, 0.003)) for encoding in train]
    )
    assert _errors(model, truth, test) < 0.01
    for kind in (ComputeType.INT8, ComputeType.FP16):
        assert model.gains[kind] == pytest.approx(truth.gains[kind], abs=0.015)
    assert model.boundary == pytest.approx(truth.boundary, abs=0.015)
    storage = fit_encodings(chain(8), [], [])
    assert fit_encodings(space, [], []).predict(space.uniform(Precision.FP16)) < 0.8
    assert storage.predict(storage.space.uniform(Precision.FP16)) == 1.0


def test_half_blind_model_fits_worse() -> None:
    """Planted bug: a model that takes FP16 for FP32's speed is far off, so the test above would notice."""
    truth, blind = _truth(chain(8, fp16=ComputeType.FP16)), chain(8)
    rng = np.random.default_rng(4)
    train, test = [draw(blind, rng) for _ in range(200)], [draw(blind, rng) for _ in range(50)]
    model = fit_encodings(blind, train, [truth.predict_encoding(encoding) for encoding in train])
    assert _errors(model, truth, test) > 0.05


def test_boundary_terms_matter() -> None:
    """Planted bug: the same data without edges fits clearly worse, so the test above would notice their loss."""
    space = chain(10)
    truth = _truth(space)
    blind = Space(groups=space.groups, edges=())
    rng = np.random.default_rng(1)
    train, test = [draw(space, rng) for _ in range(120)], [draw(space, rng) for _ in range(50)]
    ratios = [truth.predict_encoding(encoding) for encoding in train]
    assert _errors(fit_encodings(blind, train, ratios), truth, test) > 0.03


def test_leave_one_out_is_what_refitting_gives() -> None:
    """The closed form equals the error of models fitted without each observation, at the same noise."""
    space = chain(5)
    truth = _truth(space)
    rng = np.random.default_rng(2)
    encodings = [draw(space, rng) for _ in range(15)]
    ratios = [truth.predict_encoding(encoding) + rng.normal(0, 0.02) for encoding in encodings]
    model = fit_encodings(space, encodings, ratios)
    left_out = []
    for i in range(len(encodings)):
        part = fit_encodings(space, encodings[:i] + encodings[i + 1 :], ratios[:i] + ratios[i + 1 :])
        left_out.append(part.predict_encoding(encodings[i]) - ratios[i])
    assert model.loo_error == pytest.approx(float(np.sqrt(np.mean(np.square(left_out)))), rel=0.2)


def test_weights_are_shares() -> None:
    """Shares are positive, sum to 1 and grow with the group's bytes."""
    space = chain(6)
    weights = group_weights(space)
    assert weights.sum() == pytest.approx(1.0)
    sizes = [group.size_bytes[0] for group in space.groups]
    assert np.argsort(weights).tolist() == np.argsort(sizes).tolist()


@pytest.mark.parametrize("ratio", [math.nan, math.inf, 0.0, -1.0])
def test_bad_ratios_are_refused(ratio: float) -> None:
    """A ratio that is no positive number never enters the fit."""
    space = chain(3)
    with pytest.raises(ValueError, match="latency ratios must be positive and finite"):
        fit_latency_model(space, [(space.uniform(Precision.INT8), ratio)])


def _pruned_truth(space: Space, seed: int = 0) -> LatencyModel:
    rng = np.random.default_rng([seed, 1])
    count = len(space.groups)
    return replace(
        _truth(space, seed),
        scaling=tuple((rng.uniform(0.5, 1.0, count) / count).tolist()),
        branches=(*(0.0,) * (len(space.prunes) - 1), -0.03),
    )


def _draw_pruned(space: Space, rng: np.random.Generator) -> Encoding:
    levels = (int(rng.integers(len(prune.sparsities))) for prune in space.prunes)
    return space.canonical((*space.schemes(draw(space, rng)), *levels))


def test_pruned_latency_by_hand() -> None:
    """What stays of a group scales its share and its gain; what is gone has neither, nor boundaries."""
    space = prunable_chain(5)
    model = LatencyModel(
        space=space,
        gains={ComputeType.INT8: (-0.1,) * 5},
        boundary=(0.02,) * 4,
        observations=0,
        loo_error=math.nan,
        scaling=(0.16,) * 5,
        branches=(0.0, 0.0, -0.01),
    )
    int8 = space.uniform(Precision.INT8)
    assert model.predict(int8) == pytest.approx(0.5)
    assert model.predict(int8, {"g0": 0.5}) == pytest.approx(0.5 - 2 * 0.5 * (0.16 - 0.1))
    assert model.predict(int8, {"b": 1.0}) == pytest.approx(0.5 - 2 * (0.16 - 0.1) - 0.01)
    fp32 = space.uniform(Precision.FP32)
    assert model.predict(fp32, {"b": 1.0}) == pytest.approx(1 - 2 * 0.16 - 0.01)
    beside = {**fp32, "g1": int8["g1"]}
    assert model.predict(beside) == pytest.approx(1 - 0.1 + 2 * 0.02)
    assert model.predict(beside, {"b": 1.0}) == pytest.approx(1 - 0.1 + 0.02 - 2 * 0.16 - 0.01)


def test_learns_what_pruning_saves() -> None:
    """Costs of pruned, of low-bit and of pruned low-bit networks, and a branch's own saving, come back from mixes."""
    space = prunable_chain(8)
    truth = _pruned_truth(space)
    rng = np.random.default_rng(5)
    train, test = [_draw_pruned(space, rng) for _ in range(200)], [_draw_pruned(space, rng) for _ in range(60)]
    noisy = [truth.predict_encoding(encoding) * math.exp(rng.normal(0, 0.003)) for encoding in train]
    prior, few, many = (fit_encodings(space, train[:n], noisy[:n]) for n in (0, 12, 200))
    assert _errors(many, truth, test) < 0.01
    assert _errors(many, truth, test) < 0.5 * _errors(few, truth, test) < 0.5 * _errors(prior, truth, test)
    # Channels take two groups at a time: which of them a saving comes from can't be told.
    pairs = np.reshape(many.scaling, (4, 2)).sum(axis=1), np.reshape(truth.scaling, (4, 2)).sum(axis=1)
    assert pairs[0] == pytest.approx(pairs[1], abs=0.015)
    assert many.gains[ComputeType.INT8] == pytest.approx(truth.gains[ComputeType.INT8], abs=0.015)
    assert many.branches == pytest.approx(truth.branches, abs=0.01)


def test_pruning_blind_model_fits_worse() -> None:
    """Planted bug: a model that takes pruned groups for whole ones is far off, so the test above would notice."""
    space = prunable_chain(8)
    truth, blind = _pruned_truth(space), replace(space, prunes=())
    rng = np.random.default_rng(5)
    train, test = [_draw_pruned(space, rng) for _ in range(200)], [_draw_pruned(space, rng) for _ in range(60)]
    ratios = [truth.predict_encoding(encoding) for encoding in train]
    model = fit_encodings(blind, [space.schemes(encoding) for encoding in train], ratios)
    seen = [model.predict_encoding(space.schemes(encoding)) for encoding in test]
    assert np.sqrt(np.mean((np.array(seen) - [truth.predict_encoding(encoding) for encoding in test]) ** 2)) > 0.05


def test_prior_of_pruning_is_sane() -> None:
    """Unseen, half of the channels save a good part of the latency, and nothing is below 0."""
    space = prunable_chain(8)
    model = fit_encodings(space, [], [])
    half = {prune.name: 0.5 for prune in space.prunes if prune.name != "b"}
    assert 0.5 < model.predict(space.uniform(Precision.FP32), half) < 0.8
    assert 0 < model.predict(space.uniform(Precision.INT8), {**half, "b": 1.0}) < 0.5
    assert fit_encodings(chain(8), [], []).scaling == ()
    assert model.gains == fit_encodings(chain(8), [], []).gains
