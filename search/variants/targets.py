"""Which pruned networks to make: limits to solve at, and of several solutions the one that hurts least as a whole.

With a floor of accuracy the limits close in on the least latency, and the least size, of a network that is expected to
reach it after its recovery; without one they are parts of what the given network reaches by precisions alone.

The solver adds up what each pruning costs alone. Several together cost something else, all branches of a stage far
more; so the solution is compared with solutions for slightly other losses whose sum is not much larger: each is pruned,
not trained, and its divergence from the given network measured. The sum keeps its say because a divergence hardly grows
any more once a network is broken, while it still matters how badly. Losses that were measured after training are added
up as they are: what a whole pruning costs before training would say the opposite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bitfront.core import EngineError
from bitfront.search.proposals.history import History
from bitfront.search.proposals.seeds import joint_seeds
from bitfront.search.proposals.space import Encoding, Space
from bitfront.search.proposals.surrogate import Surrogate
from bitfront.search.stopwatch import Kind
from bitfront.search.trial import Trial
from bitfront.search.variants.recovery import times_to_come
from bitfront.sensitivity.divergence import divergence
from bitfront.sensitivity.sparsity import torch_outputs

if TYPE_CHECKING:
    from bitfront.search.variants.joint import JointSearch

Limits = tuple[float | None, float | None]  # ratio to the given network's latency, bytes of the file; None is none

_TARGETS = (0.7, 0.5, 0.85, 0.6)  # of what the given network reaches by precisions alone
_CAUTION = 0.6  # times the learned power of training: what is extrapolated from few steps is too kind to small networks
_NEAR = ((0.97, 0.99), (0.88, 0.9))  # of limits (latency, size) that it does not reach; sizes are predicted better
_RIVALS = 4  # solutions for other losses
_OTHERWISE = 0.25  # standard deviation of a loss's logarithm
_SLACK = 1.2  # times the least sum of losses
_LEAST_RUNG = 30  # training steps of a first rung; comparing takes as long as about as many


def limits(joint: JointSearch) -> Iterator[Limits]:
    """Near the budget if that is out of the given network's reach, then below what precisions reach, within it.

    Each is to be solved and its network tried before the next is asked for.
    """
    trials = [t for t in joint.explorer.trials if t.measured and not t.candidate.network]
    ratio, size = min(map(_ratio, trials)), min(map(_size, trials))
    budget, evaluator = joint.session.options.budget, joint.session.evaluator
    limit = budget.latency_ms / evaluator.reference_ms if budget.latency_ms is not None else math.inf
    size_limit = budget.size_bytes if budget.size_bytes is not None else math.inf

    def within(ratio: float, size: float) -> Limits:
        return (ratio if ratio < math.inf else None, size if size < math.inf else None)

    if limit < ratio or size_limit < size:
        yield from (within(limit * near, size_limit * near_size) for near, near_size in _NEAR)
    limit, size_limit = limit * _NEAR[0][0], size_limit * _NEAR[0][1]
    for part in _TARGETS:
        yield within(min(_next(joint, ratio, part, _ratio), limit), size_limit)
        yield within(limit, min(_next(joint, size, part, _size), size_limit))


def _next(joint: JointSearch, given: float, part: float, of: Callable[[Trial], float]) -> float:
    """Between the least that reaches the floor and the most below it that does not; ``part`` of what is given at first.

    Args:
        joint: The search.
        given: The least of the given network.
        part: Of it, without a floor.
        of: What of a trial is to be small.
    """
    evaluator = joint.session.evaluator
    floor = joint.session.options.budget.accuracy_floor(evaluator.reference_accuracy)
    if not math.isfinite(floor):
        return given * part
    least = {True: [given], False: [0.0]}  # of networks, by whether they reach it
    for contender in joint.contenders:
        scored = [trial for trial in contender.trials if trial.accuracy and trial.latency]
        if scored:
            expected = joint.appraiser.expected(scored, times_to_come(joint, contender), _CAUTION)
            least[expected >= floor].append(min(of(trial) for trial in scored))
    reached = min(least[True])
    missed = max(value for value in least[False] if value < reached)
    return math.sqrt(reached * missed) if missed else reached * _TARGETS[0]


def _ratio(trial: Trial) -> float:
    return trial.latency.ratio if trial.latency else math.inf


def _size(trial: Trial) -> float:
    return float(trial.size_bytes or math.inf)


def solved(joint: JointSearch, kept: Limits, number: int) -> Encoding | None:
    """The pruning and precisions to make a network of; None where the limits cannot be met.

    Args:
        joint: The search.
        kept: What the network is to keep.
        number: Of this call, for the random numbers.
    """
    solution = _solver(joint)
    first = solution(joint.space, kept)
    trained = any(prune.trained for prune in joint.space.prunes)
    if first is None or trained or joint.builder.min_resource < _LEAST_RUNG:
        return first
    generator = np.random.default_rng([joint.session.options.seed, number])
    most = _SLACK * _summed(joint.space, first)
    encodings = {joint.space.levels(first): first}
    for _ in range(_RIVALS):
        encoding = solution(_otherwise(joint.space, generator), kept)
        if encoding is not None and _summed(joint.space, encoding) <= most:
            encodings.setdefault(joint.space.levels(encoding), encoding)
    return _least_harmful(joint, list(encodings.values())) if len(encodings) > 1 else first


def _solver(joint: JointSearch) -> Callable[[Space, Limits], Encoding | None]:
    """(space, limits) → the best pruning and its precisions, by what is known of latency, size and training so far."""
    watch = joint.session.runner.watch
    model, overhead = joint.explorer.model(), joint.explorer.overhead
    with watch.timed(Kind.SOLVER):
        history = History.of(joint.space, joint.study.live)
        weight = Surrogate(joint.space, joint.session.evaluator.limits, history).prune_weight

    def solution(space: Space, kept: Limits) -> Encoding | None:
        ratio, size = kept
        with watch.timed(Kind.SOLVER):
            stream = joint_seeds(space, model, [ratio], [size], prune_weight=weight, overhead=overhead)
            found = next(stream, None)
        return found[1] if found else None

    return solution


def _otherwise(space: Space, generator: np.random.Generator) -> Space:
    """The space with other losses of prunings, each group's by one factor."""
    factors = np.exp(generator.normal(0, _OTHERWISE, len(space.prunes)))
    prunes = (
        replace(prune, losses=tuple(float(factor * loss) for loss in prune.losses))
        for prune, factor in zip(space.prunes, factors, strict=True)
    )
    return replace(space, prunes=tuple(prunes))


def _summed(space: Space, encoding: Encoding) -> float:
    return math.fsum(prune.losses[level] for prune, level in zip(space.prunes, space.levels(encoding), strict=True))


def _least_harmful(joint: JointSearch, encodings: Sequence[Encoding]) -> Encoding:
    """The one whose pruning diverges least from the given network before training, on inputs nothing was trained on."""
    session, builder = joint.session, joint.builder
    inputs = {name: array[: session.options.sensitivity_samples] for name, array in session.unseen.items()}
    losses = []
    with session.runner.watch.timed(Kind.CALIBRATION):
        reference = torch_outputs(builder.context.base, inputs)
        for encoding in encodings:
            try:
                pruned = builder.pipeline.module_of([builder.prune_step(joint.space.pruning(encoding))])
            except EngineError:
                losses.append(math.inf)
                continue
            assert pruned is not None, "nothing is trained"
            answers = torch_outputs(pruned, inputs)
            loss = float(divergence(joint.measure, reference, answers).mean())
            losses.append(loss if math.isfinite(loss) else math.inf)
    return encodings[int(np.argmin(losses))]
