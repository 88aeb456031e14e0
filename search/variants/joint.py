"""The search when passes may change the network: precisions, prunings, students and training under the same budgets.

    precisions of the given network ─► costs of pruning, timed ─► for each target below what precisions alone reach:
      joint solve ─► pruning, precisions ─► network made ─► briefly distilled ─► tried ─┐
           ▲                                                                            ▼
      refitted models ◄──────────────── successive halving (``halving``) ◄── worth (``appraisal``)
    ─► sampler over precisions and prunings ─► full recovery of those who can enter the front (``recovery``)

A network is made once for each pruning and trained on from where it stood; all its candidates are tried on it as it is
then. The larger part of the training budget is kept for the recovery.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bitfront.core import EngineError, Precision, RecipeStep, Scheme
from bitfront.core.pareto import pareto_front
from bitfront.search.explore import Explorer, finalists_s
from bitfront.search.proposals.sampler import FrontSampler
from bitfront.search.proposals.space import UNPRUNED, Encoding, Space
from bitfront.search.results.finalize import TIME_LIMIT
from bitfront.search.session import Session
from bitfront.search.trial import COST, ONE_SHOT, QAT, RECOVERED, TRAINED, Candidate, Trial, TrialStatus
from bitfront.search.variants import recovery, targets
from bitfront.search.variants.appraisal import Appraiser
from bitfront.search.variants.halving import FACTOR, RUNGS, Contender, Halving
from bitfront.search.variants.info import distilled
from bitfront.search.variants.made import Making
from bitfront.search.variants.prune_costs import learn_costs, shown
from bitfront.search.variants.pruning import prune_spaces
from bitfront.search.variants.students import enter_students
from bitfront.sensitivity.table import SensitivityTable

_PRECISION_PART = 0.35  # of the trials, and of the time, for the given network
_NETWORKS_PART = 0.5  # of the trials, when no network is made any more on purpose
_SEEDS_PART = 0.5  # of the usual seeds
_SEARCH_SHARE = 0.4  # of the training budget
_FRESH_PART = 0.1  # of the trials, as many networks the sampler may bring it to
_MOST_CODES = 4  # candidates of a network that are tried again after training


def search_jointly(
    session: Session,
    making: Making,
    space: Space,
    table: SensitivityTable,
    starts: Sequence[Mapping[str, Scheme]],
) -> str | None:
    """Search over precisions and networks.

    Args:
        session: The run's things.
        making: Makes networks.
        space: The given network's.
        table: Its sensitivities; their measure is used for prunings too.
        starts: Configs (layer name → scheme) worth trying first.

    Returns:
        What ended it early, else None.
    """
    if making.options.prune:
        space = prune_spaces(session, making, space, table.measure)
    joint = JointSearch(session, making, space, table.measure)
    try:
        return joint.run(starts)
    finally:
        for study in joint.studies:
            study.close()


class JointSearch:
    """The state of such a search.

    Args:
        session: The run's things.
        making: Makes networks.
        space: With its prunings.
        measure: Of losses, as ``sensitivity.measure`` writes it.
    """

    def __init__(self, session: Session, making: Making, space: Space, measure: str) -> None:
        self.session = session
        self.making = making
        self.space = space
        self.measure = measure
        self._sampler = FrontSampler(
            space, session.evaluator.limits, session.options.seed, prunings=self._prunings, fresh=self._fresh
        )
        self.study = session.open_study(space, self._sampler)
        self.studies = [self.study]
        self.explorer = Explorer(session, space, self.study)
        self.explorers = {"": self.explorer}  # by family
        self.appraiser = Appraiser(session.evaluator, session.options.budget)
        self.halving = Halving(
            making.unit_steps, lambda c: self.appraiser.worth(c.trials, FACTOR ** (RUNGS - c.rungs)), making.history
        )
        self.contenders: list[Contender] = []
        self._made: dict[tuple[int, ...], Contender] = {}
        self._new: Contender | None = None
        limit = session.options.time_limit_s
        if limit is not None:
            making.maker.budget.time_left = lambda: limit - finalists_s(limit) - session.runner.watch.elapsed_s

    def run(self, starts: Sequence[Mapping[str, Scheme]]) -> str | None:
        """The whole of it; returns what ended it early, else None."""
        session, explorer = self.session, self.explorer
        session.listener.phase("search", session.options.trials)
        explorer.baselines()
        self._restore()
        explorer.part, explorer.share = _PRECISION_PART, _PRECISION_PART
        explorer.all(explorer.seeds(starts, _SEEDS_PART))
        explorer.share = self._search_share
        explorer.part = _NETWORKS_PART
        session.listener.phase("networks", None)
        if self.making.options.prune:
            learn_costs(self)
            self._make_networks()
        if self.making.options.sparse:
            self._make_sparse()
        enter_students(self)
        session.listener.phase("sampling", None)
        explorer.part = 1.0
        explorer.sample(lambda: self._sampler.exhausted(self.study.live), made=self._with_network, after=self._after)
        explorer.share = 1.0
        recovery.recover(self)
        return TIME_LIMIT if explorer.late else None

    # ------------------------------------------------------------------ networks

    def enter(self, contender: Contender, candidates: Sequence[Mapping[str, Scheme]], explorer: Explorer) -> None:
        """Try a new network and lead it through the rungs.

        Args:
            contender: Made, without trials.
            candidates: Group → scheme, what is tried on it; equal ones once.
            explorer: Of its space.
        """
        self.contenders.append(contender)
        self.try_on(contender, _distinct(candidates), explorer, origin=contender.base[0].name)
        self._race(contender, explorer)

    def try_on(
        self,
        contender: Contender,
        candidates: Sequence[Mapping[str, Scheme]],
        explorer: Explorer,
        origin: str,
    ) -> None:
        """Try candidates on a network as it is now."""
        tried = []
        for schemes in candidates:
            candidate = Candidate(
                origin=origin,
                schemes=schemes,
                pruning=contender.pruning,
                network=contender.network,
                family=contender.family,
            )
            tried.append(explorer.attempt(candidate))
        contender.trials += [trial for trial in tried if trial.status is not TrialStatus.FAILED]

    def train(self, contender: Contender, steps: int, explorer: Explorer) -> bool:
        """Train a network on, and try the best of its candidates again.

        Returns:
            Whether it was trained: False where the budget left nothing.
        """
        before, done = contender.accuracy, distilled(contender.steps)
        steps_now = [*contender.steps, self._distil_step(contender.base, steps)]
        key = self.making.made.add(steps_now)
        network = self.making.made[key]
        if len(network.steps) == len(contender.steps):
            return False
        again = self.best_of([trial for trial in contender.trials if trial.candidate.origin != RECOVERED])
        contender.network, contender.steps, contender.trials = key, tuple(network.steps), []
        self.try_on(contender, again, explorer, origin=TRAINED)
        if before is not None and contender.accuracy is not None and done:
            self.appraiser.learn(before, contender.accuracy, distilled(contender.steps) / done)
        return True

    @staticmethod
    def best_of(trials: Sequence[Trial]) -> list[dict[str, Scheme]]:
        """Schemes of the trials that no other of them beats, the most accurate first."""
        scored = [trial for trial in trials if trial.accuracy is not None and trial.latency is not None]
        front = [scored[i] for i in pareto_front([trial.objectives for trial in scored])]
        front.sort(key=lambda trial: -trial.objectives.accuracy)
        distinct = {trial.candidate.key: dict(trial.candidate.schemes) for trial in front}
        return list(distinct.values())[:_MOST_CODES]

    def made(
        self, label: str, base: Sequence[RecipeStep], *, pruning: Mapping[str, float] = UNPRUNED, family: str = ""
    ) -> Contender | None:
        """A network from the given one, trained through the first rung where the run distils; None where it fails."""
        steps = list(base)
        if self.making.options.distil:
            steps.append(self._distil_step(base, self.halving.steps_of(0)))
        try:
            key = self.making.made.add(steps)
        except EngineError as error:
            self.session.listener.warn(f"{label}: {error.message}")
            return None
        network = self.making.made[key]
        contender = Contender(
            label=label,
            base=tuple(base),
            pruning=pruning,
            family=family,
            network=key,
            steps=tuple(network.steps),
            rungs=1,
        )
        self.session.listener.step(f"{label}: made")
        return contender

    def explorer_of(self, contender: Contender, space: Space) -> Explorer:
        """For a network with a space of its own."""
        session = self.session
        study = session.open_study(
            space, FrontSampler(space, session.evaluator.limits, session.options.seed), contender.family
        )
        self.studies.append(study)
        explorer = Explorer(session, space, study, contender.family)
        explorer.share, explorer.part = self.explorer.share, self.explorer.part
        self.explorers[contender.family] = explorer
        return explorer

    def may_train(self) -> bool:
        """Whether the search's share of the training budget has something left."""
        budget = self.making.maker.budget
        return budget.limit_s is None or budget.spent_s < _SEARCH_SHARE * budget.limit_s

    @property
    def _search_share(self) -> float:
        """Of the time limit, when what is left is kept for the recovery."""
        limit, budget = self.session.options.time_limit_s, self.making.maker.budget
        if limit is None or budget.limit_s is None or not (self.making.options.distil or self.making.options.qat):
            return 1.0
        usable = limit - finalists_s(limit)
        return 1.0 - min((1 - _SEARCH_SHARE) * budget.limit_s * 1.15 / usable, 0.5)

    def _distil_step(self, base: Sequence[RecipeStep], steps: int) -> RecipeStep:
        student = any(step.name == "student" for step in base)
        return self.making.maker.distil_step(steps, student=student)

    def _race(self, contender: Contender, explorer: Explorer) -> None:
        def train(one: Contender, steps: int) -> bool:
            return self.may_train() and not explorer.late and self.train(one, steps, explorer)

        if self.making.options.distil:
            self.halving.run(contender, train)

    def _restore(self) -> None:
        """Take up the given architecture's networks where an interrupted run left them."""
        found: dict[str, list[Trial]] = {}
        for trial in self.explorer.trials:
            judged = trial.candidate.network and trial.candidate.origin not in (COST, ONE_SHOT, QAT)
            # A network all of whose candidates were over a limit, and so not scored, was made all the same.
            if judged and (trial.candidate.least_samples or self.appraiser.conclusive(trial)):
                found.setdefault(trial.candidate.network, []).append(trial)
        latest: dict[str, str] = {}
        for network in found:
            steps = self.making.made.steps(network)
            base = self.making.made.key_of([step for step in steps if step.name != "distil"])
            if base not in latest or len(steps) > len(self.making.made.steps(latest[base])):
                latest[base] = network
        for network in latest.values():
            steps, pruning = self.making.made.steps(network), found[network][0].candidate.pruning
            contender = Contender(
                label=shown(pruning),
                base=tuple(step for step in steps if step.name != "distil"),
                pruning=pruning,
                network=network,
                steps=steps,
                trials=found[network],
                rungs=min(max(sum(step.name == "distil" for step in steps), 1), RUNGS),
            )
            self.contenders.append(contender)
            self._made[self.space.levels(self.explorer.encoding(found[network][0]))] = contender
            self.halving.restore(contender)

    # ------------------------------------------------------------------ pruned networks

    def _make_networks(self) -> None:
        for number, limits in enumerate(targets.limits(self)):
            if self.explorer.full or self.explorer.late or not self.may_train():
                return
            encoding = targets.solved(self, limits, number)
            if encoding is not None and self.space.levels(encoding) not in self._made:
                contender = self._pruned(encoding)
                if contender is not None:
                    self.enter(contender, self._candidates(encoding), self.explorer)

    def _candidates(self, encoding: Encoding) -> list[dict[str, Scheme]]:
        """The solution, and the lowest uniform precision beside it."""
        return [self.space.decode(encoding), self.space.uniform(Precision.INT4)]

    def _pruned(self, encoding: Encoding) -> Contender | None:
        pruning = self.space.pruning(encoding)
        contender = self.made(shown(pruning), [self.making.maker.prune_step(pruning)], pruning=pruning)
        if contender is not None:
            self._made[self.space.levels(encoding)] = contender
        return contender

    def _make_sparse(self) -> None:
        for pattern in self.making.options.sparse_weights:
            family = pattern.label.replace(" ", "").replace(":", "of")  # names files, which may hold no colon
            contender = self.made(pattern.label, [self.making.maker.sparse_step(pattern)], family=family)
            if contender is None:
                continue
            explorer = self.explorer_of(contender, replace(self.space, prunes=()))
            uniform = [explorer.space.uniform(p) for p in (Precision.FP32, Precision.INT8, Precision.INT4)]
            self.enter(contender, uniform, explorer)

    # ------------------------------------------------------------------ for the sampler

    def _prunings(self) -> Sequence[tuple[int, ...]]:
        return [tuple(0 for _ in self.space.prunes), *self._made]

    def _fresh(self) -> bool:
        few = len(self._made) < _FRESH_PART * self.session.options.trials
        return bool(self.space.prunes) and few and self.may_train() and not self.explorer.late

    def _with_network(self, candidate: Candidate) -> Candidate:
        """What the sampler proposes, on the network of its pruning; a new one is made."""
        if not candidate.pruning:
            return candidate
        encoding = self.space.encode(candidate.schemes, candidate.pruning)
        contender, origin = self._made.get(self.space.levels(encoding)), candidate.origin
        if contender is None:
            contender = self._new = self._pruned(encoding)
            origin = contender.base[0].name if contender else origin
        network = contender.network if contender else ""
        return replace(candidate, origin=origin, network=network)

    def _after(self, trial: Trial) -> None:
        if self._new is not None:
            contender, self._new = self._new, None
            self.contenders.append(contender)
            contender.trials.append(trial)
            self._race(contender, self.explorer)
            return
        for contender in self.contenders:
            if contender.network == trial.candidate.network and self.appraiser.conclusive(trial):
                contender.trials.append(trial)


def _distinct(assignments: Sequence[Mapping[str, Scheme]]) -> list[Mapping[str, Scheme]]:
    found: list[Mapping[str, Scheme]] = []
    for assignment in assignments:
        if assignment not in found:
            found.append(assignment)
    return found
