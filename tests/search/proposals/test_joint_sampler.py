"""Prunings in the study: what is read back, learnt about accuracy, and proposed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import optuna
import pytest
from optuna.study import StudyDirection

from bitfront.core import Constraints, Precision
from bitfront.search.proposals.file_overhead import FileOverhead
from bitfront.search.proposals.history import History, Observation
from bitfront.search.proposals.ilp_instance import IlpInstance
from bitfront.search.proposals.latency_model import fit_encodings
from bitfront.search.proposals.mutations import (
    move_to_pruning,
    mutate_groups,
    mutate_pruning,
    set_segment,
    trade_precisions,
)
from bitfront.search.proposals.sampler import FrontSampler, Operator, VariantOffer
from bitfront.search.proposals.seeds import joint_seeds, solver_seeds
from bitfront.search.proposals.surrogate import Surrogate
from bitfront.search.space.pruning import SparsityIndices
from bitfront.search.space.space import Encoding, GroupSpace, Space
from tests.search.proposals.spaces import chain, prunable_chain

DIRECTIONS = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE, StudyDirection.MINIMIZE]
HALF = (2, 2, 0)  # of the channels, the branch stays
REMOVED = (0, 0, 1)
NONE = (0, 0, 0)

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def _study(sampler: FrontSampler) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(directions=DIRECTIONS, sampler=sampler)


def _accuracy(space: Space, encoding: Encoding, left: float = 0.05) -> float:
    """Falls with the precisions' loss, and with what is ``left`` of the prunings' loss after training."""
    assignment = space.decode(encoding)
    precision = space.loss(assignment)
    return 0.9 - 0.1 * math.log10(
        1 + 1e4 * (precision + left * (space.loss(assignment, space.pruning(encoding)) - precision))
    )


def _tell(study: optuna.Study, space: Space, state: str = "complete") -> Encoding:
    """Ask, measure, tell; the encoding tried."""
    trial = study.ask(space.distributions())
    encoding = space.encode(space.from_params(trial.params), space.pruning_of(trial.params))
    ratio = fit_encodings(space, [], []).predict_encoding(encoding)
    values = [_accuracy(space, encoding), 10.0 * ratio, space.encoding_bytes(encoding) + 500.0]
    trial.set_user_attr("ratio", ratio)
    trial.set_user_attr("latency_ms", values[1])
    trial.set_user_attr("size_bytes", values[2])
    trial.set_user_attr("state", state)
    if state == "complete":
        trial.set_user_attr("accuracy", values[0])
        study.tell(trial, values)
    else:
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    return encoding


def _started(space: Space, prunings: Sequence[SparsityIndices] = (), *, may_add: bool = False) -> optuna.Study:
    """A study in which the baselines are measured, on the given network and on the first other one."""
    sampler = FrontSampler(space, Constraints(), 0)
    sampler.offer = VariantOffer(prunings=tuple(prunings), may_add=may_add)
    study = _study(sampler)
    for _, assignment in space.baselines():
        for levels in [NONE, *prunings[1:2]]:
            study.enqueue_trial(space.to_params(assignment, space.pruning((*(0,) * 5, *levels))))
            _tell(study, space)
    return study


def test_by_default_nothing_is_pruned() -> None:
    """Without networks, proposals are for the given one."""
    space = prunable_chain(5)
    study = _started(space)
    assert {space.sparsity_indices(_tell(study, space)) for _ in range(6)} == {NONE}


def test_proposals_are_for_networks_that_were_made() -> None:
    """All of them are used, and never another one."""
    space = prunable_chain(5)
    study = _started(space, [NONE, HALF, REMOVED])
    encodings = [_tell(study, space) for _ in range(25)]
    assert {space.sparsity_indices(encoding) for encoding in encodings} == {NONE, HALF, REMOVED}
    assert len(set(encodings)) == len(encodings)
    assert all(space.canonical(encoding) == encoding for encoding in encodings)


def test_new_networks_are_proposed_where_they_may_be_made() -> None:
    """With ``may_add`` there are prunings nobody made, by their own operator, and again none without."""
    space = prunable_chain(5)
    study = _started(space, [NONE, HALF], may_add=True)
    sampler = study.sampler
    assert isinstance(sampler, FrontSampler)
    operators: dict[SparsityIndices, set[Operator | None]] = {}
    for _ in range(15):
        operators.setdefault(space.sparsity_indices(_tell(study, space)), set()).add(sampler.operator)
    new = set(operators) - {NONE, HALF}
    assert new
    assert Operator.PRUNING in set().union(*(operators[indices] for indices in new))
    sampler.offer = VariantOffer(prunings=(NONE, HALF))
    assert {space.sparsity_indices(_tell(study, space)) for _ in range(8)} <= {NONE, HALF}


def test_proposals_are_seeded() -> None:
    """The same seed and networks give the same study."""
    space = prunable_chain(5)
    runs = []
    for _ in range(2):
        study = _started(space, [NONE, HALF, REMOVED])
        runs.append([_tell(study, space) for _ in range(5)])
    assert runs[0] == runs[1]


def test_exhaustion_counts_the_networks() -> None:
    """A space is exhausted when every precision was tried on every network, and is not where one may be made."""
    whole = prunable_chain(5)
    groups = tuple(_two_schemes(group) for group in whole.groups)
    space = Space(groups=groups, edges=whole.edges, prunes=whole.prunes)
    sampler = FrontSampler(space)
    sampler.offer = VariantOffer(prunings=(NONE, REMOVED))
    study = _study(sampler)
    for _ in range(2**5 + 2**3):
        assert not sampler.exhausted(study)
        _tell(study, space)
    assert sampler.exhausted(study)
    sampler.offer = VariantOffer(prunings=(NONE, REMOVED), may_add=True)
    assert not sampler.exhausted(study)
    assert space.sparsity_indices(_tell(study, space)) not in (NONE, REMOVED)


def _two_schemes(group: GroupSpace) -> GroupSpace:
    """FP32 and INT8 alone."""
    return replace(
        group,
        schemes=group.schemes[::2],
        losses=group.losses[::2],
        size_bytes=group.size_bytes[::2],
        compute_types=group.compute_types[::2],
    )


def test_history_reads_prunings() -> None:
    """Codes are canonical, probes of cost are timed without accuracy, missing variables are 0, foreign ones foreign."""
    space = prunable_chain(5)
    study = _study(FrontSampler(space))
    int8 = space.uniform(Precision.INT8)
    study.enqueue_trial({**space.to_params(int8), "prune:b": "1", "prune:g2": "0.5"})
    _tell(study, space)
    study.enqueue_trial(space.to_params(int8, {"g0": 0.5}))
    _tell(study, space, "timed")
    older = study.ask(chain(5).distributions())
    study.tell(older, [0.5, 1.0, 1.0])
    foreign = study.ask({**space.distributions(), "prune:z": optuna.distributions.CategoricalDistribution(["1"])})
    study.tell(foreign, [0.5, 1.0, 1.0])
    history = History.of(space, study)
    assert [space.sparsity_indices(record.encoding) for record in history.observations] == [REMOVED, (2, 0, 0), NONE]
    assert [record.complete for record in history.observations] == [True, False, False]
    assert math.isfinite(history.observations[1].ratio)
    assert math.isnan(history.observations[1].accuracy)
    assert history.overhead(space).base == pytest.approx(500, rel=0.01)
    assert history.observations[0].encoding[2:4] == (0, 0)


def _observation(encoding: Encoding, accuracy: float) -> Observation:
    return Observation(
        encoding=encoding, ratio=0.5, latency_ms=5.0, size_bytes=1000.0, accuracy=accuracy, complete=True
    )


def _history(observations: Sequence[Observation]) -> History:
    return History(observations=tuple(observations), tried=frozenset(record.encoding for record in observations))


@pytest.mark.parametrize("left", [1.0, 0.1, 0.01])
def test_what_is_left_of_a_prunings_loss_is_learnt(left: float) -> None:
    """The weight under which accuracies fall with the loss is found, and pruned candidates are ranked by it."""
    space = prunable_chain(5)
    rng = np.random.default_rng(3)
    draws = [[int(rng.integers(n)) for n in (4, 4, 4, 4, 4, 3, 3, 2)] for _ in range(80)]
    encodings = [space.canonical(tuple(encoding)) for encoding in draws]
    history = _history([_observation(encoding, _accuracy(space, encoding, left)) for encoding in encodings])
    surrogate = Surrogate(space, Constraints(), history)
    assert surrogate.prune_weight == left
    assert surrogate.problem.prune_weight == left
    truth = [_accuracy(space, encoding, left) for encoding in encodings]
    assert np.abs(surrogate.accuracy(encodings) - truth).max() < 0.03


def test_without_pruned_scores_the_whole_loss_counts() -> None:
    """Before a pruned network was scored nothing is known about recovery."""
    space = prunable_chain(5)
    encodings = [space.encode(assignment) for _, assignment in space.baselines()]
    history = _history([_observation(encoding, _accuracy(space, encoding)) for encoding in encodings])
    assert Surrogate(space, Constraints(), history).prune_weight == 1.0


def test_the_best_accuracy_of_a_code_counts() -> None:
    """A network that was trained on is judged by its last state, not by the mean of all."""
    space = prunable_chain(5)
    fp32, pruned = (0,) * 8, (*(0,) * 5, *HALF)
    again = _history(
        [_observation(fp32, 0.9), _observation(pruned, 0.3), _observation(pruned, 0.8), _observation(pruned, 0.7)]
    )
    assert Surrogate(space, Constraints(), again).accuracy([pruned])[0] == pytest.approx(0.8, abs=0.01)


def test_moves_keep_the_network() -> None:
    """Swaps, flips and mutations change groups that are there, and no variable."""
    space = prunable_chain(5)
    problem = IlpInstance.of(space, fit_encodings(space, [], []))
    rng = np.random.default_rng(0)
    start = space.canonical((1, 2, 3, 3, 1, 1, 0, 1))
    for _ in range(30):
        for encoding in (
            trade_precisions(problem, space, start, rng),
            set_segment(space, start, rng),
            mutate_groups(space, start, rng),
        ):
            assert encoding is None or (
                space.sparsity_indices(encoding) == (1, 0, 1) and encoding[2:4] == (0, 0) and encoding != start
            )


def test_transfer_keeps_the_precisions() -> None:
    """Precisions carry over; what was gone takes the precision of most others."""
    space = prunable_chain(5)
    assert move_to_pruning(space, (1, 2, 3, 3, 2, 0, 0, 0), HALF) == (1, 2, 3, 3, 2, *HALF)
    assert move_to_pruning(space, (1, 2, 0, 0, 2, *REMOVED), NONE) == (1, 2, 2, 2, 2, *NONE)
    assert move_to_pruning(space, (1, 2, 3, 3, 2, *NONE), REMOVED) == (1, 2, 0, 0, 2, *REMOVED)
    assert move_to_pruning(space, (1, 2, 3, 3, 2, *NONE), NONE) is None


def test_reprune_changes_one_to_three_levels() -> None:
    """Each by one, within what there is."""
    space = prunable_chain(7)
    rng = np.random.default_rng(0)
    start = (2,) * 7 + (1, 0, 2, 0)
    seen = set()
    for _ in range(40):
        encoding = mutate_pruning(space, start, rng)
        assert encoding is not None
        if space.sparsity_indices(encoding)[3] == 0:
            steps = np.abs(np.subtract(space.sparsity_indices(encoding), space.sparsity_indices(start)))
            assert steps.max() == 1
            seen.add(int(steps.sum()))
    assert seen == {1, 2, 3}
    assert mutate_pruning(chain(4), (0,) * 4, rng) is None


def test_joint_seeds_differ_in_pruning() -> None:
    """Each is pruned, canonical, keeps one of the limits, and is the only one of its pruning."""
    space = prunable_chain(8)
    model = fit_encodings(space, [], [])
    problem = IlpInstance.of(space, model, FileOverhead(1000.0))
    whole = problem.size(space.encode(space.uniform(Precision.FP32)))
    limits = [0.35, 0.3, 0.25, 0.2]
    found = list(
        joint_seeds(space, model, [None, *limits], [None, 0.1 * whole], prune_weight=0.1, overhead=FileOverhead(1000.0))
    )
    assert len(found) >= 2
    levels = [space.sparsity_indices(encoding) for encoding in found]
    assert len(set(levels)) == len(levels)
    assert all(any(row) for row in levels)
    assert all(space.canonical(encoding) == encoding for encoding in found)
    assert all(problem.ratio(encoding) <= 0.35 or problem.size(encoding) <= 0.1 * whole for encoding in found)
    assert list(joint_seeds(space, model, [None], [None])) == []


def test_solver_seeds_are_not_pruned() -> None:
    """The streams of assignments are for the given network, and the same with and without prune variables."""
    space, plain = prunable_chain(6), chain(6)
    with_prunes = list(solver_seeds(space, lambda: fit_encodings(space, [], []), max_ratio=0.5, max_bytes=None))
    without = list(solver_seeds(plain, lambda: fit_encodings(plain, [], []), max_ratio=0.5, max_bytes=None))
    assert with_prunes == without
    assert with_prunes
