"""The accuracy model weighs each trial by how surely its difference to the given network is known."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest

from bitfront.core import Constraints
from bitfront.search.proposals.history import History, Observation
from bitfront.search.proposals.surrogate import Surrogate
from bitfront.search.space.space import Encoding
from tests.search.proposals.spaces import chain


def predicted(accuracies: Mapping[Encoding, tuple[float, float]]) -> np.ndarray:
    """Accuracies the model gives to encodings that were scored so: accuracy and its error each."""
    observations = tuple(
        Observation(
            encoding=encoding, ratio=1.0, latency_ms=2.0, size_bytes=1e4, accuracy=accuracy, complete=True, error=error
        )
        for encoding, (accuracy, error) in accuracies.items()
    )
    history = History(observations=observations, tried=frozenset(accuracies))
    return Surrogate(chain(4), Constraints(), history).accuracy(list(accuracies))


# By rising loss: nothing, one group, two groups at their second scheme.
FEW = ((0, 0, 0, 0), (1, 0, 0, 0), (1, 1, 0, 0))


def test_a_trial_on_few_samples_moves_the_model_little() -> None:
    """Out of order with a sure one it gives way to it; where both are as sure they meet half way."""
    space = chain(4)
    losses = [space.loss(space.decode(encoding), {}) for encoding in FEW]
    assert losses == sorted(losses)
    sure = predicted({FEW[0]: (0.9, 0.002), FEW[1]: (0.80, 0.002), FEW[2]: (0.88, 0.002)})
    assert sure[1] == pytest.approx(0.84, abs=0.002)
    unsure = predicted({FEW[0]: (0.9, 0.002), FEW[1]: (0.80, 0.02), FEW[2]: (0.88, 0.002)})
    assert unsure[1] > 0.87


def test_without_errors_all_count_alike() -> None:
    """As for a metric that gives one number, or trials of an older run."""
    unknown = predicted({FEW[0]: (0.9, math.nan), FEW[1]: (0.80, 0.002), FEW[2]: (0.88, 0.02)})
    assert unknown[1] == pytest.approx(0.84, abs=0.002)
    exact = predicted({FEW[0]: (0.9, 0.0), FEW[1]: (0.80, 0.0), FEW[2]: (0.88, 0.0)})
    assert exact[1] == pytest.approx(0.84, abs=0.002)
