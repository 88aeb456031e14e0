"""The full recovery: what is left of the training budget goes to networks and artifacts that can enter the front.

    networks by worth ─► distilled on ─► their best candidates tried again
    artifacts by worth ─► quantisation-aware training ─► tried

Time is split evenly among those chosen, and what one leaves unused goes to the next. Each is trained from where it
stood. Before it, each network's state without any training is tried too: the report says what training bought.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from precision import EngineError, Precision
from search.explore import finalists_s
from search.networks.halving import FACTOR, Contender
from search.networks.info import distilled
from search.networks.students import refine
from search.trial import ONE_SHOT, RECOVERED, Candidate, Outcome, Trial

if TYPE_CHECKING:
    from search.networks.joint import JointSearch

_NETWORKS, _USUAL_NETWORKS = 3, 2  # with a budget of the user's own, and without
_WHOLE_EPOCHS = 6  # that each network should get, or fewer networks are chosen
_ARTIFACTS = 2
_LEAST_STEPS = 10
_LEAST_MOST = 60  # steps that few data may be seen in all the same
_MOST_EPOCHS, _USUAL_EPOCHS = 60, 8  # likewise
_QAT_MOST_STEPS = 1000
_QAT_PACE = 0.7  # a step of the artifact takes so many of the module, its batches being half as large
_QAT_SHARE = 0.2  # of the budget, where there are networks to recover as well


def recover(joint: JointSearch) -> None:
    """Spend the rest of the budget."""
    options, budget = joint.making.options, joint.making.maker.budget
    chosen = _chosen(joint) if options.distil else []
    if chosen:
        joint.session.listener.phase("recovery", len(chosen))
    for index, contender in enumerate(chosen):
        steps = _steps(joint, contender, len(chosen) - index)
        if steps >= _LEAST_STEPS:
            _train(joint, contender, steps)
    if options.qat:
        _train_artifacts(joint)
    joint.session.listener.step(f"trained for {budget.spent_s:.0f} s in all")


def _chosen(joint: JointSearch) -> list[Contender]:
    """As many as the budget can train for long enough to matter; fewer where only longer training reaches the floor.

    Where none is worth anything yet it is the most accurate: time that is left is best spent on it.
    """
    whole_s = joint.making.steps_of(_WHOLE_EPOCHS) * joint.making.pace_s
    usual = joint.making.options.train_budget_s is None
    count = int(min(max(_left_s(joint) / whole_s, 1), _USUAL_NETWORKS if usual else _NETWORKS))
    while True:
        ranks = {}
        for contender in joint.contenders:
            ranks[contender.network] = joint.appraiser.rank(contender.trials, _times(joint, contender, count))
        ranked = sorted(joint.contenders, key=lambda contender: ranks[contender.network], reverse=True)
        best = [contender for contender in ranked if ranks[contender.network].worth > 0][:count] or ranked[:1]
        if count == 1 or any(ranks[contender.network].reaches for contender in best):
            return best
        count -= 1


def _times(joint: JointSearch, contender: Contender, count: int) -> float:
    """How many times the steps of its training so far it would have had, if so many networks were recovered."""
    done = max(distilled(contender.steps), 1)
    return (done + _steps(joint, contender, count)) / done


def _steps(joint: JointSearch, contender: Contender, count: int) -> int:
    """Training steps for a network if what is left is for so many."""
    options = joint.making.options
    share_s = (1 - _QAT_SHARE * options.qat) * _left_s(joint) / count
    epochs = _USUAL_EPOCHS if options.train_budget_s is None else _MOST_EPOCHS
    return int(min(share_s / _step_s(joint, contender), max(joint.making.steps_of(epochs), _LEAST_MOST)))


def _left_s(joint: JointSearch) -> float:
    """Seconds that both the training budget and the time limit leave."""
    session, budget = joint.session, joint.making.maker.budget
    left_s = budget.left_s if budget.left_s is not None else math.inf
    limit = session.options.time_limit_s
    if limit is not None:
        left_s = min(left_s, limit - finalists_s(limit) - session.bench.watch.elapsed_s)
    return max(left_s, 0.0)


def _step_s(joint: JointSearch, contender: Contender) -> float:
    """Seconds a training step of this network takes."""
    network, done = joint.making.made[contender.network], distilled(contender.steps)
    return network.seconds / done if done and network.seconds else joint.making.pace_s


def _train(joint: JointSearch, contender: Contender, steps: int) -> None:
    explorer = joint.explorers[contender.family]
    _try_untrained(joint, contender)
    if not joint.train(contender, steps, explorer):
        return
    joint.try_on(contender, [explorer.space.uniform(Precision.FP32)], explorer, origin=RECOVERED)
    if contender.family:
        refine(joint, contender)


def _try_untrained(joint: JointSearch, contender: Contender) -> None:
    """The network in FP32 as it was before any training."""
    base = joint.making.made.add(contender.base)
    if base != contender.network and not contender.family:
        high = joint.space.uniform(Precision.FP32)
        joint.explorer.attempt(Candidate(origin=ONE_SHOT, choices=high, pruning=contender.pruning, network=base))


def _train_artifacts(joint: JointSearch) -> None:
    session, maker = joint.session, joint.making.maker
    chosen = _best_artifacts(joint)
    if chosen:
        session.listener.phase("quantisation-aware training", len(chosen))
    for index, trial in enumerate(chosen):
        share_s = _left_s(joint) / (len(chosen) - index)
        steps = int(min(share_s / (_QAT_PACE * joint.making.pace_s), _QAT_MOST_STEPS))
        if steps < _LEAST_STEPS:
            return
        candidate = trial.candidate
        before = joint.making.made[candidate.network].steps if candidate.network else ()
        layers = session.bench.layers(candidate)
        try:
            key = joint.making.made.add([*before, maker.qat_step(layers, steps)])
        except EngineError as error:
            session.listener.warn(f"{trial.id} cannot be trained as it is quantised: {error.message}")
            continue
        if len(joint.making.made[key].steps) == len(before):
            return
        trained = Candidate(
            origin="qat",
            choices=candidate.choices,
            pruning=candidate.pruning,
            network=key,
            family=candidate.family,
        )
        joint.explorers[candidate.family].attempt(trained)


def _best_artifacts(joint: JointSearch) -> list[Trial]:
    """Low-bit trials worth most if training closed part of their gap to FP32, of different networks first.

    Where none is worth anything it is the most accurate one.
    """
    trials = [
        trial
        for explorer in joint.explorers.values()
        for trial in explorer.trials
        if trial.outcome is Outcome.COMPLETE and _integer(joint, trial)
    ]
    latest = {contender.network for contender in joint.contenders} | {""}
    current = [trial for trial in trials if trial.candidate.network in latest]
    ranks = {id(trial): joint.appraiser.rank([trial], FACTOR) for trial in current}
    ranked = sorted(current, key=lambda trial: ranks[id(trial)], reverse=True)
    return _spread([trial for trial in ranked if ranks[id(trial)].worth > 0])[:_ARTIFACTS] or ranked[:1]


def _spread(trials: Sequence[Trial]) -> list[Trial]:
    """The first of each network, then the others."""
    seen: set[str] = set()
    first: list[Trial] = []
    others: list[Trial] = []
    for trial in trials:
        (others if trial.candidate.network in seen else first).append(trial)
        seen.add(trial.candidate.network)
    return [*first, *others]


def _integer(joint: JointSearch, trial: Trial) -> bool:
    """Whether it has integer weights to train, and none in blocks, which training does not know."""
    choices = joint.session.bench.layers(trial.candidate).values()
    return any(choice.precision.is_integer for choice in choices) and not any(c.block_size for c in choices)
