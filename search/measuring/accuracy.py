"""Scoring an artifact on a growing number of samples, with an interval at every stage.

    p̂ ± Wilson     scores that are 0 or 1 (hits): Wilson (1927), which stays inside [0, 1] and is right for few samples
    x̄ ± 1.96·s/√n  any other per-sample scores

A metric that gives one number for all samples has no interval and can't stop early: it is scored on everything.

Greater is better from here on: the ``Scorer`` negates the scores of a metric that is better when lower.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bitfront.backends.base import CompiledModel
from bitfront.backends.batches import FIRST_AXIS, Outputs, run_outputs
from bitfront.backends.sequences import Recurrence, run_sequences
from bitfront.core import AccuracyStats, Array, Batching, Inputs, Labelled, Metric, MetricFunction, as_metric
from bitfront.search.measuring.given_outputs import GivenOutputs
from bitfront.search.measuring.metrics import Scores, score, scored_outputs

Z95 = 1.959963984540054
# Stages are looked at repeatedly: a pair is told apart at 99 %, so that few are by chance.
Z_PAIR = 2.5758293035489004
FIRST_STAGE = 64
MANY = 1000
BATCH = 64


def summary(scores: Scores) -> AccuracyStats:
    """Mean and 95 % interval of per-sample scores, shape (n,)."""
    if np.signbit(scores).all():
        # Scores of a metric that is better when lower, −0.0 among them: those of 0 and −1 are hits as well.
        return summary(-scores).negated()
    count = len(scores)
    mean = float(scores.mean())
    if bool(np.isin(scores, (0.0, 1.0)).all()):
        centre = (mean + Z95**2 / (2 * count)) / (1 + Z95**2 / count)
        half = Z95 / (1 + Z95**2 / count) * math.sqrt(mean * (1 - mean) / count + Z95**2 / (4 * count**2))
        low, high = max(centre - half, 0.0), min(centre + half, 1.0)
    else:
        half = Z95 * float(scores.std(ddof=1)) / math.sqrt(count) if count > 1 else 0.0
        low, high = mean - half, mean + half
    return AccuracyStats(value=mean, ci_low=min(low, mean), ci_high=max(high, mean), samples=count)


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of an artifact so far; greater is better.

    Attributes:
        scores: Per-sample scores of the first ``samples`` samples, (samples,); or, for a metric that gives one number,
            that number, (1,).
        samples: How many samples were scored.
    """

    scores: Scores
    samples: int

    @property
    def per_sample(self) -> bool:
        """Whether there is a score a sample, and so an interval."""
        return len(self.scores) == self.samples

    @property
    def stats(self) -> AccuracyStats:
        """The metric with its interval."""
        if self.per_sample:
            return summary(self.scores)
        value = float(self.scores[0])
        return AccuracyStats(value=value, ci_low=value, ci_high=value, samples=self.samples)


def surely_worse(scored: Scored, other: Scored) -> bool:
    """Whether ``scored`` has a lower mean than ``other`` on the samples both were scored on, at 99 %.

    Paired by sample: the difficulty of the samples cancels, so some dozens are enough to tell two networks apart.
    Without per-sample scores nothing is sure.
    """
    count = min(scored.samples, other.samples)
    if count < 2 or not (scored.per_sample and other.per_sample):
        return False
    difference = scored.scores[:count] - other.scores[:count]
    return float(difference.mean()) + Z_PAIR * float(difference.std(ddof=1)) / math.sqrt(count) < 0


def no_better(scored: Scored, other: Scored) -> bool:
    """Whether ``scored`` has no higher a mean than ``other`` on the samples both were scored on, and these are many.

    Not proof, unlike ``surely_worse``: what is still possible is a lead smaller than these samples can show.
    """
    count = min(scored.samples, other.samples)
    if count < MANY or not (scored.per_sample and other.per_sample):
        return False
    return float(scored.scores[:count].mean()) <= float(other.scores[:count].mean())


class Scorer:
    """Scores artifacts on one set of labelled samples.

    Args:
        data: The samples, (n, …), in an order without a trend.
        metric: How outputs are scored.
        batch: Samples per inference where the network's batch is dynamic.
        first_stage: Samples scored before the first look.
        name: Which part of the data this is, for messages.
        batching: Where the samples are in the network's own arrays.
        recurrence: How the network is run over samples that are sequences; None where they are not.
        given: The given network's outputs on these samples, for a metric that is compared with them.

    Attributes:
        metric: How outputs are scored, as a value.
    """

    def __init__(
        self,
        data: Labelled,
        metric: Metric | MetricFunction,
        *,
        batch: int = BATCH,
        first_stage: int = FIRST_STAGE,
        name: str,
        batching: Batching = FIRST_AXIS,
        recurrence: Recurrence | None = None,
        given: GivenOutputs | None = None,
    ) -> None:
        self._data = data
        self.metric = as_metric(metric)
        self._batch = batch
        self._first_stage = first_stage
        self._name = name
        self._batching = batching
        self._recurrence = recurrence
        self._given = given
        self._one_number = self.metric.per_sample is False

    def __len__(self) -> int:
        return len(self._data)

    def next_stage(self, scored: Scored | None) -> int:
        """Number of samples to have scored next: the first stage, then doubling, and all at the end."""
        if self._one_number:
            return len(self)
        stage = 2 * scored.samples if scored else self._first_stage
        # A last stage much smaller than its predecessor would only cost another look.
        return len(self) if stage * 1.25 >= len(self) else stage

    def extend(self, compiled: CompiledModel, scored: Scored | None, stop: int) -> Scored:
        """Score on to ``stop`` samples.

        Raises:
            BackendError: If the runtime fails.
            WorkloadError: If the metric fails or gives neither one finite score a sample nor one finite number.
        """
        known = scored.scores if scored else np.zeros(0)
        fresh = self._score(compiled, len(known), stop)
        if fresh.ndim == 1:
            return Scored(np.concatenate([known, fresh]), stop)
        self._one_number = True
        if stop - len(known) < len(self):
            fresh = self._score(compiled, 0, len(self))
        return Scored(np.reshape(fresh, (1,)), len(self))

    def complete(self, compiled: CompiledModel, scored: Scored | None) -> Scored:
        """Score on to the last sample, in stages: what is wrong with a metric shows on the first.

        Raises:
            BackendError: If the runtime fails.
            WorkloadError: If the metric fails or gives neither one finite score a sample nor one finite number.
        """
        while scored is None or scored.samples < len(self):
            scored = self.extend(compiled, scored, self.next_stage(scored))
        return scored

    def _score(self, compiled: CompiledModel, start: int, stop: int) -> Scores:
        part = self._data.part(start, stop)
        outputs = self._run(compiled, part.inputs)
        target: Array | tuple[Array, ...] = part.labels
        if self._given is not None:
            target = self._given.of(
                start, stop, len(self), lambda given: scored_outputs(self.metric, self._run(given, part.inputs))
            )
        scores = score(self.metric, outputs, target, self._name)
        return -scores if self.metric.lower_is_better else scores

    def _run(self, compiled: CompiledModel, inputs: Inputs) -> Outputs:
        if self._recurrence is not None:
            return run_sequences(compiled, inputs, self._recurrence, batch=self._batch)
        return run_outputs(compiled, inputs, batch=self._batch, batching=self._batching)
