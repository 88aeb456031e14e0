"""The full recovery: what is left of the training budget goes to networks and artifacts that can enter the front.

    networks by worth ─► distilled on ─► their best candidates tried again
    artifacts by worth ─► quantisation-aware training ─► tried

Budget is split evenly among those chosen, and what one leaves unused goes to the next. Each is trained from where it
stood. Before it, each network's state without any training is tried too: the report says what training bought.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from precision import EngineError, Precision
from search.explore import finalists_s
from search.halving import RUNGS, Contender
from search.network_info import training_steps
from search.students import refine
from search.trial import Candidate, Outcome, Trial

if TYPE_CHECKING:
    from search.joint import JointSearch

_NETWORKS, _USUAL_NETWORKS = 3, 2  # with a budget of the user's own, and without
_WHOLE_EPOCHS = 6  # that each network should get, or fewer networks are chosen
_ARTIFACTS = 2
_LEAST_STEPS = 10
_LEAST_MOST = 60  # steps that few data may be seen in all the same
_MOST_EPOCHS, _USUAL_EPOCHS = 60, 8  # likewise
_QAT_MOST_STEPS = 1000
_QAT_PACE = 3.0  # a step of the artifact takes so many of the module
_QAT_SHARE = 0.2  # of the budget, where there are networks to recover as well
_RUNGS_WORTH = 2  # the full recovery is expected to do what so many rungs would


def recover(joint: JointSearch) -> None:
    """Spend the rest of the budget."""
    options, budget = joint.making.options, joint.making.maker.budget
    chosen = _best_networks(joint)[: _affordable(joint)] if options.distil else []
    if chosen:
        joint.session.listener.phase("recovery", len(chosen))
    for index, contender in enumerate(chosen):
        left_s = _left_s(joint)
        if left_s <= 0:
            return
        share_s = (1 - _QAT_SHARE * options.qat) * left_s / (len(chosen) - index)
        epochs = _USUAL_EPOCHS if options.train_budget_s is None else _MOST_EPOCHS
        most = max(joint.making.steps_of(epochs), _LEAST_MOST)
        steps = int(min(share_s / _step_s(joint, contender), most))
        if steps >= _LEAST_STEPS:
            _train(joint, contender, steps)
    if options.qat:
        _train_artifacts(joint)
    joint.session.listener.step(f"trained for {budget.spent_s:.0f} s in all")


def _affordable(joint: JointSearch) -> int:
    """How many networks the budget can train for long enough to matter, one at least."""
    whole_s = joint.making.steps_of(_WHOLE_EPOCHS) * joint.making.pace_s
    usual = joint.making.options.train_budget_s is None
    return int(min(max(_left_s(joint) / whole_s, 1), _USUAL_NETWORKS if usual else _NETWORKS))


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
    network = joint.making.made[contender.network]
    done = sum(training_steps(step) for step in network.steps if step.name == "distil")
    return network.seconds / done if done and network.seconds else joint.making.pace_s


def _best_networks(joint: JointSearch) -> list[Contender]:
    """Those worth most after more training, one of each family and pruning."""
    worth = {id(c): joint.appraiser.worth(c.trials, _RUNGS_WORTH + RUNGS - c.rungs) for c in joint.contenders}
    ranked = sorted(joint.contenders, key=lambda contender: -worth[id(contender)])
    return [contender for contender in ranked if worth[id(contender)] > 0]


def _train(joint: JointSearch, contender: Contender, steps: int) -> None:
    explorer = joint.explorers[contender.family]
    _try_untrained(joint, contender)
    if not joint.train(contender, steps, explorer):
        return
    high = explorer.space.uniform(Precision.FP32)
    if all(dict(trial.candidate.choices) != high for trial in contender.trials):
        joint.try_on(contender, [high], explorer, origin="trained")
    if contender.family:
        refine(joint, contender)


def _try_untrained(joint: JointSearch, contender: Contender) -> None:
    """The network in FP32 as it was before any training."""
    base = joint.making.made.add(contender.base)
    if base != contender.network and not contender.family:
        high = joint.space.uniform(Precision.FP32)
        joint.explorer.attempt(Candidate(origin="one-shot", choices=high, pruning=contender.pruning, network=base))


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
    """Low-bit trials worth most if training closed part of their gap to FP32, of different networks first."""
    trials = [
        trial
        for explorer in joint.explorers.values()
        for trial in explorer.trials
        if trial.outcome is Outcome.COMPLETE and _integer(joint, trial)
    ]
    latest = {contender.network for contender in joint.contenders} | {""}
    current = [trial for trial in trials if trial.candidate.network in latest]
    ranked = sorted(current, key=lambda trial: -joint.appraiser.worth([trial], 1))
    return _spread(ranked)[:_ARTIFACTS]


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
