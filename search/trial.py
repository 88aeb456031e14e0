"""A candidate, and what became of it when it was tried."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from bitfront.core import AccuracyStats, LatencyStats, PairedDifference, RecipeStep, Scheme
from bitfront.core.pareto import Objectives


class Origin(StrEnum):
    """Origin of a candidate; the texts are what files hold."""

    BASELINE = "baseline"
    GREEDY = "ladder"  # a uniform low precision with the most sensitive groups one step higher
    SEGMENTS = "split"  # contiguous segments of one compute type each
    SOLVER = "solver"
    SAMPLER = "sampler"
    OTHER_BACKEND = "other backend"  # adapted from what another backend's search found, to start from
    IMPORTED = "exchange"  # exactly what another backend's search found, to be measured here
    PRUNED = "prune"  # first candidates of a pruned variant
    SPARSE = "sparse"  # first candidates of a variant with zeros among its weights
    STUDENT = "student"  # candidates of a student architecture
    COST_PROBE = "cost"  # timed alone, to learn what pruning saves
    ZERO_SHOT = "one-shot"  # a variant in FP32 before any training of it
    RETRIED = "trained"  # tried again after its variant was trained further
    FINE_TUNED = "recovered"  # a variant in FP32 after its final fine-tuning
    QAT = "qat"  # an artifact that was itself trained
    OTHER_PASS = "pass"  # first candidates of a variant that another package's pass made


def origin_of(step: RecipeStep) -> Origin:
    """Return where the first candidates of a variant came from, which this step made of the given network."""
    return Origin(step.name) if step.name in frozenset(Origin) else Origin.OTHER_PASS


class TrialStatus(StrEnum):
    """End of a trial."""

    COMPLETE = "complete"
    OVER_BUDGET = "over budget"  # timed and weighed, and not worth scoring
    STOPPED = "stopped"  # scored on some samples, until it could no longer matter
    TIMED = "timed"  # to learn what pruning saves; neither trained nor scored
    FAILED = "failed"  # refused by the dialect or by the runtime
    REPEATED = "repeated"  # the same artifact as an earlier trial's


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Scheme for every group, and the variant and pruning it is for: what is tried.

    Attributes:
        origin: Where it came from.
        schemes: Group name → scheme, every group of the space it is from.
        name: Fixed id of a baseline (``int8``), or of another backend's config (``ort-cpu.p07``); empty for everything
            else.
        pruning: Prune group → sparsity, those above 0.
        variant: Id of the network that is quantised (``search.variants.builder``); empty for the given one.
        architecture: The student, or the pattern of sparse weights, whose space it is from; empty for the given
            network's.
    """

    origin: Origin
    schemes: Mapping[str, Scheme]
    name: str = ""
    pruning: Mapping[str, float] = field(default_factory=dict)
    variant: str = ""
    architecture: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "schemes", MappingProxyType(dict(self.schemes)))
        object.__setattr__(self, "pruning", MappingProxyType(dict(self.pruning)))

    @property
    def in_full(self) -> bool:
        """Whether it is measured and scored in full whatever the limits say, for comparison."""
        return bool(self.name) or self.origin in (Origin.ZERO_SHOT, Origin.FINE_TUNED)

    @property
    def judges_variant(self) -> bool:
        """Whether what its variant may come to is told from it, so that it is not stopped after a few samples."""
        return self.further_trained or bool(self.variant and self.origin is not Origin.SAMPLER)

    @property
    def further_trained(self) -> bool:
        """Whether its variant, or the artifact itself, was trained further before it was tried."""
        return self.origin in (Origin.RETRIED, Origin.QAT)

    @property
    def key(self) -> str:
        """The same for equal schemes of one network."""
        return json.dumps([self.variant, self.texts], sort_keys=True)

    @property
    def texts(self) -> dict[str, str]:
        """Group name → the scheme's short form."""
        return {group: scheme.text for group, scheme in self.schemes.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Candidate that was tried, with what was measured of it.

    Attributes:
        number: The trial's number in the Optuna study.
        candidate: What was tried.
        status: How it ended.
        artifact: Digest of the artifact's bytes; None where it could not be written.
        size_bytes: The artifact's size.
        latency: Paired with the given network in the search's process; None where it was not timed.
        latency_ms: ``latency.ratio`` × the given network's median over the whole run so far: the search's estimate,
            free of the machine's drift; None where it was not timed.
        accuracy: On the search's part of the evaluation data; of a trial stopped on the first of its samples the given
            network's on all of them and the difference on those; None where not scored.
        change: Difference to the given network on the samples it was scored on; None where those have no scores each.
        misses: How far each limit is missed, relative to the limit (accuracy: as a difference); limit → miss, ≤ 0
            is met. Holds what was measured alone.
        seconds: Wall clock the trial took.
        reason: Why it failed, was stopped or is a repetition; empty otherwise.
        retimed: Earlier trial of the same study → its latency, timed again in the course of this one.
    """

    number: int
    candidate: Candidate
    status: TrialStatus
    artifact: str | None = None
    size_bytes: int | None = None
    latency: LatencyStats | None = None
    latency_ms: float | None = None
    accuracy: AccuracyStats | None = None
    change: PairedDifference | None = None
    misses: Mapping[str, float]
    seconds: float
    reason: str = ""
    retimed: Mapping[int, LatencyStats] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The point's id in the results: the baseline's name, else ``p`` and the number, after the student's name."""
        architecture = f"{self.candidate.architecture}-" if self.candidate.architecture else ""
        return self.candidate.name or f"{architecture}p{self.number:02d}"

    @property
    def measured(self) -> bool:
        """Whether the artifact is its own and was timed."""
        return self.latency is not None and self.status not in (
            TrialStatus.REPEATED,
            TrialStatus.FAILED,
            TrialStatus.TIMED,
        )

    @property
    def feasible(self) -> bool:
        """Whether everything was measured and every limit is met in the search's own measurement."""
        return self.status is TrialStatus.COMPLETE and all(miss <= 0 for miss in self.misses.values())

    @property
    def objectives(self) -> Objectives:
        """Objectives by which a trial that was scored is compared.

        Latency by its ratio: what was timed an hour apart is comparable only against one network timed beside it.
        """
        assert self.accuracy is not None
        assert self.latency is not None
        assert self.size_bytes is not None
        return Objectives(
            accuracy=self.accuracy.value, latency_ms=self.latency.ratio, size_bytes=float(self.size_bytes)
        )


def summarise(layers: Mapping[str, Scheme]) -> str:
    """Precisions with their counts, the commonest first: ``int8 ×18, int4 weight-only ×2``."""
    counts = Counter(_label(scheme) for scheme in layers.values())
    return ", ".join(f"{name} ×{count}" for name, count in counts.most_common())


def _label(scheme: Scheme) -> str:
    if scheme.weights.group_size is not None:
        return f"{scheme.precision} blocks"
    if scheme.activations.is_dynamic:
        return f"{scheme.precision} dynamic"
    return f"{scheme.precision} weight-only" if scheme.is_weight_only else scheme.precision.value
