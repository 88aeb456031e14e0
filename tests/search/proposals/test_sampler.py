"""The study's sampler: what it proposes, what it remembers, and that it earns its place."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState

from bitfront.core import FP32, Constraints, Precision
from bitfront.experiments.sampler_study import budget_of, run_study, volumes
from bitfront.experiments.synthetic import Synthetic
from bitfront.lowering.compute_type import ComputeType
from bitfront.search.proposals.history import History
from bitfront.search.proposals.ilp_instance import IlpInstance
from bitfront.search.proposals.latency_model import fit_latency_model
from bitfront.search.proposals.mutations import draw, mutate_groups, set_segment, solve_perturbed, trade_precisions
from bitfront.search.proposals.sampler import FrontSampler
from bitfront.search.proposals.surrogate import RelativeLimits, Surrogate
from bitfront.search.space.space import Encoding, GroupSpace, Space
from tests.search.proposals.spaces import INT4, INT8, chain, everything

KINDS = (ComputeType.FP32, ComputeType.INT8, ComputeType.INT8)  # of FP32, INT8, INT4
DIRECTIONS = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE, StudyDirection.MINIMIZE]

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def _study(sampler: BaseSampler, storage: BaseStorage | None = None) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        directions=DIRECTIONS, sampler=sampler, storage=storage, study_name="s", load_if_exists=True
    )


def _step(study: optuna.Study, problem: Synthetic, *, stopped: bool = False) -> Encoding:
    """Ask, measure, tell; a stopped trial is recorded without its accuracy."""
    space = problem.space
    trial = study.ask(space.distributions())
    encoding = space.encode(space.from_params(trial.params))
    point = problem.measure(encoding)
    trial.set_user_attr("ratio", point.latency_ms / problem.reference.latency_ms)
    trial.set_user_attr("latency_ms", point.latency_ms)
    trial.set_user_attr("size_bytes", point.size_bytes)
    if stopped:
        trial.set_user_attr("state", "over budget")
        study.tell(trial, state=TrialState.PRUNED)
    else:
        trial.set_user_attr("accuracy", point.accuracy)
        trial.set_user_attr("state", "complete")
        study.tell(trial, [point.accuracy, point.latency_ms, point.size_bytes])
    return encoding


def _tiny() -> Space:
    groups = tuple(
        GroupSpace(
            name=name,
            schemes=(FP32, INT8, INT4),
            losses=(0.0, 0.01, 0.1),
            size_bytes=(400, 100, 50),
            compute_types=KINDS,
        )
        for name in "ab"
    )
    return Space(groups=groups, edges=((0, 1),))


def test_beats_random_search() -> None:
    """At equal trials the hypervolume is larger than random search's, anywhere and within budgets."""
    problem = Synthetic.random(10, 0)
    budget = budget_of(problem)
    ours = volumes(problem, run_study(problem, FrontSampler(problem.space, budget, 0), budget, 30), budget)
    for seed in range(2):
        random = volumes(problem, run_study(problem, RandomSampler(seed), budget, 30), budget)
        assert ours[0] > 1.02 * random[0]
        assert ours[1] >= random[1]


def test_never_repeats_until_exhausted() -> None:
    """Every proposal is new until the space is exhausted, which is said; then asking still answers."""
    space = _tiny()
    problem = Synthetic(
        space=space,
        losses=((0.0, 0.01, 0.1),) * 2,
        latency=(0.5, 0.5),
        left={ComputeType.INT8: (0.4, 0.4)},
        boundary=(0.1,),
        seed=0,
    )
    sampler = FrontSampler(space, seed=1)
    study = _study(sampler)
    encodings = []
    for _ in range(space.cardinality):
        assert not sampler.exhausted(study)
        encodings.append(_step(study, problem))
    assert sorted(encodings) == sorted(everything(space))
    assert sampler.exhausted(study)
    assert _step(study, problem) in encodings


def test_baseline_only_schemes_are_not_proposed() -> None:
    """A scheme that stays for a baseline alone is in the distributions and in no proposal."""
    groups = tuple(
        GroupSpace(
            name=name,
            schemes=(FP32, INT8, INT4),
            losses=(0.0, 0.1, 0.1),
            size_bytes=(400, 100, 50),
            compute_types=KINDS,
            baseline_only=frozenset({INT8}),
        )
        for name in "abc"
    )
    space = Space(groups=groups, edges=((0, 1), (1, 2)))
    problem = Synthetic(
        space=space,
        losses=((0.0, 0.1, 0.1),) * 3,
        latency=(0.4, 0.3, 0.3),
        left={ComputeType.INT8: (0.4,) * 3},
        boundary=(0.1, 0.1),
        seed=0,
    )
    study = _study(FrontSampler(space))
    for _, assignment in space.baselines():
        study.enqueue_trial(space.to_params(assignment))
    encodings = [_step(study, problem) for _ in range(3 + 6)]
    assert encodings[1] == (1, 1, 1)
    assert all(1 not in encoding for encoding in encodings[3:])


def test_seeded_and_resumable() -> None:
    """The same seed gives the same study, also when it is interrupted and loaded again."""
    problem = Synthetic.random(4, 1)
    whole = _study(FrontSampler(problem.space, seed=5))
    expected = [_step(whole, problem, stopped=i % 3 == 2) for i in range(6)]
    storage = InMemoryStorage()
    first = _study(FrontSampler(problem.space, seed=5), storage)
    got = [_step(first, problem, stopped=i % 3 == 2) for i in range(3)]
    again = _study(FrontSampler(problem.space, seed=5), storage)
    got += [_step(again, problem, stopped=i % 3 == 2) for i in range(3, 6)]
    assert got == expected
    other = _study(FrontSampler(problem.space, seed=6))
    assert [_step(other, problem) for _ in range(4)] != expected[:4]


def test_stopped_and_failed_trials_teach() -> None:
    """Trials stopped before their accuracy was known teach latency and size; failed ones are not repeated."""
    problem = Synthetic.random(5, 2)
    space = problem.space
    study = _study(FrontSampler(space))
    stopped = [_step(study, problem, stopped=True) for _ in range(3)]
    failed = study.ask(space.distributions())
    failed.set_user_attr("state", "failed")
    study.tell(failed, state=TrialState.FAIL)
    study.enqueue_trial(space.to_params(space.uniform(Precision.FP32)))
    running = study.ask({})
    history = History.of(space, study)
    assert [record.encoding for record in history.observations[:3]] == stopped
    assert len(history.observations) == 4
    assert len(history.tried) == 5
    assert space.encode(space.uniform(Precision.FP32)) in history.tried
    assert running.number == 4
    assert not any(record.complete for record in history.observations)
    assert all(np.isnan(record.accuracy) for record in history.observations)
    assert history.reference_ms == pytest.approx(10.0)
    assert history.overhead(space).base == pytest.approx(20_000, rel=0.01)
    assert Surrogate(space, Constraints(), history).front == ()


def test_trials_of_another_space_are_passed_over() -> None:
    """History holds the space's own trials alone."""
    study = _study(FrontSampler(_tiny()))
    trial = study.ask(chain(2).distributions())
    study.tell(trial, [0.9, 1.0, 100.0])
    assert History.of(_tiny(), study).tried == frozenset()


def test_parameters_outside_the_space_are_drawn() -> None:
    """A parameter that is not the space's gets a value of its distribution."""
    study = _study(FrontSampler(_tiny()))
    assert 0.0 <= study.ask().suggest_float("sparsity", 0.0, 1.0) <= 1.0
    assert FrontSampler(_tiny()).infer_relative_search_space(study, study.trials[0]) == _tiny().distributions()
    assert "sparsity" not in study.sampler.infer_relative_search_space(study, study.trials[0])
    assert study.trials[0].distributions == {"sparsity": FloatDistribution(0.0, 1.0)}


def test_limits_speak_the_models_units() -> None:
    """Milliseconds become a ratio once something was timed beside the given network; the floor is what it is."""
    problem = Synthetic.random(4, 0)
    space = problem.space
    budget = Constraints(latency_ms=5.0, size_bytes=1e6, max_drop=0.02).absolute(0.92)
    study = _study(FrontSampler(space, budget))
    before = RelativeLimits.of(budget, History.of(space, study))
    assert (before.ratio, before.size_bytes) == (None, 1e6)
    assert before.accuracy == pytest.approx(0.9)
    study.enqueue_trial(space.to_params(space.uniform(Precision.FP32)))
    _step(study, problem)
    after = RelativeLimits.of(budget, History.of(space, study))
    assert after.ratio == pytest.approx(0.5)
    assert after.accuracy == pytest.approx(0.92 - 0.02)


def test_moves_do_what_they_say() -> None:
    """A swap raises one group and lowers another, a flip changes one run, a mutation at most three groups."""
    space = chain(12)
    problem = IlpInstance.of(space, fit_latency_model(space, []))
    rng = np.random.default_rng(0)
    for _ in range(30):
        encoding = draw(space, rng)
        swapped = trade_precisions(problem, space, encoding, rng)
        if swapped is not None:
            before = [row[c] for row, c in zip(problem.losses, encoding, strict=True)]
            after = [row[c] for row, c in zip(problem.losses, swapped, strict=True)]
            assert sorted(np.sign(np.subtract(after, before)).tolist()) == [-1.0, *[0.0] * 10, 1.0]
        flipped = set_segment(space, encoding, rng)
        if flipped is not None:
            changed = [g for g in range(12) if flipped[g] != encoding[g]]
            assert len({flipped[g] for g in range(changed[0], changed[-1] + 1)}) == 1
        mutated = mutate_groups(space, encoding, rng)
        assert mutated is not None
        assert 1 <= sum(a != b for a, b in zip(encoding, mutated, strict=True)) <= 3


def test_resolve_explores_around_the_solver() -> None:
    """Re-weighted solves keep the limit and differ from draw to draw."""
    space = chain(10)
    problem = IlpInstance.of(space, fit_latency_model(space, []))
    rng = np.random.default_rng(0)
    found = {solve_perturbed(problem, 0.75, None, frozenset(), rng) for _ in range(8)}
    assert None not in found
    assert len(found) > 2
    assert all(problem.ratio(encoding) <= 0.75 for encoding in found if encoding is not None)


def test_fixed_space_has_one_proposal() -> None:
    """A space without a decision is exhausted by FP32."""
    only = GroupSpace(name="a", schemes=(FP32,), losses=(0.0,), size_bytes=(4,), compute_types=(ComputeType.FP32,))
    space = Space(groups=(only,), edges=())
    sampler = FrontSampler(space)
    study = _study(sampler)
    trial = study.ask(space.distributions())
    assert trial.params == {"a": "fp32"}
    study.tell(trial, [1.0, 1.0, 4.0])
    assert sampler.exhausted(study)


def _proposals(problem: Synthetic, budget: Constraints, count: int) -> list[tuple[Encoding, Surrogate]]:
    """What is proposed one after the other, each with the surrogate at that moment."""
    space = problem.space
    study = _study(FrontSampler(space, budget, 0))
    found = []
    for index in range(count):
        for _, assignment in space.baselines() if index == 0 else ():
            study.enqueue_trial(space.to_params(assignment))
            _step(study, problem)
        surrogate = Surrogate(space, budget, History.of(space, study))
        found.append((_step(study, problem), surrogate))
    return found


@pytest.mark.parametrize("fp16", [ComputeType.FP32, ComputeType.FP16], ids=lambda kind: kind.value)
def test_what_is_surely_too_slow_is_not_built(fp16: ComputeType) -> None:
    """No proposal is predicted over the latency limit at the fast end of the model's spread, refitted to all so far."""
    problem = Synthetic.random(10, 3, fp16)
    found = _proposals(problem, Constraints(latency_ms=6.0), 20)
    assert not any(surrogate.too_slow(encoding) for encoding, surrogate in found)
    assert found[0][1].problem.latency != found[-1][1].problem.latency
    # Planted: without a limit the same sampler proposes what this limit would screen.
    free = _proposals(problem, Constraints(), 20)
    assert any(surrogate.fast_end(encoding) > 0.6 for encoding, surrogate in free)


def test_where_all_is_too_slow_the_search_goes_on() -> None:
    """Under a limit that nothing can keep, the nearest are still looked for."""
    problem = Synthetic.random(6, 3)
    found = _proposals(problem, Constraints(latency_ms=0.1), 6)
    assert len({encoding for encoding, _ in found}) == 6


def test_half_arithmetic_is_searched() -> None:
    """Where FP16 is really faster, the sampler finds fronts that random search does not."""
    problem = Synthetic.random(10, 0, ComputeType.FP16)
    budget = budget_of(problem)
    ours = volumes(problem, run_study(problem, FrontSampler(problem.space, budget, 0), budget, 24), budget)
    random = volumes(problem, run_study(problem, RandomSampler(0), budget, 24), budget)
    assert ours[0] > 1.02 * random[0]
    assert ours[1] >= random[1]
