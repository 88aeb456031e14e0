"""Seeded searches without a runtime, whose proposals a golden file keeps: precisions alone, and with passes."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import torch
from torch import nn

from bitfront.core import AccuracyStats, Constraints, LatencyStats, RecipeStep, digest
from bitfront.experiments.synthetic import Synthetic
from bitfront.lowering.compute_type import ComputeType
from bitfront.search.events import SilentListener
from bitfront.search.passes.trainings import TrainingBudget
from bitfront.search.proposals import seeds
from bitfront.search.proposals.latency_model import fit_latency_model
from bitfront.search.proposals.sampler import FrontSampler, VariantOffer
from bitfront.search.space.pruning import SparsityIndices
from bitfront.search.space.space import Encoding, Space
from bitfront.search.trial import Candidate, Trial, TrialStatus
from tests.search.proposals.spaces import chain, prunable_chain

GOLDEN = Path(__file__).parent / "golden" / "proposals.json"
REFERENCE_MS, REFERENCE_ACCURACY = 2.0, 0.9


def text(encoding: Encoding) -> str:
    """An index tuple in short."""
    return "".join(map(str, encoding))


def sampled(groups: int, seed: int, budget: Constraints, fp16: ComputeType, trials: int = 24) -> list[str]:
    """The encoding of each proposal for a synthetic network, baselines first."""
    problem = Synthetic.random(groups, seed, fp16)
    space, sampler = problem.space, FrontSampler(problem.space, budget, seed)
    return _sampled(space, sampler, trials, lambda encoding: _measured(problem, encoding))


def sampled_jointly(seed: int, trials: int = 24) -> list[str]:
    """Likewise where networks are pruned: three are there, and every fifth trial may ask for a new one."""
    space = prunable_chain(6, seed)
    made: list[SparsityIndices] = [(0,) * len(space.prunes), (1, 0, 2, 0), (0, 1, 0, 1)]
    sampler = FrontSampler(space, Constraints(latency_ms=0.7 * REFERENCE_MS), seed)

    def offer(number: int) -> None:
        sampler.offer = VariantOffer(prunings=tuple(made), may_add=(number - len(space.baselines())) % 5 == 0)

    return _sampled(space, sampler, trials, lambda encoding: costs(space, encoding), offer)


def _measured(problem: Synthetic, encoding: Encoding) -> tuple[float, float, float]:
    point = problem.measure(encoding)
    return point.accuracy, point.latency_ms / problem.reference.latency_ms, point.size_bytes


def costs(space: Space, encoding: Encoding) -> tuple[float, float, float]:
    """Accuracy, ratio to the given network's latency, and bytes: all from the space's own numbers."""
    left = space.kept_fractions(encoding)
    kinds = [group.compute_types[i] for group, i in zip(space.groups, encoding, strict=False)]
    work = sum(part * (0.4 if kind is ComputeType.INT8 else 1.0) for part, kind in zip(left, kinds, strict=True))
    crossed = sum(kinds[u] is not kinds[v] for u, v in space.edges)
    ratio = 0.1 + 0.9 * (work + 0.2 * crossed) / len(kinds)
    loss = space.loss(space.decode(encoding), space.pruning(encoding))
    return REFERENCE_ACCURACY * math.exp(-loss), ratio, space.encoding_bytes(encoding) + 5000.0


def _sampled(
    space: Space,
    sampler: FrontSampler,
    trials: int,
    measure: Callable[[Encoding], tuple[float, float, float]],
    before: Callable[[int], None] = lambda _: None,
) -> list[str]:
    study = optuna.create_study(directions=["maximize", "minimize", "minimize"], sampler=sampler)
    for _, assignment in space.baselines():
        study.enqueue_trial(space.to_params(assignment))
    found = []
    for number in range(trials):
        before(number)
        trial = study.ask(space.distributions())
        encoding = space.encode(space.from_params(trial.params), space.pruning_of(trial.params))
        accuracy, ratio, size = measure(encoding)
        for name, value in {"ratio": ratio, "latency_ms": REFERENCE_MS * ratio, "size_bytes": size}.items():
            trial.set_user_attr(name, value)
        trial.set_user_attr("accuracy", accuracy)
        trial.set_user_attr("state", "complete")
        study.tell(trial, [accuracy, ratio, size])
        found.append(text(encoding))
    return found


def seeded(space: Space) -> dict[str, list[str]]:
    """What each stream of seeds gives."""
    latency = fit_latency_model(space, [(assignment, 0.9**i) for i, (_, assignment) in enumerate(space.baselines())])
    size = 0.3 * space.size_bytes(space.baselines()[0][1])
    return {
        "greedy": [text(space.encode(a)) for _, a in seeds.greedy_seeds(space)],
        "segments": [text(space.encode(a)) for _, a in seeds.segment_seeds(space, np.random.default_rng(3), 8)],
        "solved": [
            text(space.encode(a))
            for _, a in itertools.islice(seeds.solver_seeds(space, lambda: latency, max_ratio=0.6, max_bytes=size), 8)
        ],
    }


def joint_seeded(space: Space) -> list[str]:
    """What is solved over precisions and prunings."""
    latency = fit_latency_model(space, [(assignment, 0.9**i) for i, (_, assignment) in enumerate(space.baselines())])
    found = seeds.joint_seeds(space, latency, [0.5, 0.35, None], [None, 20000.0], prune_weight=0.3)
    return [text(encoding) for encoding in itertools.islice(found, 6)]


class _Tried:
    """Stands in for the evaluator: costs are the space's, and training closes a part of a pruned network's gap."""

    def __init__(self, spaces: Mapping[str, Space], networks: _Networks, budget: Constraints) -> None:
        self.trials: list[Trial] = []
        self.reference_ms, self.reference_accuracy = REFERENCE_MS, REFERENCE_ACCURACY
        self._spaces, self._networks, self._budget = spaces, networks, budget

    @property
    def limits(self) -> Constraints:
        return self._budget.absolute(self.reference_accuracy)

    @property
    def best(self) -> Trial | None:
        return min((t for t in self.trials if t.feasible), key=lambda t: -t.objectives.accuracy, default=None)

    def run(self, number: int, candidate: Candidate) -> Trial:
        """A trial of a candidate, on its network as it is."""
        space = self._spaces[candidate.architecture]
        accuracy, ratio, size = costs(space, space.encode(candidate.schemes, candidate.pruning))
        accuracy *= 0.9 if candidate.architecture else 1.0
        steps = self._networks[candidate.variant].steps if candidate.variant else ()
        trained = sum(int(step.options["training"]["steps"]) for step in steps if "training" in step.options)
        accuracy = REFERENCE_ACCURACY - (REFERENCE_ACCURACY - accuracy) / (1 + trained / 50) ** 0.6
        timed = candidate.origin == "cost"
        floor = self._budget.accuracy_floor(REFERENCE_ACCURACY)
        misses = {"accuracy": floor - accuracy} if math.isfinite(floor) and not timed else {}
        if self._budget.latency_ms is not None:
            misses["latency"] = REFERENCE_MS * ratio / self._budget.latency_ms - 1
        if self._budget.size_bytes is not None:
            misses["size"] = size / self._budget.size_bytes - 1
        names = LatencyStats.__dataclass_fields__
        latency = LatencyStats(**{**dict.fromkeys(names, 0.0), "ratio": ratio, "median_ms": 2 * ratio})  # type: ignore[arg-type]
        scored = {"value": accuracy, "ci_low": accuracy - 0.01, "ci_high": accuracy + 0.01, "samples": 100}
        trial = Trial(
            number=number,
            candidate=candidate,
            status=TrialStatus.TIMED if timed else TrialStatus.COMPLETE,
            artifact=digest(candidate.key),
            size_bytes=int(size),
            latency=latency,
            latency_ms=REFERENCE_MS * ratio,
            accuracy=None if timed else AccuracyStats.from_json(scored),
            misses=misses,
            seconds=0.0,
        )
        self.trials.append(trial)
        return trial


class _Networks(dict[str, Any]):
    """Stands in for the networks that were made: nothing but their steps."""

    def __init__(self, budget: TrainingBudget) -> None:
        super().__init__()
        self._budget = budget

    @staticmethod
    def id_of(steps: Sequence[RecipeStep]) -> str:
        return digest([step.key for step in steps])[:16]

    def steps(self, key: str) -> tuple[RecipeStep, ...]:
        found: tuple[RecipeStep, ...] = self[key].steps
        return found

    def add(self, steps: Sequence[RecipeStep]) -> str:
        key = self.id_of(steps)
        if key not in self:
            seconds = sum(0.1 * int(s.options["training"]["steps"]) for s in steps if "training" in s.options)
            for number, step in enumerate(steps):
                if "training" in step.options:
                    self._budget.note(self.id_of(steps[: number + 1]), 0.1 * int(step.options["training"]["steps"]))
            self[key] = SimpleNamespace(steps=tuple(steps), seconds=seconds)
        return key


def _training(name: str, steps: int, **more: object) -> RecipeStep:
    return RecipeStep(name=name, options={"training": {"steps": steps}, **more})


class _Pipeline:
    """Stands in for what applies recipes."""

    @staticmethod
    def is_structural(step: RecipeStep) -> bool:
        return "training" not in step.options

    @staticmethod
    def trained_steps(steps: Sequence[RecipeStep]) -> int:
        return sum(int(step.options["training"]["steps"]) for step in steps if step.name == "distill")

    @staticmethod
    def module_of(steps: Sequence[RecipeStep]) -> nn.Module:
        (step,) = steps
        return _linear(sum(value * (1 + len(name) % 3) for name, value in step.options.items()))


@dataclass
class _Builder:
    """Stands in for what makes variants."""

    context: Any
    variants: _Networks
    options: Any
    pipeline: _Pipeline = field(default_factory=_Pipeline)
    history: list[Any] = field(default_factory=list)
    seconds_per_step: float = 0.1

    @staticmethod
    def steps_of_epochs(epochs: int) -> int:
        return 30 * epochs

    @staticmethod
    def training_step(steps: int, base: Sequence[RecipeStep] = ()) -> RecipeStep:
        return _training("distill", steps, student=any(step.name == "student" for step in base))

    @staticmethod
    def prune_step(pruning: Mapping[str, float]) -> RecipeStep:
        return RecipeStep(name="prune", options=dict(pruning))


def _proposing(label: str, architecture: str, step: RecipeStep, *, student: bool) -> Any:
    """Stands in for a structural pass with one variant."""
    proposal = SimpleNamespace(label=label, architecture=architecture, step=step)
    return SimpleNamespace(proposals=lambda _: [proposal], from_scratch=student, own_layers=student)


def _artifact_step(_: object, layers: Mapping[str, Any], steps: int) -> RecipeStep:
    return _training("qat", steps, layers={name: scheme.text for name, scheme in layers.items()})


def _linear(shift: float) -> nn.Module:
    module = nn.Linear(4, 3)
    with torch.no_grad():
        module.weight.copy_(torch.arange(12.0).reshape(3, 4) / 12)
        module.bias.zero_()
        module.bias[0] += shift
    return module


class Watch:
    """Stands in for a stopwatch; a trial takes a second."""

    def __init__(self) -> None:
        self.tried: _Tried | None = None

    def timed(self, _: object) -> AbstractContextManager[None]:
        return nullcontext()

    @property
    def elapsed_s(self) -> float:
        return float(len(self.tried.trials)) if self.tried else 0.0


def joint_parts(seed: int, budget: Constraints, train_s: float | None, trials: int, time_limit_s: float | None) -> Any:
    """Everything that a joint search asks for, without a runtime and without training."""
    space = replace(prunable_chain(6, seed))
    student = chain(3, seed + 7)
    spaces = {"": space, "small": student, "2of4": replace(space, prunes=())}
    training, watch = TrainingBudget(limit_s=train_s), Watch()
    networks = _Networks(training)
    tried = _Tried(spaces, networks, budget)
    watch.tried = tried
    passes = SimpleNamespace(
        pruning=True,
        recovery=True,
        artifact=SimpleNamespace(step=_artifact_step),
        train_budget_s=train_s,
        structural=(
            SimpleNamespace(proposals=lambda _: []),
            _proposing("2:4", "2of4", RecipeStep(name="sparse", options={"label": "2:4"}), student=False),
            _proposing("student small", "small", RecipeStep(name="student", options={"name": "small"}), student=True),
        ),
    )
    inputs = np.random.default_rng(seed).normal(size=(16, 4)).astype(np.float32)
    return SimpleNamespace(
        space=space,
        student=student,
        networks=networks,
        tried=tried,
        watch=watch,
        builder=_Builder(SimpleNamespace(base=_linear(0.0), budget=training), networks, passes),
        unseen={"x": inputs},
        listener=SilentListener(),
        options=SimpleNamespace(
            seed=seed, trials=trials, time_limit_s=time_limit_s, budget=budget, sensitivity_samples=8
        ),
        layers=lambda candidate: {f"l.{name}": scheme for name, scheme in candidate.schemes.items()},
    )


def told(trials: Sequence[Trial], spaces: Mapping[str, Space], networks: Mapping[str, Any]) -> list[str]:
    """Each trial in a line: origin, architecture, network's steps, encoding."""
    lines = []
    for trial in trials:
        candidate = trial.candidate
        steps = networks[candidate.variant].steps if candidate.variant else ()
        made = ",".join(f"{s.name}{s.options['training']['steps'] if 'training' in s.options else ''}" for s in steps)
        space = spaces[candidate.architecture]
        encoding = text(space.encode(candidate.schemes, candidate.pruning))
        lines.append(" ".join(part for part in (candidate.origin, candidate.architecture, made, encoding) if part))
    return lines


def dumped(found: Mapping[str, object]) -> str:
    """As the golden file has it."""
    return json.dumps(found, indent=1) + "\n"
