"""Outputs of the given network for metrics without labels: run once, kept on disk, at the samples' own shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitfront.core import METRICS, Array, BackendError, ContentStore
from bitfront.core.metric import OutputInfo
from bitfront.core.metric_spec import fit_metric
from bitfront.core.ragged import is_ragged, ragged
from bitfront.search.measuring.accuracy import Scorer
from bitfront.search.measuring.given_outputs import GivenOutputs
from tests.search import toy

AGREEMENT = fit_metric(METRICS["agreement"], (OutputInfo(name="y", class_axis=1),), labelled=False)


def model(backend: toy.ToyBackend, text: str = "fp32") -> toy.ToyModel:
    """A toy model whose layers all have one scheme."""
    return toy.ToyModel(schemes=dict.fromkeys(toy.LAYERS, text), backend=backend)


def scorer(backend: toy.ToyBackend, store: ContentStore) -> Scorer:
    """On 200 samples; the given network is FP32."""
    given = GivenOutputs(lambda: model(backend), store, "key")
    return Scorer(toy.workload(samples=200).evaluation, AGREEMENT, batch=200, name="all", given=given)


def test_the_given_network_runs_once_a_stage(tmp_path: Path) -> None:
    """Whatever is scored; not at all where an earlier process kept its outputs."""
    backend, store = toy.ToyBackend(), ContentStore(tmp_path)
    first = scorer(backend, store)
    given = first.complete(model(backend), None)
    stages = backend.runs // 2
    assert given.stats.value == 1.0
    found = first.complete(model(backend, "int4:nearest"), None)
    assert backend.runs == 3 * stages
    again = scorer(backend, store).complete(model(backend, "int4:nearest"), None)
    assert backend.runs == 4 * stages
    np.testing.assert_array_equal(again.scores, found.scores)


def test_agreement_is_paired_by_sample() -> None:
    """A sample agrees where both networks answer alike, right or wrong."""
    backend = toy.ToyBackend()
    found = scorer(backend, ContentStore(None)).complete(model(backend, "int4:nearest"), None)
    x = np.asarray(toy.workload(samples=200).evaluation.inputs["x"][:, 0], np.float64)
    schemes = dict.fromkeys(toy.LAYERS, "int4:nearest")
    answers = x > toy.harm(schemes), x > toy.harm(dict.fromkeys(toy.LAYERS, "fp32"))
    np.testing.assert_array_equal(found.scores, answers[0] == answers[1])
    assert 0 < found.stats.value < 1


def test_samples_of_different_shapes_are_kept(tmp_path: Path) -> None:
    """Each at its own shape, beside outputs that are one array."""
    outputs: tuple[Array, ...] = (ragged([np.ones((2, 3)), np.zeros((0, 3)), np.ones((1, 3))]), np.arange(3.0))

    def refuse() -> Any:
        raise AssertionError("everything is in the store")

    backend, store = toy.ToyBackend(), ContentStore(tmp_path)
    GivenOutputs(lambda: model(backend), store, "key").of(0, 3, 3, lambda _: outputs)
    read = GivenOutputs(refuse, store, "key").of(0, 3, 3, lambda _: outputs)
    assert is_ragged(read[0])
    for one, other in zip(read[0], outputs[0], strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(read[1], outputs[1])


def test_outputs_that_are_no_numbers() -> None:
    """A candidate that answers NaN is one that cannot be scored, with the output's name; argmax would give class 0."""

    class Broken(toy.ToyModel):
        def run(self, inputs: Any) -> tuple[Array, ...]:
            return tuple(np.where(np.arange(2) > 0, np.float32(np.nan), part) for part in super().run(inputs))

    backend = toy.ToyBackend()
    broken = Broken(schemes=dict.fromkeys(toy.LAYERS, "fp32"), backend=backend)
    with pytest.raises(BackendError, match="output 'y' is NaN on 64 of 128 values"):
        scorer(backend, ContentStore(None)).extend(broken, None, 64)
