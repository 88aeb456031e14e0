"""The full recovery: what is left of the training budget goes to networks and artifacts that can enter the front.

    networks by worth ─► distilled on ─► their best candidates tried again ─► the best of them, likewise, with the rest
    artifacts by worth ─► quantisation-aware training ─► tried   (where rounding costs something)

What a network would come to is known roughly at first, so half of the time goes to several of them: that of the point
that would be recommended so far, or that is likeliest to keep the budget, and others, each chosen for what it would add
to those before it. The rest goes to the one that further training would bring most. Time is split evenly among those
chosen, and what one leaves unused goes to the next. Each is trained from where it stood. Before it, each network's
state without any training is tried too: the report says what training bought.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from bitfront.core import EngineError, Precision
from bitfront.search.trial import ONE_SHOT, QAT, RECOVERED, Candidate, Trial, TrialStatus
from bitfront.search.variants.appraisal import LEAST_GAP, Hope, Rank
from bitfront.search.variants.halving import FACTOR, Contender
from bitfront.search.variants.students import refine

if TYPE_CHECKING:
    from bitfront.search.variants.joint import JointSearch

_SHARED = 0.5  # of the time, for several networks; the rest is for one
_NETWORKS, _USUAL_NETWORKS = 3, 2  # with a budget of the user's own, and without, where all of the time is shared
_WHOLE_EPOCHS = 1  # that each network should get at least, or fewer networks are chosen
_TRYING = 0.1  # of the time left goes by while candidates are tried
_ARTIFACTS = 2
_LEAST_STEPS = 10
_LEAST_MOST = 60  # steps that few data may be seen in all the same
_MOST_EPOCHS, _USUAL_EPOCHS = 60, 8  # likewise
_QAT_MOST_STEPS = 1000
_QAT_PACE = 0.7  # a step of the artifact takes so many of the module, its batches being half as large
_QAT_SHARE = 0.2  # of the budget, where there are networks to recover as well
_SCORED = (TrialStatus.COMPLETE, TrialStatus.STOPPED)  # one that was stopped below the floor is what training is for
_ROUNDING = 0.1  # of the allowed drop: rounding that costs less is not worth the time


class _Plan(NamedTuple):
    """How the time is used from now on.

    Attributes:
        shared_s: Seconds of training for several networks.
        rest_s: For the one of them that goes on.
        kept_s: For artifacts.
    """

    shared_s: float
    rest_s: float
    kept_s: float


def recover(joint: JointSearch) -> None:
    """Spend the rest of the budget."""
    options, budget = joint.builder.options, joint.builder.context.budget
    if options.recovery:
        _distil(joint)
    if options.artifact:
        _train_artifacts(joint)
    joint.session.listener.step(f"trained for {budget.spent_s:.0f} s in all")


def times_to_come(joint: JointSearch, contender: Contender) -> float:
    """How many times the steps of its training so far a network would have had, if it is among those recovered."""
    return _times(joint, contender, _SHARED * _left_s(joint)) if joint.builder.options.recovery else 1.0


def _distil(joint: JointSearch) -> None:
    left_s = _left_s(joint)
    kept_s = _QAT_SHARE * (joint.builder.options.artifact is not None) * left_s
    part = 1.0 if joint.builder.options.train_budget_s is None else _SHARED
    plan = _Plan(part * (left_s - kept_s), (1 - part) * (left_s - kept_s), kept_s)
    several = _chosen(joint, joint.contenders, plan, first=_preferred(joint))
    if len(several) == 1:
        plan = _Plan(plan.shared_s + plan.rest_s, 0.0, kept_s)
    if several:
        joint.session.listener.phase("recovery", None)
    recovered = _train_all(joint, several, plan)
    if plan.rest_s:
        _try_unrounded(joint, recovered)
        kept_s *= _rounding_costs(joint)
        plan = _Plan(max(_left_s(joint) - kept_s, 0.0), 0.0, kept_s)
        recovered += _train_all(joint, _chosen(joint, several, plan, most=1), plan)
    recovered = list({contender.label: contender for contender in recovered}.values())
    _try_unrounded(joint, recovered)
    for contender in recovered:
        if contender.family:
            refine(joint, contender)


def _try_unrounded(joint: JointSearch, recovered: Sequence[Contender]) -> None:
    """In FP32, where that was not tried."""
    for contender in recovered:
        if not any(trial.candidate.origin == RECOVERED for trial in contender.trials):
            explorer = joint.explorers[contender.family]
            joint.try_on(contender, [explorer.space.uniform(Precision.FP32)], explorer, origin=RECOVERED)


def _rounding_costs(joint: JointSearch) -> bool:
    """Whether there is an artifact worth training whose network is clearly more accurate without its rounding."""
    evaluator, budget = joint.session.evaluator, joint.session.options.budget
    reference = evaluator.reference_accuracy
    allowed = max(reference - budget.accuracy_floor(reference), LEAST_GAP)
    least = _ROUNDING * (allowed if math.isfinite(allowed) else LEAST_GAP)
    best: dict[str, float] = {}
    for trial in evaluator.trials:
        if trial.status in _SCORED:
            network = trial.candidate.network
            best[network] = max(best.get(network, -math.inf), trial.objectives.accuracy)
    return any(best[t.candidate.network] - t.objectives.accuracy >= least for t in _best_artifacts(joint))


def _train_all(joint: JointSearch, chosen: Sequence[Contender], plan: _Plan) -> list[Contender]:
    """Train networks in turn, and try their candidates; returns those that were trained."""
    trained = []
    for index, contender in enumerate(chosen):
        share_s = (_left_s(joint) - plan.rest_s - plan.kept_s) / (len(chosen) - index)
        steps = _steps(joint, contender, share_s)
        if steps < _LEAST_STEPS:
            continue
        _try_untrained(joint, contender)
        if joint.train(contender, steps, joint.explorers[contender.family]):
            trained.append(contender)
    return trained


def _chosen(
    joint: JointSearch,
    contenders: Sequence[Contender],
    plan: _Plan,
    *,
    most: int | None = None,
    first: Contender | None = None,
) -> list[Contender]:
    """Those that further training would bring most, each beside those chosen before it; ``first`` if it gains at all.

    They are as many as can be trained for long enough to matter, fewer where only longer training reaches the floor.
    Where none is worth anything yet it is the most accurate: time that is left is best spent on it.
    """
    if most is None:
        most = _USUAL_NETWORKS if joint.builder.options.train_budget_s is None else _NETWORKS
    whole_s = joint.builder.steps_of_epochs(_WHOLE_EPOCHS) * joint.builder.seconds_per_step
    count = int(min(max(plan.shared_s / whole_s, 1), most))
    found: list[tuple[Contender, Rank]] = []
    while count:
        found = _spread_out(joint, contenders, plan, count, first)
        if any(rank.reaches for _, rank in found):
            break
        count -= 1
    return [contender for contender, _ in found]


def _spread_out(
    joint: JointSearch, contenders: Sequence[Contender], plan: _Plan, count: int, first: Contender | None
) -> list[tuple[Contender, Rank]]:
    found: list[tuple[Contender, Rank]] = []
    beside = [
        Hope(trial, 1) for one in joint.contenders for trial in one.trials if trial.status is TrialStatus.COMPLETE
    ]
    others = list(contenders)
    while others and len(found) < count:
        share_s = plan.shared_s / count + plan.rest_s
        times = [_times(joint, contender, share_s) for contender in others]
        ranks = [joint.appraiser.rank(c.trials, t, beside) for c, t in zip(others, times, strict=True)]
        # The first is one that reaches the floor, if any does; worth speaks for the others.
        best = max(range(len(others)), key=lambda i: ranks[i][1:] if found else _leading(joint, ranks[i]))
        if not found and first is not None and ranks[others.index(first)].worth > 0:
            best = others.index(first)
        if found and ranks[best].worth <= 0:
            break
        beside += [Hope(trial, times[best]) for trial in others[best].trials]
        found.append((others.pop(best), ranks[best]))
    return found


def _leading(joint: JointSearch, rank: Rank) -> tuple[float, ...]:
    """What speaks for being first; where nothing keeps the budget yet, expected accuracy more than volume.

    What is extrapolated from few steps is too kind to small networks, which promise most volume.
    """
    if joint.session.evaluator.best is None:
        return rank.reaches, rank.worth > 0, rank.accuracy
    return rank


def _preferred(joint: JointSearch) -> Contender | None:
    """The network of the point that would be recommended now, if more accuracy is what would be preferred."""
    best, budget = joint.session.evaluator.best, joint.session.options.budget
    if best is None or budget.accuracy_alone:
        return None
    wanted = best.candidate.family, dict(best.candidate.pruning)
    return next((one for one in joint.contenders if (one.family, dict(one.pruning)) == wanted), None)


def _times(joint: JointSearch, contender: Contender, share_s: float) -> float:
    """How many times the steps of its training so far it would have had after so many seconds more."""
    done: int = max(joint.builder.pipeline.trained_steps(contender.steps), 1)
    return (done + _steps(joint, contender, share_s)) / done


def _steps(joint: JointSearch, contender: Contender, share_s: float) -> int:
    """Training steps for a network in so many seconds."""
    epochs = _USUAL_EPOCHS if joint.builder.options.train_budget_s is None else _MOST_EPOCHS
    return int(min(share_s / _step_s(joint, contender), max(joint.builder.steps_of_epochs(epochs), _LEAST_MOST)))


def _left_s(joint: JointSearch) -> float:
    """Seconds of training that both the budget and the time limit leave."""
    budget = joint.builder.context.budget
    left_s = budget.left_s if budget.left_s is not None else math.inf
    return min(left_s, (1 - _TRYING) * max(budget.time_left(), 0.0))


def _step_s(joint: JointSearch, contender: Contender) -> float:
    """Seconds a training step of this network takes."""
    network, done = joint.builder.variants[contender.network], joint.builder.pipeline.trained_steps(contender.steps)
    return network.seconds / done if done and network.seconds else joint.builder.seconds_per_step


def _try_untrained(joint: JointSearch, contender: Contender) -> None:
    """The network in FP32 as it was before any training."""
    base = joint.builder.variants.add(contender.base)
    tried = any(t.candidate.origin == ONE_SHOT and t.candidate.network == base for t in joint.explorer.trials)
    if base != contender.network and not contender.family and not tried:
        high = joint.space.uniform(Precision.FP32)
        joint.explorer.attempt(Candidate(origin=ONE_SHOT, schemes=high, pruning=contender.pruning, network=base))


def _train_artifacts(joint: JointSearch) -> None:
    session, artifact = joint.session, joint.builder.options.artifact
    assert artifact is not None, "it takes part"
    chosen = _best_artifacts(joint)
    if chosen:
        session.listener.phase("quantisation-aware training", None)
    for index, trial in enumerate(chosen):
        share_s = _left_s(joint) / (len(chosen) - index)
        steps = int(min(share_s / (_QAT_PACE * joint.builder.seconds_per_step), _QAT_MOST_STEPS))
        if steps < _LEAST_STEPS:
            return
        candidate = trial.candidate
        before = joint.builder.variants[candidate.network].steps if candidate.network else ()
        layers = session.runner.layers(candidate)
        try:
            key = joint.builder.variants.add([*before, artifact.step(joint.builder.context, layers, steps)])
        except EngineError as error:
            session.listener.warn(f"{trial.id} cannot be trained as it is quantised: {error.message}")
            continue
        if len(joint.builder.variants[key].steps) == len(before):
            return
        trained = Candidate(
            origin=QAT,
            schemes=candidate.schemes,
            pruning=candidate.pruning,
            network=key,
            family=candidate.family,
        )
        joint.explorers[candidate.family].attempt(trained)


def _best_artifacts(joint: JointSearch) -> list[Trial]:
    """Low-bit trials worth most if training closed part of their gap to the given one, of different networks first.

    Where nothing keeps the budget yet the most accurate lead, and where none is worth anything it is the most accurate
    one; what is over a limit of latency or size stays so.
    """
    trials = [
        trial
        for explorer in joint.explorers.values()
        for trial in explorer.trials
        if trial.status in _SCORED
        and joint.appraiser.conclusive(trial)
        and not any(trial.misses.get(limit, 0.0) > 0 for limit in ("latency", "size"))
        and _integer(joint, trial)
    ]
    latest = {contender.network for contender in joint.contenders} | {""}
    current = [trial for trial in trials if trial.candidate.network in latest]
    ranks = {id(trial): joint.appraiser.rank([trial], FACTOR) for trial in current}
    ranked = sorted(current, key=lambda trial: _leading(joint, ranks[id(trial)]), reverse=True)
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
    schemes = joint.session.runner.layers(trial.candidate).values()
    return any(scheme.precision.is_integer for scheme in schemes) and not any(c.group_size for c in schemes)
